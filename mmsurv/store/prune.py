"""What a store holds that is of no more use.

Owns that judgement. A record is never among it, nor anything that is not ours by its name and content, nor anything a
living writer may still need: such a file is younger than the age that is given, by the times of the file system, or
is the lease of a process that runs here. No link is followed: what is removed lies in the store.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmsurv.errors import MmsurvError
from mmsurv.store import holders
from mmsurv.store.base import FeatureStore
from mmsurv.store.commit import PARTIAL
from mmsurv.store.ids import is_slide_id
from mmsurv.store.leases import HEIR
from mmsurv.store.place import is_plain_file, require_folder

FOLDERS = ("slides", "failures", "leases")
"""What is looked through, besides the store's own folder."""


@dataclass(frozen=True)
class Useless:
    """A file that may go."""

    path: Path
    reason: str
    size: int


def skipped(store: FeatureStore) -> list[Path]:
    """Folders of the store that are links. They lead elsewhere, so nothing in them is removed."""
    return [store.path / name for name in FOLDERS if (store.path / name).is_symlink()]


def useless(store: FeatureStore, *, older_than_s: float) -> Iterator[Useless]:
    """Files that may go.

    Args:
        store: the store.
        older_than_s: seconds since a temporary file or a lease was last written to.

    Raises:
        StoreError: something else is where a folder belongs.
    """
    before = time.time() - older_than_s
    slides, failures, leases = (store.path / name for name in FOLDERS)
    for folder in (store.path, slides, failures):
        for path in _files(folder, f".*{PARTIAL}", store):
            yield from _if_older(path, before, "left by a writer that died, or a damaged record that was moved aside")
    for path in [*_files(leases, "*.json", store), *_files(leases, f".*{HEIR}", store)]:
        if _is_dead_lease(path):
            yield from _if_older(path, before, "a lease without a heartbeat")
    if failures in skipped(store):
        return
    for failure in store.failures():
        path = store.failure_path(failure.slide_id)
        if _has_record(store, failure.slide_id) and is_plain_file(path):
            yield Useless(path, f"failed ({failure.error}), but has a record since", path.lstat().st_size)


def _files(folder: Path, pattern: str, store: FeatureStore) -> list[Path]:
    require_folder(folder)
    return [] if folder in skipped(store) else sorted(filter(is_plain_file, folder.glob(pattern)))


def _is_dead_lease(path: Path) -> bool:
    """Whether the file is a lease, and of no process that runs here."""
    if not (path.name.endswith(HEIR) or is_slide_id(path.stem)):
        return False
    try:
        content = path.read_bytes()
    except OSError:
        return False
    if not content:
        return True  # its maker died between making it and writing to it
    holder = holders.parse(content)
    return holder is not None and not holders.lives_here(holder)


def _if_older(path: Path, before: float, reason: str) -> Iterator[Useless]:
    try:
        stat = path.lstat()
    except FileNotFoundError:
        return  # its writer was alive, and is done
    if stat.st_mtime < before:
        yield Useless(path, reason, stat.st_size)


def _has_record(store: FeatureStore, slide_id: str) -> bool:
    try:
        return slide_id in store
    except MmsurvError:
        return False
