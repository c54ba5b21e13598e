"""What lies at a place of the store where a record or a folder belongs.

Owns how something else there is named, and its remedy.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from mmsurv.errors import StoreError

_KINDS = (
    (stat.S_ISREG, "a file"), (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
)  # fmt: skip


def kind_of(path: Path) -> str:
    """What is at ``path``, in words; a link is what it leads to."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return "a link that leads nowhere" if path.is_symlink() else "nothing"
    return next((words for is_kind, words in _KINDS if is_kind(mode)), "something unknown")


def no_record_at(path: Path) -> str | None:
    """A sentence on what is at a record's place and is no file; None for a file, and where there is nothing."""
    if not os.path.lexists(path) or path.is_file():
        return None
    return f"{path} is no file but {kind_of(path)}, so no record can be there. Move it away."


def require_folder(path: Path) -> None:
    """Raise StoreError if there is something at ``path`` that is no folder. There may be nothing."""
    if os.path.lexists(path) and not path.is_dir():
        raise StoreError(f"{path} is {kind_of(path)}, and a folder of the store belongs there. Move it away.")


def restless(path: Path) -> StoreError:
    """The error for a record that was another file at each look."""
    return StoreError(f"{path} changes all the time it is read. Find out what writes to it; a record is never edited.")


def is_plain_file(path: Path) -> bool:
    """Whether there is a file itself at ``path``, not a link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False
