"""The extraction job: every slide encoded once, failures noted, the store never half written.

Owns the order of work: which slides are done, the slide being prepared while another is encoded, what a failure
stops (its slide) and what it does not (the job).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsurv.errors import BadSlideIdError, MmsurvError, StoreError, UnreadableSlideError
from mmsurv.store import FeatureStore
from mmsurv_extract.discover import Discovery, SlideSource
from mmsurv_extract.prepare import PreparedSlide, identify, prepare
from mmsurv_extract.progress import Progress, duration
from mmsurv_extract.reader import open_reader
from mmsurv_extract.recipe import ExtractRecipe
from mmsurv_extract.record import make_record
from mmsurv_extract.resolution import MppOptions
from mmsurv_extract.resume import require_same_slide, warn_if_smaller
from mmsurv_extract.slide import open_slide
from mmsurv_extract.stop import JobStopped, stop_if_set

if TYPE_CHECKING:
    from mmsurv_extract.encoder import Encoder

MAX_UNREADABLE = 0.5
"""A slide more than half of whose tiles cannot be read has failed."""
SLIDE_ERRORS = (MmsurvError, OSError, ValueError, MemoryError)
"""What may go wrong with one slide without stopping the others. Anything else is a fault of ours and is shown."""


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
    """A slide that has no record after the job."""

    slide_id: str
    error: str
    message: str


@dataclass
class JobSummary:
    """What a job did."""

    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    """Slides that had a record already."""
    failed: list[FailedSlide] = field(default_factory=list)
    n_tiles: int = 0
    seconds: float = 0.0
    stopped: bool = False

    @property
    def n_slides(self) -> int:
        return len(self.done) + len(self.skipped) + len(self.failed)

    @property
    def tiles_per_second(self) -> float:
        return self.n_tiles / self.seconds if self.seconds else 0.0

    def to_table(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "tiles_per_second": self.tiles_per_second}


def default_workers(device_type: str) -> int:
    """Reading threads: two are enough to keep a CPU encoder fed; a GPU is fed by all cores up to 16."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(16, cores) if device_type == "cuda" else min(2, cores)


def probe_encoder(encoder: Encoder, recipe: ExtractRecipe) -> None:
    """Encode one white tile, so that an encoder that cannot take the recipe's tiles stops the job, not every slide.

    Raises:
        EncoderError: it cannot.
    """
    px = recipe.tiles.px
    encoder(np.full((1, px, px, 3), 255, np.uint8))


def first_tiles(prepared: PreparedSlide, count: int) -> PreparedSlide:
    """A slide with the first ``count`` of its tiles; 0 means all."""
    end = count or None
    return replace(prepared, coords=prepared.coords[:end], tissue=prepared.tissue[:end])


def run_job(
    discovery: Discovery,
    store: FeatureStore,
    recipe: ExtractRecipe,
    encoder: Encoder,
    options: JobOptions,
    *,
    progress: Progress,
    stop: threading.Event,
) -> JobSummary:
    """Encode every slide that has no record yet.

    A slide that fails is noted in the store and the job goes on. Ids claimed by several files are failures too.

    Returns:
        The summary; ``stopped`` says whether ``stop`` was set before the end. The slide in flight is then dropped.

    Raises:
        StoreError: the store can no longer be written (disk full, read-only). Records written before stay.
    """
    job = _Job(store, recipe, encoder, options, progress, stop)
    started = time.monotonic()
    try:
        for slide_id, paths in discovery.collisions.items():
            job.fail(slide_id, ", ".join(map(str, paths)), _collision(slide_id, paths))
        with closing(_one_ahead(discovery.sources, job.look_at, stop)) as slides:
            for source, upcoming in slides:
                job.encode(source, upcoming)
    except JobStopped:
        job.summary.stopped = True
    job.summary.seconds = time.monotonic() - started
    return job.summary


