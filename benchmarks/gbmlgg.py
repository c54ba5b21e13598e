"""TCGA GBM+LGG at its real size by shape: five folds at once on a store larger than the memory allowed.

    python benchmarks/gbmlgg.py --dir FOLDER [--memory 4] [--epochs 2] [--data DATA]
    python benchmarks/gbmlgg.py --dir FOLDER --slides-fraction 0.05 --memory 0.4    # a trial

A long run, not for CI. 1,011 slides of 569 patients with 9.46 million tiles in all × 1024 float16: 19.4 GB, written as
an HDF5 store under ``--dir`` (which is looked at for room first) and removed at the end. Features are made up; how many
tiles a slide has is drawn log-normally. Survival, RNA and folds are real with ``--data`` (cohort.csv, rna.csv.gz,
folds.csv), else made up. Cross-attention as the settings are born, five folds in one pass, streamed within
``--memory`` GB.
    seconds_per_epoch         of all five folds at once, training and validation, median. Meanwhile the store's pages
                              are dropped from the page cache again and again, so that every read comes from the disk
    seconds_per_epoch_cached  the same without that, an epoch later: what the machine's free memory holds stays there
    seconds_before            what comes before the first epoch (checksums, moments, scales): the time to its end, less
                              an epoch from the disk
    read_seconds              reading the store's files once from the disk, one after another: the physical limit is
                              this, times the passes of an epoch
    memory_mb                 greatest anonymous memory (RssAnon) beyond that at the start, while training
Beside them stand the seconds per fold of 20 epochs in the log files of MCAT's authors, on their GPU: **another machine
and another model**, so no ratio is formed. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from madeup import GLIOMA, glioma, write_store
from measure import PeakMemory, facts, seconds

from mmsurv.cohort import Cohort
from mmsurv.split import Split
from mmsurv.store import FeatureStore, open_store
from mmsurv_train.bags import Bags
from mmsurv_train.fit import FitFailed, FitJob, fit_many
from mmsurv_train.recipe import FitSettings, TrainRecipe

TILES = 9_460_000
MCAT_SECONDS_PER_FOLD = [761, 788]
"""Of 20 epochs, least and greatest, from MCAT's published log files."""
SPREAD = 0.8
"""Standard deviation of the logarithm of a slide's tiles: most have within a half and twice the median."""


def slide_sizes(slide_ids: list[str], total: int) -> dict[str, int]:
    """Tiles of each slide, at least one, ``total`` in all."""
    drawn = np.random.default_rng(0).lognormal(0.0, SPREAD, len(slide_ids))
    ends = np.round(np.cumsum(drawn) / drawn.sum() * (total - len(slide_ids))).astype(int)
    return dict(zip(slide_ids, (np.diff(ends, prepend=0) + 1).tolist(), strict=True))


