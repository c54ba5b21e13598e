"""``mmsurv cohort`` as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmsurv.cli import main
from mmsurv.store import SlideRecord, create_store


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    with pytest.raises(SystemExit, match=r"\d") as stop:
        main(["cohort", *map(str, arguments)])
    out, err = capsys.readouterr()
    return int(str(stop.value.code)), out, err


@pytest.fixture
def clinical(tmp_path: Path) -> Path:
    path = tmp_path / "clinical.csv"
    path.write_text("slide_id,case_id,survival_months,vital_status\ns1.svs,a,3,1\ns2.svs,b,4,0\ns3,c,,\n")
    return path


def test_the_report_is_printed_and_written(tmp_path: Path, clinical: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rna = tmp_path / "rna.csv"
    rna.write_text("case_id,TP53\na,1\nz,2\n")
    code, out, err = run(capsys, clinical, "--rna", rna, "-o", tmp_path / "report.json")
    assert (code, err) == (0, "")
    assert "cases     2, 1 events" in out
    assert "RNA without case: 1 (z)" in out
    assert json.loads((tmp_path / "report.json").read_text())["cases_without_outcome"] == ["c"]


def test_json_goes_to_standard_output(clinical: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, clinical, "--json")
    assert code == 0
    assert json.loads(out)["n_slides"] == 2


def test_the_slides_of_a_store_are_joined(tmp_path: Path, clinical: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = create_store(tmp_path / "store", recipe={"encoder": {"name": "test"}}, dim=2)
    for slide_id in ("s1", "other"):
        store.write(
            SlideRecord(
                slide_id=slide_id,
                features=np.ones((1, 2), np.float16),
                coords=np.zeros((1, 2), np.int32),
                tissue=np.ones(1, np.float32),
                attributes={"sample_seed": 0},
                coords_attributes={},
                thumbnail=None,
                mask=None,
            )
        )
    code, out, _ = run(capsys, clinical, "--store", tmp_path / "store")
    assert code == 0
    assert "slides    1 of 1 cases" in out
    assert "slides not in the store: 2 (s2, s3)" in out
    assert "slides of the store without case: 1 (other)" in out


def test_a_table_that_cannot_be_believed_ends_with_one_line(
    tmp_path: Path, clinical: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clinical.write_text(clinical.read_text().replace("b,4,0", "b,0,0"))
    code, out, err = run(capsys, clinical)
    assert (code, out) == (1, "")
    assert err.startswith(f"CohortError: {clinical}, row 3, column 'survival_months': expected a time greater than")
    assert "Traceback" not in err


def test_usage_errors_leave_with_2(tmp_path: Path, clinical: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, tmp_path / "none.csv")[0] == 2
    assert run(capsys, clinical, "--clinical-column", "event")[0] == 2
    assert run(capsys, clinical, "--event-coding", "guess")[0] == 2


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux only")
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_paths_that_are_not_utf8_are_printed_somehow(tmp_path: Path, clinical: Path, form: tuple[str, ...]) -> None:
    clinical = clinical.rename(tmp_path / os.fsdecode(b"\xff.csv"))
    rna = tmp_path / os.fsdecode(b"rna-\xff.csv")
    rna.write_text("case_id,TP53\na,1\nb,2\n")
    done = subprocess.run(
        [sys.executable, "-m", "mmsurv", "cohort", clinical, "--rna", rna, "-o", tmp_path / "report.json", *form],
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode("utf-8")
    if form:
        assert json.loads(text)["clinical"] == str(clinical)
    else:
        assert f"clinical  {tmp_path}/\ufffd.csv" in text
        assert f"from {tmp_path}/rna-\ufffd.csv" in text
    assert json.loads((tmp_path / "report.json").read_text())["rna"] == str(rna)
