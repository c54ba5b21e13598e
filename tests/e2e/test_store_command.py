"""``mmsurv store`` as typed."""

import dataclasses
import json
import os
import re
import shutil
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from mmsurv.cli import cli
from mmsurv.errors import JobFailedError, RecordNotFoundError, StoreError
from mmsurv.store import create_store, open_store
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
    assert lines[1].split() == ["a", "100", "6", "0.25", "–"]
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
    for age in ("-1", "nan", "inf", "-inf"):
        assert run("store", "prune", store_path, "--older-than", age).exit_code == 2


def test_prune_names_a_folder_that_is_a_link_and_leaves_what_is_behind_it(store_path: Path, tmp_path: Path) -> None:
    half = store_path / "slides" / ".x.0123.partial"
    half.write_bytes(b"half")
    (store_path / "slides").rename(tmp_path / "elsewhere")
    (store_path / "slides").symlink_to(tmp_path / "elsewhere")
    text = run("store", "prune", store_path, "--older-than", "0").output
    assert f"{store_path / 'slides'}: a link, so nothing in it is removed." in text
    assert half.exists()
    facts = json.loads(run("store", "prune", store_path, "--older-than", "0", "--json").output)
    assert facts["skipped"] == [str(store_path / "slides")]


@pytest.mark.parametrize("kind", ["a folder", "a FIFO", "a link that leads nowhere"])
def test_what_is_no_file_at_a_records_place_is_named_and_hides_nothing(store_path: Path, kind: str) -> None:
    place = store_path / "slides" / "x.h5"
    {
        "a folder": place.mkdir,
        "a FIFO": lambda: os.mkfifo(place),
        "a link that leads nowhere": lambda: place.symlink_to("nowhere"),
    }[kind]()
    sentence = f"{place} is no file but {kind}, so no record can be there. Move it away."
    assert "tiles          180" in run("store", "info", store_path).output
    for command in (("list",), ("verify",), ("verify", "x"), ("preview",)):
        result = run("store", command[0], store_path, *command[1:])
        assert isinstance(result.exception, JobFailedError)
        assert sentence in result.output + str(result.exception)
    with pytest.raises(RecordNotFoundError, match="Move it away"):
        open_store(store_path).features("x")


@pytest.mark.parametrize("command", ["info", "list --failures", "prune", "convert -o {} --backend zarr"])
def test_a_malformed_failure_hides_nothing(store_path: Path, tmp_path: Path, command: str) -> None:
    good = json.loads((store_path / "failures" / "d.json").read_text())
    (store_path / "failures" / "e.json").write_text(json.dumps({**good, "slide_id": 5, "attempts": "x"}))
    name, *options = command.format(tmp_path / "copy").split()
    result = run("store", name, store_path, *options)
    assert result.exit_code == 0, result.exception
    assert (store_path / "failures" / "e.json").exists()


