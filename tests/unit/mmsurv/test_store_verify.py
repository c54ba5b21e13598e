"""Each thing ``verify`` looks for, broken on purpose in a record whose checksums are right."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from mmsurv.store import FeatureStore, SlideRecord, create_store, rank_order
from mmsurv.store import record as records
from mmsurv.store.seal import seal
from mmsurv.store.testing import RECIPE, make_record
from mmsurv.store.verify import examine

SIDE = 448.0


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return create_store(tmp_path / "store", recipe=RECIPE, dim=8)


def good() -> SlideRecord:
    record = make_record()
    facts = {"level0_width": 4480, "level0_height": 4480, "tile_side_level0": SIDE}
    return dataclasses.replace(record, attributes={**record.attributes, **facts})


def forge(store: FeatureStore, **change: object) -> None:
    """A record as a faulty program would write it: its digests are right, its content is not."""
    record = seal(good(), store.manifest)
    attributes = {**record.attributes, **change.pop("attributes", {})}  # type: ignore[dict-item]
    record = dataclasses.replace(record, **change)  # type: ignore[arg-type]
    attributes["features_sha256"] = records.features_digest(record.features)
    attributes = {key: value for key, value in attributes.items() if value is not None}
    attributes["record_sha256"] = records.record_digest(record, attributes)
    (store.path / "slides").mkdir(exist_ok=True)
    store.write_file(store.record_path("slide-1"), dataclasses.replace(record, attributes=attributes))


def features(**rows: float) -> np.ndarray:
    changed = good().features.copy()
    for row, value in rows.items():
        changed[int(row[1:])] = value
    return changed


def swapped(array: np.ndarray | None) -> np.ndarray:
    assert array is not None
    changed = array.copy()
    changed[[0, 1]] = array[[1, 0]]
    return changed


def moved(array: np.ndarray | None, **rows: tuple[int, int]) -> np.ndarray:
    assert array is not None
    changed = array.copy()
    for row, place in rows.items():
        changed[int(row[1:])] = place
    return changed


def test_a_good_record_has_no_findings(store: FeatureStore) -> None:
    forge(store)
    found = examine(store, "slide-1")
    assert (found.problems, found.warnings) == ([], [])


R = good()
BROKEN = {
    "NaN": ({"features": features(r7=np.nan)}, "1 rows of features hold NaN or Inf, the first is row 7."),
    "Inf": ({"features": features(r7=np.inf, r9=np.inf)}, "2 rows of features hold NaN or Inf, the first is row 7."),
    "constant row": ({"features": features(r3=0.5)}, "1 rows of features hold one value all along, the first is row 3"),
    "rows all the same": ({"features": np.repeat(R.features[:1], 60, 0)}, "all 60 rows of features are the same"),
    "dimensions": ({"features": R.features[:, :7].copy()}, r"features are (60, 7), expected (N, 8)"),
    "no rows": (
        {"features": R.features[:0], "coords": R.coords[:0], "tissue": R.tissue[:0]},
        "features are (0, 8), expected (N, 8) with N of at least 1.",
    ),
    "dtype": ({"features": R.features.astype(np.float32)}, "features are float32, expected float16."),
    "too few coordinates": ({"coords": R.coords[:59]}, "coords is (59, 2), expected (60, 2)."),
    "too few tissue fractions": ({"tissue": R.tissue[:59]}, "tissue is (59,), expected (60,)."),
    "too few source rows": ({"source_row": np.arange(59)}, "source_row is (59,), expected (60,)."),
    "too few reasons": ({"rejected_reason": R.rejected_reason[:5]}, "rejected is (6, 2), expected (5, 2)."),
    "no reasons": ({"rejected_reason": None}, "rejected and rejected_reason belong together"),
    "a tile twice": ({"coords": moved(R.coords, r1=tuple(R.coords[0]))}, "1 tiles have the coordinates of another"),
    "drawn and rejected": ({"rejected": moved(R.rejected, r0=tuple(R.coords[0]))}, "1 tiles have the coordinates of"),
    "right of the slide": (
        {"coords": moved(R.coords, r5=(4033, 0))},
        "1 tiles of coords lie outside the slide of 4480 × 4480 pixels, the first is row 5 at (4033, 0).",
    ),
    "above the slide": ({"coords": moved(R.coords, r5=(0, -1))}, "lie outside the slide of 4480 × 4480 pixels"),
    "a rejected tile outside": ({"rejected": moved(R.rejected, r5=(0, 9000))}, "1 tiles of rejected lie outside"),
    "tissue": ({"tissue": moved(R.tissue, r2=1.5)}, "tissue of row 2 is 1.5, expected 0 to 1."),
    "reason": (
        {"rejected_reason": np.array([1, 1, 2, 2, 3, 7], np.uint8)},
        "rejected_reason holds 7, expected one of [1, 2, 3].",
    ),
    "mask": ({"mask": np.full((5, 5), 9, np.uint8)}, "mask holds 9, expected one of [0, 1, 2]."),
    "a count": ({"attributes": {"n_near_white": 5}}, "n_near_white says 5, but 2 tiles were rejected for that reason."),
    "more than there are": ({"attributes": {"n_tissue_tiles": 65}}, "66 tiles were drawn, more than the 65 that"),
    "order": ({"coords": swapped(R.coords)}, "rows are not in rank order"),
    "order of the rejected": ({"rejected": swapped(R.rejected)}, "rejected tiles are not in rank order."),
    "order's name": ({"attributes": {"row_order": "raster"}}, "row_order is 'raster', expected 'rank'."),
    "seed": ({"attributes": {"sample_seed": None}}, "sample_seed is missing, so the row order cannot be checked."),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_broken_is_said_in_a_sentence(what: str, store: FeatureStore) -> None:
    change, sentence = BROKEN[what]
    forge(store, **dict(change))
    problems = examine(store, "slide-1").problems
    assert any(sentence in problem for problem in problems), problems
    assert all(re.fullmatch(r"[a-z0-9].*[.?]", problem) for problem in problems), problems


def test_many_repeated_rows_are_a_warning_a_few_are_not(store: FeatureStore) -> None:
    rows = R.features.copy()
    rows[1:4] = rows[0]
    forge(store, features=rows)
    assert examine(store, "slide-1").warnings == []
    rows[4] = rows[0]
    forge_again(store, features=rows)
    found = examine(store, "slide-1")
    assert found.problems == []
    assert "4 of 60 rows of features repeat another row, more than 5%" in found.warnings[0]


def test_tiles_off_the_grid_are_a_warning(store: FeatureStore) -> None:
    grid = np.rint(np.arange(10) * 430.7).astype(int)
    coords = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)[:60]
    ordered = coords[rank_order("slide-1", coords, 0)].astype(np.int32)
    change = {"coords": ordered, "rejected": None, "rejected_reason": None}
    forge(store, **change, attributes={"tile_side_level0": 430.7})
    assert examine(store, "slide-1").warnings == []
    forge_again(store, **change, attributes={"tile_side_level0": 430.0})
    found = examine(store, "slide-1")
    assert found.problems == []
    assert re.search(
        r"\d+ of 60 tiles do not begin at a multiple of their side of 430 level-0 pixels", found.warnings[0]
    )


def forge_again(store: FeatureStore, **change: object) -> None:
    store.record_path("slide-1").unlink()
    forge(store, **change)
