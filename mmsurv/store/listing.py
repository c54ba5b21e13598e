"""What lies in the folder of the records: records by their names, temporary files, and what is neither."""

from __future__ import annotations

from pathlib import Path

from mmsurv.errors import CorruptRecordError
from mmsurv.store.commit import PARTIAL
from mmsurv.store.ids import is_slide_id


def slide_ids(folder: Path, suffix: str) -> list[str]:
    """Ids that records are named by, sorted. Raises CorruptRecordError if there is no folder but something else."""
    if not folder.is_dir():
        if folder.exists():
            raise CorruptRecordError(f"{folder} is not a folder. Restore the store from a backup.")
        return []
    return sorted(filter(is_slide_id, (path.name.removesuffix(suffix) for path in folder.glob(f"*{suffix}"))))


def strays(folder: Path, suffix: str) -> list[Path]:
    """What is neither named by a slide's id nor a temporary file."""
    if not folder.is_dir():
        return []
    records = {f"{slide_id}{suffix}" for slide_id in slide_ids(folder, suffix)}
    return sorted(path for path in folder.iterdir() if path.name not in records and not path.name.endswith(PARTIAL))


def leftovers(folder: Path) -> list[Path]:
    """Temporary files."""
    return sorted(folder.glob(f".*{PARTIAL}")) if folder.is_dir() else []