class _Job:
    """The state of one run of :func:`run_job`."""

    def __init__(
        self,
        store: FeatureStore,
        recipe: ExtractRecipe,
        encoder: Encoder,
        options: JobOptions,
        progress: Progress,
        stop: threading.Event,
    ) -> None:
        self.store = store
        self.recipe = recipe
        self.encoder = encoder
        self.options = options
        self.progress = progress
        self.stop = stop
        self.summary = JobSummary()

    def look_at(self, source: SlideSource) -> PreparedSlide | None:
        """Prepare a slide, or None if its record is in the store. Runs beside the encoder."""
        with open_slide(source) as slide:
            identity = identify(slide, self.options.mpp)
            if source.slide_id in self.store:
                require_same_slide(self.store, identity)
                warn_if_smaller(self.store, source.slide_id, self.recipe.tiles.max_tiles)
                return None
            return first_tiles(prepare(slide, identity, self.recipe, self.stop), self.recipe.tiles.max_tiles)

    def encode(self, source: SlideSource, upcoming: Callable[[], PreparedSlide | None]) -> None:
        """Encode and commit one slide, or note why not."""
        started = time.monotonic()
        try:
            prepared = upcoming()
            if prepared is None:
                self._skip(source.slide_id)
                return
            features, read = self._features(prepared)
            record = make_record(prepared, features, read, self.recipe)
        except SLIDE_ERRORS as error:
            self.fail(source.slide_id, str(source.path), error)
            return
        try:
            self.store.write(record)
        except OSError as error:
            raise self._unwritable(error, source.slide_id) from error
        except MmsurvError as error:
            self.fail(source.slide_id, str(source.path), error)
            return
        self.summary.done.append(source.slide_id)
        self.summary.n_tiles += record.n_tiles
        self.progress.end(source.slide_id, _outcome(prepared, read, time.monotonic() - started), encoded=True)

    def fail(self, slide_id: str, source: str, error: BaseException) -> None:
        """Note a failure in the store and go on."""
        try:
            self.store.write_failure(slide_id, error, source=source)
        except OSError as disk:
            raise self._unwritable(disk, slide_id) from disk
        self.summary.failed.append(FailedSlide(slide_id, type(error).__name__, str(error)))
        self.progress.end(slide_id, f"FAILED, {type(error).__name__}: {error}")

    def _skip(self, slide_id: str) -> None:
        self.store.clear_failure(slide_id)
        self.summary.skipped.append(slide_id)
        self.progress.end(slide_id, "in the store already")

    def _features(self, prepared: PreparedSlide) -> tuple[np.ndarray, np.ndarray]:
        """Features (N, D) float32 of the prepared tiles, and which of them could be read (N,)."""
        n_tiles = len(prepared.coords)
        features = np.zeros((n_tiles, self.encoder.dim), np.float32)
        read = np.zeros(n_tiles, bool)
        self.progress.begin(prepared.slide_id, n_tiles)
        with open_reader(
            prepared.identity.source,
            prepared.geometry,
            tile_px=self.recipe.tiles.px,
            workers=self.options.workers,
            sample=prepared.coords,
        ) as reader:
            for batch in reader.batches(prepared.coords, batch_size=self.options.batch_size, stop=self.stop):
                stop_if_set(self.stop)
                features[batch.rows] = self.encoder(batch.tiles)
                read[batch.rows] = True
                self.progress.advance(len(batch.rows))
        stop_if_set(self.stop)
        if len(reader.rejected) > MAX_UNREADABLE * n_tiles:
            raise UnreadableSlideError(
                f"{prepared.identity.source.path}: more than half of its {n_tiles} tiles cannot be read. Copy the file "
                f"again, or leave the slide out. The last error: {reader.last_error}"
            )
        return features, read

    def _unwritable(self, error: OSError, slide_id: str) -> StoreError:
        # HDF5 gives the error number, but buries the reason in a page of its own words.
        reason = os.strerror(error.errno) if error.errno else str(error)
        return StoreError(
            f"{self.store.path} cannot be written: {reason}. Slide {slide_id} was dropped, nothing of "
            f"it is left behind; the {len(self.store)} slides in the store are whole. Make room (or check the "
            "permissions), then give the same command again: it goes on from here."
        )


def _one_ahead(
    sources: Sequence[SlideSource], look_at: Callable[[SlideSource], PreparedSlide | None], stop: threading.Event
) -> Generator[tuple[SlideSource, Callable[[], PreparedSlide | None]], None, None]:
    """Each slide with a way to wait for its preparation; the next one is prepared meanwhile, and only that."""
    with ThreadPoolExecutor(1, thread_name_prefix="next-slide") as ahead:
        pending = ahead.submit(look_at, sources[0]) if sources else None
        for i, source in enumerate(sources):
            current = pending
            assert current is not None
            ready = _settled(current, stop)
            pending = ahead.submit(look_at, sources[i + 1]) if i + 1 < len(sources) else None
            yield source, ready.result


def _settled(future: Future[PreparedSlide | None], stop: threading.Event) -> Future[PreparedSlide | None]:
    """Wait until a preparation has ended, well or not, looking at ``stop`` meanwhile."""
    while True:
        stop_if_set(stop)
        try:
            future.exception(timeout=0.2)
        except FutureTimeoutError:
            continue
        return future


def _collision(slide_id: str, paths: Sequence[Path]) -> BadSlideIdError:
    listed = " and ".join(map(str, paths))
    return BadSlideIdError(
        f"{len(paths)} slides have the id {slide_id!r}: {listed}. An id is one slide: rename all but one, or encode "
        "them into separate stores."
    )


def _outcome(prepared: PreparedSlide, read: np.ndarray, seconds: float) -> str:
    n_read = int(np.count_nonzero(read))
    sampled = "" if len(read) == prepared.n_tissue_tiles else f" of {prepared.n_tissue_tiles}"
    lost = "" if n_read == len(read) else f", {len(read) - n_read} UNREADABLE"
    return f"{n_read}{sampled} tiles in {duration(seconds)}{lost}"
