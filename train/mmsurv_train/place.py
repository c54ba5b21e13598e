"""Where a run goes: a place that is free, and a folder that becomes the run at once.

Owns what makes a run folder whole or absent, and the hidden names beside it. Knows nothing of what a run holds but
the name of the file that tells one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmsurv.errors import RunError
from mmsurv.store.commit import flush_to_disk

METRICS = "metrics.json"
"""A folder with it is a whole run."""


def check_free(path: Path) -> None:
    """Refuse a place where a run cannot be written, before any work is done.

    Raises:
        RunError: ``path`` is a file, or a folder with something in it, or its folder cannot be made or written in.
    """
    try:
        _refuse_taken(path)
        _probe(path)
    except OSError as error:
        raise _unwritable(path, error) from error


def _refuse_taken(path: Path) -> None:
    if path.name in ("", ".."):
        raise RunError(f"{path} names no folder of its own; a run is a new folder. Name another place with -o.")
    if path.exists() and not path.is_dir():
        raise RunError(f"{path} is a file; a run is a folder. Name another place with -o.")
    if path.is_dir() and any(path.iterdir()):
        what = "already holds a run" if (path / METRICS).is_file() else "is not empty"
        raise RunError(f"{path} {what}; runs are never overwritten. Name another place with -o, or delete it.")


@contextmanager
def new_run(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes the run at ``path`` when the block ends without an error.

    An interrupted run leaves nothing at ``path``; a killed one leaves a hidden ``.NAME.partial-*`` beside it.

    Raises:
        RunError: something is at ``path``, before or after the work, or it cannot be written (a full disk).
    """
    check_free(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.partial-", dir=path.parent))
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        yield folder
        folder.chmod(0o777 & ~_umask())
        _flush(folder)
        try:
            folder.rename(path)
        except OSError as error:
            raise RunError(f"{path}: cannot be written ({error.strerror}); was it made meanwhile?") from error
        flush_to_disk(path.parent)  # the name itself is an entry of the parent
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise _unwritable(path, error) from error
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def checkpoint_beside(path: Path) -> Path:
    """The hidden folder of a run's unfinished training."""
    return path.parent / f".{path.name}.checkpoint"


def _flush(folder: Path) -> None:
    """Bring every file and every folder's entries to disk before the rename makes them a run."""
    for path in (*sorted(folder.rglob("*")), folder):
        flush_to_disk(path)


def _probe(path: Path) -> None:
    """Make the run's folder, and those above it that are missing, in a folder that is deleted again."""
    above = path.absolute().parent
    missing = [path.name]
    while not above.exists():
        missing.append(above.name)
        above = above.parent
    probe = Path(tempfile.mkdtemp(prefix=".mmsurv-probe-", dir=above))
    try:
        probe.joinpath(*reversed(missing)).mkdir(parents=True)
    finally:
        shutil.rmtree(probe, ignore_errors=True)


def _unwritable(path: Path, error: OSError) -> RunError:
    return RunError(
        f"{path}: cannot be written ({error.strerror or error}). Free space or change the folder's rights, "
        "or name another place with -o."
    )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
