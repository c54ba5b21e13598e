"""A training that has not ended: its state in a folder, from which the same command goes on.

Owns the folder and what was asked for, in ``request.json``; the state itself is ``checkpoint``'s. Another request is
refused field by field, never mixed into the first.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmsurv import provenance
from mmsurv.errors import RunError
from mmsurv_train import run as runs
from mmsurv_train.checkpoint import Checkpoint

logger = logging.getLogger("mmsurv")

REQUEST = "request.json"
STATE = "state"
SHOWN = 8
"""Differences listed."""


@dataclass(frozen=True)
class Unfinished:
    """The folder of a training that is under way or was stopped; absent before and after."""

    folder: Path

    def request(self) -> dict[str, Any] | None:
        """What the stopped training was asked for; None where there is none."""
        return runs.read_json(self.folder / REQUEST) if (self.folder / REQUEST).is_file() else None

    @contextlib.contextmanager
    def going_on(self, request: Mapping[str, Any]) -> Iterator[Checkpoint]:
        """The checkpoint of a training that is begun or gone on with; its state is kept if the block is left early.

        Args:
            request: JSON-able; whatever decides the numbers that come out.

        Raises:
            RunError: the folder holds a training that was asked for otherwise, or cannot be written.
        """
        before = self.request()
        if before is not None and provenance.canonical_json(before) != provenance.canonical_json(request):
            raise RunError(self._refusal(before, request))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            runs.write_json(self.folder / REQUEST, request)
        except OSError as error:
            raise RunError(f"{self.folder}: cannot be written ({error.strerror or error}).") from error
        try:
            yield Checkpoint(folder=self.folder / STATE, identity=provenance.fingerprint(request))
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        """Keep the state for the next time, if there is any yet, and say so."""
        if self._has_state():
            logger.warning("The training's state is kept: the same command goes on from %s.", self.folder)
        else:
            self.delete()

    def delete(self) -> None:
        """Forget the training: its results are safe, or it cannot have any."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _has_state(self) -> bool:
        state = self.folder / STATE
        return state.is_dir() and any(state.iterdir())

    def _refusal(self, before: Mapping[str, Any], request: Mapping[str, Any]) -> str:
        found = provenance.differences(before, request)
        old, new = ({row[0]: row[i] for row in found[:SHOWN]} for i in (1, 2))
        more = [f"  and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
        return "\n".join(
            [
                f"{self.folder} holds a training that was stopped, and it was asked for something else:",
                provenance.difference_table(old, new),
                *more,
                "Give the command it was started with to go on, or delete that folder to begin anew.",
            ]
        )
