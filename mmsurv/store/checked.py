"""Remembers which record files were already hashed and found whole.

Owns a file in the user's cache folder, never in the store. A record counts as checked while its size, modification
time and inode are the same; ``mmsurv store verify`` does not ask here.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path

logger = logging.getLogger("mmsurv")

Signature = tuple[int, int, int]


def signature(file: Path | int) -> Signature:
    """Size, modification time (ns) and inode of a file, by path or by descriptor."""
    stat = os.fstat(file) if isinstance(file, int) else file.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def is_still(path: Path, seen: Signature | None) -> bool:
    """Whether the file at ``path`` is the one that was seen."""
    try:
        return signature(path) == seen
    except FileNotFoundError:
        return False


def cache_folder() -> Path:
    """Where this user's programs keep what they can make again."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mmsurv"


class CheckedRecords:
    """The record files of one store that were hashed and found whole."""

    def __init__(self, store: Path) -> None:
        name = hashlib.sha256(os.fsencode(store.resolve())).hexdigest()[:24]
        self._path = cache_folder() / "checked" / f"{name}.jsonl"
        self._known: dict[str, Signature] | None = None

    def knows(self, name: str, found: Signature) -> bool:
        if self._known is None:
            self._known = self._load()
        return self._known.get(name) == found

    def remember(self, name: str, found: Signature) -> None:
        if self._known is None:
            self._known = self._load()
        if self._known.get(name) == found:
            return
        self._known[name] = found
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # One short line per append, so that processes which share the file do not tear each other's lines.
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([name, *found]) + "\n")
        except OSError as error:
            # Without the memory every process hashes again: slower, never wrong.
            logger.debug("%s cannot be written (%s).", self._path, error)

    def _load(self) -> dict[str, Signature]:
        known: dict[str, Signature] = {}
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return known
        for line in lines:
            try:
                name, size, modified, inode = json.loads(line)
            except ValueError:
                continue  # a torn line only costs one more hash
            known[str(name)] = (int(size), int(modified), int(inode))
        return known
