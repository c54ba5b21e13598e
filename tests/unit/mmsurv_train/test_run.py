"""A run folder is there whole or not at all, and gives back the bits that were written."""

from __future__ import annotations

import json
import math
import struct

import numpy as np
import pandas as pd
import pytest
import torch

from mmsurv.errors import RunError
from mmsurv_train import place
from mmsurv_train import run as runs
from mmsurv_train.scores import Predictions
from mmsurv_train.sweep import execute, identity


def predictions() -> Predictions:
    return Predictions(
        slides=pd.DataFrame(
            {
                "slide_id": ["007", "NA"],
                "case_id": ["1", "02"],
                "part": ["train", "test"],
                "risk": [0.1 + 0.2, -math.pi * 1e-300],
                "time": [1 / 3, 12.0],
                "event": [True, False],
            }
        ),
        cases=pd.DataFrame({"case_id": ["1"], "part": ["train"], "risk": [1.0], "time": [2.0], "event": [False]}),
    )


def complete(folder) -> None:
    """Every file of a run of one split, as small as can be."""
    for name in runs.FILES[runs.RUN]:
        (folder / name).write_text("{}\n")
    tables = {"cohort": {"clinical": "c.csv"}, "data": {"complete_cases": False, "from_run": {"clinical": "c.csv"}}}
    runs.write_config(folder, {"note": "small", "recipe": {}, **tables}, kind=runs.RUN)
    runs.write_predictions(folder, predictions())
    runs.write_weights(folder, {"w": torch.ones(2)})


def test_a_complete_run_is_read_back(tmp_path) -> None:
    with place.new_run(tmp_path / "run") as folder:
        complete(folder)
        assert not (tmp_path / "run").exists()
    found = runs.read_run(tmp_path / "run")
    assert (found.kind, found.name, found.config["note"]) == ("run", "run", "small")
    assert torch.equal(found.weights()["w"], torch.ones(2))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("name", runs.FILES[runs.RUN])
def test_a_run_without_one_of_its_files_is_refused_by_name(tmp_path, name) -> None:
    complete(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(RunError, match=name.replace(".", r"\.")):
        runs.read_run(tmp_path)


def cross_validation(folder) -> None:
    """Two folds, as small as can be."""
    complete(folder)
    config = folder / runs.CONFIG
    config.write_text("folds = [0, 1]\n" + config.read_text().replace('kind = "run"', 'kind = "cross-validation"'))
    for k in (0, 1):
        (folder / runs.fold_name(k)).mkdir()
        complete(folder / runs.fold_name(k))


@pytest.mark.parametrize("name", ["fold-1", "fold-1/model.safetensors"])
def test_a_cross_validation_without_one_of_its_folds_is_refused_by_name(tmp_path, name) -> None:
    cross_validation(tmp_path)
    assert len(runs.read_run(tmp_path).folds()) == 2
    lost = tmp_path / name
    lost.rename(tmp_path / "elsewhere")
    with pytest.raises(RunError, match=rf"is not a complete run: {name} missing\. Delete that run and train it again"):
        runs.read_run(tmp_path)


def test_the_folder_of_a_sweep_is_no_run_and_says_where_its_runs_are(tmp_path) -> None:
    (tmp_path / execute.RUNS).mkdir()
    (tmp_path / identity.PLAN).write_text("{}")
    with pytest.raises(RunError, match=rf"is a sweep, not a run: name its runs, {tmp_path}/runs/\*\."):
        runs.read_run(tmp_path)


def test_what_is_not_a_run_is_refused(tmp_path) -> None:
    with pytest.raises(RunError, match="is not a folder"):
        runs.read_run(tmp_path / "nowhere")
    (tmp_path / runs.CONFIG).write_text("format = 99\nkind = 'run'\n")
    with pytest.raises(RunError, match="says format 99"):
        runs.read_run(tmp_path)
    (tmp_path / runs.CONFIG).write_text("= nonsense")
    with pytest.raises(RunError, match="not a TOML file"):
        runs.read_run(tmp_path)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('kind = "run"', 'kind = ["run"]', r"kind \['run'\]"),
        ("[data.from_run]", "[data.elsewhere]", r"config\.toml: the key data\.from_run is missing"),
        ("complete_cases = false", "complete_cases = 0", r"data\.complete_cases must be true or false, not 0"),
        ("[recipe]", "[other]", r"config\.toml: the key recipe is missing"),
        ('[cohort]\nclinical = "c.csv"', "[cohort]\nclinical = 5", r"cohort\.clinical must be text, not 5"),
        ("[data]", "[data]\nstore = 3", r"data\.store must be text, not 3"),
        ('kind = "run"', 'kind = "cross-validation"', r"config\.toml: the key folds is missing"),
    ],
)
def test_a_damaged_config_is_named_with_its_key(tmp_path, before, after, message) -> None:
    complete(tmp_path)
    config = tmp_path / runs.CONFIG
    assert before in config.read_text()
    config.write_text(config.read_text().replace(before, after))
    with pytest.raises(RunError, match=message):
        runs.read_run(tmp_path)


def test_weights_that_are_a_pickle_are_not_executed(tmp_path) -> None:
    complete(tmp_path)
    torch.save({"w": torch.ones(1)}, tmp_path / runs.MODEL)
    with pytest.raises(RunError, match="not a safetensors file"):
        runs.read_run(tmp_path).weights()


def test_floats_ids_and_events_survive_the_csv_bit_for_bit(tmp_path) -> None:
    complete(tmp_path)
    found = runs.read_run(tmp_path).predictions.slides
    expected = predictions().slides
    assert found["slide_id"].tolist() == ["007", "NA"]
    assert found["event"].dtype == bool
    assert [struct.pack("d", x) for x in found["risk"]] == [struct.pack("d", x) for x in expected["risk"]]
    assert runs.csv_bytes(found) == (tmp_path / runs.PREDICTIONS).read_bytes()


def test_any_float_survives_the_csv(tmp_path) -> None:
    bits = np.random.default_rng(0).integers(0, 2**64, 2000, dtype=np.uint64)
    values = bits.view(np.float64)
    values = values[np.isfinite(values)]
    runs.write_csv(tmp_path / "x.csv", pd.DataFrame({"value": values}))
    np.testing.assert_array_equal(runs.read_csv(tmp_path / "x.csv")["value"].to_numpy(), values)


def test_a_history_may_hold_a_measure_that_is_missing(tmp_path) -> None:
    history = pd.DataFrame({"epoch": [1, 2], "validation_c_index": [np.nan, 0.5]})
    runs.write_csv(tmp_path / "h.csv", history)
    pd.testing.assert_frame_equal(runs.read_csv(tmp_path / "h.csv"), history)


def test_json_is_sorted_and_refuses_nan() -> None:
    assert list(json.loads(runs.json_text({"b": 1, "a": 0.1}))) == ["a", "b"]
    with pytest.raises(ValueError, match="not JSON compliant"):
        runs.json_text({"a": math.nan})


def test_a_damaged_table_or_json_is_named(tmp_path) -> None:
    complete(tmp_path)
    (tmp_path / runs.METRICS).write_text("[1]")
    (tmp_path / runs.PREDICTIONS).write_text("")
    with pytest.raises(RunError, match=r"metrics\.json: a JSON object is expected"):
        _ = runs.read_run(tmp_path).metrics
    with pytest.raises(RunError, match=r"predictions\.csv: not a table"):
        _ = runs.read_run(tmp_path).predictions
