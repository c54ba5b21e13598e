"""docs/format.md is exact enough: its programs, which know nothing of mmsurv, write what mmsurv finds whole."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmsurv.store import FeatureStore, open_store
from mmsurv.store.rank import tile_ranks
from mmsurv.store.record import to_arrays

PAGE = (Path(__file__).parents[2] / "docs" / "format.md").read_text(encoding="utf-8")
SLIDE = "TCGA-02-0047"


def program(*beginnings: str) -> str:
    """The page's Python blocks that begin so, one after another."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    found = [block for beginning in beginnings for block in blocks if block.startswith(beginning)]
    assert len(found) == len(beginnings), "the page's programs have other first lines"
    return "\n".join(found)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page's writers have run, in a process that cannot import mmsurv."""
    path = tmp_path_factory.mktemp("elsewhere")
    blocked = "import sys\nsys.modules['mmsurv'] = None\n"
    code = blocked + program("import hashlib\n", "import gzip\n")
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=path, check=True)
    return path


@pytest.fixture(params=["made-elsewhere", "made-elsewhere-zarr"])
def store(
    request: pytest.FixtureRequest, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> FeatureStore:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return open_store(folder / request.param)


def test_a_record_written_by_the_page_is_whole(store: FeatureStore) -> None:
    assert store.slide_ids() == [SLIDE]
    assert store.verify(SLIDE) == []
    assert (store.strays(), store.leftovers()) == ([], [])
    record = store.read(SLIDE)
    np.testing.assert_array_equal(record.features, np.arange(12).reshape(4, 3))
    np.testing.assert_array_equal(store.features(SLIDE, slice(1, 3)), [[3, 4, 5], [6, 7, 8]])
    assert record.n_drawn == 5
    assert record.attributes["mpp"] == 0.25


def test_the_pages_ranks_are_ours(store: FeatureStore) -> None:
    rows = [tuple(map(int, row)) for row in re.findall(r"^\| (\d+) \| (\d+) \| (\d{10,}) \|$", PAGE, re.MULTILINE)]
    assert len(rows) == 5
    coords = np.array([row[:2] for row in rows])
    assert tile_ranks(SLIDE, coords, 0).tolist() == [row[2] for row in rows] == sorted(row[2] for row in rows)
    record = store.read(SLIDE)
    drawn = record.coords.tolist()[:2] + np.asarray(record.rejected).tolist() + record.coords.tolist()[2:]
    assert drawn == coords.tolist()


def test_the_pages_digests_are_those_of_its_record(store: FeatureStore) -> None:
    attributes = store.attributes(SLIDE)
    for name in ("features_sha256", "record_sha256"):
        assert re.findall(rf"^    {name} +([0-9a-f]{{64}})$", PAGE, re.MULTILINE) == [attributes[name]]
    record = store.read(SLIDE)
    named = {key: value for key, value in record.attributes.items() if key != "record_sha256"}
    text = json.dumps([named, dict(record.coords_attributes)], sort_keys=True, separators=(",", ":"))
    assert f"JSON of `{len(text)}` bytes" in PAGE
    arrays = to_arrays(record)
    names = ("coords", "tissue", "mask", "source_row", "thumbnail", "rejected", "rejected_reason")
    parts = [
        f"{name}:{arrays[name].dtype.str}{arrays[name].shape};" if name in arrays else f"{name}:none;" for name in names
    ]
    assert f"    {' '.join(parts)}\n" in PAGE


def test_the_pages_readers_read(folder: Path, tmp_path: Path) -> None:
    slides = tmp_path / "STORE" / "slides"
    slides.mkdir(parents=True)
    for store, suffix in (("made-elsewhere", ".h5"), ("made-elsewhere-zarr", ".zarr.zip")):
        shutil.copy(folder / store / "slides" / f"{SLIDE}{suffix}", slides)
    code = program("import h5py\n\nwith", "import numpy as np\nimport zarr\n")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert [line.split(" ", 1)[0] for line in done.stdout.splitlines()] == ["0.25", "0.25"]
