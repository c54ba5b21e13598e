"""What a file that is no slide is instead, in words for an error message.

Owns the recognition of the things that commonly lie where a slide should be.
"""

from __future__ import annotations

from pathlib import Path

from mmsurv.errors import NotASlideError

FORMATS = "Give a slide in a format OpenSlide reads, or a TIFF, PNG or JPEG image"
_LFS = b"version https://git-lfs.github.com/spec/"
_SIGNATURES = {
    b"II*\x00": "a damaged TIFF file",
    b"MM\x00*": "a damaged TIFF file",
    b"II+\x00": "a damaged BigTIFF file",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"%PDF": "a PDF document",
}


def describe_content(path: Path) -> tuple[str, str]:
    """Say what a file is and what to do about it.

    Returns:
        What was found, and the remedy, each to stand in a sentence.
    """
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        return f"a file that cannot be read ({error.strerror})", "Check the path and its permissions"
    if not head:
        return "an empty file", "Copy the slide again"
    if head.startswith(_LFS):
        return "a Git LFS pointer, not the file it stands for", "Fetch the slide itself: git lfs pull"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page, probably a failed download", "Download the slide again"
    for signature, what in _SIGNATURES.items():
        if head.startswith(signature):
            return what, FORMATS
    if b"\x00" not in head and text.isascii():
        first = head.decode("ascii", "replace").splitlines()[0][:60]
        return f"a text file that begins {first!r}", "Give a slide"
    return f"a file that begins with the bytes {head[:8].hex(' ')}", FORMATS


def not_a_slide(path: Path) -> NotASlideError:
    """The error for a file no reader knows."""
    what, remedy = describe_content(path)
    return NotASlideError(f"{path}: expected a whole-slide image, found {what}. {remedy}.")
