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

from mmsurv.errors import BadSlideIdError
from mmsurv.provenance import now
from mmsurv.store.commit import publish_bytes
from mmsurv.store.ids import check_slide_id

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
    """The failures of one store."""

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
        self._folder.mkdir(exist_ok=True)
        text = json.dumps(dataclasses.asdict(failure), indent=1, ensure_ascii=False)
        publish_bytes(self.path(failure.slide_id), text.encode("utf-8", "backslashreplace"), replace=True)

    def clear(self, slide_id: str) -> None:
        self.path(slide_id).unlink(missing_ok=True)

    def all(self) -> list[Failure]:
        """All failures, by slide id."""
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

    @staticmethod
    def _read(path: Path) -> Failure | None:
        try:
            return Failure(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            logger.warning("%s is not a failure record and is passed over (%s).", path, error)
            return None
