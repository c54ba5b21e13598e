"""Many models in one pass against as many runs one after another.

    python benchmarks/sweep.py [--slides 1011] [--tiles 2000] [--dim 1024] [--epochs 3] [--alone 4 | --all] [--more 16]

Cross-attention over all tiles of a patient (as the settings are born) on made-up float16 features in an HDF5 store of
TCGA GBM+LGG's shape; made-up survival and RNA too, or the real tables with ``--data``. Models: five folds ×
``--seeds``. All train the same number of epochs, none stops early. Reading and checking the store and the moments of
each slide, which both sides would share, are done before.
    ratio       models × the mean seconds of ``fit`` alone ÷ seconds of ``fit_many`` for all. Unless ``--all`` is given
                only some of the models (``--alone``, spread over folds and seeds) are fitted alone, and **their mean
                stands for all**. Fits alone and in one pass take turns
    ratio_more  the same for five folds × ``--more`` seeds (80 models; 0 leaves it out)
    apart       greatest difference between the losses that a model has alone and in the pass, training and validation,
                all epochs, of the greatest loss: sums in another order, nothing else
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from madeup import glioma, write_store
from measure import PeakMemory, facts

from mmsurv.cohort import Cohort
from mmsurv.split import Split
from mmsurv.store import open_store
from mmsurv_train.bags import Bags
from mmsurv_train.fit import FitFailed, FitJob, Fitted, fit, fit_many
from mmsurv_train.recipe import FitSettings, TrainRecipe

TARGETS = {"ratio": 5.0}
SAME = 1e-3
LOSSES = ["loss", "validation_loss"]


class Sweep:
    """The folds and what they are fitted on."""

    def __init__(self, cohort: Cohort, bags: Bags, folds: Sequence[Split], epochs: int) -> None:
        self.cohort, self.bags, self.folds = cohort, bags, folds
        self.epochs = epochs

    def recipe(self, *, seed: int, n_seeds: int) -> TrainRecipe:
        return TrainRecipe(fit=FitSettings(epochs=self.epochs, patience=0, seed=seed, n_seeds=n_seeds))

    def alone(self, fold: int, seed: int) -> tuple[float, Fitted]:
        """Seconds of one model's own run, and the model."""
        started = time.perf_counter()
        fitted = fit(self.recipe(seed=seed, n_seeds=1), self.cohort, self.bags, self.folds[fold])
        return time.perf_counter() - started, fitted

    def together(self, n_seeds: int) -> tuple[float, list[Fitted]]:
        """Seconds of one pass for all folds and seeds, and the folds' models."""
        jobs = [FitJob(recipe=self.recipe(seed=0, n_seeds=n_seeds), split=split) for split in self.folds]
        started = time.perf_counter()
        done = fit_many(jobs, self.cohort, self.bags)
        taken = time.perf_counter() - started
        failed = [one.error for one in done if isinstance(one, FitFailed)]
        if failed:
            raise failed[0]
        return taken, [one for one in done if isinstance(one, Fitted)]


def apart(alone: Fitted, together: Fitted, seed: int) -> float:
    """Greatest difference of one model's losses, of the greatest loss."""
    mine, shared = (_losses(fitted.history, seed) for fitted in (alone, together))
    return float(np.abs(mine - shared).max() / np.abs(mine).max())


def _losses(history: pd.DataFrame, seed: int) -> np.ndarray:
    return history[history["seed"] == seed].sort_values("epoch")[LOSSES].to_numpy(float)


def chosen(n_folds: int, n_seeds: int, n_alone: int) -> list[tuple[int, int]]:
    """(fold, seed) of the models to fit alone, spread over both."""
    return [(index % n_folds, index * n_seeds // n_alone) for index in range(n_alone)]


def measure(sweep: Sweep, given: argparse.Namespace) -> dict[str, object]:
    n_models = len(sweep.folds) * given.seeds
    models = chosen(len(sweep.folds), given.seeds, n_models if given.all else min(given.alone, n_models))
    alone, passes, differences = [], [], []
    sweep.alone(0, 0)  # what is loaded at the first fit is no run's own
    for number in range(given.rounds):
        with PeakMemory(every=0.02) as memory:
            taken, together = sweep.together(given.seeds)
        passes.append(taken)
        print(f"{n_models} models in one pass: {taken:.1f} s, {memory.extra / 1e6:.0f} MB more memory", flush=True)
        for fold, seed in models[number :: given.rounds]:
            taken, fitted = sweep.alone(fold, seed)
            alone.append(taken)
            differences.append(apart(fitted, together[fold], seed))
            print(f"fold {fold}, seed {seed} alone: {taken:.1f} s, losses apart {differences[-1]:.1e}", flush=True)
    assert max(differences) < SAME, "a model in the pass is not the model alone"
    mean_alone = statistics.mean(alone)
    found: dict[str, object] = {
        "ratio": round(n_models * mean_alone / statistics.median(passes), 2),
        "models": n_models,
        "seconds": {"one pass": round(statistics.median(passes), 2), "alone, mean": round(mean_alone, 2)},
        "fitted_alone": len(models),
        "apart": max(differences),
    }
    if given.more:
        taken, _ = sweep.together(given.more)
        n_more = len(sweep.folds) * given.more
        print(f"{n_more} models in one pass: {taken:.1f} s", flush=True)
        found |= {"ratio_more": round(n_more * mean_alone / taken, 2), "models_more": n_more, "seconds_more": taken}
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--slides", type=int, default=1011, help="fewer: those of the first patients")
    parser.add_argument("--tiles", type=int, default=2000, help="of each slide")
    parser.add_argument("--dim", type=int, default=1024, help="of the features")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--more", type=int, default=16, help="seeds of a second, larger pass; 0 = none")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--alone", type=int, default=4, help="models fitted alone")
    parser.add_argument("--all", action="store_true", help="fit every model alone")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--data", type=Path, help="folder with cohort.csv, rna.csv.gz and folds.csv of GBM+LGG")
    parser.add_argument("--dir", help="folder to measure in; default: the system's temporary folder")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory(dir=given.dir) as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        cohort, folds, what = glioma(folder, given.data, slides=given.slides)
        write_store(folder / "store", dict.fromkeys(cohort.slides["slide_id"], given.tiles), given.dim)
        bags = Bags.for_cohort(open_store(folder / "store"), cohort)
        bags.statistics(bags.slide_ids)
        found = measure(Sweep(cohort, bags, folds, given.epochs), given)
    result = {
        "benchmark": "sweep",
        **found,
        "target": TARGETS,
        "met": float(str(found["ratio"])) >= TARGETS["ratio"],
        "store": [len(cohort.slides), given.tiles, given.dim, "float16"],
        "reading": bags.reading,
        "genes": 0 if cohort.rna is None else cohort.rna.shape[1],
        "epochs": given.epochs,
        "rounds": given.rounds,
        "data": f"made-up features; {what}",
        **facts(given.threads),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
