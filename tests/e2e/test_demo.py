"""``mmsurv demo`` as a stranger runs it, on few patients."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest


def demo(where: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return mmsurv(where, "demo", *arguments)


def mmsurv(where: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mmsurv", *arguments]
    return subprocess.run(command, cwd=where, capture_output=True, text=True, timeout=400, check=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which a demo was run, and what it printed."""
    where = tmp_path_factory.mktemp("demo")
    done = demo(where, "--quick")
    assert done.returncode == 0, done.stdout + done.stderr
    return where, done.stdout


def test_the_demo_ends_with_one_table_of_four_models_and_a_report(finished: tuple[Path, str]) -> None:
    where, printed = finished
    end = printed[printed.index("Simulated data, random encoder weights") :]
    for model in ("cross-attention", "joint", "wsi-mean", "rna"):
        cell = r"\d\.\d{3} \[\d\.\d\d, \d\.\d\d\]"
        assert re.search(rf"^{model} +{cell} +{cell}$", end, re.M), end
    report = Path(end.strip().splitlines()[-1].removeprefix("Report: "))
    html = (where / report).read_text()
    assert "Simulated data" in html
    assert "random" in html


def test_every_command_is_printed_and_can_be_repeated_by_hand(finished: tuple[Path, str]) -> None:
    where, printed = finished
    lines = [shlex.split(line[2:]) for line in printed.splitlines() if line.startswith("$ ")]
    assert [words[1] for words in lines] == ["extract", "store", "cohort", *["train"] * 4, "report"]
    assert mmsurv(where, *lines[1][1:]).returncode == 0
    again = [*lines[-2][1:-1], "again"]
    assert mmsurv(where, *again).returncode == 0
    first = where / "mmsurv-demo" / "runs" / "rna" / "predictions.csv"
    assert (where / "again" / "predictions.csv").read_bytes() == first.read_bytes()


def test_a_run_is_computed_again_to_the_last_bit_with_the_slides_deleted(finished: tuple[Path, str]) -> None:
    where, _ = finished
    slides = where / "mmsurv-demo" / "slides"
    slides.rename(where / "gone")
    try:
        again = mmsurv(where, "evaluate", "mmsurv-demo/runs/cross-attention")
    finally:
        (where / "gone").rename(slides)
    assert again.returncode == 0, again.stderr
    assert "identical" in again.stdout


def test_a_second_call_keeps_what_is_done(finished: tuple[Path, str]) -> None:
    where, _ = finished
    kept = {path: path.stat().st_mtime_ns for path in (where / "mmsurv-demo").rglob("*.[th][id5]*") if path.is_file()}
    done = demo(where, "--quick")
    assert done.returncode == 0, done.stderr
    assert "0 slides painted now" in done.stdout
    assert done.stdout.count("is kept. Delete it to train again.") == 4
    assert len(kept) > 20
    for path, written in kept.items():
        if path.suffix != ".html":
            assert path.stat().st_mtime_ns == written, path


def test_a_stage_that_fails_stops_the_demo_with_its_output(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_text("not weights")
    done = demo(tmp_path, "--quick", "--patients", "30", "--weights", "weights.pth", "-o", "d")
    assert done.returncode == 1
    assert "WeightsError" in done.stderr
    assert "JobFailedError: `mmsurv extract d/slides" in done.stderr
    assert "Traceback" not in done.stderr
    assert "mmsurv store verify" not in done.stdout


def test_a_folder_of_other_things_and_impossible_numbers_are_usage_errors(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    refused = demo(tmp_path, "-o", "mine")
    assert refused.returncode == 2
    assert "not empty and no demo's" in refused.stderr
    below_a_file = demo(tmp_path, "-o", "mine/thesis.tex/demo")
    assert below_a_file.returncode == 2
    assert below_a_file.stderr.startswith("ConfigError: mine/thesis.tex/demo cannot be used")
    few = demo(tmp_path, "--patients", "3")
    assert few.returncode == 2
    assert "3 is not in the range 30<=x<=999" in few.stderr
    assert not (tmp_path / "mmsurv-demo").exists()
