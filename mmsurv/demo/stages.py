"""The commands of the demo: which they are, how they are shown and run.

Owns the command lines. Each is run as a process of its own, exactly as printed, so that what is seen can be repeated
by hand.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import click

from mmsurv.demo.folder import DemoFolder
from mmsurv.errors import JobFailedError

MODELS = ("cross-attention", "joint", "wsi-mean", "rna")

TILES = 48
"""Tiles per slide: what two cores encode in about a minute."""

NOTE = (
    "Simulated data: the tissue is painted and RNA and survival are drawn by `mmsurv demo`. "
    "Nothing here says anything about patients."
)
RANDOM_NOTE = "The encoder's weights are random (seeded), not learnt."


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One command."""

    title: str
    """What it does, for a reader who has never seen it."""
    arguments: tuple[str, ...]
    """After ``mmsurv``."""
    done: Path | None = None
    """If this is there, the command was run before and is not run again."""

    @property
    def line(self) -> str:
        """The command as one types it."""
        return shlex.join(("mmsurv", *self.arguments))


def stages(folder: DemoFolder, *, folds: int, weights: str | None) -> list[Stage]:
    """All commands of the demo, in order."""
    store, clinical, rna = str(folder.store), str(folder.clinical), str(folder.rna)
    extract = ("extract", str(folder.slides), "-o", store, "--recipe", "demo", "--tiles", str(TILES))
    kind = "random weights: no download, worse features" if weights is None else f"weights of {weights}"
    note = NOTE if weights else f"{NOTE} {RANDOM_NOTE}"
    data = ("--store", store, "--clinical", clinical, "--rna", rna)
    return [
        Stage(
            title=f"Stage 1: encode the tiles of every slide once (ResNet-18, {kind}).",
            arguments=(*extract, "--weights", weights) if weights else extract,
        ),
        Stage(title="Check every record of the feature store.", arguments=("store", "verify", store)),
        Stage(
            title="Join the clinical table, the RNA and the store by id.",
            arguments=("cohort", clinical, "--rna", rna, "--store", store),
        ),
        *(
            Stage(
                title=f"Stage 2: {_TITLES[model]}",
                arguments=(
                    *("train", *data, "--model", model),
                    *("--folds", str(folds), "-o", str(folder.run(model))),
                ),
                done=folder.run(model) / "metrics.json",
            )
            for model in MODELS
        ),
        Stage(
            title="One page about all four.",
            arguments=(
                *("report", *(str(folder.run(model)) for model in MODELS)),
                *("-o", str(folder.report), "--note", note),
            ),
        ),
    ]


_TITLES = {
    "cross-attention": "the RNA asks, the tiles answer.",
    "joint": "the baseline: mean of the tiles beside the RNA.",
    "wsi-mean": "the slides alone.",
    "rna": "the RNA alone.",
}


def run(stage: Stage) -> float:
    """Show a command and run it; its output goes where ours goes.

    Returns:
        Seconds it took.

    Raises:
        JobFailedError: it left with another exit code than 0.
    """
    heading(stage.title)
    click.secho(f"$ {stage.line}", bold=True)
    if stage.done is not None and stage.done.exists():
        click.echo(f"Done before: {stage.done.parent} is kept. Delete it to train again.")
        return 0.0
    _flush()
    start = time.monotonic()
    code = subprocess.run([sys.executable, "-m", "mmsurv", *stage.arguments], check=False).returncode
    seconds = time.monotonic() - start
    if code:
        raise JobFailedError(
            f"`{stage.line}` left with exit code {code}; its message is above. "
            "The same `mmsurv demo` command goes on from here."
        )
    click.secho(f"({seconds:.0f} s)", dim=True)
    return seconds


def heading(text: str) -> None:
    click.echo()
    click.secho(f"# {text}", fg="cyan")


def _flush() -> None:
    """Keep our lines before the process's where the output is a file."""
    sys.stdout.flush()
    sys.stderr.flush()
