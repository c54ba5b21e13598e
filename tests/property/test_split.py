"""What holds of every split of every cohort."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsurv.split import PARTS, Split, make_folds, make_split


@st.composite
def cohorts(draw: st.DrawFn, least_events: int = 3) -> pd.DataFrame:
    ids = draw(st.lists(st.text(min_size=1, max_size=8), min_size=least_events, max_size=80, unique=True))
    n_events = draw(st.integers(least_events, len(ids)))
    events = np.array(draw(st.permutations([True] * n_events + [False] * (len(ids) - n_events))))
    return pd.DataFrame({"time": 1.0, "event": events}, index=pd.Index(ids, dtype=object))


FRACTIONS = st.sampled_from([(0.7, 0.1, 0.2), (0.5, 0.25, 0.25), (0.6, 0.2, 0.2), (0.98, 0.01, 0.01), (1 / 3,) * 3])


def check(split: Split, cases: pd.DataFrame) -> None:
    """No patient spans two parts, none is lost, and every part has an event."""
    parts = [split.cases(part) for part in PARTS]
    together = [case_id for part in parts for case_id in part]
    assert len(together) == len(set(together))
    assert set(together) == set(cases.index)
    for part in parts:
        assert cases.loc[part, "event"].any()


@given(cases=cohorts(), seed=st.integers(0, 2**32), fractions=FRACTIONS)
@settings(deadline=None)
def test_no_patient_spans_two_parts(cases: pd.DataFrame, seed: int, fractions: tuple[float, float, float]) -> None:
    check(make_split(cases, seed=seed, fractions=fractions), cases)


@given(cases=cohorts(least_events=6), seed=st.integers(0, 2**32), n_folds=st.integers(2, 5))
@settings(deadline=None)
def test_folds_test_every_patient_once(cases: pd.DataFrame, seed: int, n_folds: int) -> None:
    folds = make_folds(cases, n_folds=n_folds, seed=seed)
    for fold in folds:
        check(fold, cases)
    tested = [case_id for fold in folds for case_id in fold.cases("test")]
    assert sorted(tested) == sorted(cases.index)
    sizes = [len(fold.cases("test")) for fold in folds]
    assert max(sizes) - min(sizes) <= 1


@given(cases=cohorts(least_events=6), seed=st.integers(0, 99), data=st.data())
@settings(deadline=None)
def test_row_order_does_not_matter(cases: pd.DataFrame, seed: int, data: st.DataObject) -> None:
    shuffled = cases.loc[data.draw(st.permutations(list(cases.index)))]
    assert make_split(shuffled, seed=seed).parts.equals(make_split(cases, seed=seed).parts)
    pairs = zip(make_folds(shuffled, n_folds=3, seed=seed), make_folds(cases, n_folds=3, seed=seed), strict=True)
    assert all(one.parts.equals(other.parts) for one, other in pairs)


@given(n=st.integers(60, 400), share=st.floats(0.3, 0.7), seed=st.integers(0, 99))
@settings(deadline=None)
def test_sizes_and_events_are_within_one_of_the_fractions(n: int, share: float, seed: int) -> None:
    n_events = int(n * share)
    events = np.arange(n) < n_events
    cases = pd.DataFrame({"event": events}, index=pd.Index([str(i) for i in range(n)], dtype=object))
    split = make_split(cases, seed=seed)
    for part, fraction in zip(PARTS, (0.7, 0.1, 0.2), strict=True):
        chosen = split.cases(part)
        assert abs(cases.loc[chosen, "event"].sum() - fraction * n_events) < 1
        assert abs(len(chosen) - fraction * n) < 1 + 1e-9
