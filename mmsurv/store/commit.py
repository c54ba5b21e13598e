"""Atomic publication of a file: it is there, whole, or it is not there.

Owns temporary names, flushing to disk, and publishing without replacing; how a record is replaced is in ``takeover``.
Knows nothing of what the file holds.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from mmsurv.errors import StoreError

PARTIAL = ".partial"

ATTEMPTS = 3
"""How often a file is written whose temporary file was removed meanwhile."""

_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def temporary_name(final: Path) -> Path:
    """A name in the folder of ``final`` that no listing takes for a record and no other writer uses."""
    return final.with_name(f".{final.stem}.{secrets.token_hex(6)}{PARTIAL}")


def publish(
    final: Path,
    write: Callable[[Path], None],
    check: Callable[[Path], object],
    *,
    place: Callable[[Path, Path], bool] | None = None,
) -> bool:
    """Write a file under a temporary name, flush it, check it by reading it again, then give it its name.

    A temporary file that someone removes meanwhile, as by pruning by hand, is written again.

    Args:
        final: where the file shall be.
        write: writes the whole file at the path it is given.
        check: reads the file at the path it is given and raises if it is not what it should be.
        place: gives the temporary file, its first argument, the name ``final``, its second, and says whether it did.
            None: a file that is there is never replaced.

    Returns:
        True if this call published the file, False if the name was taken; then nothing was changed.

    Raises:
        OSError: the disk is full or not writable; the temporary file is removed where that is possible.
        StoreError: the temporary file was removed each time.
    """
    for _ in range(ATTEMPTS):
        temporary = temporary_name(final)
        try:
            write(temporary)
            try:
                flush_to_disk(temporary)
                check(temporary)
                published = (place or link_without_replacing)(temporary, final)
            except Exception:
                # Whatever the step made of it, it is no fault of the file's if there is none.
                if os.path.lexists(temporary):
                    raise
                continue
            flush_to_disk(final.parent)
            return published
        finally:
            temporary.unlink(missing_ok=True)
    raise StoreError(
        f"{final} could not be written: its temporary file was removed by another program {ATTEMPTS} times, before it "
        f"was whole. Find out what removes files from {final.parent}, then give the same command again."
    )


def publish_bytes(final: Path, content: bytes, *, replace: bool = False) -> bool:
    """Publish small content atomically; with ``replace`` it takes the place of an earlier file."""
    return publish(
        final, lambda path: _write_bytes(path, content), lambda path: None, place=_replace if replace else None
    )


def flush_to_disk(path: Path) -> None:
    """fsync a file or a folder by path."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot fsync a folder; the name is then as durable as they make it.
        if not (path.is_dir() and error.errno in (errno.EINVAL, errno.ENOTSUP, errno.EBADF)):
            raise
    finally:
        os.close(descriptor)


def _write_bytes(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)


def _replace(temporary: Path, final: Path) -> bool:
    temporary.replace(final)
    return True


def link_without_replacing(temporary: Path, final: Path) -> bool:
    """Give a file a second name, or where there are no hard links another name, unless that is taken."""
    try:
        os.link(temporary, final)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        # Without hard links there is a moment in which two writers could both publish. Both hold a whole,
        # checked record of the same recipe, so whichever stays is right.
        if final.exists():
            return False
        temporary.rename(final)
    return True
