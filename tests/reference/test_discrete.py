"""The discrete-time likelihood is the published one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmsurv.errors import NoEventsError
from mmsurv_train.discrete import DiscreteTime, risk, time_edges

EDGES = torch.tensor([[0.0, 10.0, 20.0, torch.inf]], dtype=torch.float64)


def loss(logits, time, event, *, alpha=0.0):
    time, event = torch.tensor([time], dtype=torch.float64), torch.tensor([event])
    return DiscreteTime(time, event, torch.ones_like(event), EDGES, alpha=alpha).loss(logits)[0]


def published(logits, time, event, alpha):
    """As MCAT states it, patient by patient: S is the survival to the end of each interval, S(-1) = 1."""
    total = 0.0
    for row, months, died in zip(logits, time, event, strict=True):
        hazard = 1 / (1 + np.exp(-row))
        survival = np.r_[1.0, np.cumprod(1 - hazard)]
        k = int(np.searchsorted([10.0, 20.0], months, side="right"))
        seen = -(np.log(survival[k]) + np.log(hazard[k])) if died else 0.0
        unseen = 0.0 if died else -np.log(survival[k + 1])
        total += (1 - alpha) * (seen + unseen) + alpha * seen
    return total / len(time)


def test_by_hand_a_death_in_the_second_interval():
    """Hazards of one half: it outlives the first, ½, and dies in the second, ½."""
    assert loss(torch.zeros(1, 1, 3, dtype=torch.float64), [15.0], [True]).item() == pytest.approx(np.log(4))
    assert loss(torch.zeros(1, 1, 3, dtype=torch.float64), [15.0], [False]).item() == pytest.approx(np.log(4))
    assert loss(torch.zeros(1, 1, 3, dtype=torch.float64), [5.0], [True]).item() == pytest.approx(np.log(2))


@pytest.mark.parametrize("alpha", [0.0, 0.15, 0.6])
def test_it_is_the_published_formula(alpha):
    rng = np.random.default_rng(0)
    logits, time, event = rng.normal(size=(50, 3)) * 3, rng.uniform(0, 30, 50), rng.random(50) < 0.5
    found = loss(torch.from_numpy(logits)[None], time.tolist(), event.tolist(), alpha=alpha)
    assert found.item() == pytest.approx(published(logits, time, event, alpha), rel=1e-12)


def test_its_gradient_is_that_of_finite_differences():
    logits = torch.randn(1, 6, 3, dtype=torch.float64, requires_grad=True, generator=torch.Generator().manual_seed(0))
    time, event = [5.0, 10.0, 15.0, 20.0, 25.0, 30.0], [True, False, True, True, False, True]
    assert torch.autograd.gradcheck(lambda x: loss(x, time, event, alpha=0.15), logits)


def test_patients_who_are_not_used_count_nothing():
    time, event = torch.tensor([[5.0, 15.0]], dtype=torch.float64), torch.tensor([[True, False]])
    logits = torch.randn(1, 2, 3, dtype=torch.float64)
    used = DiscreteTime(time, event, torch.tensor([[True, False]]), EDGES, alpha=0.15).loss(logits)
    alone = DiscreteTime(time[:, :1], event[:, :1], torch.tensor([[True]]), EDGES, alpha=0.15).loss(logits[:, :1])
    torch.testing.assert_close(used, alone)


@given(st.lists(st.floats(-1e4, 1e4), min_size=3, max_size=3), st.floats(0.01, 1e3), st.booleans())
def test_extreme_logits_give_finite_losses_and_gradients(logits, time, event):
    x = torch.tensor([[logits]], dtype=torch.float32, requires_grad=True)
    value = loss(x, [time], [event])
    value.backward()
    assert bool(torch.isfinite(value))
    assert bool(torch.isfinite(x.grad).all())


def test_higher_hazards_are_a_higher_risk():
    low, high = risk(torch.tensor([[-2.0, -2.0, -2.0], [2.0, 2.0, 2.0]]))
    assert -3 < low < high < 0


def test_edges_hold_as_many_deaths_each():
    time, event = np.arange(1.0, 41.0), np.arange(40) % 2 == 0
    edges = time_edges(time, event, 4)
    assert (edges[0], edges[-1]) == (0.0, np.inf)
    assert np.histogram(time[event], [*edges[:-1].tolist(), 1e9])[0].tolist() == [5, 5, 5, 5]
    with pytest.raises(NoEventsError, match="time cannot be cut by deaths"):
        time_edges(time, np.zeros(40, bool), 4)
