"""Stores written out as other tools' files."""

import dataclasses
from pathlib import Path

import h5py
import numpy as np
import pytest

from mmsurv.errors import StoreError
from mmsurv.store import FeatureStore, create_store
from mmsurv.store.interop import exporting
from mmsurv.store.interop.exporting import export_store
from mmsurv.store.testing import RECIPE, make_record


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    opened = create_store(tmp_path / "store", recipe=RECIPE, dim=8, backend="zarr")
    record = make_record()
    opened.write(
        dataclasses.replace(record, attributes={**record.attributes, "level0_width": 9000, "level0_height": 8000})
    )
    return opened


def test_trident_gets_its_datasets_attributes_and_types(store: FeatureStore, tmp_path: Path) -> None:
    done = export_store(store, tmp_path / "out", layout="trident")
    assert done.written == ["slide-1"]
    record = store.read("slide-1")
    folder = tmp_path / "out" / "features_resnet50"
    with h5py.File(folder / "slide-1.h5") as file:
        assert set(file) == {"features", "coords"}
        assert (file["features"].dtype, file["coords"].dtype) == (np.float32, np.int64)
        assert dict(file["features"].attrs) == {"name": "slide-1", "savetodir": str(folder), "encoder": "resnet50"}
        assert dict(file["coords"].attrs) == {
            "patch_size": 224, "patch_size_level0": 448, "level0_magnification": "None", "target_magnification": "None",
            "overlap": 0, "name": "slide-1", "savetodir": str(folder), "level0_width": 9000, "level0_height": 8000,
        }  # fmt: skip
        coords, features = file["coords"][:], file["features"][:]
    assert coords.tolist() == sorted(record.coords.tolist(), key=lambda place: (place[1], place[0]))
    expected = {tuple(place): row for place, row in zip(record.coords.tolist(), record.features, strict=True)}
    for place, row in zip(coords.tolist(), features, strict=True):
        np.testing.assert_array_equal(row, expected[tuple(place)].astype(np.float32))


def test_clam_gets_features_without_attributes_and_patches_of_level_0(store: FeatureStore, tmp_path: Path) -> None:
    export_store(store, tmp_path / "out", layout="clam")
    with h5py.File(tmp_path / "out" / "h5_files" / "slide-1.h5") as file:
        assert (file["features"].dtype, file["coords"].dtype) == (np.float32, np.int32)
        assert not [*file.attrs, *file["features"].attrs, *file["coords"].attrs]
        coords = file["coords"][:]
    with h5py.File(tmp_path / "out" / "patches" / "slide-1.h5") as file:
        np.testing.assert_array_equal(file["coords"][:], coords)
        attributes = {key: np.asarray(value).tolist() for key, value in file["coords"].attrs.items()}
    assert attributes == {
        "patch_size": 448, "patch_level": 0, "downsample": [1.0, 1.0], "downsampled_level_dim": [9000, 8000],
        "level_dim": [9000, 8000], "name": "slide-1", "save_path": str(tmp_path / "out" / "patches"),
    }  # fmt: skip


def test_without_a_tile_size_clam_gets_no_patches(store: FeatureStore, tmp_path: Path) -> None:
    store.write(dataclasses.replace(make_record("bare"), coords_attributes={}))
    done = export_store(store, tmp_path / "out", layout="clam", slide_ids=["bare"])
    assert done.written == ["bare"]
    assert not (tmp_path / "out" / "patches").exists()


def test_what_a_layout_has_no_place_for_is_counted(store: FeatureStore, tmp_path: Path) -> None:
    clam = export_store(store, tmp_path / "clam", layout="clam").lost
    trident = export_store(store, tmp_path / "trident", layout="trident").lost
    for field in ("tissue (dataset)", "mask (dataset)", "rejected (dataset)", "mpp (attribute)", "recipe (attribute)"):
        assert clam[field] == trident[field] == 1
    assert set(clam) - set(trident) == {"patch_size (attribute of coords)", "overlap (attribute of coords)"}
    assert not {field.split(" ")[0] for field in trident} & {"features", "coords", "level0_width", "slide_id"}


def test_an_encoder_whose_name_is_a_path_stays_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = create_store(tmp_path / "s", recipe={"encoder": {"name": "../hf-hub:bioptimus/H0"}}, dim=8)
    store.write(make_record())
    export_store(store, tmp_path / "out", layout="trident")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["features_.._hf-hub_bioptimus_H0"]


def test_files_that_are_there_are_never_written_over(store: FeatureStore, tmp_path: Path) -> None:
    export_store(store, tmp_path / "out", layout="trident")
    path = tmp_path / "out" / "features_resnet50" / "slide-1.h5"
    before = path.stat()
    again = export_store(store, tmp_path / "out", layout="trident")
    assert (again.written, again.kept, again.problems) == ([], ["slide-1"], {})
    assert path.stat() == before
    with h5py.File(path, "r+") as file:
        file["features"][3, 3] = 7
    assert (
        "features is not what was to be written"
        in export_store(store, tmp_path / "out", layout="trident").problems["slide-1"]
    )
    with h5py.File(path) as file:
        assert file["features"][3, 3] == 7


def test_a_damaged_record_is_named_and_the_rest_is_exported(store: FeatureStore, tmp_path: Path) -> None:
    store.write(make_record("b"))
    store.record_path("b").write_bytes(b"torn")
    done = export_store(store, tmp_path / "out", layout="trident")
    assert done.written == ["slide-1"]
    assert "CorruptRecordError" in done.problems["b"]


def test_a_full_disk_leaves_no_half_file(store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "Sink", full)
    with pytest.raises(StoreError, match=r"cannot be written: No space left on device.*it goes on from here"):
        export_store(store, tmp_path / "out", layout="trident")
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
