"""A training that has not ended: its state in a folder, from which the same command goes on.

Owns the folder and what was asked for, in ``request.json``; the state itself is ``checkpoint``'s. Another request is
refused field by field, never mixed into the first. One process works in the folder at a time.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from mmsurv import provenance
from mmsurv.errors import RunError
from mmsurv_train import run as runs
from mmsurv_train.checkpoint import Checkpoint

logger = logging.getLogger("mmsurv")

REQUEST = "request.json"
STATE = "state"
LOCK = ".lock"
THREADS = "threads"
"""Key of the request that is not compared: how many threads the training was begun with."""
SHOWN = 8
"""Differences listed."""


@dataclass(frozen=True)
class Unfinished:
    """The folder of a training that is under way or was stopped; absent before and after."""

    folder: Path

    def request(self) -> dict[str, Any] | None:
        """What the stopped training was asked for; None where there is none, or none that got as far as a state.

        Raises:
            RunError: the file is damaged.
        """
        return None if (begun := self._begun()) is None else begun[0]

    @contextmanager
    def going_on(self, request: Mapping[str, Any]) -> Iterator[Checkpoint]:
        """The checkpoint of a training that is begun or gone on with; its state is kept if the block is left early.

        Torch has as many threads in the block as the training was begun with: another number may sum in another
        order, and change the last bit.

        Args:
            request: JSON-able; whatever decides the numbers that come out.

        Raises:
            RunError: the folder holds a training that was asked for otherwise, is in use, or cannot be written.
        """
        with self._alone(), threads(self._settle(request)):
            try:
                yield Checkpoint(folder=self.folder / STATE, identity=provenance.fingerprint(request))
            except KeyboardInterrupt:
                self.leave()
                if not self._has_state():
                    logger.warning("Nothing of the training was kept yet: the same command begins anew.")
                raise
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

    def _begun(self) -> tuple[dict[str, Any], int] | None:
        """What the stopped training was asked for, and its number of threads."""
        path = self.folder / REQUEST
        if not path.is_file() or not self._has_state():
            return None
        asked = runs.read_json(path)
        n_threads = asked.pop(THREADS, None)
        if not isinstance(n_threads, int) or n_threads < 1:
            raise RunError(f"{path}: damaged, it has no number of threads. Delete {self.folder} to begin anew.")
        return asked, n_threads

    def _settle(self, request: Mapping[str, Any]) -> int:
        """Write what is asked for, or check that it is what was; the number of threads to work with."""
        begun = self._begun()
        if begun is None:
            n_threads = torch.get_num_threads()
            try:
                runs.write_json(self.folder / REQUEST, {**request, THREADS: n_threads})
            except OSError as error:
                self.delete()
                raise self._unwritable(error) from error
            return n_threads
        before, n_threads = begun
        if provenance.canonical_json(before) != provenance.canonical_json(request):
            raise RunError(self._refusal(before, request))
        if n_threads != torch.get_num_threads():
            logger.warning("The training goes on with %d threads, the number it was begun with.", n_threads)
        return n_threads

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the folder for this process; the system lets go of it when the process ends, however it ends."""
        try:
            file = self._lock()
        except BlockingIOError:
            raise RunError(
                f"another mmsurv is training there; its state is in {self.folder}. Wait for it, or name another place "
                "with -o."
            ) from None
        except OSError as error:
            raise self._unwritable(error) from error
        with file:
            yield

    def _lock(self) -> IO[str]:
        path = self.folder / LOCK
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = path.open("a")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.is_file() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return file
            except BaseException:
                file.close()
                raise
            file.close()  # the process that held it deleted the folder meanwhile: its training is done

    def _unwritable(self, error: OSError) -> RunError:
        return RunError(f"{self.folder}: cannot be written ({error.strerror or error}).")

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


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Torch with ``n`` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
