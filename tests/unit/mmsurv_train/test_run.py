"""A run folder is there whole or not at all, and gives back the bits that were written."""

from __future__ import annotations

import errno
import json
import math
import struct
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mmsurv.errors import RunError
from mmsurv_train import run as runs
from mmsurv_train.scores import Predictions


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
    with runs.new_run(tmp_path / "run") as folder:
        complete(folder)
        assert not (tmp_path / "run").exists()
    found = runs.read_run(tmp_path / "run")
    assert (found.kind, found.name, found.config["note"]) == ("run", "run", "small")
    assert torch.equal(found.weights()["w"], torch.ones(2))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_an_interrupted_run_leaves_nothing(tmp_path) -> None:
    def interrupted() -> None:
        with runs.new_run(tmp_path / "run") as folder:
            complete(folder)
            raise KeyboardInterrupt("by the user")

    with pytest.raises(KeyboardInterrupt, match="by the user"):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_never_overwritten(tmp_path) -> None:
    with runs.new_run(tmp_path / "run") as folder:
        complete(folder)
    before = (tmp_path / "run" / runs.PREDICTIONS).read_bytes()
    with pytest.raises(RunError, match="already holds a run"), runs.new_run(tmp_path / "run"):
        pytest.fail("the block must not run")
    assert (tmp_path / "run" / runs.PREDICTIONS).read_bytes() == before


def test_a_folder_with_something_in_it_is_refused_and_an_empty_one_is_used(tmp_path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("draft")
    with pytest.raises(RunError, match="is not empty"):
        runs.check_free(tmp_path / "full")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="is a file"):
        runs.check_free(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with runs.new_run(tmp_path / "empty") as folder:
        complete(folder)
    assert runs.read_run(tmp_path / "empty").kind == "run"


def test_a_place_that_cannot_be_made_is_refused_and_nothing_is_left(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "sub", tmp_path / "file" / "sub" / "run", tmp_path / "new" / ("x" * 300) / "run"):
        with pytest.raises(RunError, match=r"cannot be written .*name another place with -o"):
            runs.check_free(place)
    with pytest.raises(RunError, match="names no folder of its own"):
        runs.check_free(tmp_path / "..")
    runs.check_free(tmp_path / "several" / "new" / "folders")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_place_that_cannot_be_written_in_is_refused_before_the_work(tmp_path, monkeypatch) -> None:
    def refused(**_: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "mkdtemp", refused)
    with pytest.raises(RunError, match=r"run: cannot be written \(Permission denied\)"):
        runs.check_free(tmp_path / "run")


def test_a_full_disk_is_an_error_of_the_run_and_leaves_nothing(tmp_path, monkeypatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    for write in (
        lambda folder: runs.write_predictions(folder, predictions()),
        lambda folder: runs.write_weights(folder, {"w": torch.ones(2)}),
    ):
        with pytest.raises(RunError, match="No space left on device"), runs.new_run(tmp_path / "run") as folder:
            write(folder)
    assert list(tmp_path.iterdir()) == []


def test_every_file_and_folder_is_flushed_and_the_parent_after_the_rename(tmp_path, monkeypatch) -> None:
    flushed: list[tuple[str, bool]] = []
    monkeypatch.setattr(runs, "flush_to_disk", lambda path: flushed.append((path.name, (tmp_path / "run").exists())))
    with runs.new_run(tmp_path / "run") as folder:
        (folder / "fold-0").mkdir()
        (folder / "fold-0" / "x.csv").write_text("1\n")
    assert [name for name, _ in flushed[:2]] == ["fold-0", "x.csv"]
    assert flushed[2][0].startswith(".run.partial-")
    assert flushed[3:] == [(tmp_path.name, True)]
    assert not any(renamed for _, renamed in flushed[:3])


def test_a_place_taken_while_the_run_was_made_is_not_replaced(tmp_path) -> None:
    def overtaken() -> None:
        with runs.new_run(tmp_path / "run") as folder:
            complete(folder)
            (tmp_path / "run").mkdir()
            (tmp_path / "run" / "other").write_text("someone else's")

    with pytest.raises(RunError, match="was it made meanwhile"):
        overtaken()
    assert (tmp_path / "run" / "other").read_text() == "someone else's"


@pytest.mark.parametrize("name", runs.FILES[runs.RUN])
def test_a_run_without_one_of_its_files_is_refused_by_name(tmp_path, name) -> None:
    complete(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(RunError, match=name.replace(".", r"\.")):
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
