"""Folders of CLAM and TRIDENT features become stores."""

import dataclasses
import errno
import os
import re
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from mmsurv.errors import ImportLayoutError, RecipeMismatchError, StoreError
from mmsurv.store import SlideRecord
from mmsurv.store.hdf5 import Hdf5Store
from mmsurv.store.interop import clam
from mmsurv.store.interop.foreign import ForeignOptions
from mmsurv.store.interop.importing import import_features

TRIDENT = {
    "patch_size": 224, "patch_size_level0": 448, "level0_magnification": 40, "target_magnification": 20,
    "overlap": 0, "name": "s", "savetodir": "/data", "level0_width": 9000, "level0_height": 8000,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write_foreign(folder: Path, name: str, *, tiles: int = 20, dim: int = 6, trident: bool = False, **change) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(name))
    features = change.get("features", rng.normal(size=(tiles, dim)).astype(np.float32))
    coords = change.get("coords", np.stack([np.arange(tiles) * 448, np.arange(tiles) % 5 * 448], 1).astype(np.int64))
    with h5py.File(folder / f"{name}.h5", "w") as file:
        file["features"] = features
        file["coords"] = coords
        if trident:
            file["coords"].attrs.update(TRIDENT | change.get("attributes", {}))
            file["features"].attrs.update(encoder=change.get("encoder", "uni_v1"), savetodir="None")
    return folder / f"{name}.h5"


def test_rows_keep_their_coordinates_and_say_where_they_came_from(tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "features_uni_v1", "TCGA-02-0047-01Z-00-DX1.4755D138-58", trident=True)
    store, results = import_features(path.parent, tmp_path / "store")
    assert [result.problem for result in results] == [None]
    record = store.read("TCGA-02-0047-01Z-00-DX1.4755D138-58")
    with h5py.File(path) as file:
        features, coords = file["features"][()], file["coords"][()]
    rows = record.source_row
    assert sorted(rows) == list(range(20))
    assert list(rows) != list(range(20))
    np.testing.assert_array_equal(record.features, features[rows].astype(np.float16))
    np.testing.assert_array_equal(record.coords, coords[rows])
    assert record.coords_attributes["patch_size_level0"] == 448
    assert "savetodir" not in record.coords_attributes
    assert store.recipe["encoder"]["name"] == "uni_v1"
    assert np.isnan(record.tissue).all()
    assert store.verify(record.slide_id) == []


def test_clam_features_take_tile_sizes_from_the_patches_folder(tmp_path: Path) -> None:
    write_foreign(tmp_path / "FEATURES" / "h5_files", "a")
    patches = tmp_path / "patches"
    patches.mkdir()
    with h5py.File(patches / "a.h5", "w") as file:
        file["coords"] = np.zeros((1, 2))
        file["coords"].attrs.update(patch_size=256, patch_level=1, downsample=np.array([4.0, 4.0]))
    store, _ = import_features(
        tmp_path / "FEATURES", tmp_path / "store", options=ForeignOptions(patches=patches), encoder="resnet50"
    )
    assert store.recipe["layout"] == "clam"
    assert store.read("a").coords_attributes == {"patch_size": 256, "patch_size_level0": 1024}


