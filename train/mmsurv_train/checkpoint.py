"""What a pass has reached, on disk, so that a killed training goes on where it was.

Owns the files: one safetensors file a pass, replaced at once, with the rest of the state as JSON in its header. No
pickle. A pass restored from it goes on to the same bits.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from mmsurv.errors import RunError
from mmsurv.store.commit import flush_to_disk
from mmsurv_train.passes import Pass

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Where passes are saved, and what for."""

    folder: Path
    """Deleted by the caller once the results are safe."""
    identity: str
    """Digest of all that the numbers depend on: recipes, data, versions."""
    every_seconds: float = 60.0


class SavedPass:
    """The file of one pass."""

    def __init__(self, checkpoint: Checkpoint, index: int) -> None:
        self.path = checkpoint.folder / f"pass-{index}.safetensors"
        self._checkpoint, self._saved = checkpoint, time.monotonic()

    def run(self, running: Pass) -> None:
        """Run a pass from where its file says it was, saving now and then, and at its end."""
        self.restore(running)
        running.run(lambda: self.save_sometimes(running))
        self.save(running)

    def restore(self, running: Pass) -> bool:
        """Put a pass where its file says it was; False where there is none.

        Raises:
            RunError: the file is damaged or of other work.
        """
        from safetensors import SafetensorError, safe_open

        if not self.path.exists():
            return False
        try:
            with safe_open(self.path, framework="pt") as file:
                table = json.loads((file.metadata() or {})["state"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise RunError(
                f"{self.path} is no checkpoint that can be gone on from ({error}). Delete {self.path.parent} to start "
                "again."
            ) from error
        if table.get("format") != FORMAT or table.get("identity") != self._checkpoint.identity:
            raise RunError(
                f"{self.path} was left by a training of other settings, data or versions. Delete {self.path.parent} to "
                "start anew, or ask for what it was made for."
            )
        _restore(running, table, tensors)
        return True

    def save_sometimes(self, running: Pass) -> None:
        """Save if the last time is long enough ago."""
        if time.monotonic() - self._saved >= self._checkpoint.every_seconds:
            self.save(running)

    def save(self, running: Pass) -> None:
        """Save now. Raises RunError if it cannot be written; the file before it stays."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        table, tensors = _state(running)
        table |= {"format": FORMAT, "identity": self._checkpoint.identity}
        beside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, beside, metadata={"state": json.dumps(table)})
            flush_to_disk(beside)
            beside.replace(self.path)
            flush_to_disk(self.path.parent)
        except (OSError, SafetensorError) as error:
            beside.unlink(missing_ok=True)
            raise RunError(
                f"{self.path}: cannot be written ({error}). Free space there; the same command then goes on from what "
                "was saved before."
            ) from error
        self._saved = time.monotonic()


def _state(running: Pass) -> tuple[dict[str, Any], dict[str, Tensor]]:
    tensors: dict[str, Tensor] = {}
    at = {network: (stack, m) for stack in running.stacks for m, network in enumerate(stack.networks)}
    courses = []
    for index, (network, course) in enumerate(running.courses.items()):
        courses.append({"failed": course.failed, "trained": course.trained, "judge": course.judge.to_table()})
        parts: dict[str, dict[str, Tensor]] = {"best": course.judge.best or {}}
        if network in at:
            stack, m = at[network]
            parts |= {"state": stack.state(m), "momentum": stack.momentum(m)}
        for part, values in parts.items():
            tensors |= {f"{index}/{part}/{name}": value.cpu().contiguous() for name, value in values.items()}
    return {"epoch": running.epoch, "courses": courses}, tensors


def _restore(running: Pass, table: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    running.epoch = table["epoch"]
    at = {network: (stack, m) for stack in running.stacks for m, network in enumerate(stack.networks)}
    for index, ((network, course), saved) in enumerate(zip(running.courses.items(), table["courses"], strict=True)):
        parts: dict[str, dict[str, Tensor]] = {"best": {}, "state": {}, "momentum": {}}
        for part, values in parts.items():
            prefix = f"{index}/{part}/"
            values |= {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        course.failed, course.trained = saved["failed"], saved["trained"]
        course.judge.restore(saved["judge"], parts["best"] or None)
        if parts["state"]:
            stack, m = at[network]
            stack.restore(m, parts["state"], parts["momentum"])
    running.let_go()
