"""``store.json`` is checked before anything in the store is believed."""

import json
from pathlib import Path

import pytest

from mmsurv.errors import ConfigError, CorruptRecordError, StoreError
from mmsurv.store import create_store, open_store
from mmsurv.store.testing import RECIPE


def test_a_folder_that_is_no_store_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"nowhere is no feature store: it does not exist.*mmsurv extract"):
        open_store(tmp_path / "nowhere")
    with pytest.raises(StoreError, match=r"holds no store\.json"):
        open_store(tmp_path)


def test_a_store_is_not_made_in_a_folder_that_holds_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").write_text("years of work")
    with pytest.raises(StoreError, match="is not empty"):
        create_store(tmp_path, recipe=RECIPE, dim=8)
    with pytest.raises(StoreError, match="is a file"):
        create_store(tmp_path / "thesis.docx", recipe=RECIPE, dim=8)


def test_an_edited_recipe_is_noticed(tmp_path: Path) -> None:
    create_store(tmp_path / "s", recipe=RECIPE, dim=8)
    manifest = tmp_path / "s" / "store.json"
    manifest.write_text(manifest.read_text().replace("resnet50", "resnet18"))
    with pytest.raises(CorruptRecordError, match="was edited after the store was made"):
        open_store(tmp_path / "s")


@pytest.mark.parametrize(("key", "value"), [("dim", 9), ("dtype", "float32")])
def test_an_edited_shape_is_the_manifests_fault_not_the_records(tmp_path: Path, key: str, value: object) -> None:
    create_store(tmp_path / "s", recipe=RECIPE, dim=8)
    manifest = tmp_path / "s" / "store.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), key: value}))
    with pytest.raises(CorruptRecordError, match="was edited after the store was made"):
        open_store(tmp_path / "s")


def test_a_manifest_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.json").mkdir()
    with pytest.raises(StoreError, match=r"its store\.json cannot be read \(Is a directory\)"):
        open_store(tmp_path)


def test_a_store_that_cannot_be_made_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="a store cannot be made there"):
        create_store(tmp_path / "file" / "s", recipe=RECIPE, dim=8)


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    create_store(tmp_path / "s", recipe=RECIPE, dim=8)
    manifest = tmp_path / "s" / "store.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 2}))
    with pytest.raises(StoreError, match="format 2; this version of mmsurv reads format 1"):
        open_store(tmp_path / "s")


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"format": 1, "recipe": NaN}', '{"format": 1}', '{"format": 1, "colour": "red"}']
)
def test_a_damaged_manifest_is_refused(tmp_path: Path, content: str) -> None:
    create_store(tmp_path / "s", recipe=RECIPE, dim=8)
    (tmp_path / "s" / "store.json").write_text(content)
    with pytest.raises(StoreError, match=r"store\.json"):
        open_store(tmp_path / "s")


@pytest.mark.parametrize("recipe", ["[" * 5_000 + "]" * 5_000, "[" * 200_000], ids=["whole", "torn"])
def test_a_manifest_nested_beyond_all_measure_is_damaged(tmp_path: Path, recipe: str) -> None:
    create_store(tmp_path / "s", recipe=RECIPE, dim=8)
    manifest = tmp_path / "s" / "store.json"
    manifest.write_text(manifest.read_text().replace('"recipe": {', f'"recipe": {recipe}, "rest": {{', 1))
    with pytest.raises(CorruptRecordError, match=r"store\.json is damaged"):
        open_store(tmp_path / "s")


@pytest.mark.parametrize(("dim", "dtype"), [(0, "float16"), (8, "int8")])
def test_a_store_that_cannot_be_is_refused(tmp_path: Path, dim: int, dtype: str) -> None:
    with pytest.raises(ConfigError, match="A store's d"):
        create_store(tmp_path / "s", recipe=RECIPE, dim=dim, dtype=dtype)