def test_a_batch_axis_of_one_is_dropped(tmp_path: Path) -> None:
    write_foreign(tmp_path / "f", "a", features=np.ones((1, 20, 6), np.float32), trident=True)
    store, _ = import_features(tmp_path / "f", tmp_path / "store")
    assert store.features("a").shape == (20, 6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": np.ones((20, 7), np.float32)}, "7 dimensions, the store has 6"),
        ({"features": np.ones((19, 6), np.float32)}, "expected \\(19, 2\\)"),
        ({"features": np.full((20, 6), np.inf, np.float32)}, "NaN or Inf"),
        (
            {"features": np.zeros((0, 6), np.float32), "coords": np.zeros((0, 2))},
            "has no tiles, its features are \\(0, 6\\)",
        ),
        ({"coords": np.full((20, 2), 0.25, np.float32)}, "STAMP keeps µm"),
        ({"coords": np.full((20, 2), -1)}, "expected level-0 pixels"),
        ({"coords": np.zeros((20, 2), int)}, "19 tiles have the coordinates of another tile"),
        ({"coords": np.full((20, 2), b"x")}, "coords are .*, expected numbers"),
        ({"coords": np.full((20, 2), 1j)}, "coords are complex128, expected numbers"),
        ({"encoder": "resnet50"}, "encoded by resnet50, the first file by uni_v1"),
        ({"attributes": {"patch_size": 512, "target_magnification": 5}}, r"patch_size +224 → 512"),
        ({"attributes": {"patch_size": "None"}}, r"patch_size +224 → –"),
    ],
)
def test_a_bad_file_is_named_and_the_rest_imported(tmp_path: Path, change, message: str) -> None:
    write_foreign(tmp_path / "f", "a", trident=True)
    write_foreign(tmp_path / "f", "b", trident=True, **change)
    write_foreign(tmp_path / "f", "c", trident=True)
    store, results = import_features(tmp_path / "f", tmp_path / "store")
    problems = {result.slide_id: result.problem for result in results}
    assert problems["a"] is None
    assert problems["c"] is None
    assert re.search(message, str(problems["b"]))
    assert store.slide_ids() == ["a", "c"]
    assert [failure.slide_id for failure in store.failures()] == ["b"]


def test_an_attribute_that_is_no_number_is_left_out(tmp_path: Path) -> None:
    write_foreign(tmp_path / "f", "a", trident=True, attributes={"level0_magnification": np.nan})
    store, _ = import_features(tmp_path / "f", tmp_path / "store")
    assert "level0_magnification" not in store.read("a").coords_attributes


def test_a_file_that_claims_more_than_it_holds_is_not_read(tmp_path: Path) -> None:
    write_foreign(tmp_path / "f", "a")
    with h5py.File(tmp_path / "f" / "b.h5", "w") as file:
        file.create_dataset("features", (10**9, 1024), np.float32)
        file["coords"] = np.zeros((5, 2), int)
    _, results = import_features(tmp_path / "f", tmp_path / "store")
    assert "features claim 4096000000000 bytes" in str(results[1].problem)


def test_features_that_unfold_to_more_than_a_slide_are_not_read(tmp_path: Path) -> None:
    write_foreign(tmp_path / "f", "a")
    with h5py.File(tmp_path / "f" / "b.h5", "w") as file:
        part, count = 1 << 18, 64
        options = {"chunks": (part, 1024), "compression": "gzip"}
        features = file.create_dataset("features", (part * count, 1024), np.float32, **options)
        for index in range(count):
            features.id.write_direct_chunk((part * index, 0), zlib.compress(b"0"))
        file["coords"] = np.zeros((5, 2), int)
    _, results = import_features(tmp_path / "f", tmp_path / "store")
    assert "64.0 GiB in memory; at most 16 GiB of a slide are imported" in str(results[1].problem)


def test_features_of_which_a_part_was_never_written_are_not_read(tmp_path: Path) -> None:
    write_foreign(tmp_path / "f", "a")
    path = write_foreign(tmp_path / "f", "b")
    with h5py.File(path, "r+") as file:
        del file["features"]
        file.create_dataset("features", (20, 6), np.float32, chunks=(5, 6), compression="lzf")[:15] = 1
    _, results = import_features(tmp_path / "f", tmp_path / "store")
    assert "features claim 480 bytes" in str(results[1].problem)


@pytest.mark.parametrize(
    "filters",
    [{"compression": "gzip", "shuffle": True}, {"compression": "lzf"}, {"chunks": (3, 4), "fletcher32": True}],
)
def test_filtered_datasets_are_read(tmp_path: Path, filters) -> None:
    path = write_foreign(tmp_path / "f", "a", tiles=5000, features=np.ones((5000, 6), np.float32))
    with h5py.File(path, "r+") as file:
        features, coords = file["features"][()], file["coords"][()]
        del file["features"], file["coords"]
        file.create_dataset("features", data=features, **filters)
        # In few bits each: the file is smaller than the numbers it holds.
        file.create_dataset("coords", data=coords, chunks=(5000, 2), scaleoffset=0)
    store, results = import_features(tmp_path / "f", tmp_path / "store")
    assert [result.problem for result in results] == [None]
    np.testing.assert_array_equal(store.read("a").coords, coords[store.read("a").source_row])