@pytest.mark.parametrize("command", ["info", "list --failures", "prune", "convert -o {} --backend zarr"])
def test_a_file_where_the_failures_belong_is_named(store_path: Path, tmp_path: Path, command: str) -> None:
    shutil.rmtree(store_path / "failures")
    (store_path / "failures").write_text("")
    name, *options = command.format(tmp_path / "copy").split()
    result = run("store", name, store_path, *options)
    assert isinstance(result.exception, StoreError)
    assert f"{store_path / 'failures'} is a file" in str(result.exception)
    assert "Move it away" in str(result.exception)


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
    points = "again = plugged_in:again\ninfo = plugged_in:again\nnone = plugged_in:NONE\n"
    (metadata / "entry_points.txt").write_text(f"[mmsurv.store_commands]\n{points}")
    (tmp_path / "plugged_in.py").write_text(
        "import click\nNONE = 1\n@click.command()\ndef again():\n    click.echo('tried again')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    text = run("store", "--help").output
    assert re.search(r"^  again\b", text, re.MULTILINE)
    assert "What STORE holds" in text, "a command of its own is not replaced"
    assert "plugged_in" not in sys.modules
    assert run("store", "again").output == "tried again\n"
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
    result = run("store", "import", source, "-o", tmp_path / "imported", "--backend", "zarr")
    assert "3 of 4 slides, 180 tiles × 8" in result.output
    assert isinstance(result.exception, JobFailedError)
    assert "z: ImportLayoutError" in str(result.exception)
    assert "warning: unknown: encoder, of 3 slides: who encoded it; give --encoder." in result.stderr
    assert "warning: unknown: mpp, of 3 slides: µm per level-0 pixel." in result.stderr
    assert "warning: lost: thumbnail (dataset), of 3 slides: a store has no place for it." in result.stderr
    assert len(result.stderr.splitlines()) == len(set(result.stderr.splitlines()))
    assert "backend        zarr" in run("store", "info", tmp_path / "imported").output
    assert run("store", "verify", tmp_path / "imported").exit_code == 0


def test_export_writes_anothers_files_and_names_what_is_lost(store_path: Path, tmp_path: Path) -> None:
    result = run("store", "export", store_path, "a", "b", "-o", tmp_path / "clam", "--layout", "clam")
    assert f"2 slides written, 0 were there: {tmp_path / 'clam'}" in result.stdout
    assert "warning: lost: mpp (attribute), of 2 slides: clam has no place for it." in result.stderr
    assert "warning: lost: rejected (dataset), of 2 slides" in result.stderr
    assert sorted(path.name for path in (tmp_path / "clam").rglob("*.h5")) == ["a.h5", "a.h5", "b.h5", "b.h5"]
    (tmp_path / "clam" / "h5_files" / "b.h5").write_bytes(b"mine")
    result = run("store", "export", store_path, "-o", tmp_path / "clam", "--layout", "clam", "--json")
    facts = json.loads(result.stdout)
    assert (facts["written"], facts["kept"], list(facts["problems"])) == (["c"], ["a"], ["b"])
    assert isinstance(result.exception, JobFailedError)
    assert (tmp_path / "clam" / "h5_files" / "b.h5").read_bytes() == b"mine"


def test_stamp_files_are_imported_with_a_table_of_resolutions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "uni-1f").mkdir()
    for name in ("a", "b"):
        with h5py.File(tmp_path / "uni-1f" / f"{name}.h5", "w") as file:
            file["feats"] = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float16)
            file["coords"] = np.stack([np.arange(5) * 256.0, np.zeros(5)], 1).astype(np.float32)
            file.attrs.update(extractor="uni", unit="um", tile_size_um=256.0, tile_size_px=224)
    (tmp_path / "mpp.csv").write_text("slide_id,mpp\na,0.25\nb,0.5\n", encoding="utf-8-sig")
    arguments = ("store", "import", tmp_path / "uni-1f", "-o", tmp_path / "store", "--json")
    facts = json.loads(run(*arguments, "--mpp-table", tmp_path / "mpp.csv").stdout)
    assert (facts["imported"], facts["problems"]) == (["a", "b"], {})
    rows = {row["slide_id"]: row for row in json.loads(run("store", "list", tmp_path / "store", "--json").stdout)}
    assert [rows[name]["tile_side_level0"] for name in "ab"] == [1024, 512]
    assert "not both" in str(run(*arguments, "--mpp", "1", "--mpp-table", tmp_path / "mpp.csv").exception)
    for text, message in (("slide_id,mpp\na,no\n", "line 2: mpp is 'no'"), ("id,um\n", "columns are id, um")):
        (tmp_path / "mpp.csv").write_text(text)
        assert message in str(run(*arguments, "--mpp-table", tmp_path / "mpp.csv").exception)
    assert "cannot be read" in str(run(*arguments, "--mpp-table", tmp_path / "none.csv").exception)


def test_preview_draws_every_slide_and_names_what_it_could_not_draw(store_path: Path, tmp_path: Path) -> None:
    store = open_store(store_path)
    drawn = dataclasses.replace(make_record("d"), thumbnail=None)
    store.write(drawn)
    facts = run("store", "preview", store_path, "d", "-o", tmp_path / "pictures ä", "--json")
    assert json.loads(facts.stdout) == {"written": [str(tmp_path / "pictures ä" / "d.png")], "problems": {}}
    result = run("store", "preview", store_path)
    assert f"1 pictures in {store_path / 'previews'}" in result.output
    assert [path.name for path in (store_path / "previews").iterdir()] == ["d.png"]
    assert isinstance(result.exception, JobFailedError)
    assert "3 slides could not be drawn:\n  a: StoreError: a: its thumbnail is no picture" in str(result.exception)
    assert "../x" in str(run("store", "preview", store_path, "../x").exception)


def test_a_path_that_is_no_store_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    result = run("store", "info", tmp_path)
    assert "holds no store.json" in str(result.exception)
