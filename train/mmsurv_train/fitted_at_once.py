"""Models that are fitted without epochs: ``late``.

Owns their course, which looks like that of a network that was trained for one epoch.
"""

from __future__ import annotations

import torch

from mmsurv_train.bags import Bags
from mmsurv_train.cox import RiskSets
from mmsurv_train.judge import Course, Judge
from mmsurv_train.models import Known
from mmsurv_train.patients import Patients
from mmsurv_train.stack import Network, Stack


@torch.no_grad()
def fitted_course(
    network: Network, patients: Patients, bags: Bags | None, known: Known, *, dtype: torch.dtype
) -> Course:
    """The course of a network whose parameters were fitted before.

    Args:
        network: with what was fitted.
        patients: all patients.
        bags: features of their slides; None for a model without tiles.
        known: what the network knows of all patients.
        dtype: of that, and so of the network.
    """
    outcomes = patients.time[network.validation], patients.event[network.validation]
    course = Course(network, Judge(network.recipe.fit, *outcomes))
    stack = Stack([network], device=torch.device("cpu"), dtype=dtype)
    rows = torch.from_numpy(network.validation)
    pooled = None
    if stack.model.pools == "mean" and bags is not None:
        found = [patients.slides[row] for row in network.validation]
        width = network.preprocess.feature_dim
        means = [bags.mean(slides).cpu() if slides else torch.zeros(1, width) for slides in found]
        pooled = torch.cat(means)[None].to(dtype)
    out_MBK = stack.model.outputs(known.to(torch.device("cpu")).of(rows), pooled)
    assert network.frozen.base is not None
    train = network.train
    sets = RiskSets(
        torch.from_numpy(patients.time[train])[None],
        torch.from_numpy(patients.event[train])[None],
        ties=network.recipe.fit.ties,
    )
    loss = sets.loss(torch.from_numpy(network.frozen.base.out_of_fold)[None])[0].item()
    course.judge.hear({"epoch": 1, "loss": loss, "skipped_batches": 0}, out_MBK[0])
    course.judge.best = stack.state(0)
    return course
