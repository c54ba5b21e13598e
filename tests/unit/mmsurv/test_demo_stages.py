"""The demo's command lines: printed as they run, stopped by the first that fails."""

import shlex
from pathlib import Path

import pytest

from mmsurv.demo.folder import DemoFolder
from mmsurv.demo.stages import MODELS, Stage, run, stages
from mmsurv.errors import JobFailedError


def test_the_commands_are_those_of_the_project_in_order() -> None:
    made = stages(DemoFolder(Path("d")), folds=5, weights=None)
    assert [stage.arguments[0] for stage in made] == ["extract", "store", "cohort", *["train"] * 4, "report"]
    assert made[0].line == "mmsurv extract d/slides -o d/store --recipe demo --tiles 48"


def test_a_printed_command_can_be_pasted_into_a_shell() -> None:
    for stage in stages(DemoFolder(Path("my demo's")), folds=5, weights="w b.pth"):
        assert tuple(shlex.split(stage.line)) == ("mmsurv", *stage.arguments)


def test_random_weights_are_called_so_before_and_in_the_report() -> None:
    made = stages(DemoFolder(Path("d")), folds=5, weights=None)
    assert "random weights" in made[0].title
    assert "random" in made[-1].line
    assert "Simulated" in made[-1].line


def test_given_weights_are_used_and_not_called_random() -> None:
    made = stages(DemoFolder(Path("d")), folds=5, weights="r18.pth")
    assert made[0].line.endswith("--weights r18.pth")
    assert "random" not in " ".join((made[0].title, *made[-1].arguments))
    assert "Simulated" in made[-1].line


def test_a_failing_command_stops_with_its_exit_code(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(JobFailedError, match=r"`mmsurv nonsense` left with exit code 2"):
        run(Stage(title="Fails.", arguments=("nonsense",)))
    shown = capfd.readouterr()
    assert "$ mmsurv nonsense" in shown.out
    assert "No such command 'nonsense'" in shown.err


def test_a_finished_run_is_not_trained_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = DemoFolder(tmp_path)
    training = next(stage for stage in stages(folder, folds=2, weights=None) if stage.arguments[0] == "train")
    folder.run(MODELS[0]).mkdir(parents=True)
    (folder.run(MODELS[0]) / "metrics.json").write_text("{}")
    assert run(training) == 0
    shown = capfd.readouterr()
    assert training.line in shown.out
    assert "is kept" in shown.out
    assert shown.err == ""
