"""The partial likelihood by hand, at its edges, and the baseline hazard."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mmsurv.errors import NoEventsError
from mmsurv_train.cox import breslow_baseline, neg_log_partial_likelihood


def loss(risk, time, event, **options):
    return neg_log_partial_likelihood(
        torch.tensor(risk, dtype=torch.float64), torch.tensor(time), torch.tensor(event), **options
    )


def test_two_patients_by_hand():
    assert loss([1.0, 0.0], [1.0, 2.0], [True, False]).item() == pytest.approx(math.log(math.e + 1) - 1)


def test_three_tied_events_by_hand():
    a, b, c = 2.0, 1.0, 4.0  # hazards of the tied, beside one survivor of hazard 3
    risk = [math.log(hazard) for hazard in (a, b, c, 3.0)]
    tied = a + b + c
    numerator = math.log(a) + math.log(b) + math.log(c)
    efron = sum(math.log(3 + tied * (1 - j / 3)) for j in range(3))
    data = (risk, [5.0, 5.0, 5.0, 9.0], [True, True, True, False])
    assert loss(*data, ties="efron").item() == pytest.approx((efron - numerator) / 3)
    assert loss(*data, ties="breslow").item() == pytest.approx((3 * math.log(3 + tied) - numerator) / 3)


def test_whoever_is_censored_at_the_time_of_a_death_is_at_risk():
    tied = loss([0.0, 1.0], [3.0, 3.0], [True, False])
    assert tied.item() == pytest.approx(math.log(1 + math.e))


def test_loss_is_divided_by_events_not_by_patients_or_times():
    once = loss([0.3, -0.2], [1.0, 2.0], [True, True], ties="breslow")
    with_censored = loss([0.3, -0.2, 5.0], [1.0, 2.0, 0.5], [True, True, False], ties="breslow")
    assert with_censored.item() == pytest.approx(once.item())
    assert loss([0.0] * 4, [7.0] * 4, [True] * 4, ties="breslow").item() == pytest.approx(math.log(4))


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_risks_give_finite_loss_and_gradient(ties, dtype):
    risk = torch.tensor([1e4, -1e4, 500.0, 500.0, -2000.0, 0.0], dtype=dtype, requires_grad=True)
    value = neg_log_partial_likelihood(
        risk, torch.tensor([1.0, 2, 2, 2, 3, 3]), torch.tensor([0, 1, 1, 1, 1, 1]), ties=ties
    )
    value.backward()
    assert value.dtype == dtype
    assert torch.isfinite(value)
    assert torch.isfinite(risk.grad).all()


def test_low_risks_keep_their_gradient():
    """A constant added inside the log, as in other trainers, would flatten it."""
    time, event = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1, 1, 0])
    gradients = []
    for shift in (0.0, -60.0):
        risk = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64).add(shift).requires_grad_()
        neg_log_partial_likelihood(risk, time, event).backward()
        gradients.append(risk.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_a_step_along_the_gradient_of_a_first_censored_patient_is_finite(ties):
    """Patients who leave before the first death have no gradient; log-space backward passes can make that NaN."""
    risk = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    time, event = torch.tensor([1.0, 5.0, 9.0]), torch.tensor([0, 1, 0])
    neg_log_partial_likelihood(risk, time, event, ties=ties).backward()
    torch.testing.assert_close(risk.grad, torch.tensor([0, -0.5, 0.5], dtype=torch.float64))


def test_no_event_is_an_error_not_a_zero():
    with pytest.raises(NoEventsError, match="None of the 2 patients has an event"):
        loss([0.0, 1.0], [1.0, 2.0], [False, False])


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([0.0, 1.0], [1.0], [True]), {}, "vectors of one length"),
        (([0.0, math.nan], [1.0, 2.0], [True, True]), {}, "must be finite"),
        (([0.0, 1.0], [1.0, math.inf], [True, True]), {}, "must be finite"),
        (([0.0, 1.0], [1.0, 2.0], [True, True]), {"ties": "exact"}, "'efron' or 'breslow'"),
    ],
)
def test_what_cannot_be_is_refused(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        loss(*arguments, **options)


def test_baseline_without_risk_differences_is_nelson_aalen():
    baseline = breslow_baseline(np.zeros(4), [2.0, 1.0, 2.0, 3.0], [1, 1, 1, 0])
    assert baseline["time"].tolist() == [1.0, 2.0]
    np.testing.assert_allclose(baseline["cumulative_hazard"], [1 / 4, 1 / 4 + 2 / 3])
    np.testing.assert_allclose(baseline["survival"], np.exp([-1 / 4, -11 / 12]))


def test_baseline_of_extreme_risks_is_finite():
    baseline = breslow_baseline([800.0, -800.0, 0.0], [1.0, 2.0, 3.0], [1, 1, 1])
    assert np.isfinite(baseline.to_numpy()[:2]).all()


def test_baseline_without_a_death_is_an_error():
    with pytest.raises(NoEventsError, match="no baseline hazard"):
        breslow_baseline([0.0], [1.0], [False])
