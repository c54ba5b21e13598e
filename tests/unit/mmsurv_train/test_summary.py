"""The table of the command line: the ensemble in its rows, its networks below."""

from __future__ import annotations

from typing import Any

from mmsurv_train import summary


def metrics(values: list[float | None], *, sd: float | None, low: float | None = None) -> dict[str, Any]:
    estimate = {"value": 0.75, "low": None, "high": None}
    level = {"c_index": estimate, "c_index_ipcw": estimate, "n": 10, "events": 5}
    high = None if low is None else low + 0.1
    alone = {"values": values, "mean": 0.7, "sd": sd, "low": low, "high": high}
    return {
        "parts": {"test": {"wsi": level, "case": level}},
        "seeds": {"seeds": list(range(3, 3 + len(values))), "wsi": alone, "case": alone},
        "method": {"n_bootstrap": 0},
    }


def test_seeds_are_listed_with_their_spread_and_the_interval_of_their_mean() -> None:
    lines = summary.text(metrics([0.69, 0.71], sd=0.0141, low=0.65)).splitlines()
    assert lines[3:] == [
        "mean ± sd of the 2 seeds alone, WSI: 0.700 ± 0.014, interval of the mean 0.650 to 0.750",
        "mean ± sd of the 2 seeds alone, case: 0.700 ± 0.014, interval of the mean 0.650 to 0.750",
        "The table is of their ensemble: the mean risk of seeds 3 to 4.",
    ]


def test_without_resamples_there_is_no_interval_of_the_mean() -> None:
    lines = summary.text(metrics([0.69, 0.71], sd=0.0141)).splitlines()
    assert lines[4] == "mean ± sd of the 2 seeds alone, case: 0.700 ± 0.014"


def test_one_seed_needs_no_line() -> None:
    assert len(summary.text(metrics([0.7], sd=None, low=0.6)).splitlines()) == 3


def test_seeds_that_cannot_be_measured_are_a_dash() -> None:
    lines = summary.text(metrics([None, None], sd=None)).splitlines()
    assert lines[4] == "mean ± sd of the 2 seeds alone, case: –"
