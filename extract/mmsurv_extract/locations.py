"""Which patches a folder of them holds, by its loc.txt.

Owns the format: two header lines, then for each patch a line ``id x y level w h``, in some files with ``tissue``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmsurv.errors import UnreadableSlideError

HEADER_LINES = 2

_LINE = re.compile(r"(?:\d{1,9}\s+){5}\d{1,9}(?:\s+\d+(?:\.\d*)?(?:e-\d+)?)?", re.IGNORECASE)
_SHOWN = 5


@dataclass(frozen=True)
class Locations:
    """What a loc.txt says of its P patches."""

    name: str
    """The slide's, as the first line gives it; empty if it gives none."""
    ids: np.ndarray
    """(P,) int64"""
    coords: np.ndarray
    """(P, 2) int64 level-0 (x, y) of the top-left corners."""
    side: int
    """Of every patch, in level-0 pixels."""
    tissue: np.ndarray | None
    """(P,) float32, or None where the column is absent."""


def read_locations(path: Path) -> Locations:
    """Read a loc.txt.

    Raises:
        UnreadableSlideError: it is missing, or lines in it are not what they should be; the message has their numbers.
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise UnreadableSlideError(f"{path}: it cannot be read ({error.strerror}). Check the folder.") from error
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    header, body = lines[:HEADER_LINES], lines[HEADER_LINES:]
    if any(_LINE.fullmatch(line) for _, line in header):
        raise UnreadableSlideError(f"{path}: a patch stands where two header lines are expected. Put them in.")
    if not body:
        raise UnreadableSlideError(f"{path}: it names no patch. Leave the folder out.")
    wrong = [f"line {number}: {line[:60]!r}" for number, line in body if not _LINE.fullmatch(line)]
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise UnreadableSlideError(
            f"{path}: expected `id x y level w h [tissue]`, found {'; '.join(wrong[:_SHOWN])}{more}. Mend the file."
        )
    rows = [line.split() for _, line in body]
    for (number, _), problem in zip(body, _problems(rows), strict=True):
        if problem:
            raise UnreadableSlideError(f"{path}, line {number}: {problem}")
    first = header[0][1].split()
    numbers = np.array([row[:6] for row in rows]).astype(np.int64)
    return Locations(
        name=first[1] if len(first) == 2 else "",
        ids=numbers[:, 0],
        coords=numbers[:, 1:3],
        side=int(numbers[0, 4]),
        tissue=np.array([row[6] for row in rows]).astype(np.float32) if len(rows[0]) == 7 else None,
    )


def _problems(rows: list[list[str]]) -> Iterator[str]:
    """For each line what is wrong with it, or nothing."""
    side, columns = int(rows[0][4]), len(rows[0])
    ids: set[int] = set()
    places: set[tuple[int, int]] = set()
    for row in rows:
        number, x, y, level, wide, high = map(int, row[:6])
        if level:
            yield (
                f"a patch of level {level}; how large it is at level 0 is not said. Give level 0 and its size in "
                "level-0 pixels, or encode the slide itself."
            )
        elif (wide, high) != (side, side) or not side:
            yield f"a patch of {wide} × {high}; expected squares of one size, {side} × {side}."
        elif number in ids or (x, y) in places:
            yield f"the {'id' if number in ids else 'place'} of an earlier patch. Remove one of them."
        elif len(row) != columns or (columns == 7 and float(row[6]) > 1):
            found = row[6] if len(row) == 7 else "absent"
            yield f"tissue is {found}; expected a share, 0 to 1, in every line or in none."
        else:
            yield ""
        ids.add(number)
        places.add((x, y))
