"""What training on a store larger than the memory for it costs: time and memory against the number of slides.

    python benchmarks/scale.py [--slides 100 400 1600] [--tiles 1000] [--dim 1024] [--memory 64] [--rounds 3]

Made-up float16 features of one slide a case, written to a temporary folder (3.3 GB for 1600 slides) and streamed
through the memory allowed (MB). Each size is trained in a process of its own by ``mmsurv_train.fit.fit``:
cross-attention over all tiles, all training cases in one step, four fifths for training, one for validation. Sizes take
turns, and each number is the median over rounds; of a round's epochs the first is left out.
    ratio           time per slide and epoch at the last size but one ÷ at the last: 1 where time is linear
    memory_ratio    peak anonymous memory (RssAnon) of the process at the last size ÷ at the last but one: 1 where flat
    kb_per_slide    by how much that peak grows with each slide from the last but one to the last
    seconds         per epoch, by number of slides
    peak_mb         peak RssAnon of the process, by number of slides; base_mb before any slide was opened
The features are in the system's file cache where it is large enough: what is measured is not the disk, but whether
anything grows that should not. Linux only. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from machine import cpu_name

from mmsurv import provenance
from mmsurv.cohort import Cohort
from mmsurv.cohort.report import JoinReport
from mmsurv.split import Split
from mmsurv.store import SlideRecord, create_store, open_store, rank_order
from mmsurv_train.bags import Bags
from mmsurv_train.fit import fit
from mmsurv_train.recipe import FitSettings, ModelSettings, TrainRecipe

RECIPE = {"benchmark": "made-up features"}
TARGETS = {"ratio": [0.85, 1.15], "memory_ratio": [0.9, 1.1]}
GENES = 200


def main() -> None:
    arguments = _arguments()
    if arguments.child:
        print(json.dumps(train(Path(arguments.child), arguments.slides[0], arguments)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        write_store(Path(folder) / "store", max(arguments.slides), arguments)
        result = measure(Path(folder) / "store", arguments)
    print(json.dumps(result))


def measure(store: Path, arguments: argparse.Namespace) -> dict[str, object]:
    found: dict[int, list[dict[str, float]]] = {n: [] for n in arguments.slides}
    for _ in range(arguments.rounds):
        for n in arguments.slides:
            found[n].append(_in_a_process(store, n, arguments))
    seconds, peak, base, opening = (
        {n: statistics.median(one[key] for one in found[n]) for n in found}
        for key in ("seconds", "peak_mb", "base_mb", "opening")
    )
    for n in found:
        size = n * arguments.tiles * arguments.dim * 2 / 1e9
        print(
            f"{n} slides ({size:.2f} GB): opened in {opening[n]:.1f} s, {seconds[n]:.2f} s an epoch, "
            f"peak anonymous memory {peak[n]:.0f} MB (base {base[n]:.0f} MB)"
        )
    before, last = sorted(found)[-2:]
    return {
        "benchmark": "scale",
        "ratio": round(seconds[before] / before / (seconds[last] / last), 3),
        "memory_ratio": round(peak[last] / peak[before], 3),
        "kb_per_slide": round((peak[last] - peak[before]) / (last - before) * 1e3, 1),
        "seconds": {n: round(value, 3) for n, value in seconds.items()},
        "peak_mb": {n: round(value, 1) for n, value in peak.items()},
        "base_mb": {n: round(value, 1) for n, value in base.items()},
        "opening_seconds": {n: round(value, 2) for n, value in opening.items()},
        "target": TARGETS,
        "record": [arguments.tiles, arguments.dim, "float16"],
        "memory_mb": arguments.memory,
        "data": "made-up features and outcomes; read from the system's file cache where it is large enough",
        "machine": {**provenance.machine(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "cpu": cpu_name(),
        "versions": provenance.versions(["numpy", "torch"]),
    }


def train(path: Path, n_slides: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Train in this process: seconds per epoch and to open the slides, anonymous memory at its peak and before."""
    cohort, split = made_up_cohort(n_slides)
    recipe = TrainRecipe(
        model=ModelSettings(name="cross-attention"),
        fit=FitSettings(epochs=arguments.epochs, patience=0, device="cpu"),
    )
    with Peak() as peak:
        base, started = rss_anon(), time.perf_counter()
        bags = Bags.for_cohort(open_store(path), cohort, memory=int(arguments.memory * 1e6))
        opened = time.perf_counter()
        if bags.reading != "streamed":
            sys.exit(f"{n_slides} slides are {bags.reading}, not streamed: allow less --memory.")
        ends: list[float] = []
        fit(recipe, cohort, bags, split, on_epoch=lambda _row: ends.append(time.perf_counter()))
    return {
        "seconds": statistics.median(np.diff(ends)),
        "opening": opened - started,
        "peak_mb": peak.bytes / 1e6,
        "base_mb": base / 1e6,
    }


def made_up_cohort(n: int) -> tuple[Cohort, Split]:
    rng = np.random.default_rng(0)
    ids = pd.Index([f"case-{index:05d}" for index in range(n)], name="case_id")
    cases = pd.DataFrame({"time": rng.exponential(20, n) + 0.1, "event": rng.random(n) < 0.5}, index=ids)
    slides = pd.DataFrame({"slide_id": [_slide_id(index) for index in range(n)], "case_id": ids})
    rna = pd.DataFrame(rng.normal(size=(n, GENES)), index=ids, columns=[f"gene-{index}" for index in range(GENES)])
    report = JoinReport(clinical="made up", rna="made up", reading={}, n_cases=n, n_events=0, months={})
    parts = pd.Series(["validation" if index % 5 == 4 else "train" for index in range(n)], index=ids)
    return Cohort(cases, slides, rna, report), Split(parts)


def write_store(path: Path, n_slides: int, arguments: argparse.Namespace) -> None:
    """Records whose features are windows of one table of random numbers."""
    store = create_store(path, recipe=RECIPE, dim=arguments.dim)
    rng = np.random.default_rng(0)
    pool = rng.normal(size=(2 * arguments.tiles, arguments.dim)).astype(np.float16)
    side = int(np.ceil(np.sqrt(arguments.tiles)))
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2)[: arguments.tiles] * 448
    for index in range(n_slides):
        name, first = _slide_id(index), int(rng.integers(arguments.tiles))
        record = SlideRecord(
            slide_id=name,
            features=pool[first : first + arguments.tiles],
            coords=grid[rank_order(name, grid, 0)],
            tissue=np.ones(arguments.tiles, np.float32),
            attributes={"sample_seed": 0},
        )
        store.write(record)


class Peak:
    """The peak of RssAnon while it is entered."""

    def __init__(self) -> None:
        self.bytes = 0
        self._over = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Peak:
        self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._sampler.join()

    def _sample(self) -> None:
        while not self._over.wait(0.01):
            self.bytes = max(self.bytes, rss_anon())


def rss_anon() -> int:
    """This process's anonymous resident memory, bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def _slide_id(index: int) -> str:
    return f"slide-{index:05d}"


def _in_a_process(store: Path, n_slides: int, arguments: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", str(store), "--slides", str(n_slides)]
    command += ["--memory", str(arguments.memory), "--epochs", str(arguments.epochs)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--slides", type=int, nargs="+", default=[100, 400, 1600], help="two numbers or more")
    parser.add_argument("--tiles", type=int, default=1000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--memory", type=float, default=64, help="for features, MB")
    parser.add_argument("--epochs", type=int, default=4, help="of each round, at least 2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", help="folder to write the features to; default: the system's temporary folder")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
