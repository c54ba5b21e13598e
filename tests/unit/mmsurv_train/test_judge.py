"""Which epoch is the best, and when a network stops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmsurv_train.judge import Judge
from mmsurv_train.recipe import FitSettings

TIME, EVENT = np.array([1.0, 2.0, 3.0]), np.array([True, True, False])
GOOD, FAIR, BAD = (torch.tensor(risk)[:, None] for risk in ([3.0, 2.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 2.0]))


def judged(risks, **settings):
    judge = Judge(FitSettings(**{"epochs": 9, "patience": 0, **settings}), TIME, EVENT)
    better = [judge.hear({"epoch": epoch, "loss": 1.0}, risk)[1] for epoch, risk in enumerate(risks, 1)]
    return judge, better


def test_the_epoch_of_least_validation_loss_is_the_best():
    judge, better = judged([FAIR, GOOD, BAD, GOOD])
    assert better == [True, True, False, False]
    assert judge.best_epoch == 2
    assert [row["validation_c_index"] for row in judge.history] == [1, 1, 0, 1]


def test_by_c_index_the_loss_breaks_ties():
    judge, better = judged([BAD, FAIR, GOOD], select="c-index")
    assert better == [True, True, True]
    assert judge.best_epoch == 3


def test_the_last_epoch_may_be_taken_whatever_the_validation_patients_say():
    judge, better = judged([GOOD, BAD], select="last", patience=1, epochs=3)
    assert better == [True, True]
    assert not judge.is_done  # it does not wait for a better one
    judge.hear({"epoch": 3, "loss": 1.0}, FAIR)
    assert (judge.is_done, judge.best_epoch) == (True, 3)


def test_it_stops_after_as_many_epochs_without_a_better_one():
    judge, _ = judged([GOOD, BAD], patience=2)
    assert not judge.is_done
    judge.hear({"epoch": 3, "loss": 1.0}, BAD)
    assert judge.is_done


def test_it_stops_after_the_last_epoch():
    assert not judged([GOOD, BAD])[0].is_done
    assert judged([GOOD, BAD], epochs=2)[0].is_done


def test_risks_that_are_not_finite_are_not_judged():
    judge, _ = judged([GOOD])
    with pytest.raises(FloatingPointError, match="not finite"):
        judge.hear({"epoch": 2, "loss": 1.0}, torch.tensor([[0.0], [float("nan")], [0.0]]))
    assert len(judge.history) == 1


def test_what_is_saved_is_enough_to_go_on():
    judge, _ = judged([FAIR, BAD], patience=3)
    again = Judge(judge.settings, TIME, EVENT)
    again.restore(judge.to_table(), {"weight": torch.ones(1)})
    assert again.hear({"epoch": 3, "loss": 1.0}, GOOD) == judge.hear({"epoch": 3, "loss": 1.0}, GOOD)
    assert (again.best_epoch, again.history) == (judge.best_epoch, judge.history)