@pytest.mark.parametrize("link", [h5py.ExternalLink("other.h5", "/coords"), h5py.SoftLink("/features")])
@pytest.mark.parametrize("layout", ["auto", "clam", "trident", "stamp"])
def test_a_link_to_another_file_is_not_followed(tmp_path: Path, link: object, layout) -> None:
    path = write_foreign(tmp_path / "f", "a", trident=True)
    path.rename(tmp_path / "f" / "other.h5")
    with h5py.File(path, "w") as file:
        file["features"] = file["feats"] = np.zeros((20, 6), np.float32)
        file["coords"] = link
    (tmp_path / "f" / "other.h5").rename(tmp_path / "other.h5")
    with pytest.raises(ImportLayoutError, match="coords is a link to elsewhere"):
        import_features(tmp_path / "f", tmp_path / "store", layout=layout)


@pytest.mark.parametrize("error", [MemoryError("no room"), OSError(5, "Input/output error"), ValueError("odd")])
def test_a_first_file_that_cannot_be_read_does_not_stop_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    write_foreign(tmp_path / "f", "a")
    write_foreign(tmp_path / "f", "b")
    read = clam.read

    def broken(path: Path, *arguments: object) -> object:
        if path.name == "a.h5":
            raise error
        return read(path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(clam, "read", broken)
    store, results = import_features(tmp_path / "f", tmp_path / "store")
    assert store.slide_ids() == ["b"]
    assert str(error) in str(results[0].problem)


def test_a_slide_that_is_there_is_said_to_be_there(tmp_path: Path) -> None:
    write_foreign(tmp_path / "f", "a")
    import_features(tmp_path / "f", tmp_path / "store")
    write_foreign(tmp_path / "f", "b")
    _, results = import_features(tmp_path / "f", tmp_path / "store")
    assert [(result.slide_id, result.was_there) for result in results] == [("a", True), ("b", False)]


def test_a_slide_that_another_process_wrote_meanwhile_is_said_to_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_foreign(tmp_path / "f", "a")
    write = Hdf5Store.write

    def second(self: Hdf5Store, record: SlideRecord) -> bool:
        write(self, dataclasses.replace(record, features=record.features[:5], coords=record.coords[:5],
                                        tissue=record.tissue[:5], source_row=np.arange(5)))  # fmt: skip
        return write(self, record)

    monkeypatch.setattr(Hdf5Store, "write", second)
    _, (result,) = import_features(tmp_path / "f", tmp_path / "store")
    assert (result.was_there, result.n_tiles, result.lost) == (True, 5, ())


def test_a_record_that_is_not_there_is_not_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_foreign(tmp_path / "f", "a")
    monkeypatch.setattr(Hdf5Store, "write", lambda self, record: False)
    _, (result,) = import_features(tmp_path / "f", tmp_path / "store")
    assert "RecordNotFoundError" in str(result.problem)
    assert result.n_tiles == 0


def test_a_damaged_record_is_imported_again(tmp_path: Path) -> None:
    write_foreign(tmp_path / "f", "a")
    store, _ = import_features(tmp_path / "f", tmp_path / "store")
    path = store.record_path("a")
    extent = store.extent("a")
    assert extent is not None
    with path.open("r+b") as file:
        file.seek(extent.offset)
        file.write(b"\xff")
    _, (result,) = import_features(tmp_path / "f", tmp_path / "store")
    assert (result.problem, result.was_there) == (None, False)
    assert store.verify("a") == []


def write_patches(folder: Path, name: str, **attributes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / f"{name}.h5", "w") as file:
        file["coords"] = np.zeros((1, 2))
        file["coords"].attrs.update(attributes)


@pytest.mark.parametrize("again", [False, True])
def test_clam_tiles_of_several_sides_are_imported_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, again: bool
) -> None:
    """The same patch_size at another downsample shows another part of the slide, of a size that is not said."""
    for name, downsample in (("a", 1.0), ("b", 4.0), ("c", 4.0)):
        write_foreign(tmp_path / "f" / "h5_files", name)
        write_patches(tmp_path / "f" / "patches", name, patch_size=256, patch_level=1, downsample=(downsample,) * 2)
    if again:
        import_features(tmp_path / "f", tmp_path / "store")
        caplog.clear()
    store, results = import_features(tmp_path / "f", tmp_path / "store")
    assert [result.problem for result in results] == [None] * 3
    assert "different sides in level-0 pixels: 256 in 1 slides, 1024 in 2 slides" in caplog.text
    assert [store.read(name).coords_attributes["patch_size_level0"] for name in "abc"] == [256, 1024, 1024]


