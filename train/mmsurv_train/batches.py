"""Which patients share a step, and which bag each of them brings.

Owns the draws that the data seed fixes: batches, the slide of a patient with several. They are the same for all
models of a pass, so that models read the same bags.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mmsurv_train.bags import Draw
from mmsurv_train.recipe import BagSettings


def patient_batches(event_B: np.ndarray, size: int, *, seed: int, epoch: int) -> list[list[int]]:
    """Rows of each step of an epoch.

    Events are dealt out evenly, so a batch lacks one only where there are fewer events than batches. Sizes differ by
    at most one and never exceed ``size``.

    Args:
        event_B: who died.
        size: patients per batch; 0 = all in one, in their own order.
        seed, epoch: of the shuffle.
    """
    n_patients = len(event_B)
    if not size or size >= n_patients:
        return [list(range(n_patients))]
    rng = np.random.default_rng([seed, epoch])
    dealt = np.concatenate([rng.permutation(np.flatnonzero(event_B)), rng.permutation(np.flatnonzero(~event_B))])
    n_batches = math.ceil(n_patients / size)
    return [dealt[first::n_batches].tolist() for first in range(n_batches)]


def training_slides(case_id: str, slides: Sequence[str], settings: BagSettings, draw: Draw) -> list[str]:
    """Slides of a patient's bag in one step: all, or the one drawn, so that no risk set holds a patient twice."""
    if settings.unit == "case" or not slides:  # a patient who lacks slides has an empty bag
        return list(slides)
    return [slides[draw.number(case_id) % len(slides)]]
