"""How a benchmark measures: sides that take turns, medians, and the peak of memory.

Imported by the scripts beside it; has nothing to run.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine import cpu_name

from mmsurv import provenance


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def alternate(rounds: int, sides: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of each side, measured in turn so that a slow moment of the machine hits all of them."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():
        side()
    for _ in range(rounds):
        for name, side in sides.items():
            times[name].append(seconds(side))
    return {name: statistics.median(taken) for name, taken in times.items()}


def rss_anon() -> int:
    """This process's anonymous resident memory, bytes; Linux only. Mapped files are not in it."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


class PeakMemory:
    """The peak of this process's anonymous memory while the block runs, looked at every millisecond."""

    def __init__(self, every: float = 0.001) -> None:
        self.every = every
        self.start = self.peak = 0
        self._over = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    @property
    def extra(self) -> int:
        """Bytes above those at the start."""
        return self.peak - self.start

    def __enter__(self) -> PeakMemory:
        give_back()
        self.start = self.peak = rss_anon()
        self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.peak = max(self.peak, rss_anon())
        self._over.set()
        self._sampler.join()

    def _sample(self) -> None:
        while not self._over.wait(self.every):
            self.peak = max(self.peak, rss_anon())


def give_back() -> None:
    """Return freed memory to the system, so that what comes next cannot hide in it."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):  # not glibc
        return


def in_child(script: str, *arguments: str) -> dict[str, Any]:
    """Run a script of this folder in a process of its own; the JSON object of its last line."""
    command = [sys.executable, script, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def facts(threads: int) -> dict[str, Any]:
    """What a result is not to be read without."""
    return {
        "machine": {**provenance.machine(), "cpu": cpu_name(), "cores": os.cpu_count(), "threads": threads},
        "versions": provenance.versions(["torch", "torchvision", "h5py", "numpy"]),
    }
