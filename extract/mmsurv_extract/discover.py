"""Which slides a command's arguments name: files, folders, DICOM series, folders of patches.

Owns the mapping from paths to slide ids. Goes by names only; whether a file is a slide is said when it is opened.
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mmsurv.errors import ConfigError

logger = logging.getLogger("mmsurv")

DICOM = ".dcm"
LOCATIONS = "loc.txt"
"""What makes a folder one slide cut into patches; their PNG files are no slides of their own."""
EXTENSIONS = frozenset({".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".svslide", ".bif", ".vms", ".vmu", ".czi"})
"""What OpenSlide's formats are called; DICOM goes by folder."""


@dataclass(frozen=True, order=True)
class SlideSource:
    """One slide: its id, and the file, or the folder of a DICOM series or of patches, it is read from."""

    slide_id: str
    path: Path


@dataclass(frozen=True)
class Discovery:
    """What was found."""

    sources: list[SlideSource]
    """Slides to encode, sorted by id."""
    collisions: dict[str, list[Path]]
    """Ids that several different files claim; none of them is in ``sources``."""


def find_slides(arguments: Iterable[Path]) -> Discovery:
    """Find the slides named by files and folders.

    A file is taken as a slide whatever its extension. A folder is searched recursively for the extensions OpenSlide
    reads; a folder that holds ``.dcm`` files, or patches with a ``loc.txt``, is one slide, named after the folder. PNG
    and JPEG images must be named themselves: among slides they are labels, previews and figures. A slide's id is its
    file's name without the last extension. A folder further down that cannot be read is passed over with a warning.

    Links are followed, and what they lead to has the name the link has; a link that leads nowhere is passed over with a
    warning. A folder that several paths lead to is searched once, by the first of them that is no link.

    Raises:
        ConfigError: an argument that does not exist, or a folder that cannot be read or has no slides.
    """
    paths_by_id: dict[str, dict[Path, Path]] = defaultdict(dict)
    for argument in arguments:
        found = list(_sources(argument))
        if not found:
            known = ", ".join(sorted(EXTENSIONS | {DICOM, LOCATIONS}))
            raise ConfigError(
                f"{argument}: no slides in this folder. Files with these names are looked for: {known}. PNG and JPEG "
                f"images are slides when you name them: {argument / '*.png'}."
            )
        for source in found:
            paths_by_id[source.slide_id].setdefault(source.path.resolve(), source.path)
    sources = [SlideSource(name, *paths.values()) for name, paths in sorted(paths_by_id.items()) if len(paths) == 1]
    collisions = {name: sorted(paths.values()) for name, paths in sorted(paths_by_id.items()) if len(paths) > 1}
    return Discovery(sources, collisions)


def _sources(argument: Path) -> Iterator[SlideSource]:
    if argument.is_dir():
        yield from _walk(argument)
    elif not argument.exists():
        raise ConfigError(f"{argument}: there is no such file or folder.")
    elif argument.suffix.lower() == DICOM or argument.name == LOCATIONS:
        yield _named_after(argument.parent)
    else:
        yield SlideSource(argument.stem, argument)


def _walk(argument: Path) -> Iterator[SlideSource]:
    """Slides of a folder and all below; links are followed last, each place once, since they may lead in circles."""
    seen: set[Path] = set()
    tops = [argument]
    while tops:
        top = tops.pop(0)
        if top.resolve() in seen:
            continue
        for folder, below, names in os.walk(top, onerror=lambda error: _unreadable(error, argument)):
            place = Path(folder)
            if place.resolve() in seen:
                below.clear()  # a link led here before
                continue
            seen.add(place.resolve())
            tops.extend(place / name for name in sorted(below) if (place / name).is_symlink())
            yield from _in_folder(place, sorted(names))


def _unreadable(error: OSError, argument: Path) -> None:
    folder = Path(error.filename or argument)
    if folder == argument:
        raise ConfigError(f"{argument}: this folder cannot be read ({error.strerror}).") from error
    # Not the end of the job: a disk's lost+found is such a folder, and holds no slides.
    logger.warning(
        "%s: this folder cannot be read (%s); slides in it, if any, are not encoded.", folder, error.strerror
    )


def _in_folder(folder: Path, names: list[str]) -> Iterator[SlideSource]:
    # Files beginning with "._" are what macOS leaves beside a file it copied, not slides.
    paths = [folder / name for name in names if not name.startswith("._")]
    for broken in [path for path in paths if path.is_symlink() and not path.exists()]:
        logger.warning("%s: this link leads to %s, which is not there; it is passed over.", broken, broken.readlink())
        paths.remove(broken)
    names = [path.name for path in paths]
    if LOCATIONS in names or any(path.suffix.lower() == DICOM for path in paths):
        yield _named_after(folder)
    yield from (SlideSource(path.stem, path) for path in paths if path.suffix.lower() in EXTENSIONS)


def _named_after(folder: Path) -> SlideSource:
    # absolute, not resolved: a folder given as "." or through a link keeps the name the user sees.
    return SlideSource(folder.absolute().name if folder.name else folder.resolve().name, folder)