def test_clam_tiles_of_one_side_are_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in "ab":
        write_foreign(tmp_path / "f" / "h5_files", name)
        write_patches(tmp_path / "f" / "patches", name, patch_size=256)
    write_foreign(tmp_path / "f" / "h5_files", "c")
    import_features(tmp_path / "f", tmp_path / "store")
    assert caplog.text == ""


@pytest.mark.parametrize("attributes", [{"patch_size": "abc"}, {"patch_size": 256, "downsample": np.inf}])
def test_a_patches_file_without_a_size_is_named(tmp_path: Path, attributes) -> None:
    write_foreign(tmp_path / "f", "a")
    write_patches(tmp_path / "patches", "a", **attributes)
    with pytest.raises(ImportLayoutError, match="patch_size and downsample must be numbers"):
        import_features(tmp_path / "f", tmp_path / "store", options=ForeignOptions(patches=tmp_path / "patches"))


def test_a_full_disk_stops_the_import_and_names_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_foreign(tmp_path / "f", "a", trident=True)
    monkeypatch.setattr(Hdf5Store, "write_file", full)
    with pytest.raises(StoreError, match="store cannot be written: No space left on device"):
        import_features(tmp_path / "f", tmp_path / "store")


def test_what_is_not_hdf5_is_named(tmp_path: Path) -> None:
    write_foreign(tmp_path / "f", "b")
    (tmp_path / "f" / "a.h5").write_text("<html>")
    with h5py.File(tmp_path / "f" / "c.h5", "w") as file:
        file["feats"] = np.zeros(3)
    _, results = import_features(tmp_path / "f", tmp_path / "store")
    problems = {result.slide_id: str(result.problem) for result in results}
    assert "not a readable HDF5 file" in problems["a"]
    assert "no dataset 'features'; found feats" in problems["c"]


def test_a_folder_without_features_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"")
    with pytest.raises(ImportLayoutError, match=r"holds no \.h5 file"):
        import_features(tmp_path, tmp_path / "store")
    with pytest.raises(ImportLayoutError, match="is not a folder"):
        import_features(tmp_path / "nowhere", tmp_path / "store")


def test_importing_again_changes_nothing_and_another_encoder_is_refused(tmp_path: Path) -> None:
    write_foreign(tmp_path / "f", "a", trident=True)
    store, _ = import_features(tmp_path / "f", tmp_path / "store")
    before = store.record_path("a").read_bytes()
    import_features(tmp_path / "f", tmp_path / "store")
    assert store.record_path("a").read_bytes() == before
    with pytest.raises(RecipeMismatchError, match=r"encoder\.name +uni_v1 → conch"):
        import_features(tmp_path / "f", tmp_path / "store", encoder="conch")


def test_every_field_that_a_store_has_no_place_for_is_named(tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "f", "a", trident=True, attributes={"step": 3})
    with h5py.File(path, "r+") as file:
        file["annotation"] = np.zeros(3)
        file.attrs["version"] = "1.2"
    _, results = import_features(tmp_path / "f", tmp_path / "store")
    assert set(results[0].lost) == {
        "annotation (dataset)", "savetodir (attribute of coords)", "step (attribute of coords)",
        "version (attribute of the file)",
    }  # fmt: skip
    assert set(results[0].unknown) == {"tissue", "thumbnail", "mask", "rejected", "mpp", "encoder.weights"}


