"""Cohorts and feature stores of a stated size, made up: what the time of training depends on, and nothing to learn.

Imported by the scripts beside it; has nothing to run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from mmsurv.cohort import Cohort, CohortOptions, load_cohort
from mmsurv.split import Split, make_folds, read_folds
from mmsurv.store import FeatureStore, SlideRecord, create_store

GLIOMA = {"slides": 1011, "cases": 569, "deaths": 187, "genes": 1544}
"""TCGA GBM+LGG by shape."""


def write_tables(folder: Path, *, slides: int, cases: int, deaths: int, genes: int, seed: int = 0) -> CohortOptions:
    """A clinical table of one row per slide, and RNA (Parquet); the first ``slides - cases`` cases have two slides."""
    rng = np.random.default_rng(seed)
    names = [f"TCGA-02-{index:04d}" for index in range(cases)]
    event = np.zeros(cases, int)
    event[rng.permutation(cases)[:deaths]] = 1
    outcome = pd.DataFrame({"survival_months": rng.exponential(24, cases).round(2) + 0.1, "vital_status": event}, names)
    owners = [names[index % cases] for index in range(slides)]
    table = outcome.loc[owners].rename_axis("case_id").reset_index()
    table.insert(0, "slide_id", [f"{name}-01Z-00-DX{index // cases + 1}" for index, name in enumerate(owners)])
    table.to_csv(folder / "clinical.csv", index=False)
    rna = pd.DataFrame(rng.standard_normal((cases, genes), np.float32), names, [f"gene_{i}" for i in range(genes)])
    rna.rename_axis("case_id").reset_index().to_parquet(folder / "rna.parquet")
    return CohortOptions(clinical=str(folder / "clinical.csv"), rna=str(folder / "rna.parquet"))


def glioma(folder: Path, data: Path | None, *, slides: int) -> tuple[Cohort, list[Split], str]:
    """The cohort of TCGA GBM+LGG and its five folds.

    Args:
        folder: where made-up tables are written.
        data: folder of the real tables (cohort.csv, rna.csv.gz, folds.csv); None: made-up ones of that shape.
        slides: keep only the first patients, with so many slides in all, or one or a few less.

    Returns:
        The cohort, its folds, and what it is, in words.
    """
    if data is None:
        cohort, what = load_cohort(write_tables(folder, **GLIOMA)), "made-up survival and RNA"
    else:
        options = CohortOptions(clinical=str(data / "cohort.csv"), rna=str(data / "rna.csv.gz"))
        cohort, what = load_cohort(options), "real survival and RNA"
    up_to = cohort.slides.groupby("case_id").size().cumsum()
    cohort = cohort.restrict(case_ids=up_to.index[up_to <= slides])
    if data is None:
        return cohort, make_folds(cohort.cases, n_folds=5, seed=0), what
    return cohort, read_folds(data / "folds.csv", cohort.cases, seed=0), f"{what}, real folds"


def write_store(path: Path, n_tiles: Mapping[str, int], dim: int, *, seed: int = 0) -> FeatureStore:
    """An HDF5 store of made-up float16 features: windows of one block of random rows, so that making it is I/O only.

    Args:
        path: where; must not exist.
        n_tiles: of each slide.
        dim: width of the features.
    """
    store = create_store(path, recipe={"benchmark": "made-up features"}, dim=dim)
    rng = np.random.default_rng(seed)
    most = max(n_tiles.values())
    rows_ND = rng.random((most + len(n_tiles), dim), np.float32).astype(np.float16)
    side = int(np.ceil(np.sqrt(most)))
    coords = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2).astype(np.int32) * 448
    for index, (slide_id, tiles) in enumerate(n_tiles.items()):
        store.write(
            SlideRecord(
                slide_id=slide_id,
                features=rows_ND[index : index + tiles],
                coords=coords[:tiles],  # not in rank order: rows that are made up are a random sample in any
                tissue=np.ones(tiles, np.float32),
                attributes={"sample_seed": 0},
            )
        )
    return store
