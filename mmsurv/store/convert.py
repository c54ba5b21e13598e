"""A store copied into another format, without loss.

Owns the copying: every record is hashed as it is read, and its digests in the copy are those it had. The copy keeps
the recipe, when and with which libraries the store was made, and its failures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mmsurv.errors import ConfigError, CorruptRecordError, MmsurvError, StoreError
from mmsurv.store.base import FeatureStore
from mmsurv.store.factory import open_or_make
from mmsurv.store.manifest import with_backend
from mmsurv.store.record import RESERVED, SlideRecord


@dataclass
class Converted:
    """What came of the slides of a store."""

    store: FeatureStore
    copied: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    """Slides the copy had already."""
    problems: dict[str, str] = field(default_factory=dict)


def convert(
    source: FeatureStore, target: Path, *, backend: str, on_slide: Callable[[str], None] | None = None
) -> Converted:
    """Copy a store; what the copy holds already is not written again, so an interrupted one goes on.

    Args:
        source: the store to copy.
        target: the copy's folder; new, or a copy of the same recipe, dim, dtype and backend.
        backend: "hdf5" or "zarr".
        on_slide: called with each id once it is dealt with.

    Returns:
        What was copied. A record that is damaged, or is another one in the copy, is a problem; the rest is copied.

    Raises:
        RecipeMismatchError: the store at ``target`` is another one.
        StoreError: it cannot be written.
        ConfigError: ``target`` is the store itself.
    """
    if target.exists() and target.resolve() == source.path.resolve():
        raise ConfigError(f"{target} is the store itself. Name a new folder.")
    done = Converted(open_or_make(target, with_backend(source.manifest, backend)))
    for slide_id in source.slide_ids():
        try:
            (done.copied if _copy(source, done.store, slide_id) else done.kept).append(slide_id)
        except OSError as error:
            raise StoreError(
                f"{target} cannot be written: {error.strerror or error}. What was copied is whole; make room, then "
                "give the same command again: it goes on from here."
            ) from error
        except MmsurvError as error:
            done.problems[slide_id] = f"{type(error).__name__}: {error}"
        if on_slide:
            on_slide(slide_id)
    for failure in source.failures():
        done.store.copy_failure(failure)
    return done


def without_seal(record: SlideRecord) -> SlideRecord:
    """A record as it is given to a store to write: without the attributes that are the store's."""
    attributes = {key: value for key, value in record.attributes.items() if key not in RESERVED}
    return dataclasses.replace(record, attributes=attributes)


def _copy(source: FeatureStore, target: FeatureStore, slide_id: str) -> bool:
    """Copy one record; False if the copy has it."""
    digest = source.attributes(slide_id).get("record_sha256")
    if digest is None:
        raise CorruptRecordError(
            f"{source.record_path(slide_id)} has no record_sha256, which says whether it is whole. Delete it "
            "and encode or import the slide again."
        )
    if slide_id in target and target.attributes(slide_id).get("record_sha256") == digest:
        return False
    record = source.read(slide_id)
    if not target.write(without_seal(record), extend=True):
        raise StoreError(
            f"{target.record_path(slide_id)} is another record than {source.record_path(slide_id)}. Delete it to copy "
            "it anew."
        )
    return True
