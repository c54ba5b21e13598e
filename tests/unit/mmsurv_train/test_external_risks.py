"""Survival of new patients: by each model's own baseline, and no further than it reaches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mmsurv.errors import RunError
from mmsurv_train import run as runs
from mmsurv_train.external.risks import curves, survival
from mmsurv_train.predict import RiskTables
from mmsurv_train.run import Run


def member(folder: Path, times: list[float], hazard: list[float]) -> Run:
    folder.mkdir()
    runs.write_csv(folder / runs.BASELINE, pd.DataFrame({"time": times, "cumulative_hazard": hazard}))
    return Run(folder, {"kind": runs.RUN, "recipe": {"fit": {"loss": "cox-efron"}}})


def risks(*values: float) -> RiskTables:
    cases = pd.DataFrame({"case_id": [f"c{i}" for i in range(len(values))], "risk": values})
    return RiskTables(slides=cases.iloc[:0], cases=cases)


def predicted(members: list[Run], tables: list[RiskTables]) -> pd.DataFrame:
    return survival(curves(members, tables), tables[0].cases)


def test_survival_is_a_step_of_the_baseline_and_ends_with_it(tmp_path: Path) -> None:
    found = predicted([member(tmp_path / "a", [6.0, 20.0, 36.0], [0.1, 0.3, 0.7])], [risks(0.0, 1.0)])
    assert found["survival_12"].to_numpy() == pytest.approx(np.exp(-0.1 * np.exp([0.0, 1.0])))
    assert found["survival_36"].to_numpy() == pytest.approx(np.exp(-0.7 * np.exp([0.0, 1.0])))
    assert found["survival_60"].isna().all()


def test_before_the_first_death_all_are_alive_and_a_hazard_without_bound_leaves_no_one(tmp_path: Path) -> None:
    found = predicted([member(tmp_path / "a", [20.0, 40.0], [0.3, 0.7])], [risks(0.0, 1000.0)])
    assert found["survival_12"].tolist() == [1.0, 1.0]
    assert found["survival_36"].tolist()[1] == 0.0


def test_of_folds_it_is_the_mean_and_empty_where_one_does_not_reach(tmp_path: Path) -> None:
    members = [member(tmp_path / "a", [6.0, 70.0], [0.1, 0.9]), member(tmp_path / "b", [6.0, 40.0], [0.3, 0.5])]
    found = predicted(members, [risks(0.0), risks(1.0)])
    assert found.loc["c0", "survival_12"] == pytest.approx((np.exp(-0.1) + np.exp(-0.3 * np.e)) / 2)
    assert np.isnan(found.loc["c0", "survival_60"])


def test_a_damaged_baseline_is_named(tmp_path: Path) -> None:
    run = member(tmp_path / "a", [6.0], [0.1])
    runs.write_csv(run.path / runs.BASELINE, pd.DataFrame({"time": [6.0]}))
    with pytest.raises(RunError, match=r"baseline.csv: the columns time and cumulative_hazard"):
        curves([run], [risks(0.0)])


def test_the_mean_of_curves_ends_with_the_first_and_can_be_asked_one_by_one(tmp_path: Path) -> None:
    members = [member(tmp_path / "a", [6.0, 70.0], [0.1, 0.9]), member(tmp_path / "b", [6.0, 40.0], [0.3, 0.5])]
    found = curves(members, [risks(0.0, 1.0), risks(1.0, 2.0)])
    assert (found.end, found.ends().tolist()) == (40.0, [40.0, 40.0])
    assert found.at_own(np.array([12.0, 40.0])) == pytest.approx(np.diag(found.at([12.0, 40.0])))
    assert found.take(np.array([1])).at([12.0])[0, 0] == found.at([12.0])[1, 0]
