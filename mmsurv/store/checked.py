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

from mmsurv.errors import StoreError
from mmsurv.store.commit import publish_bytes

logger = logging.getLogger("mmsurv")

MOST_LINES_PER_RECORD = 2
FEW_LINES = 64
"""With more lines than so many a record, and these besides, the file is rewritten with one line a record."""

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
                file.write(_line(name, found))
        except OSError as error:
            # Without the memory every process hashes again: slower, never wrong.
            logger.debug("%s cannot be written (%s).", self._path, error)

    def _load(self) -> dict[str, Signature]:
        known: dict[str, Signature] = {}
        try:
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return known
        for line in lines:
            # A torn line, or one that is none of ours, only costs one more hash.
            if entry := _parse(line):
                name, found = entry
                known[name] = found
        if len(lines) > MOST_LINES_PER_RECORD * len(known) + FEW_LINES:
            self._rewrite(known)
        return known

    def _rewrite(self, known: dict[str, Signature]) -> None:
        # What another process appends meanwhile may be lost, and costs it one more hash.
        try:
            publish_bytes(self._path, "".join(_line(*entry) for entry in known.items()).encode(), replace=True)
        except (OSError, StoreError) as error:
            logger.debug("%s cannot be written (%s).", self._path, error)


def _line(name: str, found: Signature) -> str:
    return json.dumps([name, *found]) + "\n"


def _parse(line: str) -> tuple[str, Signature] | None:
    try:
        name, size, modified, inode = json.loads(line)
    except (ValueError, TypeError, RecursionError):
        return None
    if not isinstance(name, str) or any(type(number) is not int for number in (size, modified, inode)):
        return None
    return name, (size, modified, inode)
