"""Atomic publication of a file: it is there, whole, or it is not there.

Owns temporary names, flushing to disk, and publishing without replacing. Knows nothing of what the file holds.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable
from pathlib import Path

PARTIAL = ".partial"

_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def temporary_name(final: Path) -> Path:
    """A name in the folder of ``final`` that no listing takes for a record and no other writer uses."""
    return final.with_name(f".{final.stem}.{secrets.token_hex(6)}{PARTIAL}")


def publish(
    final: Path,
    write: Callable[[Path], None],
    check: Callable[[Path], None],
    *,
    replace_if: Callable[[], bool] | None = None,
) -> bool:
    """Write a file under a temporary name, flush it, check it by reading it again, then give it its name.

    Args:
        final: where the file shall be.
        write: writes the whole file at the path it is given.
        check: reads the file at the path it is given and raises if it is not what it should be.
        replace_if: asked at the last moment whether the file may take the place of the one that is there. Who has
            that one open or mapped keeps it. None: a file that is there is never replaced.

    Returns:
        True if this call published the file, False if the name was taken; then nothing was changed.

    Raises:
        OSError: the disk is full or not writable; the temporary file is removed where that is possible.
    """
    temporary = temporary_name(final)
    try:
        write(temporary)
        flush_to_disk(temporary)
        check(temporary)
        published = _link_without_replacing(temporary, final) if replace_if is None else replace_if()
        if published and replace_if is not None:
            temporary.replace(final)
        flush_to_disk(final.parent)
        return published
    finally:
        temporary.unlink(missing_ok=True)


def publish_bytes(final: Path, content: bytes, *, replace: bool = False) -> bool:
    """Publish small content atomically; with ``replace`` it takes the place of an earlier file."""
    if not replace:
        return publish(final, lambda path: _write_bytes(path, content), lambda path: None)
    temporary = temporary_name(final)
    try:
        _write_bytes(temporary, content)
        flush_to_disk(temporary)
        temporary.replace(final)
        flush_to_disk(final.parent)
    finally:
        temporary.unlink(missing_ok=True)
    return True


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


def _link_without_replacing(temporary: Path, final: Path) -> bool:
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
