"""How a record's name is taken away from the file that has it: by a longer record, or because the file is damaged.

Owns that no good record is lost by it when several writers do so at once. Looking at the file and renaming are two
steps; a lock, which the kernel releases when its holder dies, keeps other writers out between them. A file system may
have no locks, or locks that other machines do not see, so what was replaced or moved is looked at afterwards as well,
and put back if it was the better one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mmsurv.store.checked import Signature, is_still
from mmsurv.store.commit import link_without_replacing, temporary_name

LONGEST_WAIT_S = 30.0
"""For the lock, which is held for two renamings. Longer is a holder that was suspended; the work goes on without it."""
POLL_S = 0.005


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold the lock on a file, which is neither read nor written. Yields whether it is held.

    It is not where the file system has no locks, and where another process holds it all of ``LONGEST_WAIT_S``.
    """
    try:
        descriptor = _open(path)
    except OSError:
        yield False
        return
    try:
        yield _lock(descriptor)
    finally:
        # Not by closing alone: a process forked meanwhile has the descriptor too.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def replace(
    temporary: Path, final: Path, *, seen: Signature | None, lock_file: Path, was_better: Callable[[Path], bool]
) -> bool:
    """Rename ``temporary`` over ``final`` if that is still the file that was seen.

    Args:
        temporary: the new file.
        final: the name.
        seen: signature of the file that may be replaced; of None, no file is.
        lock_file: what all who do this to files of one store lock.
        was_better: whether a file that was replaced although it is not the one seen is to be put back.

    Returns:
        False if ``final`` is another file than the one seen.
    """
    aside = temporary_name(final)
    with locked(lock_file):
        if not is_still(final, seen):
            return False
        with contextlib.suppress(OSError):
            os.link(final, aside)
        try:
            temporary.replace(final)
            if aside.exists() and not is_still(aside, seen) and was_better(aside):
                aside.replace(final)
                return False
        finally:
            aside.unlink(missing_ok=True)
    return True


def move_aside(final: Path, *, seen: Signature, lock_file: Path) -> Path | None:
    """Rename a damaged file out of the way if it is still the one that was seen. Returns its new name, or None."""
    aside = temporary_name(final)
    with locked(lock_file):
        if not is_still(final, seen):
            return None
        try:
            final.rename(aside)
        except FileNotFoundError:
            return None
        if is_still(aside, seen):
            return aside
        link_without_replacing(aside, final)
        aside.unlink(missing_ok=True)
        return None


def _open(path: Path) -> int:
    try:
        # NFS locks exclusively only what is open for writing.
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except PermissionError:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _lock(descriptor: int) -> bool:
    waited_since = time.monotonic()
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() - waited_since > LONGEST_WAIT_S:
                return False
            time.sleep(POLL_S)
        except OSError:
            return False  # the file system has no locks
        else:
            return True
