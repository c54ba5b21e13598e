"""Which slides are tried again, and with which recipe."""

from __future__ import annotations

import configparser
import dataclasses
import json
from importlib.metadata import EntryPoint
from pathlib import Path

import click
import pytest

from mmsurv.errors import ConfigError, MppError, RecipeMismatchError, StoreError, WeightsError
from mmsurv.store import FeatureStore, create_store
from mmsurv.store.testing import RECIPE as NO_EXTRACTION
from mmsurv_extract.job import JobOptions
from mmsurv_extract.mask import MaskSettings
from mmsurv_extract.quality import QualitySettings
from mmsurv_extract.recipe import ExtractRecipe, TileSettings, fingerprint_table
from mmsurv_extract.resolution import MppOptions
from mmsurv_extract.retry import failures_to_retry, recipe_of_store, require_recipe_of_store, retry_tasks
from mmsurv_extract.share import job_settings
from mmsurv_extract.testing import MeanColour, see_through_store

UNUSUAL = ExtractRecipe(
    tiles=TileSettings(px=48, mpp=0.75, min_tissue=0.4, seed=-5, max_tiles=7),
    mask=MaskSettings(mpp=3.5, max_px=512, min_saturation=5, max_saturation=50, min_white=200, black=9),
    quality=QualitySettings(focus=False, min_sharpness=0.2, white_level=211, max_white=0.75),
    dtype="float32",
)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return see_through_store(tmp_path / "store", UNUSUAL)


def fails(store: FeatureStore, slide_id: str, *, max_tiles: int = 7, mpp: MppOptions | None = None) -> Path:
    """Notes a failure of a slide that is there."""
    source = store.path.parent / f"{slide_id}.tiff"
    source.touch()
    settings = job_settings(JobOptions(mpp=mpp or MppOptions()), max_tiles)
    store.write_failure(slide_id, MppError("no resolution"), source=str(source), settings=settings)
    return source


def test_a_store_s_recipe_is_built_again_from_the_store(store: FeatureStore) -> None:
    built = recipe_of_store(store)
    for part in ("mask", "quality", "dtype"):
        assert getattr(built, part) == getattr(UNUSUAL, part)
    assert dataclasses.replace(built.tiles, max_tiles=7) == UNUSUAL.tiles
    require_recipe_of_store(store, built, MeanColour())


def test_weights_of_a_file_must_be_named(tmp_path: Path) -> None:
    table = fingerprint_table(UNUSUAL, {"name": "resnet50", "weights": "file", "weights_sha256": "3f9c" * 16})
    store = create_store(tmp_path / "store", recipe=table, dim=6)
    with pytest.raises(WeightsError, match=r"resnet50 and weights of SHA-256 3f9c3f9c3f9c….*--weights FILE"):
        recipe_of_store(store)
    assert recipe_of_store(store, weights="resnet50.pth").encoder.weights == "resnet50.pth"


def test_other_weights_are_refused_field_by_field(store: FeatureStore) -> None:
    class Other(MeanColour):
        def describe(self) -> dict[str, object]:
            return {**super().describe(), "weights_sha256": "77ab"}

    with pytest.raises(RecipeMismatchError, match=r"encoder\.weights_sha256 +– → 77ab\n.*--weights FILE"):
        require_recipe_of_store(store, recipe_of_store(store), Other())


def test_a_store_of_another_origin_cannot_be_retried(tmp_path: Path) -> None:
    store = create_store(tmp_path / "store", recipe=NO_EXTRACTION, dim=6)
    with pytest.raises(StoreError, match="was not made by `mmsurv extract`"):
        recipe_of_store(store)


def test_all_failures_are_taken_or_those_named(store: FeatureStore) -> None:
    assert failures_to_retry(store, []) == []
    for name in "abc":
        fails(store, name)
    assert [failure.slide_id for failure in failures_to_retry(store, [])] == ["a", "b", "c"]
    assert [failure.slide_id for failure in failures_to_retry(store, ["c", "a", "c"])] == ["c", "a"]
    with pytest.raises(ConfigError, match=r"notes no failure of d, e\. Noted: a, b, c"):
        failures_to_retry(store, ["a", "d", "e"])


def test_each_is_tried_with_what_it_failed_with(store: FeatureStore) -> None:
    path = fails(store, "a")
    fails(store, "b", max_tiles=100)
    fails(store, "c", mpp=MppOptions(override=0.3))
    fails(store, "d")
    tasks, gone = retry_tasks(store, store.failures(), recipe_of_store(store), JobOptions(batch_size=5), None)
    assert gone == []
    found = {
        tuple(source.slide_id for source in task.discovery.sources): (
            task.recipe.tiles.max_tiles,
            task.options.mpp.override,
            task.options.batch_size,
        )
        for task in tasks
    }
    assert found == {("a", "d"): (7, None, 5), ("b",): (100, None, 5), ("c",): (7, 0.3, 5)}
    assert tasks[0].discovery.sources[0].path == path


def test_a_resolution_that_is_given_goes_over_all(store: FeatureStore) -> None:
    fails(store, "a", mpp=MppOptions(override=0.3))
    fails(store, "b")
    tasks, _ = retry_tasks(store, store.failures(), recipe_of_store(store), JobOptions(), MppOptions(fill=0.5))
    (task,) = tasks
    assert task.options.mpp == MppOptions(fill=0.5)


def test_a_slide_whose_file_is_gone_is_named_with_what_to_do(store: FeatureStore) -> None:
    path = fails(store, "a")
    path.unlink()
    tasks, gone = retry_tasks(store, store.failures(), recipe_of_store(store), JobOptions(), None)
    assert tasks == []
    (slide,) = gone
    assert slide.slide_id == "a"
    for expected in (f"{path} is not there any more", "Put it back", f"mmsurv extract PATH -o {store.path}"):
        assert expected in slide.message


@pytest.mark.parametrize(
    "settings",
    [{"mpp": -1.0}, {"mpp": "half"}, {"max_tiles": "x"}, {"max_tiles": -1}, {"max_tiles": float("inf")}],
)
def test_settings_that_cannot_be_fail_their_slide_with_the_remedy_and_no_other(
    store: FeatureStore, settings: dict[str, float | str]
) -> None:
    source = fails(store, "a")
    fails(store, "b")
    store.write_failure("a", MppError("x"), source=str(source), settings=settings)
    tasks, failed = retry_tasks(store, store.failures(), recipe_of_store(store), JobOptions(), None)
    assert [source.slide_id for task in tasks for source in task.discovery.sources] == ["b"]
    (slide,) = failed
    assert slide.slide_id == "a"
    assert "the failure noted for a has settings that cannot be" in slide.message
    assert f"Delete {store.failure_path('a')}" in slide.message


def test_a_malformed_failure_is_not_retried(store: FeatureStore, caplog: pytest.LogCaptureFixture) -> None:
    for name in "ab":
        fails(store, name)
    file = store.failure_path("a")
    file.write_text(json.dumps({**json.loads(file.read_text()), "source": 5}))
    assert [failure.slide_id for failure in failures_to_retry(store, [])] == ["b"]
    assert f"{file} is not a failure record" in caplog.text


def test_the_command_is_an_entry_point_of_the_store_s_group() -> None:
    config = configparser.ConfigParser()
    config.read(Path(__file__).parents[3] / "setup.cfg", encoding="utf-8")
    (line,) = config["options.entry_points"]["mmsurv.store_commands"].split("\n")[1:]
    name, _, value = line.partition(" = ")
    command = EntryPoint(name, value, "mmsurv.store_commands").load()
    assert isinstance(command, click.Command)
    assert command.name == name == "retry"
