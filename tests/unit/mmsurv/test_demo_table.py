"""The demo's table: numbers with intervals, and a dash where there is none."""

import json
from pathlib import Path

import pytest

from mmsurv.demo.table import counts, results_table
from mmsurv.errors import RunError


def write_run(path: Path, wsi: dict, case: dict) -> Path:
    path.mkdir()
    part = {"wsi": {"n": 75, "c_index": wsi}, "case": {"n": 60, "events": 39, "c_index": case}}
    (path / "metrics.json").write_text(json.dumps({"parts": {"out-of-fold": part}}))
    return path


def test_a_row_has_values_with_their_intervals(tmp_path: Path) -> None:
    known = {"value": 0.7104, "low": 0.618, "high": 0.8}
    run = write_run(tmp_path / "joint", known, {"value": None, "low": None, "high": None})
    table = results_table({"joint": run}).splitlines()
    assert table[0].split("  ")[0] == "model"
    assert table[2] == "joint  0.710 [0.62, 0.80]  –"
    assert counts(run) == "75 slides of 60 patients, 39 deaths"


def test_a_value_without_an_interval_stands_alone(tmp_path: Path) -> None:
    run = write_run(tmp_path / "rna", {"value": 0.5}, {"value": 0.5, "low": None, "high": None})
    assert results_table({"rna": run}).splitlines()[2].split() == ["rna", "0.500", "0.500"]


def test_a_run_without_results_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"wsi/metrics\.json: no out-of-fold results"):
        results_table({"wsi": tmp_path / "wsi"})