def require_room(folder: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < n_bytes * 1.1:
        sys.exit(f"{folder} has {free / 1e9:.1f} GB free, the store takes {n_bytes / 1e9:.1f} GB. Give another --dir.")


class Forgetting:
    """Has the system forget what it holds of these files, every second while it is switched on."""

    def __init__(self, files: list[Path]) -> None:
        self.files, self.on = files, True
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Forgetting:
        drop_pages(self.files)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._over.wait(1.0):
            if self.on:
                drop_pages(self.files)


def drop_pages(files: Iterable[Path]) -> None:
    for path in files:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_once(files: Iterable[Path]) -> None:
    buffer = bytearray(1 << 24)
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


class Epochs:
    """When the epochs of all folds end. Some are from the disk, then one fills the page cache, then some are cached.

    The first and the last are not an epoch's time: one has all that comes before, and validation patients are scored
    along with the next epoch's training, which the last does not have.
    """

    def __init__(self, n_folds: int, n_each: int, forgetting: Forgetting) -> None:
        self.n_folds, self.forgetting = n_folds, forgetting
        self.kinds = ["first", *["disk"] * n_each, "filling", *["cached"] * n_each, "last"]
        self.taken: dict[str, list[float]] = {kind: [] for kind in self.kinds}
        self._rows = 0
        self._began = time.perf_counter()

    def __call__(self, *_: object) -> None:
        """After each row of any fold's history."""
        self._rows += 1
        epoch, left = divmod(self._rows, self.n_folds)
        if left:
            return
        now = time.perf_counter()
        kind = self.kinds[epoch - 1]
        self.taken[kind].append(now - self._began)
        print(f"epoch {epoch}: {now - self._began:.1f} s ({kind})", flush=True)
        self.forgetting.on = epoch < len(self.kinds) and self.kinds[epoch] == "disk"
        self._began = time.perf_counter()

    def median(self, kind: str) -> float:
        return round(statistics.median(self.taken[kind]), 2)


def train(store: FeatureStore, cohort: Cohort, folds: list[Split], given: argparse.Namespace) -> dict[str, object]:
    files = [store.record_path(slide_id) for slide_id in cohort.slides["slide_id"]]
    os.sync()
    drop_pages(files)
    read = seconds(lambda: read_once(files))
    print(f"the files read once from the disk: {read:.1f} s", flush=True)
    with Forgetting(files) as forgetting, PeakMemory(every=0.02) as memory:
        epochs = Epochs(len(folds), given.epochs, forgetting)
        recipe = TrainRecipe(fit=FitSettings(epochs=len(epochs.kinds), patience=0))
        bags = Bags.for_cohort(store, cohort, memory=int(given.memory * 1e9))
        done = fit_many([FitJob(recipe=recipe, split=fold) for fold in folds], cohort, bags, on_epoch=epochs)
    for one in done:
        if isinstance(one, FitFailed):
            raise one.error
    return {
        "seconds_per_epoch": epochs.median("disk"),
        "seconds_per_epoch_cached": epochs.median("cached"),
        "seconds_before": round(epochs.median("first") - epochs.median("disk"), 2),
        "read_seconds": round(read, 2),
        "memory_mb": memory.extra // 10**6,
        "memory_budget_mb": round(given.memory * 1e3),
        "reading": bags.reading,
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dir", type=Path, required=True, help="an existing folder with room for the store")
    parser.add_argument("--memory", type=float, default=4.0, help="for features, GB")
    parser.add_argument("--epochs", type=int, default=2, help="timed from the disk, and as many cached")
    parser.add_argument("--slides-fraction", type=float, default=1.0, help="of the slides, for a trial")
    parser.add_argument("--dim", type=int, default=1024, help="of the features")
    parser.add_argument("--data", type=Path, help="folder with cohort.csv, rna.csv.gz and folds.csv of GBM+LGG")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args()


def main() -> None:
    given = arguments()
    torch.set_num_threads(given.threads)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that the store is removed then, too
    with tempfile.TemporaryDirectory(dir=given.dir, prefix="mmsurv-gbmlgg-") as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        cohort, folds, what = glioma(folder, given.data, slides=round(GLIOMA["slides"] * given.slides_fraction))
        total = round(TILES * len(cohort.slides) / GLIOMA["slides"])
        n_tiles = slide_sizes(list(cohort.slides["slide_id"]), total)
        require_room(given.dir, total * given.dim * 2)
        print(
            f"{len(n_tiles)} slides, {total} tiles, {min(n_tiles.values())} to {max(n_tiles.values())} each", flush=True
        )
        print(f"written in {seconds(lambda: write_store(folder / 'store', n_tiles, given.dim)):.0f} s", flush=True)
        found = train(open_store(folder / "store"), cohort, folds, given)
    result = {
        "benchmark": "gbmlgg",
        **found,
        "mcat_seconds_per_fold_of_20_epochs": MCAT_SECONDS_PER_FOLD,
        "folds": len(folds),
        "slides": len(n_tiles),
        "patients": len(cohort.cases),
        "tiles": total,
        "dim": given.dim,
        "gigabytes": round(total * given.dim * 2 / 1e9, 2),
        "genes": 0 if cohort.rna is None else cohort.rna.shape[1],
        "epochs": given.epochs,
        "data": f"made-up features; {what}",
        **facts(given.threads),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
