"""What tests of training share."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from mmsurv.cohort import CohortOptions
from mmsurv_train import fit, stack, unfinished
from mmsurv_train.inputs import Sources


@pytest.fixture
def sources(study: Path) -> Sources:
    cohort = CohortOptions(clinical=str(study / "clinical.csv"), rna=str(study / "rna.csv"))
    return Sources(cohort=cohort, store=str(study / "store"))


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The first seed of every job that is fitted together."""
    seen: list[list[int]] = []
    together = fit.fit_many

    def watched(jobs, *arguments, **options):
        seen.append([job.recipe.fit.seed for job in jobs])
        return together(jobs, *arguments, **options)

    monkeypatch.setattr(fit, "fit_many", watched)
    return seen


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many networks each step of training moved."""
    seen: list[int] = []
    step = stack.Stack.step

    def watched(self, moving):
        seen.append(sum(moving))
        step(self, moving)

    monkeypatch.setattr(stack.Stack, "step", watched)
    return seen


@pytest.fixture
def state_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the state after every epoch, not once a minute."""
    monkeypatch.setattr(unfinished, "Checkpoint", partial(unfinished.Checkpoint, every_seconds=0.0))
