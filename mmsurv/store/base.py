"""The feature store, and the life of a record in it.

Owns what every backend shares: ids, the atomic commit, what "done" means, checksums on reading, failures. What they do
not share is in ``backend``.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmsurv.errors import CorruptRecordError, RecordNotFoundError, StoreError
from mmsurv.store import listing, takeover
from mmsurv.store.backend import Backend
from mmsurv.store.checked import CheckedRecords, Signature, is_still, signature
from mmsurv.store.commit import publish
from mmsurv.store.extend import draws_as_many, extends
from mmsurv.store.extent import Extent, read_rows
from mmsurv.store.failures import Failure, FailureLog
from mmsurv.store.ids import check_slide_id
from mmsurv.store.manifest import FILE_NAME, Manifest
from mmsurv.store.place import no_record_at, require_folder, restless
from mmsurv.store.record import Scalar, SlideRecord
from mmsurv.store.seal import require_intact, require_own, seal

logger = logging.getLogger("mmsurv")

ATTEMPTS = 10
"""How often a record is looked at again that another process has extended meanwhile."""


class FeatureStore(Backend):
    """Features of many slides, all made by one recipe.

    Any number of processes may read and write one store. A record is there, whole, or it is not there.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self._slides = path / "slides"
        self._failures = FailureLog(path / "failures")
        self._lock_file = path / FILE_NAME
        self._checked = CheckedRecords(path)
        self._extents: dict[str, tuple[Signature, Extent | None]] = {}

    @property
    def recipe(self) -> Mapping[str, Any]:
        return self.manifest.recipe

    @property
    def recipe_sha256(self) -> str:
        return self.manifest.recipe_sha256

    @property
    def dim(self) -> int:
        return self.manifest.dim

    @property
    def dtype(self) -> np.dtype:
        return self.manifest.numpy_dtype

    def slide_ids(self) -> list[str]:
        """Ids of the slides that have a record, sorted; the records themselves are not opened."""
        return listing.slide_ids(self._slides, self.suffix)

    def __len__(self) -> int:
        return len(self.slide_ids())

    def __contains__(self, slide_id: str) -> bool:
        """Whether the slide is done: a readable record of this store's recipe.

        Raises:
            RecipeMismatchError: there is a record, of another recipe.
        """
        try:
            self._own_attributes(slide_id)
        except (RecordNotFoundError, CorruptRecordError):
            return False
        return True

    def record_path(self, slide_id: str) -> Path:
        """The file that holds, or would hold, a slide's record."""
        return self._slides / f"{check_slide_id(slide_id)}{self.suffix}"

    def attributes(self, slide_id: str) -> dict[str, Scalar]:
        """A record's attributes, without the recipe's text."""
        attributes = self._own_attributes(slide_id)
        attributes.pop("recipe", None)
        return attributes

    def n_tiles(self, slide_id: str) -> int:
        """Number of feature rows of a slide, from the record's header; the features are not read or hashed."""
        return self.read_shape(self._existing(slide_id))[0]

    def strays(self) -> list[Path]:
        """What lies among the records and is none: neither named by a slide's id nor a temporary file."""
        return listing.strays(self._slides, self.suffix)

    def leftovers(self) -> list[Path]:
        """Temporary files of writers that died. They are never read; a living writer may own one."""
        return listing.leftovers(self._slides)

    def read(self, slide_id: str) -> SlideRecord:
        """A whole record, hashed.

        Raises:
            RecordNotFoundError: the slide has no record.
            CorruptRecordError: the file is truncated or its bytes are not those that were written.
            RecipeMismatchError: the record is of another recipe.
        """
        path = self._existing(slide_id)
        before = signature(path)
        record = self._read_intact(path)
        self._checked.remember(path.name, before)
        return record

    def features(self, slide_id: str, rows: slice = slice(None)) -> np.ndarray:
        """Features of a slide, (N, D) in the store's dtype; a prefix of the rows is a random sample of the tiles.

        The record is hashed the first time this user reads it, and again when the file has changed.

        Args:
            slide_id: the slide.
            rows: which rows, a slice of step 1.

        Raises:
            RecordNotFoundError, CorruptRecordError, RecipeMismatchError: as for :meth:`read`.
        """
        path = self.record_path(slide_id)
        for _ in range(ATTEMPTS):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # of a FIFO no writer is waited for
            except FileNotFoundError:
                raise self._missing(slide_id) from None
            try:
                # By descriptor: the file that is read is the one that was checked, whatever takes its name meanwhile.
                known = self._extents.get(path.name)
                if known and known[0] == signature(descriptor):
                    return self.read_rows(path, rows) if known[1] is None else read_rows(descriptor, known[1], rows)
            finally:
                os.close(descriptor)
            self.extent(slide_id)
        raise restless(path)

    def extent(self, slide_id: str) -> Extent | None:
        """Where a checked record's features lie in its file, for memory mapping; None if not as plain bytes."""
        path = self.record_path(slide_id)
        for _ in range(ATTEMPTS):
            try:
                found = signature(path)
            except FileNotFoundError:
                raise self._missing(slide_id) from None
            known = self._extents.get(path.name)
            if known and known[0] == found:
                return known[1]
            check = self._own_attributes if self._checked.knows(path.name, found) else self.read
            check(slide_id)
            extent = self.read_extent(path)
            if is_still(path, found):
                self._extents[path.name] = (found, extent)
                return extent
        raise restless(path)

    def write(self, record: SlideRecord, *, extend: bool = False) -> bool:
        """Commit a record: temporary file, fsync, read back, publish under its name.

        A damaged file under that name is moved aside first. A failure noted for the slide is cleared.

        Args:
            record: the slide's record, in rank order.
            extend: let the record take the place of one that drew fewer tiles (rows and rejected ones), if that one
                is a prefix of it. Who has the old file open or mapped keeps it.

        Returns:
            True if this call published the record; False if a good one was there already, which stays.

        Raises:
            StoreError: the record's parts do not fit together or hold NaN or Inf, or it is no extension.
            OSError: the disk is full or read-only; nothing is left behind.
            RecipeMismatchError: there is a record of another recipe.
        """
        record = seal(record, self.manifest)
        final = self.record_path(record.slide_id)
        require_folder(self._slides)
        self._slides.mkdir(exist_ok=True)
        for _ in range(ATTEMPTS):
            if problem := no_record_at(final):
                raise StoreError(problem)
            published = self._try_to_publish(record, final, extend=extend)
            if published is not None:
                self.clear_failure(record.slide_id)
                return published
        raise restless(final)

    def _try_to_publish(self, record: SlideRecord, final: Path, *, extend: bool) -> bool | None:
        """Whether the record was published; None if another writer was faster and it is to be judged again."""
        seen = signature(final) if final.exists() else None
        held = self._intact_or_aside(final, seen) if seen else None
        if held and not (extend and extends(record, held)):
            return False
        replace = functools.partial(
            takeover.replace,
            seen=seen,
            lock_file=self._lock_file,
            was_better=lambda path: draws_as_many(lambda: self._read_intact(path), record),
        )
        published = publish(
            final,
            write=lambda path: self.write_file(path, record),
            check=self._read_intact,
            place=replace if held else None,
        )
        if not published:
            return None
        self._checked.remember(final.name, signature(final))
        return True

    def _intact_or_aside(self, final: Path, seen: Signature) -> SlideRecord | None:
        """The record at ``final``; where it is damaged, its file is moved aside, and None."""
        try:
            return self.read(final.name.removesuffix(self.suffix))
        except RecordNotFoundError:
            return None
        except CorruptRecordError:
            aside = takeover.move_aside(final, seen=seen, lock_file=self._lock_file)
            if aside:
                logger.warning("%s is damaged; it is kept as %s and written again.", final, aside.name)
            return None

    def write_failure(
        self, slide_id: str, error: BaseException, *, source: str, settings: Mapping[str, Any] | None = None
    ) -> Failure:
        """Note that a slide could not be encoded, with the traceback and the number of attempts.

        Args:
            source: the file it was to be read from.
            settings: what besides the recipe it was tried with; flat and JSON-able.
        """
        return self._failures.write(slide_id, error, source=source, settings=settings)

    def failure(self, slide_id: str) -> Failure | None:
        """The failure noted for one slide, or None."""
        return self._failures.get(slide_id)

    def failures(self) -> list[Failure]:
        """Slides that could not be encoded, by id."""
        return self._failures.all()

    def copy_failure(self, failure: Failure) -> None:
        """Note another store's failure as it is, unless the slide has a record here."""
        if failure.slide_id not in self.slide_ids():
            self._failures.put(failure)

    def failure_path(self, slide_id: str) -> Path:
        """The file that holds, or would hold, a slide's failure."""
        return self._failures.path(slide_id)

    def clear_failure(self, slide_id: str) -> None:
        self._failures.clear(slide_id)

    def verify(self, slide_id: str) -> list[str]:
        """Check one record from its bytes, whatever was remembered. Returns problems; none means it is good."""
        from mmsurv.store.verify import examine

        return examine(self, slide_id).problems

    def _existing(self, slide_id: str) -> Path:
        path = self.record_path(slide_id)
        if not path.is_file():
            raise self._missing(slide_id)
        return path

    def _missing(self, slide_id: str) -> RecordNotFoundError:
        what = no_record_at(self.record_path(slide_id))
        return RecordNotFoundError(what or f"{self.path} has no record of slide {slide_id}.")

    def _own_attributes(self, slide_id: str) -> dict[str, Scalar]:
        path = self._existing(slide_id)
        attributes = self.read_attributes(path)
        self._require_own(attributes, path)
        return attributes

    def _read_intact(self, path: Path) -> SlideRecord:
        record = self.read_file(path)
        self._require_intact(record, path)
        return record

    def _require_own(self, attributes: Mapping[str, Scalar], path: Path) -> None:
        require_own(attributes, path, self.manifest, suffix=self.suffix)

    def _require_intact(self, record: SlideRecord, path: Path) -> None:
        self._require_own(record.attributes, path)
        require_intact(record, path)
