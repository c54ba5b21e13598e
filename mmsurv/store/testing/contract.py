"""What a backend of the store does, as a pytest class to inherit from; damage is in ``damage``."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsurv.errors import BadSlideIdError, RecipeMismatchError, RecordNotFoundError, StoreError
from mmsurv.store import Extent, FeatureStore, create_store, open_store
from mmsurv.store.dtypes import DTYPES, numpy_dtype
from mmsurv.store.record import reason_counts
from mmsurv.store.testing.damage import DamageContract
from mmsurv.store.testing.records import RECIPE, make_record


class StoreContract(DamageContract):
    """Inherit, and set ``backend``."""

    def test_a_record_comes_back_as_it_was_written(self, store: FeatureStore) -> None:
        record = make_record()
        assert store.write(record)
        back = store.read("slide-1")
        for name in ("features", "coords", "tissue", "mask", "rejected", "rejected_reason"):
            left, right = getattr(record, name), getattr(back, name)
            assert left.dtype == right.dtype, name
            np.testing.assert_array_equal(left, right, err_msg=name)
        assert back.thumbnail == record.thumbnail
        assert dict(back.coords_attributes) == dict(record.coords_attributes)
        assert {key: back.attributes[key] for key in record.attributes} == dict(record.attributes)
        assert store.verify("slide-1") == []

    def test_the_same_record_makes_the_same_bytes(self, store: FeatureStore, tmp_path: Path) -> None:
        other = create_store(tmp_path / "other", recipe=RECIPE, dim=8, backend=self.backend)
        record = make_record()
        store.write(record)
        time.sleep(1.1)  # formats keep time in whole seconds
        other.write(dataclasses.replace(record, attributes=dict(sorted(record.attributes.items(), reverse=True))))
        assert store.record_path("slide-1").read_bytes() == other.record_path("slide-1").read_bytes()

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_features_keep_the_type_of_their_store(self, tmp_path: Path, store: FeatureStore, dtype: str) -> None:
        typed = create_store(tmp_path / dtype, recipe=RECIPE, dim=8, dtype=dtype, backend=self.backend)
        record = make_record()
        features = record.features.astype(np.float32) * 3
        typed.write(dataclasses.replace(record, features=features))
        expected = features.astype(numpy_dtype(dtype))
        extent = typed.extent("slide-1")
        found = [typed.read("slide-1").features, typed.features("slide-1"), typed.features("slide-1", slice(0, 60))]
        found += [typed.read_rows(typed.record_path("slide-1"), slice(0, 60))]
        if extent:
            found += [np.memmap(extent.path, extent.dtype, "r", extent.offset, extent.shape)]
        for features in found:
            assert features.dtype == expected.dtype == typed.dtype
            assert features.tobytes() == expected.tobytes()
        assert typed.verify("slide-1") == []

    def test_rows_are_read_as_slices(self, store: FeatureStore) -> None:
        record = make_record()
        store.write(record)
        for rows in (slice(None), slice(0, 16), slice(40, 200), slice(5, 5), slice(-3, None)):
            np.testing.assert_array_equal(store.features("slide-1", rows), record.features[rows])

    def test_an_extent_names_the_bytes_of_the_features(self, store: FeatureStore) -> None:
        record = make_record()
        store.write(record)
        extent = store.extent("slide-1")
        if extent is None:
            pytest.skip("this backend does not lay features out as plain bytes")
        mapped = np.memmap(extent.path, extent.dtype, "r", extent.offset, extent.shape)
        np.testing.assert_array_equal(mapped, record.features)

    def test_features_of_many_pages_begin_at_a_page(self, store: FeatureStore) -> None:
        store.write(make_record(tiles=9000))
        extent = store.extent("slide-1")
        if extent is None:
            pytest.skip("this backend does not lay features out as plain bytes")
        assert extent.offset % 4096 == 0
        np.testing.assert_array_equal(store.features("slide-1"), make_record(tiles=9000).features)

    def test_the_first_record_stays(self, store: FeatureStore) -> None:
        assert store.write(make_record(seed=1))
        assert not store.write(make_record(seed=2))
        np.testing.assert_array_equal(store.features("slide-1"), make_record(seed=1).features)

    @pytest.mark.parametrize("rejected", [0, None])
    def test_that_no_tile_was_rejected_is_told_from_not_known(self, store: FeatureStore, rejected: int | None) -> None:
        none = (np.zeros((0, 2), np.int32), np.zeros(0, np.uint8)) if rejected == 0 else (None, None)
        counts = dict.fromkeys(reason_counts(np.zeros(0)), 0)
        record = dataclasses.replace(make_record(), rejected=none[0], rejected_reason=none[1])
        store.write(dataclasses.replace(record, attributes={**record.attributes, **counts}))
        back = store.read("slide-1")
        assert (None if back.rejected is None else back.rejected.shape) == (None if rejected is None else (0, 2))
        assert back.n_drawn == 60
        assert store.verify("slide-1") == []

    def test_a_larger_draw_takes_the_place_of_its_prefix(self, store: FeatureStore) -> None:
        store.write(make_record(tiles=20))
        extent = store.extent("slide-1")
        mapped = extent and np.memmap(extent.path, extent.dtype, "r", extent.offset, extent.shape)
        reader = open_store(store.path)
        reader.features("slide-1")
        assert not store.write(make_record(tiles=60)), "only where it is asked for"
        assert store.write(make_record(tiles=60), extend=True)
        assert store.read("slide-1").n_tiles == len(reader.features("slide-1")) == 60
        assert store.verify("slide-1") == []
        assert store.leftovers() == []
        if mapped is not None:
            np.testing.assert_array_equal(mapped, make_record(tiles=20).features)

    def test_a_record_that_is_extended_between_a_look_and_a_read_is_looked_at_again(
        self, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.write(make_record(tiles=20))
        reader = open_store(store.path)
        looking = reader.read_extent

        def overtaken(path: Path) -> Extent | None:
            found = looking(path)
            if store.n_tiles("slide-1") == 20:
                store.write(make_record(tiles=60), extend=True)
            return found

        monkeypatch.setattr(reader, "read_extent", overtaken)
        np.testing.assert_array_equal(reader.features("slide-1"), make_record(tiles=60).features)

    def test_a_record_that_never_holds_still_is_named(
        self, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.write(make_record())
        reader = open_store(store.path)
        looking = reader.read_extent

        def touched(path: Path) -> Extent | None:
            os.utime(path, (0, path.stat().st_mtime + 10))
            return looking(path)

        monkeypatch.setattr(reader, "read_extent", touched)
        with pytest.raises(StoreError, match="changes all the time it is read"):
            reader.features("slide-1")

    @pytest.mark.parametrize("tiles", [20, 60])
    def test_as_many_tiles_or_fewer_leave_a_record_as_it_is(self, store: FeatureStore, tiles: int) -> None:
        store.write(make_record(tiles=60))
        before = store.record_path("slide-1").read_bytes()
        assert not store.write(make_record(tiles=tiles, seed=1), extend=True)
        assert store.record_path("slide-1").read_bytes() == before

    def test_what_is_no_prefix_is_not_extended(self, store: FeatureStore) -> None:
        small, large = make_record(tiles=20), make_record(tiles=60)
        reasons = np.asarray(large.rejected_reason).copy()
        reasons[0] = 3
        store.write(small)
        with pytest.raises(StoreError, match=r"slide-1: .* drawn tile 9 is .* unreadable there and .*near white"):
            store.write(dataclasses.replace(large, rejected_reason=reasons, attributes={"sample_seed": 0}), extend=True)
        moved = dataclasses.replace(large, coords=large.coords + 1)
        with pytest.raises(StoreError, match=r"drawn tile 0 is .* with features there"):
            store.write(moved, extend=True)
        assert store.read("slide-1").n_tiles == 20

    def test_a_first_record_and_a_damaged_one_may_be_written_as_extensions(self, store: FeatureStore) -> None:
        assert store.write(make_record(tiles=20), extend=True)
        store.record_path("slide-1").write_bytes(b"torn")
        assert store.write(make_record(tiles=10), extend=True)
        assert store.verify("slide-1") == []

    def test_slides_are_listed_in_order(self, store: FeatureStore) -> None:
        for slide_id in ("b", "a.4755D138-5842", "ä ö"):
            store.write(make_record(slide_id))
        assert store.slide_ids() == sorted(["b", "a.4755D138-5842", "ä ö"])
        assert len(store) == 3
        assert "b" in store
        assert "c" not in store
        assert store.n_tiles("b") == 60

    def test_a_missing_record_is_named(self, store: FeatureStore) -> None:
        with pytest.raises(RecordNotFoundError, match="no record of slide nowhere"):
            store.features("nowhere")

    @pytest.mark.parametrize(
        "slide_id", ["..", "../up", "a..b", "a/b", "a\\b", "", ".hidden", "tab\there", "x" * 201, " a"]
    )
    def test_an_id_never_becomes_a_path_of_its_own(self, store: FeatureStore, slide_id: str) -> None:
        with pytest.raises(BadSlideIdError, match="cannot be a slide id"):
            store.write(dataclasses.replace(make_record(), slide_id=slide_id))
        assert store.slide_ids() == []

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"features": np.full((60, 8), np.nan, np.float32)}, "60 of 60 rows hold NaN or Inf"),
            ({"features": np.full((60, 8), 1e6, np.float32)}, "do not fit float16"),
            ({"features": np.zeros((60, 9), np.float16)}, "9 dimensions, the store has 8"),
            ({"features": np.zeros((0, 8), np.float16)}, "at least one tile"),
            ({"coords": np.zeros((59, 2), np.int32)}, "expected \\(60, 2\\)"),
            ({"attributes": {"recipe_sha256": "mine"}}, "are set by the store"),
            ({"rejected": None}, "rejected and rejected_reason belong together"),
            ({"rejected": np.zeros((2, 2), np.int32)}, "expected \\(R, 2\\) and \\(R,\\)"),
            ({"rejected_reason": np.full(6, 9)}, "rejected_reason 9 is none of"),
        ],
    )
    def test_a_record_that_does_not_fit_is_refused(
        self, store: FeatureStore, change: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(StoreError, match=message):
            store.write(dataclasses.replace(make_record(), **change))
        assert list((store.path / "slides").iterdir()) == []

    def test_a_record_of_another_recipe_is_refused_field_by_field(self, store: FeatureStore, tmp_path: Path) -> None:
        theirs = {"encoder": {"name": "resnet18", "weights": "77ab"}, "tile": {"px": 224, "mpp": 0.5}}
        other = create_store(tmp_path / "other", recipe=theirs, dim=8, backend=self.backend)
        other.write(make_record())
        store.record_path("slide-1").write_bytes(other.record_path("slide-1").read_bytes())
        with pytest.raises(RecipeMismatchError, match=r"encoder\.name +resnet18 → resnet50"):
            "slide-1" in store  # noqa: B015

    def test_the_same_recipe_opens_the_store_and_another_is_refused(self, store: FeatureStore) -> None:
        again = create_store(store.path, recipe=dict(reversed(RECIPE.items())), dim=8, backend=self.backend)
        assert again.recipe_sha256 == store.recipe_sha256
        other = {**RECIPE, "tile": {"px": 256, "mpp": 0.5}}
        with pytest.raises(RecipeMismatchError, match=r"tile\.px +224 → 256"):
            create_store(store.path, recipe=other, dim=8, backend=self.backend)
        with pytest.raises(RecipeMismatchError, match=r"store\.dim +8 → 9"):
            create_store(store.path, recipe=RECIPE, dim=9, backend=self.backend)

    def test_a_failure_is_counted_and_cleared_by_success(self, store: FeatureStore) -> None:
        for _ in range(2):
            store.write_failure("slide-1", ValueError("torn"), source="slide-1.svs")
        store.write_failure("../bad", ValueError("id"), source="bad.svs")
        assert [(failure.slide_id, failure.attempts) for failure in store.failures()] == [("../bad", 1), ("slide-1", 2)]
        assert not (store.path / "bad.json").exists()
        store.write(make_record())
        assert [failure.slide_id for failure in store.failures()] == ["../bad"]
