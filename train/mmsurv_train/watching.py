"""What a user sees while models are trained: slides read, then epochs of all networks.

Owns the lines and bars of training on stderr; ``mmsurv.progress`` owns how a bar looks. Imports click only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import click

from mmsurv.progress import progress

if TYPE_CHECKING:
    from mmsurv_train.fit import FitJob
    from mmsurv_train.inputs import Inputs


@contextmanager
def watching(jobs: str = "folds") -> Iterator[Watch]:
    """Shows the passes of ``train`` or ``train_all``: a bar on a terminal, plain lines otherwise.

    Args:
        jobs: what the jobs of a pass are called.

    Yields:
        The callbacks.
    """
    with ExitStack() as bars:
        yield Watch(bars, jobs)


class Watch:
    """The callbacks of ``mmsurv_train.train``; epochs of networks that stop early are counted when the pass ends."""

    def __init__(self, bars: ExitStack, jobs: str) -> None:
        self._bars, self._jobs = bars, jobs
        self._reading: Callable[[float], None] | None = None
        self._training: Callable[[float], None] | None = None
        self._total, self._shown = 0, 0
        self._reached: dict[tuple[int, int], int] = {}
        """The last epoch of each network, by job and seed."""

    def on_slide(self, n_slides: int) -> None:
        if self._reading is None:
            self._reading = self._show(n_slides, "Reading features", "slides")
        self._reading(1)

    def on_start(self, data: Inputs, jobs: Sequence[FitJob]) -> None:
        models = sorted({job.recipe.model.name for job in jobs})
        cases = data.cohort.cases
        counts = f"{len(cases)} cases, {int(cases['event'].sum())} events, {len(data.cohort.slides)} slides"
        for line in (*data.notices(", ".join(models)), f"{', '.join(models)}: {counts}"):
            click.echo(line, err=True)
        self._reading, self._reached, self._shown = None, {}, 0
        self._total = sum(job.recipe.fit.epochs * job.recipe.fit.n_seeds for job in jobs)
        self._training = self._show(self._total, self._label(jobs), "epochs")

    def on_epoch(self, job: int, row: Mapping[str, float]) -> None:
        self._reached[job, int(row["seed"])] = int(row["epoch"])
        self._advance(sum(self._reached.values()))

    def on_end(self) -> None:
        """All networks of the pass are trained: those that stopped early need no more epochs."""
        self._advance(self._total)

    def callbacks(self) -> dict[str, Callable[..., None]]:
        """By the names that ``train`` and ``train_all`` give them."""
        return {name: getattr(self, name) for name in ("on_slide", "on_start", "on_epoch", "on_end")}

    def _advance(self, done: int) -> None:
        if self._training is not None:
            self._training(done - self._shown)
        self._shown = done

    def _label(self, jobs: Sequence[FitJob]) -> str:
        seeds = {job.recipe.fit.n_seeds for job in jobs}
        parts = [f"{len(jobs)} {self._jobs}"] if len(jobs) > 1 else []
        if len(seeds) == 1 and seeds != {1}:
            parts.append(f"{seeds.pop()} seeds")
        return " ".join(["Training", " × ".join(parts)]).strip()

    def _show(self, total: int, label: str, unit: str) -> Callable[[float], None]:
        self._bars.close()  # one bar at a time
        return self._bars.enter_context(progress(total, label, unit=unit))
