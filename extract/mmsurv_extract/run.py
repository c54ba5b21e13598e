"""The extraction job: every slide encoded once, failures noted, the store never half written.

Owns the order of work: which slides are done, one slide being prepared and another committed while a third is encoded,
what a failure stops (its slide) and what it does not (the job), and when slides of other processes are looked at again.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmsurv.errors import BadSlideIdError, MmsurvError, StoreError
from mmsurv.store import Failure, FeatureStore, SlideRecord
from mmsurv.store.leases import Leases
from mmsurv_extract.ahead import one_ahead
from mmsurv_extract.behind import OneBehind
from mmsurv_extract.discover import Discovery, SlideSource
from mmsurv_extract.draw import Draw, draw, n_wanted, nothing_drawn
from mmsurv_extract.job import SLIDE_ERRORS, FailedSlide, JobOptions, JobSummary, TileEncoder
from mmsurv_extract.prepare import Identity, PreparedSlide, identify, prepare
from mmsurv_extract.progress import Progress, duration
from mmsurv_extract.quality import inspector
from mmsurv_extract.reader import TileReader, open_reader
from mmsurv_extract.recipe import ExtractRecipe
from mmsurv_extract.record import make_record
from mmsurv_extract.resume import has_too_few, held_draw, require_same_slide
from mmsurv_extract.share import Patience, Share, job_settings
from mmsurv_extract.slide import open_slide
from mmsurv_extract.stop import JobStopped
from mmsurv_extract.unchanged import Unchanged


def probe_encoder(encoder: TileEncoder, recipe: ExtractRecipe) -> None:
    """Encode one white tile, so that an encoder that cannot take the recipe's tiles stops the job, not every slide.

    Raises:
        EncoderError: it cannot.
    """
    px = recipe.tiles.px
    encoder(np.full((1, px, px, 3), 255, np.uint8))


def run_job(
    discovery: Discovery,
    store: FeatureStore,
    recipe: ExtractRecipe,
    encoder: TileEncoder,
    options: JobOptions,
    *,
    progress: Progress,
    stop: threading.Event,
) -> JobSummary:
    """Encode every slide that has no record yet, and extend the records that hold fewer tiles than are asked for.

    Any number of processes may do this on one store: a slide another one has is left to it and looked at again in the
    end. A slide that fails is noted in the store and the job goes on. Ids claimed by several files are failures too.

    Returns:
        The summary; ``stopped`` says whether ``stop`` was set before the end. The slide in flight is then dropped.

    Raises:
        StoreError: the store can no longer be written (disk full, read-only). Records written before stay.
    """
    started = time.monotonic()
    with Leases(store.path / "leases") as leases, OneBehind() as behind:
        share = Share(store, leases, job_settings(options, recipe.tiles.max_tiles))
        job = _Job(store, recipe, encoder, options, share, behind, progress, stop)
        try:
            for slide_id, paths in discovery.collisions.items():
                job.fail(slide_id, ", ".join(map(str, paths)), _collision(slide_id, paths))
            job.work_through(discovery.sources)
            behind.settle()
            leases.sweep()
        except JobStopped:
            job.summary.stopped = True
    job.summary.seconds = time.monotonic() - started
    return job.summary


@dataclass(frozen=True)
class _Work:
    """A slide that is ours to encode."""

    prepared: PreparedSlide
    reader: TileReader
    """Open."""
    unchanged: Unchanged
    held: tuple[SlideRecord, Draw] | None
    """The record to extend."""


class _InStore:
    """The slide has the record it is to have."""


class _Elsewhere:
    """Another process is encoding the slide."""


_Sight = _Work | _InStore | _Elsewhere | Failure


class _Job:
    """The state of one run of :func:`run_job`."""

    def __init__(
        self,
        store: FeatureStore,
        recipe: ExtractRecipe,
        encoder: TileEncoder,
        options: JobOptions,
        share: Share,
        behind: OneBehind,
        progress: Progress,
        stop: threading.Event,
    ) -> None:
        self.store = store
        self.recipe = recipe
        self.encoder = encoder
        self.options = options
        self.share = share
        self.behind = behind
        self.progress = progress
        self.stop = stop
        self.summary = JobSummary()

    def work_through(self, sources: Sequence[SlideSource]) -> None:
        """Every slide once, then those that other processes had, until each has a record or a failure."""
        patience = Patience(self.share, self.progress, self.stop)
        while sources:
            elsewhere = []
            with closing(one_ahead(sources, self.look_at, _close, self.stop)) as slides:
                for source, upcoming in slides:
                    if not self.encode(source, upcoming):
                        elsewhere.append(source)
            if elsewhere:
                patience.wait(elsewhere)
            sources = elsewhere

    def look_at(self, source: SlideSource) -> _Sight:
        """What is to be done with a slide; if it is ours to encode, it is prepared. Runs beside the encoder."""
        slide_id = source.slide_id
        # A record that is there is looked at without a lease, so that a store that is done is only read.
        if slide_id not in self.store and not self.share.take(slide_id):
            return _Elsewhere()
        # Asked for once the slide is ours: before that, its failure may be just being noted.
        failure = self.share.failed_elsewhere(source)
        if failure is not None:
            return failure
        unchanged = Unchanged(source)
        with open_slide(source) as slide:
            identity = identify(slide, self.options.mpp)
            standing = self._standing(identity)
            if standing is not None:
                return standing
            prepared = prepare(slide, identity, self.recipe, self.stop)
        held = held_draw(self.store, prepared) if slide_id in self.store else None
        reader = open_reader(
            source, prepared.geometry, tile_px=self.recipe.tiles.px, workers=self.options.workers,
            inspect=inspector(self.recipe.quality, self.recipe.tiles.mpp), sample=prepared.coords,
        )  # fmt: skip
        return _Work(prepared, reader, unchanged, held)

    def _standing(self, identity: Identity) -> _InStore | _Elsewhere | None:
        """What the slide's record means for this job; None if there is work to do, which is then ours."""
        slide_id = identity.source.slide_id
        if slide_id not in self.store:
            return None
        require_same_slide(self.store, identity)
        if not has_too_few(self.store, slide_id, self.recipe.tiles.max_tiles):
            return _InStore()
        return None if self.share.take(slide_id) else _Elsewhere()

    def encode(self, source: SlideSource, upcoming: Callable[[], _Sight]) -> bool:
        """Encode one slide and have it committed, or note why not. Returns False if another process has it."""
        started = time.monotonic()
        sight: _Sight | BaseException
        try:
            sight = upcoming()
            if isinstance(sight, _Work):
                record, drawn = self._record(sight)
        except SLIDE_ERRORS as error:
            sight = error
        if isinstance(sight, _Elsewhere):
            return False
        if isinstance(sight, _Work):
            self.behind.submit(functools.partial(self._commit, sight, record, drawn, started))
            return True
        self.behind.settle()  # slides are told of in their order
        if isinstance(sight, BaseException):
            self.fail(source.slide_id, str(source.path.absolute()), sight)
        elif isinstance(sight, Failure):
            self._failed_elsewhere(sight)
        else:
            self._skip(source.slide_id)
        self.share.give_back(source.slide_id)
        return True

    def fail(self, slide_id: str, source: str, error: BaseException) -> None:
        """Note a failure in the store and go on."""
        try:
            self.store.write_failure(slide_id, error, source=source, settings=self.share.settings)
        except OSError as disk:
            raise self._unwritable(disk, slide_id) from disk
        self.summary.failed.append(FailedSlide(slide_id, type(error).__name__, str(error)))
        self.progress.end(slide_id, f"FAILED, {type(error).__name__}: {error}")

    def _failed_elsewhere(self, failure: Failure) -> None:
        self.summary.failed.append(FailedSlide(failure.slide_id, failure.error, failure.message, by_other=True))
        self.progress.end(failure.slide_id, f"FAILED in another process, {failure.error}: {failure.message}")

    def _skip(self, slide_id: str) -> None:
        if self.store.failure(slide_id) is not None:
            self.store.clear_failure(slide_id)
        self.summary.skipped.append(slide_id)
        self.progress.end(slide_id, "in the store already")

    def _record(self, work: _Work) -> tuple[SlideRecord, Draw]:
        prepared, tiles = work.prepared, self.recipe.tiles
        extended, before = work.held or (None, nothing_drawn(self.encoder.dim))
        self.progress.begin(prepared.slide_id, n_wanted(tiles.max_tiles, prepared.n_tissue_tiles) - len(before.kept))
        with work.reader as reader:
            drawn = draw(
                reader, self.encoder.encode_stream, prepared.coords, tiles.max_tiles,
                before=before, batch_size=self.options.batch_size, path=prepared.identity.source.path, stop=self.stop,
                on_tiles=self.progress.advance,
            )  # fmt: skip
            name = reader.name
        work.unchanged.require()
        device = str(self.encoder.device).partition(":")[0]
        return make_record(prepared, drawn, self.recipe, reader=name, device=device, extended=extended), drawn

    def _commit(self, work: _Work, record: SlideRecord, drawn: Draw, started: float) -> None:
        """Runs beside the encoding of the next slide."""
        prepared, held = work.prepared, work.held
        slide_id = prepared.slide_id
        try:
            published = self.store.write(record, extend=True)
        except OSError as error:
            raise self._unwritable(error, slide_id) from error
        except MmsurvError as error:
            self.fail(slide_id, str(prepared.identity.source.path.absolute()), error)
        else:
            n_new = record.n_tiles - (held[0].n_tiles if held else 0)
            self.summary.n_tiles += n_new
            outcome = _outcome(drawn, n_new, prepared.n_tissue_tiles, time.monotonic() - started)
            ended = self.summary.extended if held else self.summary.done
            if not published:
                ended, outcome = self.summary.skipped, "another process was first; its record stays"
            ended.append(slide_id)
            self.progress.end(slide_id, outcome, encoded=True)
        finally:
            self.share.give_back(slide_id)

    def _unwritable(self, error: OSError, slide_id: str) -> StoreError:
        # HDF5 gives the error number, but buries the reason in a page of its own words.
        reason = os.strerror(error.errno) if error.errno else str(error)
        return StoreError(
            f"{self.store.path} cannot be written: {reason}. Slide {slide_id} was dropped, nothing of "
            f"it is left behind; the {len(self.store)} slides in the store are whole. Make room (or check the "
            "permissions), then give the same command again: it goes on from here."
        )


def _close(sight: _Sight) -> None:
    """Let go of a slide that was made ready and is not encoded."""
    if isinstance(sight, _Work):
        sight.reader.close()


def _collision(slide_id: str, paths: Sequence[Path]) -> BadSlideIdError:
    listed = " and ".join(map(str, paths))
    return BadSlideIdError(
        f"{len(paths)} slides have the id {slide_id!r}: {listed}. An id is one slide: rename all but one, or encode "
        "them into separate stores."
    )


def _outcome(drawn: Draw, n_new: int, n_tissue_tiles: int, seconds: float) -> str:
    """Such as "24 of 90 tiles in 12 s, left out: 3 unreadable" or "16 more tiles, 40 of 90, in 8 s"."""
    n_kept = len(drawn.kept)
    of = "" if drawn.n_drawn == n_tissue_tiles else f" of {n_tissue_tiles}"
    tiles = f"{n_kept}{of} tiles" if n_new == n_kept else f"{n_new} more tiles, {n_kept}{of},"
    lost = drawn.lost()
    return f"{tiles} in {duration(seconds)}{f', left out: {lost}' if lost else ''}"
