"""Whether a process still runs, told from another that was given its number later.

Owns what Linux says about processes in /proc. Elsewhere nothing is known, and ``machine`` is empty.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

_PROC = Path("/proc")


@functools.cache
def machine() -> str:
    """Names this boot of this kernel and this process namespace: only within these does a process number mean anything.

    Two containers of one host may have the same host name and different processes of the same number.
    """
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""


def start_time(pid: int) -> str | None:
    """When a process started, in clock ticks since boot; None if that cannot be told."""
    stat = _stat(pid)
    return stat[1] if stat else None


def has_ended(pid: int, started: str) -> bool:
    """Whether the process that had this number, and was started then, is no more. In doubt it lives.

    Only for a process of this :func:`machine`.
    """
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass  # there is one, another user's
    stat = _stat(pid)
    # A system may hide the processes of other users from /proc.
    return stat is not None and (stat[0] in ("Z", "X") or stat[1] != started)


def _stat(pid: int) -> tuple[str, str] | None:
    """State and start time."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The second field, the program's name in brackets, may hold spaces and brackets itself.
    fields = stat[stat.rindex(")") + 1 :].split()
    return fields[0], fields[19]
