"""Slide ids, which become file names.

Owns the one rule for what a slide may be called. An id comes from a file name or a table, so it is not trusted.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from mmsurv.errors import BadSlideIdError

MAX_BYTES = 200  # leaves room for suffixes within the 255 bytes most file systems allow


def check_slide_id(slide_id: str) -> str:
    """Return ``slide_id`` unchanged if it is safe as a file name on its own.

    Raises:
        BadSlideIdError: empty, a path separator, a control character, a leading dot, two dots in a row, white space
            at an end, or longer than 200 bytes in UTF-8.
    """
    problem = _problem(slide_id)
    if problem:
        raise BadSlideIdError(
            f"{slide_id!r} cannot be a slide id: {problem}. Rename the slide, or map its name in the clinical table."
        )
    return slide_id


def is_slide_id(name: str) -> bool:
    """Whether :func:`check_slide_id` accepts ``name``."""
    return _problem(name) is None


@lru_cache(maxsize=1 << 16)  # asked at every read of a few rows, which takes not much longer than this
def _problem(slide_id: str) -> str | None:
    if not slide_id:
        return "it is empty"
    if slide_id != slide_id.strip():
        return "it begins or ends with white space"
    if "/" in slide_id or "\\" in slide_id:
        return "it holds a path separator"
    if slide_id.startswith(".") or ".." in slide_id:
        return "it begins with a dot or holds two in a row"
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in slide_id):
        return "it holds a control character"
    size = len(slide_id.encode("utf-8"))
    if size > MAX_BYTES:
        return f"it is {size} bytes long, more than {MAX_BYTES}"
    return None
