"""How settings and configurations are called: short names, values for people, and folders that are safe.

Owns the spelling only. A configuration's name is the name of its folder, so it stays readable on every file system.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmsurv.provenance import fingerprint
from mmsurv_train.options import OVERRIDES

LONGEST = 100
"""Characters of a configuration's name; beyond, it is cut and ends in a digest."""
ALL = ("bags.size", "fit.batch_size")
"""Settings of which 0 means all."""

_SHORT = {f"{table}.{key}": name for name, (table, key) in OVERRIDES.items()}


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """What each dotted setting is called: as its option is, or its last part; the whole key where two would clash."""
    keys = list(keys)
    short = {key: _SHORT.get(key, key.split(".")[-1]) for key in keys}
    taken = Counter(short.values())
    return {key: name if taken[name] == 1 else key for key, name in short.items()}


def label(key: str, value: Any) -> str:
    """A value for people: ``0.001``, ``all`` tiles, ``64+32`` widths, a dash for none."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if key in ALL and value == 0:
        return "all"
    if isinstance(value, list | tuple):
        return "+".join(label("", item) for item in value) or "none"
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return str(value)


def configuration_names(combinations: Sequence[tuple[str | None, Mapping[str, Any]]], *, default: str) -> list[str]:
    """A name for every combination, in their order: unique, also where a file system ignores case.

    Args:
        combinations: the row's name (None without rows), and the grid's settings by dotted key.
        default: the name of one configuration without row and grid.
    """
    short = short_names(dict.fromkeys(key for _, settings in combinations for key in settings))
    plain = []
    for row, settings in combinations:
        parts = [] if row is None else [row]
        parts += [f"{short[key]}={label(key, value)}" for key, value in settings.items()]
        plain.append(",".join(parts) or default)
    safe = [_safe(name) for name in plain]
    taken = Counter(name.lower() for name in safe)
    return [
        name if name == wanted and taken[name.lower()] == 1 else _with_digest(name, [row, dict(settings)])
        for name, wanted, (row, settings) in zip(safe, plain, combinations, strict=True)
    ]


def _safe(name: str) -> str:
    """The name without what a folder's name must not hold."""
    kept = re.sub(r"[^A-Za-z0-9._=,+-]", "-", name)[:LONGEST]
    return re.sub(r"^[.-]+", "", kept).rstrip(".") or "configuration"


def _with_digest(name: str, meant: Any) -> str:
    return f"{name[: LONGEST - 9]}-{fingerprint(meant)[:8]}"
