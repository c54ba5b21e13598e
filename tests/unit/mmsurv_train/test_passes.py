"""Many models in one pass are the same as each alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from mmsurv.split import Split
from mmsurv_train.bags import Bags
from mmsurv_train.fit import FitJob, fit_many
from mmsurv_train.recipe import BagSettings, FitSettings, ModelSettings, TrainRecipe

PATIENTS, GENES, DIM = 30, 7, 6


@dataclasses.dataclass
class Cohort:
    """As much of a cohort as fitting asks for."""

    cases: pd.DataFrame
    rna: pd.DataFrame
    slides: pd.DataFrame


@pytest.fixture(scope="module")
def cohort():
    rng = np.random.default_rng(1)
    names = pd.Index([f"case-{i:02d}" for i in range(PATIENTS)], name="case_id")
    time = np.round(rng.exponential(20, PATIENTS) + 1, 1)
    time[3] = time[8]  # tied deaths
    cases = pd.DataFrame({"time": time, "event": rng.integers(0, 3, PATIENTS) > 0}, index=names)
    cases.loc[names[[3, 8]], "event"] = True
    rna = pd.DataFrame(rng.normal(size=(PATIENTS, GENES)), index=names, columns=list("ABCDEFG"))
    rna.iloc[:, 6] = 0.0
    rna.iloc[0, 6] = 1.0  # varies only where case 0 trains: networks of different numbers of genes
    owners = [*names, *names[:12]]
    slides = pd.DataFrame({"slide_id": [f"s{i:02d}" for i in range(len(owners))], "case_id": owners})
    return Cohort(cases, rna, slides)


@pytest.fixture(scope="module")
def bags(cohort):
    rng = np.random.default_rng(2)
    lengths = rng.integers(1, 40, len(cohort.slides))
    return Bags.from_arrays(
        {
            name: rng.normal(size=(n, DIM)).astype(np.float32)
            for name, n in zip(cohort.slides["slide_id"], lengths, strict=True)
        }
    )


def splits(cohort, n=3):
    names = cohort.cases.index
    fold = np.arange(PATIENTS) % n
    found = []
    for k in range(n):
        parts = pd.Series(np.where(fold == k, "test", "train"), index=names)
        parts[names[(fold != k) & (np.arange(PATIENTS) % 4 == 3)]] = "validation"
        found.append(Split(parts))
    return found


def recipe(*, name="cross-attention", bags=None, model=None, **fit):
    settings = {"name": name, "dim": 8, "query_hidden": 5, "rna_widths": (4,), **(model or {})}
    return TrainRecipe(
        model=ModelSettings(**settings),
        bags=BagSettings(**(bags or {})),
        fit=FitSettings(**{"epochs": 5, "patience": 0, "learning_rate": 0.01, "device": "cpu", **fit}),
    )


def jobs_of(cohort, recipes):
    return [FitJob(recipe=one, split=split) for one in recipes for split in splits(cohort)]


VARIANTS = {
    "all tiles": {},
    "heads and attention dropout": {"model": {"heads": 2, "attention_dropout": 0.4, "query": "linear"}},
    "bags of 5": {"bags": {"size": 5}},
    "batches of slides": {"bags": {"size": 5, "unit": "slide"}, "batch_size": 8},
    "first tiles, predicted so": {"bags": {"size": 3, "redraw": False, "at_prediction": "size"}},
    "breslow": {"ties": "breslow"},
    "patience": {"patience": 2, "epochs": 12},
    "joint": {"name": "joint"},
    "joint of one tile": {"name": "joint", "bags": {"size": 1, "unit": "slide"}, "batch_size": 8},
    "wsi": {"name": "wsi"},
    "rna": {"name": "rna"},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_m_models_in_one_pass_equal_m_runs(name, cohort, bags):
    """Folds, seeds, learning rates, dropouts and penalties beside one another; stopping at different epochs."""
    variant = VARIANTS[name]
    model = variant.get("model", {})
    recipes = [
        recipe(**{**variant, "n_seeds": 2}),
        recipe(**{**variant, "seed": 7, "learning_rate": 0.03, "weight_decay": 0.1,
                  "model": {**model, "dropout": 0.5, "rna_dropout": 0.2}}),
    ]  # fmt: skip
    together = fit_many(jobs_of(cohort, recipes), cohort, bags, dtype=torch.float64)
    for job, in_company in zip(jobs_of(cohort, recipes), together, strict=True):
        for seed in range(job.recipe.fit.n_seeds):
            fit = dataclasses.replace(job.recipe.fit, n_seeds=1, seed=job.recipe.fit.seed + seed)
            alone = FitJob(recipe=dataclasses.replace(job.recipe, fit=fit), split=job.split)
            (single,) = fit_many([alone], cohort, bags, dtype=torch.float64)
            assert single.best_epoch[0] == in_company.best_epoch[seed]
            history = in_company.history[in_company.history["seed"] == fit.seed].reset_index(drop=True)
            pd.testing.assert_frame_equal(single.history, history, rtol=1e-8, atol=1e-10)
            for key, value in single.model.state_dict().items():
                torch.testing.assert_close(
                    value, in_company.model.state_dict()[key][seed : seed + 1], rtol=1e-8, atol=1e-8
                )
