"""Slides that could not be encoded: what went wrong, how often it was tried.

Owns ``failures/<slide_id>.json``. A failure never stands for a record and never hides one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmsurv.errors import BadSlideIdError
from mmsurv.provenance import now
from mmsurv.store.commit import publish_bytes
from mmsurv.store.ids import check_slide_id
from mmsurv.store.place import require_folder

logger = logging.getLogger("mmsurv")


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One slide that could not be encoded."""

    slide_id: str
    error: str
    """Class of the error."""
    message: str
    source: str
    """The file it was to be read from."""
    traceback: str
    attempts: int
    time: str
    """UTC, ISO 8601."""
    settings: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)
    """What besides the recipe it was tried with, so that a retry can do the same."""


class FailureLog:
    """The failures of one store.

    Every method raises StoreError if its folder is something else.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(
        self,
        slide_id: str,
        error: BaseException,
        *,
        source: str,
        settings: Mapping[str, str | int | float | bool | None] | None = None,
    ) -> Failure:
        """Record a failure; an earlier one of the same slide is replaced and its attempts counted on."""
        earlier = self._read(self.path(slide_id))
        failure = Failure(
            slide_id=slide_id,
            error=type(error).__name__,
            message=str(error),
            source=source,
            traceback="".join(traceback.format_exception(error)),
            attempts=(earlier.attempts if earlier else 0) + 1,
            time=now(),
            settings=dict(settings or {}),
        )
        self.put(failure)
        return failure

    def get(self, slide_id: str) -> Failure | None:
        """The failure of one slide, or None."""
        return self._read(self.path(slide_id))

    def put(self, failure: Failure) -> None:
        """Record a failure as it is, in place of an earlier one of the same slide."""
        require_folder(self._folder)
        self._folder.mkdir(exist_ok=True)
        text = json.dumps(dataclasses.asdict(failure), indent=1, ensure_ascii=False)
        publish_bytes(self.path(failure.slide_id), text.encode("utf-8", "backslashreplace"), replace=True)

    def clear(self, slide_id: str) -> None:
        require_folder(self._folder)
        self.path(slide_id).unlink(missing_ok=True)

    def all(self) -> list[Failure]:
        """All failures, by slide id; a file that is none is warned of and passed over."""
        require_folder(self._folder)
        if not self._folder.is_dir():
            return []
        paths = (path for path in self._folder.glob("*.json") if not path.name.startswith("."))
        found = [failure for failure in map(self._read, paths) if failure is not None]
        return sorted(found, key=lambda failure: failure.slide_id)

    def path(self, slide_id: str) -> Path:
        """The file that holds, or would hold, a slide's failure."""
        try:
            name = check_slide_id(slide_id)
        except BadSlideIdError:
            # A slide may have failed because of its id; such an id must not become a path here either.
            name = f"bad-id-{hashlib.sha256(slide_id.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"
        return self._folder / f"{name}.json"

    def _read(self, path: Path) -> Failure | None:
        require_folder(self._folder)
        try:
            failure = _checked(json.loads(path.read_text(encoding="utf-8")))
            if self.path(failure.slide_id).name != path.name:
                raise ValueError(f"it is of slide {failure.slide_id!r}")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, RecursionError) as error:
            logger.warning("%s is not a failure record and is passed over (%s). Delete it.", path, error)
            return None
        return failure


def _checked(table: Any) -> Failure:
    """The failure of a table from a file, which anyone may have written."""
    failure = Failure(**table)
    for name in ("slide_id", "error", "message", "source", "traceback", "time"):
        if not isinstance(getattr(failure, name), str):
            raise TypeError(f"{name} is {getattr(failure, name)!r}, expected a text")
    if type(failure.attempts) is not int or failure.attempts < 1:
        raise TypeError(f"attempts is {failure.attempts!r}, expected a whole number from 1")
    if not isinstance(failure.settings, dict):
        raise TypeError(f"settings is {failure.settings!r}, expected a table")
    for name, value in failure.settings.items():
        if not isinstance(value, str | int | float | None):
            raise TypeError(f"settings.{name} is {value!r}, expected a text, a number, true, false or null")
    return failure
