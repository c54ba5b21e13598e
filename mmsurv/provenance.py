"""Where a number came from: recipe fingerprints, file digests, versions.

Owns the canonical form of a recipe. Two recipes are the same when their canonical JSON is the same, whatever the
order of their keys or the spelling of their floats in the source file.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

LIBRARIES = (
    "mmsurv", "torch", "torchvision", "openslide-python", "openslide-bin", "h5py", "zarr", "numpy", "pandas",
    "scikit-image", "scikit-survival",
)  # fmt: skip


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces; refuses NaN and Inf, which have no canonical form."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fingerprint(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value).encode("utf-8")).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions(names: Iterable[str] = LIBRARIES) -> dict[str, str]:
    """Installed versions, without importing anything; a missing library is left out."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """What a run was made on: enough to explain why another machine's last digits differ."""
    return {"system": platform.system(), "machine": platform.machine(), "node": platform.node()}


def now() -> str:
    """The time in UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def differences(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Fields (dotted) in which two nested tables differ, with both values; a missing one is None."""
    flat_left, flat_right = dict(_flatten(left)), dict(_flatten(right))
    return [
        (key, flat_left.get(key), flat_right.get(key))
        for key in sorted(flat_left.keys() | flat_right.keys())
        if flat_left.get(key) != flat_right.get(key)
    ]


def difference_table(left: Mapping[str, Any], right: Mapping[str, Any]) -> str:
    """One line per differing field, ``field  left → right``, aligned, for messages."""
    rows = [(key, _short(a), _short(b)) for key, a, b in differences(left, right)]
    if not rows:
        return "  (no difference)"
    wide, high = max(len(row[0]) for row in rows), max(len(row[1]) for row in rows)
    return "\n".join(f"  {key:<{wide}}  {a:<{high}} → {b}" for key, a, b in rows)


def _flatten(table: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _short(value: Any) -> str:
    text = "–" if value is None else str(value)
    looks_like_digest = len(text) == 64 and all(c in "0123456789abcdef" for c in text)
    return f"{text[:12]}…" if looks_like_digest else text
