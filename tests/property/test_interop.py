"""What is exported, imported and exported again is the same: no row loses its place, no value its bits."""

import os
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsurv.store import SlideRecord, create_store, rank_order
from mmsurv.store.interop.exporting import export_store
from mmsurv.store.interop.importing import import_features
from mmsurv.store.testing import RECIPE

IDS = st.text(st.characters(categories=["L", "N"], include_characters="-_ ."), min_size=1, max_size=20).filter(
    lambda text: text == text.strip() and not text.startswith(".") and ".." not in text
)


@st.composite
def slides(draw: st.DrawFn) -> SlideRecord:
    slide_id = draw(IDS)
    places = draw(st.lists(st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1)), min_size=1, unique=True))
    coords = np.array(places)
    side = draw(st.integers(1, 5000))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    extent = {"level0_width": 2**31 + side, "level0_height": 2**31 + side}
    magnification = draw(st.sampled_from([{}, {"level0_magnification": 40}, {"level0_magnification": 20}]))
    return SlideRecord(
        slide_id=slide_id,
        features=rng.normal(size=(len(coords), 3)).astype(np.float16),
        coords=coords[rank_order(slide_id, coords, 5)],
        tissue=np.ones(len(coords), np.float32),
        attributes={"sample_seed": 5, "mpp": 0.25, **(extent if draw(st.booleans()) else {})},
        coords_attributes={
            "patch_size": 224,
            "patch_size_level0": side,
            "overlap": 0,
            "target_magnification": 20,
            **magnification,
        },
    )


def content(folder: Path) -> dict[str, object]:
    """Every dataset and attribute, without the folders' own names."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*.h5")):
        with h5py.File(path) as file:
            for name, dataset in file.items():
                key = f"{path.relative_to(folder)}:{name}"
                found[key] = (dataset.dtype, dataset.shape, dataset[()].tobytes())
                found |= {
                    f"{key}@{attribute}": np.asarray(value).tolist()
                    for attribute, value in dataset.attrs.items()
                    if attribute not in ("savetodir", "save_path")
                }
    return found


@pytest.mark.parametrize(("layout", "where"), [("clam", ""), ("trident", "features_resnet50")])
@settings(max_examples=25, deadline=None)
@given(records=st.lists(slides(), min_size=1, max_size=3, unique_by=lambda record: record.slide_id.casefold()))
def test_export_import_export_is_the_same(layout: str, where: str, records: list[SlideRecord]) -> None:
    """Slides of other resolutions have tiles of other sides in level-0 pixels, in one store."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setattr(os, "fsync", lambda descriptor: None)
        store = create_store(folder / "store", recipe=RECIPE, dim=3)
        for record in records:
            store.write(record)
        assert export_store(store, folder / "first", layout=layout).problems == {}
        imported, results = import_features(folder / "first" / where, folder / "imported", layout=layout)  # type: ignore[arg-type]
        assert [result.problem for result in results] == [None] * len(records)
        export_store(imported, folder / "second", layout=layout)
        assert content(folder / "second") == content(folder / "first")
        for record in records:
            assert imported.verify(record.slide_id) == []
            assert rows_by_place(imported.read(record.slide_id)) == rows_by_place(record)


def rows_by_place(record: SlideRecord) -> dict[tuple[int, ...], bytes]:
    return {tuple(place): row.tobytes() for place, row in zip(record.coords.tolist(), record.features, strict=True)}
