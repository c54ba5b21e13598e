"""How much memory features may take.

Owns what counts as available: what the machine has free or can free at once, and no more than each control group this
process is in has left. Containers and batch systems set limits by control groups, of version 1 or 2.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

SHARE = 0.5
"""Of the available memory, what features may take unless said otherwise; the rest is for models and for others."""

_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_VERSION_2 = ("memory.max", "memory.current", "inactive_file")


def default_budget() -> int:
    """Half of the available memory, in bytes."""
    return int(available() * SHARE)


def available(*, proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes this process could take without others being swapped out or itself being killed.

    Args:
        proc, groups: where the system says so.
    """
    return max(0, min([_of_machine(proc), *_left_in_groups(proc, groups)]))


def size_text(n_bytes: int) -> str:
    """Bytes for people: "0 bytes", "1.5 MB", "64.0 GB"; units of 1000, as options are given in."""
    size, unit = float(n_bytes), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{n_bytes} bytes" if unit == "bytes" else f"{size:.3g} {unit}"


def exact_text(n_bytes: int) -> str:
    """The same with all digits beside it, where two sizes may be nearly equal: "1.3 kB (1296 bytes)"."""
    text = size_text(n_bytes)
    return text if text.endswith("bytes") else f"{text} ({n_bytes} bytes)"


def _of_machine(proc: Path) -> int:
    try:
        lines = (proc / "meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _left_in_groups(proc: Path, groups: Path) -> Iterator[int]:
    """What is left below the limit of each control group that has one."""
    try:
        lines = (proc / "self" / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _left(groups, path, _VERSION_2)
        elif "memory" in controllers.split(","):
            yield from _left(groups / "memory", path, _VERSION_1)


def _left(root: Path, path: str, names: tuple[str, str, str]) -> Iterator[int]:
    """The group's own limit and those of the groups it is in; in a container, the root is the container's."""
    own = PurePosixPath(path.lstrip("/"))
    limit_name, usage_name, reclaimable_name = names
    for group in (own, *own.parents):
        folder = root / group
        try:
            limit, used = (int((folder / name).read_text(encoding="ascii")) for name in (limit_name, usage_name))
            stat = (folder / "memory.stat").read_text(encoding="ascii").split()
        except (OSError, ValueError):  # no such file here, or the limit is "max"
            continue
        reclaimable = int(stat[stat.index(reclaimable_name) + 1]) if reclaimable_name in stat else 0
        yield limit - used + reclaimable
