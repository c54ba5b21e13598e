"""The partial likelihood on drawn cohorts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsurv_train.cox import neg_log_partial_likelihood

SETTINGS = settings(max_examples=40, deadline=None, derandomize=True)


@st.composite
def cohorts(draw):
    """Up to 12 patients, many of them at the same few times, at least one death."""
    n = draw(st.integers(2, 12))
    risk = draw(st.lists(st.floats(-8, 8), min_size=n, max_size=n))
    time = draw(st.lists(st.integers(1, 4), min_size=n, max_size=n))
    event = draw(st.lists(st.booleans(), min_size=n, max_size=n).filter(any))
    return torch.tensor(risk, dtype=torch.float64), torch.tensor(time), torch.tensor(event)


ties = st.sampled_from(["efron", "breslow"])


@SETTINGS
@given(cohorts(), ties)
def test_vectorised_loss_equals_the_definition(cohort, ties):
    risk, time, event = (part.numpy() for part in cohort)
    total = 0.0
    for t in np.unique(time[event]):
        tied = risk[(time == t) & event]
        at_risk = np.exp(risk[time >= t]).sum()
        for j in range(len(tied)):
            less = j / len(tied) * np.exp(tied).sum() if ties == "efron" else 0.0
            total += np.log(at_risk - less) - tied[j]
    expected = total / event.sum()
    assert neg_log_partial_likelihood(*cohort, ties=ties).item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@SETTINGS
@given(cohorts(), ties)
def test_gradient_equals_finite_differences(cohort, ties):
    risk, time, event = cohort
    assert torch.autograd.gradcheck(
        lambda risk: neg_log_partial_likelihood(risk, time, event, ties=ties), risk.requires_grad_()
    )


@SETTINGS
@given(cohorts(), ties, st.randoms(use_true_random=False))
def test_order_of_patients_and_a_common_shift_change_nothing(cohort, ties, random):
    risk, time, event = cohort
    order = list(range(len(risk)))
    random.shuffle(order)
    shuffled = neg_log_partial_likelihood(risk[order] + 30, time[order], event[order], ties=ties)
    torch.testing.assert_close(neg_log_partial_likelihood(risk, time, event, ties=ties), shuffled)
