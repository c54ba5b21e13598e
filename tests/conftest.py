"""What every test may ask for."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Processes that share the cores have one thread each: pools of threads that wait for each other are slower than one.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real slides, weights and cohorts; its tests are skipped where it is absent."""
    folder = os.environ.get("MMSURV_TEST_DATA")
    if not folder:
        pytest.skip("MMSURV_TEST_DATA is not set: it names the folder of real slides, weights and cohorts")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"MMSURV_TEST_DATA={folder} is not a folder")
    return path


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder to train on in a second: ``store`` (57 slides of 40 cases), ``clinical.csv``, ``rna.csv``.

    Two cases have no RNA, one has no slide; time depends on a gene and on the tiles. Read only: copy it to change it.
    """
    import numpy as np
    import pandas as pd

    from mmsurv.store import create_store
    from mmsurv.store.testing import RECIPE, make_record

    folder = tmp_path_factory.mktemp("study")
    rng = np.random.default_rng(0)
    cases = np.array([f"case-{i:02d}" for i in range(40)])
    rna = pd.DataFrame(rng.normal(size=(40, 6)), index=pd.Index(cases, name="case_id"), columns=list("ABCDEF"))
    tissue = rng.normal(size=40)
    months = np.round(30 * np.exp(-rna["A"].to_numpy() / 2 - tissue / 2) * rng.exponential(size=40) + 0.5, 2)
    owners = np.r_[cases[:-1], cases[:18]]
    names = [f"slide-{i:02d}" for i in range(len(owners))]
    outcome = pd.DataFrame({"case_id": cases, "survival_months": months, "vital_status": rng.integers(0, 4, 40) > 0})
    rows = pd.DataFrame({"slide_id": names, "case_id": owners}).merge(outcome, on="case_id", how="right")
    rows.astype({"vital_status": int}).to_csv(folder / "clinical.csv", index=False)
    rna.iloc[2:].to_csv(folder / "rna.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        store = create_store(folder / "store", recipe=RECIPE, dim=8)
        for name, owner in zip(names, owners, strict=True):
            record = make_record(name, tiles=6, seed=int(name[-2:]))
            shift = np.float16(tissue[list(cases).index(owner)])
            store.write(dataclasses.replace(record, features=record.features + shift))
        yield folder


@pytest.fixture
def break_tiles() -> Callable[[Path, list[int]], None]:
    """Overwrites the JPEG data of some level-0 file tiles (256 px, raster order): it opens, they don't decode."""

    def damage(path: Path, tiles: list[int]) -> None:
        import tifffile

        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            spans = [(page.dataoffsets[i], page.databytecounts[i]) for i in tiles]
        with path.open("r+b") as file:
            for offset, length in spans:
                file.seek(offset)
                file.write(b"\xa5" * length)

    return damage