def test_clam_patches_beside_the_features_are_found_and_give_the_size_of_level_0(tmp_path: Path) -> None:
    write_foreign(tmp_path / "FEATURES" / "h5_files", "a")
    (tmp_path / "FEATURES" / "patches").mkdir()
    with h5py.File(tmp_path / "FEATURES" / "patches" / "a.h5", "w") as file:
        file["coords"] = np.zeros((1, 2))
        file["coords"].attrs.update(
            patch_size=512, patch_level=0, downsample=(1.0, 1.0), level_dim=(9000, 8000), save_path="/x", name="a"
        )
    store, results = import_features(tmp_path / "FEATURES", tmp_path / "store", encoder="resnet50")
    record = store.read("a")
    assert record.coords_attributes == {"patch_size": 512, "patch_size_level0": 512}
    assert (record.attributes["level0_width"], record.attributes["level0_height"]) == (9000, 8000)
    assert "save_path (attribute of coords in patches)" in results[0].lost


def write_stamp(folder: Path, name: str, *, mpp: float = 0.25, side_um: float = 256.0, **attributes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    side = side_um / mpp
    grid = np.stack(np.meshgrid(np.arange(5), np.arange(4)), -1).reshape(-1, 2)
    with h5py.File(folder / f"{name}.h5", "w") as file:
        file["feats"] = np.random.default_rng(1).normal(size=(20, 6)).astype(np.float16)
        file["coords"] = (np.rint(grid * side) * mpp).astype(np.float32)
        given = {"stamp_version": "2.2.0", "extractor": "mahmood-uni", "unit": "um", "tile_size_um": side_um,
                 "tile_size_px": 224, "code_hash": "ab", "feat_type": "tile"} | attributes  # fmt: skip
        file.attrs.update({key: value for key, value in given.items() if value is not None})
    return folder / f"{name}.h5"


@pytest.mark.parametrize("mpp", [0.25, 0.2525, 0.4991])
def test_stamp_coordinates_become_level_0_pixels(tmp_path: Path, mpp: float) -> None:
    write_stamp(tmp_path / "f", "a", mpp=mpp)
    store, results = import_features(tmp_path / "f", tmp_path / "store", options=ForeignOptions(mpp=mpp))
    assert [result.problem for result in results] == [None]
    record = store.read("a")
    grid = np.stack(np.meshgrid(np.arange(5), np.arange(4)), -1).reshape(-1, 2)
    np.testing.assert_array_equal(record.coords, np.rint(grid * 256 / mpp)[record.source_row])
    facts = {key: record.attributes[key] for key in ("mpp", "tile_px", "tile_side_level0", "tile_mpp")}
    assert facts == pytest.approx({"mpp": mpp, "tile_px": 224, "tile_side_level0": 256 / mpp, "tile_mpp": 256 / 224})
    assert (store.recipe["layout"], store.recipe["encoder"]["name"]) == ("stamp", "mahmood-uni")
    assert set(results[0].lost) == {"code_hash (attribute of the file)", "stamp_version (attribute of the file)"}
    assert store.verify("a") == []


@pytest.mark.parametrize(
    ("attributes", "mpp", "message"),
    [
        ({}, None, "nothing says how many of them a level-0 pixel of a is. Give --mpp"),
        ({}, {"b": 0.25}, "nothing says how many of them a level-0 pixel of a is. Give --mpp"),
        ({"unit": None, "tile_size_um": None}, 0.25, "unit is missing, tile_size_um is missing"),
        ({"unit": "px"}, 0.25, "unit is px"),
        ({"feat_type": "slide"}, 0.25, "feat_type is 'slide', expected 'tile'"),
    ],
)
def test_a_stamp_file_whose_units_are_not_known_is_refused(tmp_path: Path, attributes, mpp, message: str) -> None:
    write_stamp(tmp_path / "f", "a", **attributes)
    with pytest.raises(ImportLayoutError, match=re.escape(message)):
        import_features(tmp_path / "f", tmp_path / "store", options=ForeignOptions(mpp=mpp))


def test_stamp_files_of_both_spellings_of_the_tile_size_are_read(tmp_path: Path) -> None:
    write_stamp(tmp_path / "f", "a", unit=None)
    write_stamp(tmp_path / "f", "b", tile_size_um=None, tile_size=256.0)
    store, results = import_features(tmp_path / "f", tmp_path / "store", options=ForeignOptions(mpp={"a": 1, "b": 2}))
    assert [result.problem for result in results] == [None, None]
    assert [store.attributes(name)["tile_side_level0"] for name in "ab"] == [256, 128]
