"""What a job is told and what it says in the end: options, failed slides, summary.

Owns these types only; the work is in ``run``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np

from mmsurv.errors import MmsurvError
from mmsurv_extract.resolution import MppOptions

K = TypeVar("K")

SLIDE_ERRORS = (MmsurvError, OSError, ValueError, MemoryError)
"""What may go wrong with one slide without stopping the others. Anything else is a fault of ours and is shown."""


class TileEncoder(Protocol):
    """What a job needs of an encoder."""

    @property
    def dim(self) -> int:
        """Features per tile."""

    @property
    def device(self) -> object:
        """What it runs on; its text begins with the kind, such as "cpu" or "cuda"."""

    def describe(self) -> dict[str, Any]:
        """What decides the features: the encoder's part of the recipe's fingerprint."""

    def __call__(self, tiles: np.ndarray, /) -> np.ndarray:
        """(B, px, px, 3) uint8 to (B, D) float32."""

    def encode_stream(self, batches: Iterable[tuple[K, np.ndarray]], /) -> Iterator[tuple[K, np.ndarray]]:
        """Pairs of anything and tiles to pairs of the same and features, in order, with work overlapped."""


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """How the work is done; none of it changes a feature by more than float noise."""

    batch_size: int = 32
    workers: int = field(default_factory=lambda: default_workers("cpu"))
    """Threads that read tiles."""
    mpp: MppOptions = field(default_factory=MppOptions)

    def __post_init__(self) -> None:
        for name, value in (("batch size", self.batch_size), ("number of workers", self.workers)):
            if value < 1:
                raise ValueError(f"the {name} must be at least 1, not {value}.")


@dataclass(frozen=True)
class FailedSlide:
    """A slide that has no record after the job, or not all the tiles asked for."""

    slide_id: str
    error: str
    message: str
    by_other: bool = False
    """Another process found this while the job ran, and the job did not try again."""


@dataclass
class JobSummary:
    """What a job did."""

    done: list[str] = field(default_factory=list)
    """Slides encoded from their first tile."""
    extended: list[str] = field(default_factory=list)
    """Slides whose record got more tiles."""
    skipped: list[str] = field(default_factory=list)
    """Slides whose record was there already, or was made by another process meanwhile."""
    failed: list[FailedSlide] = field(default_factory=list)
    n_tiles: int = 0
    """Tiles encoded."""
    seconds: float = 0.0
    stopped: bool = False

    @property
    def n_slides(self) -> int:
        return len(self.done) + len(self.extended) + len(self.skipped) + len(self.failed)

    @property
    def tiles_per_second(self) -> float:
        return self.n_tiles / self.seconds if self.seconds else 0.0

    def add(self, other: JobSummary) -> None:
        """Count another job into this one."""
        for name in ("done", "extended", "skipped", "failed", "n_tiles", "seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.stopped = self.stopped or other.stopped

    def to_table(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "tiles_per_second": self.tiles_per_second}


def default_workers(device_type: str) -> int:
    """Reading threads: two are enough to keep a CPU encoder fed; a GPU is fed by all cores up to 16."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(16, cores) if device_type == "cuda" else min(2, cores)
