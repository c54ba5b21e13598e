"""``mmsurv store`` as typed."""

import json
import os
import shutil
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from mmsurv.cli import cli
from mmsurv.errors import JobFailedError
from mmsurv.store import create_store
from mmsurv.store.testing import RECIPE, make_record


@pytest.fixture
def store_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = create_store(tmp_path / "store", recipe=RECIPE, dim=8)
    for slide_id in ("a", "b", "c"):
        store.write(make_record(slide_id))
    store.write_failure("d", ValueError("torn"), source="d.svs")
    return tmp_path / "store"


def run(*arguments: object):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def test_info_says_what_the_store_holds(store_path: Path) -> None:
    text = run("store", "info", store_path).output
    assert "slides         3" in text
    assert "tiles          180" in text
    assert "failures       1" in text
    assert "encoder.name                   resnet50" in text
    facts = json.loads(run("store", "info", store_path, "--json").output)
    assert (facts["slides"], facts["dim"], facts["recipe"]) == (3, 8, RECIPE)


def test_info_says_when_the_weights_are_random(tmp_path: Path) -> None:
    create_store(tmp_path / "s", recipe={"encoder": {"name": "resnet18", "weights": "random"}}, dim=8)
    assert "weights are random" in run("store", "info", tmp_path / "s").output


def test_list_has_a_line_for_each_slide(store_path: Path) -> None:
    lines = run("store", "list", store_path).output.splitlines()
    assert [line.split()[0] for line in lines] == ["slide_id", "a", "b", "c"]
    assert [row["slide_id"] for row in json.loads(run("store", "list", store_path, "--json").output)] == ["a", "b", "c"]
    assert "d: ValueError: torn (attempt 1, d.svs)" in run("store", "list", store_path, "--failures").output


def test_verify_names_every_damaged_record(store_path: Path) -> None:
    assert "3 records are whole." in run("store", "verify", store_path).output
    for slide_id, cut in (("a", 100), ("c", 5000)):
        path = store_path / "slides" / f"{slide_id}.h5"
        path.write_bytes(path.read_bytes()[:-cut])
    result = run("store", "verify", store_path)
    assert isinstance(result.exception, JobFailedError)
    assert "2 of 3 records cannot be used" in str(result.exception)
    assert {line.partition(":")[0] for line in result.output.splitlines()} == {"a", "c"}


def test_verify_lists_what_a_killed_writer_left(store_path: Path) -> None:
    (store_path / "slides" / ".x.0123.partial").write_bytes(b"half")
    result = run("store", "verify", store_path)
    assert result.exit_code == 0
    assert "a writer's temporary file" in result.output


def test_prune_says_what_it_removes_and_removes_no_record(store_path: Path) -> None:
    half = store_path / "slides" / ".x.0123.partial"
    half.write_bytes(b"half")
    os.utime(half, (0, 0))
    result = run("store", "prune", store_path, "--dry-run")
    assert f"{half}: left by a writer that died" in result.output
    assert "1 files would be removed, 4 bytes." in result.output
    assert half.exists()
    facts = json.loads(run("store", "prune", store_path, "--json").output)
    assert ([item["path"] for item in facts["removed"]], facts["bytes"]) == ([str(half)], 4)
    assert not half.exists()
    assert "Nothing to remove." in run("store", "prune", store_path, "--older-than", "0").output
    assert "3 records are whole." in run("store", "verify", store_path).output
    assert run("store", "prune", store_path, "--older-than", "-1").exit_code == 2


def test_convert_copies_the_store_and_names_what_it_could_not(store_path: Path, tmp_path: Path) -> None:
    result = run("store", "convert", store_path, "-o", tmp_path / "zarr", "--backend", "zarr")
    assert f"3 records copied, 0 were there, 1 failures: {tmp_path / 'zarr'}" in result.output
    assert "backend        zarr" in run("store", "info", tmp_path / "zarr").output
    assert run("store", "verify", tmp_path / "zarr").exit_code == 0
    facts = json.loads(
        run("store", "convert", tmp_path / "zarr", "-o", tmp_path / "h", "--backend", "hdf5", "--json").output
    )
    assert (facts["copied"], facts["kept"], facts["problems"], facts["failures"]) == (["a", "b", "c"], [], {}, ["d"])
    (store_path / "slides" / "b.h5").write_bytes(b"torn")
    result = run("store", "convert", store_path, "-o", tmp_path / "zarr2", "--backend", "zarr")
    assert isinstance(result.exception, JobFailedError)
    assert "1 records were not copied:\n  b: CorruptRecordError" in str(result.exception)


def test_another_package_adds_a_command_that_is_loaded_when_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As stage 1 adds `retry`; here a distribution that is nothing but metadata and a module."""
    metadata = tmp_path / "plugin-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    points = "retry = plugged_in:again\ninfo = plugged_in:again\nnone = plugged_in:NONE\n"
    (metadata / "entry_points.txt").write_text(f"[mmsurv.store_commands]\n{points}")
    (tmp_path / "plugged_in.py").write_text(
        "import click\nNONE = 1\n@click.command()\ndef again():\n    click.echo('tried again')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    text = run("store", "--help").output
    assert "Encode the slides again that failed." in text
    assert "What STORE holds" in text, "a command of its own is not replaced"
    assert "plugged_in" not in sys.modules
    assert run("store", "retry").output == "tried again\n"
    assert "of mmsurv.store_commands is not a click command" in str(run("store", "none").exception)
    assert run("store", "nowhere").exit_code == 2


def test_what_is_no_record_among_the_records_is_listed_and_hides_nothing(store_path: Path) -> None:
    (store_path / "slides" / " x.h5").write_bytes(b"")
    (store_path / "failures" / "q.json").mkdir()
    assert "slides         3" in run("store", "info", store_path).output
    assert "x.h5: not a record" in run("store", "verify", store_path).output


def test_import_reads_what_stage_one_wrote_as_trident(store_path: Path, tmp_path: Path) -> None:
    """Our records are in TRIDENT's layout: their tools open them, and so does our own import."""
    source = tmp_path / "features"
    shutil.copytree(store_path / "slides", source)
    with h5py.File(source / "z.h5", "w") as file:
        file["features"] = np.zeros((3, 5))
    result = run("store", "import", source, "-o", tmp_path / "imported")
    assert "3 of 4 slides, 180 tiles × 8" in result.output
    assert isinstance(result.exception, JobFailedError)
    assert "z: ImportLayoutError" in str(result.exception)
    assert "encoder (give --encoder)" in result.output
    assert run("store", "verify", tmp_path / "imported").exit_code == 0


def test_a_path_that_is_no_store_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    result = run("store", "info", tmp_path)
    assert "holds no store.json" in str(result.exception)
