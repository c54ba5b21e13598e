"""That a slide's file is the same from its digest to its last tile.

Owns the look at the file. The digest is taken when a slide is opened; its tiles are read later, by handles opened
again. A file that was replaced or written to meanwhile would be recorded under a digest that is not its own.
"""

from __future__ import annotations

from pathlib import Path

from mmsurv.errors import UnreadableSlideError
from mmsurv_extract.discover import SlideSource


class Unchanged:
    """What a slide's file, or every file of its folder, looked like when this was made; make it before opening."""

    def __init__(self, source: SlideSource) -> None:
        self._path = source.path
        try:
            self._seen = _look(source.path)
        except OSError:
            self._seen = []  # whoever opens the slide says what is wrong

    def require(self) -> None:
        """Raises UnreadableSlideError if anything was replaced, written to, added or removed since."""
        try:
            found = _look(self._path)
        except OSError as error:
            raise UnreadableSlideError(
                f"{self._path}: it went away while it was read ({error.strerror}). Put it back and encode it again."
            ) from error
        if found != self._seen:
            raise UnreadableSlideError(
                f"{self._path}: it was changed while it was read, so its digest and its tiles may be of different "
                "files. Wait until it is whole (a copy may be under way), then give the same command again."
            )


def _look(path: Path) -> list[tuple[str, int, int]]:
    """Name, size and modification time of each file. Not the inode: that of a mounted bucket may change by itself."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    stats = [(file.name, file.stat()) for file in files]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
