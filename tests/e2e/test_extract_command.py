"""``mmsurv extract`` as a user types it, on small slides, with seeded random weights."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmsurv.cli import main
from mmsurv.demo.tissue import write_slide
from mmsurv.store import open_store

SMALL = ("--encoder", "resnet18", "--weights", "random", "--tile-px", "32", "--device", "cpu")


def tissue_slide(path: Path, *, mpp: float | None = 0.5, seed: int = 0) -> Path:
    """A slide whose left half is uneven pink tissue."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rgb = np.full((192, 256, 3), 244, np.uint8)
    uneven = np.random.default_rng(seed).integers(-30, 30, (12, 8, 3)).repeat(16, axis=0).repeat(16, axis=1)
    rgb[:, :128] = np.clip(np.array([190, 110, 160]) + uneven, 0, 255)
    write_slide(path, rgb, mpp=mpp, levels=2)
    return path


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs ``mmsurv extract …`` and returns exit code, standard output and standard error."""

    def run(*arguments: object, options: tuple[str, ...] = SMALL) -> tuple[int, str, str]:
        with pytest.raises(SystemExit, match=r"\d+") as left:
            main(["extract", *map(str, arguments), *options])
        captured = capsys.readouterr()
        return int(str(left.value.code)), captured.out, captured.err

    return run


Command = Callable[..., tuple[int, str, str]]


def test_slides_become_a_store_and_the_same_command_again_does_nothing(tmp_path: Path, command: Command) -> None:
    tissue_slide(tmp_path / "slides" / "a.tiff")
    tissue_slide(tmp_path / "slides" / "deeper" / "b.tiff", seed=1)
    code, out, err = command(tmp_path / "slides", "-o", tmp_path / "store")
    assert code == 0
    assert "2 slides encoded (48 tiles" in out
    assert "weights random (seed 0)" in out
    assert "slide 2/2  b: 24 tiles" in err
    store = open_store(tmp_path / "store")
    assert store.slide_ids() == ["a", "b"]
    assert store.read("a").features.shape == (24, 512)
    assert [store.verify(slide_id) for slide_id in store.slide_ids()] == [[], []]
    assert store.recipe["encoder"]["name"] == "resnet18"
    code, out, _ = command(tmp_path / "slides", "-o", tmp_path / "store")
    assert code == 0
    assert "0 slides encoded (0 tiles, 0.0 tiles/s), 2 skipped" in out


def test_two_runs_on_one_machine_give_the_same_bytes(tmp_path: Path, command: Command) -> None:
    tissue_slide(tmp_path / "a.tiff")
    for name in ("one", "two"):
        command(tmp_path / "a.tiff", "-o", tmp_path / name, "--workers", "1" if name == "one" else "3")
    one, two = (open_store(tmp_path / name).read("a") for name in ("one", "two"))
    assert one.attributes["features_sha256"] == two.attributes["features_sha256"]
    np.testing.assert_array_equal(one.coords, two.coords)


def test_bad_slides_end_in_exit_code_1_and_a_table_and_the_others_are_done(tmp_path: Path, command: Command) -> None:
    folder = tmp_path / "slides"
    tissue_slide(folder / "good.tiff")
    tissue_slide(folder / "no-mpp.tiff", mpp=None)
    tissue_slide(folder / "wrong-mpp.tiff", mpp=0.00499)
    (folder / "page.svs").write_text("<!DOCTYPE html><html>")
    code, out, err = command(folder, "-o", tmp_path / "store")
    assert code == 1
    assert "1 slides encoded" in out
    table = err[err.index("JobFailedError: 3 of 4 slides failed") :]
    for expected in ("no-mpp     MppError", "--mpp UM", "wrong-mpp  MppError", "page       NotASlideError"):
        assert expected in table
    assert open_store(tmp_path / "store").slide_ids() == ["good"]
    # The remedies in the messages are the remedies.
    assert command(folder / "no-mpp.tiff", "-o", tmp_path / "store", "--mpp", "0.5")[0] == 0
    assert command(folder / "wrong-mpp.tiff", "-o", tmp_path / "store", "--override-mpp", "0.5")[0] == 0
    store = open_store(tmp_path / "store")
    assert [store.attributes(name)["mpp_source"] for name in store.slide_ids()] == [
        "tiff-resolution",
        "option",
        "override",
    ]
    assert [failure.slide_id for failure in store.failures()] == ["page"]


def test_a_slide_id_cannot_leave_the_store(tmp_path: Path, command: Command) -> None:
    tissue_slide(tmp_path / "slides" / "...tiff")
    code, _, err = command(tmp_path / "slides", "-o", tmp_path / "store")
    assert code == 1
    assert "BadSlideIdError: '..' cannot be a slide id" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["slides", "store"]


def test_two_slides_of_one_name_are_named_and_neither_is_taken(tmp_path: Path, command: Command) -> None:
    paths = [tissue_slide(tmp_path / "slides" / folder / "a.tiff", seed=i) for i, folder in enumerate("xy")]
    tissue_slide(tmp_path / "slides" / "b.tiff")
    code, _, err = command(tmp_path / "slides", "-o", tmp_path / "store")
    assert code == 1
    assert all(str(path) in err for path in paths)
    assert open_store(tmp_path / "store").slide_ids() == ["b"]


def test_a_dry_run_counts_and_estimates_and_writes_nothing(tmp_path: Path, command: Command) -> None:
    tissue_slide(tmp_path / "slides" / "a.tiff")
    tissue_slide(tmp_path / "slides" / "b.tiff", mpp=None)
    code, out, _ = command(tmp_path / "slides", "-o", tmp_path / "store", "--dry-run")
    assert code == 0
    assert "1 slides to encode, 0 to extend, 0 in the store already, 1 would fail." in out
    assert "24 tiles of 32 px" in out
    assert "tiles/s on cpu" in out
    assert not (tmp_path / "store").exists()
    code, out, _ = command(tmp_path / "slides", "-o", tmp_path / "store", "--dry-run", "--json")
    estimate = json.loads(out)
    assert (code, estimate["n_tiles"], estimate["n_slides"]) == (0, 24, 1)
    command(tmp_path / "slides" / "a.tiff", "-o", tmp_path / "store")
    size = open_store(tmp_path / "store").record_path("a").stat().st_size
    assert 0.5 * size < estimate["bytes"] < 1.5 * size


def test_a_dry_run_makes_nothing_in_a_store_that_is_there(tmp_path: Path, command: Command) -> None:
    tissue_slide(tmp_path / "a.tiff")
    command(tmp_path / "a.tiff", "-o", tmp_path / "store")
    assert (
        "0 slides to encode, 0 to extend, 1 in the store already"
        in command(tmp_path / "a.tiff", "-o", tmp_path / "store", "--dry-run")[1]
    )
    shutil.rmtree(tmp_path / "store" / "slides")
    before = sorted((tmp_path / "store").rglob("*"))
    code, out, _ = command(tmp_path / "a.tiff", "-o", tmp_path / "store", "--dry-run")
    assert code == 0
    assert "1 slides to encode, 0 to extend, 0 in the store already" in out
    code, _, err = command(tmp_path / "a.tiff", "-o", tmp_path / "store", "--dry-run", "--seed", "1")
    assert code == 1
    assert "RecipeMismatchError" in err
    assert sorted((tmp_path / "store").rglob("*")) == before


def test_a_larger_number_of_tiles_extends_and_a_dry_run_says_by_how_many(tmp_path: Path, command: Command) -> None:
    tissue_slide(tmp_path / "a.tiff")
    command(tmp_path / "a.tiff", "-o", tmp_path / "store", "--tiles", "10")
    ten = open_store(tmp_path / "store").read("a")
    more = (tmp_path / "a.tiff", "-o", tmp_path / "store", "--tiles", "15")
    code, out, _ = command(*more, "--dry-run")
    assert code == 0
    assert "0 slides to encode, 1 to extend, 0 in the store already, 0 would fail." in out
    assert "5 tiles of 32 px" in out
    code, out, err = command(*more)
    assert code == 0
    assert "0 slides encoded, 1 extended (5 tiles" in out
    assert "a: 5 more tiles, 15 of 24, in " in err
    fifteen = open_store(tmp_path / "store").read("a")
    np.testing.assert_array_equal(fifteen.features[:10], ten.features)
    np.testing.assert_array_equal(fifteen.coords[:10], ten.coords)


def test_the_kind_of_store_is_chosen_once_and_kept(tmp_path: Path, command: Command) -> None:
    tissue_slide(tmp_path / "slides" / "a.tiff")
    job = (tmp_path / "slides", "-o", tmp_path / "store", "--tiles", "3", "--dtype", "float32")
    assert command(*job, "--backend", "zarr")[0] == 0
    tissue_slide(tmp_path / "slides" / "b.tiff", seed=1)
    code, _, err = command(*job)
    assert code == 0, err
    store = open_store(tmp_path / "store")
    assert (store.backend, store.dtype, store.slide_ids()) == ("zarr", np.dtype("float32"), ["a", "b"])
    for other in (("--backend", "hdf5"), ("--backend", "hdf5", "--dry-run"), ("--dtype", "float16")):
        code, _, err = command(*job, *other)
        assert code == 1
        assert "RecipeMismatchError" in err


def test_json_is_all_there_is_on_standard_output(tmp_path: Path, command: Command) -> None:
    tissue_slide(tmp_path / "a.tiff")
    code, out, _ = command(tmp_path / "a.tiff", "-o", tmp_path / "store", "--json", "--tiles", "5")
    summary = json.loads(out)
    assert (code, summary["done"], summary["n_tiles"]) == (0, ["a"], 5)


def test_a_store_of_another_recipe_is_refused_before_any_work(tmp_path: Path, command: Command) -> None:
    tissue_slide(tmp_path / "a.tiff")
    command(tmp_path / "a.tiff", "-o", tmp_path / "store")
    code, _, err = command(tmp_path / "a.tiff", "-o", tmp_path / "store", "--seed", "1", "--tile-mpp", "1")
    assert code == 1
    assert "RecipeMismatchError" in err
    assert "sample.seed" in err
    assert "tiles.mpp" in err


def test_a_recipe_file_is_taken_and_options_go_over_it(tmp_path: Path, command: Command) -> None:
    tissue_slide(tmp_path / "a.tiff")
    recipe = tmp_path / "mine.toml"
    recipe.write_text('[encoder]\nname = "resnet18"\nweights = "random"\n[tiles]\npx = 64\nmax_tiles = 3\n')
    code, out, _ = command(
        tmp_path / "a.tiff", "-o", tmp_path / "store", "--recipe", recipe, "--tiles", "2", options=()
    )
    assert code == 0
    assert "(2 tiles" in out
    assert open_store(tmp_path / "store").recipe["tiles"]["px"] == 64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--mpp", "0.00499"), "--mpp is µm per pixel at level 0"),
        (("--mpp", "0.5", "--override-mpp", "0.5"), "give one of them"),
        (("--tile-px", "4"), "tiles.px must be 16"),
        (("--recipe", "resnet50"), "Did you mean 'resnet50-20x'"),
        (("--seed", "99999999999999999999"), "tiles.seed must be a signed 64-bit integer"),
        (("--encoder", "nope"), "there is no encoder 'nope'"),
        (("--device", "gpu"), "there is no device 'gpu'"),
        (("--device", "meta"), "cannot run on 'meta'"),
    ],
)
def test_wrong_options_are_usage_errors(
    tmp_path: Path, command: Command, options: tuple[str, ...], message: str
) -> None:
    tissue_slide(tmp_path / "a.tiff")
    code, _, err = command(tmp_path / "a.tiff", "-o", tmp_path / "store", options=options)
    assert code == 2
    assert message in err
    assert not (tmp_path / "store").exists()


def test_a_missing_path_is_a_usage_error(tmp_path: Path, command: Command) -> None:
    code, _, err = command(tmp_path / "gone.svs", "-o", tmp_path / "store")
    assert code == 2
    assert "there is no such file or folder" in err


def test_training_needs_no_slides_once_they_are_encoded(tmp_path: Path, command: Command) -> None:
    tissue_slide(tmp_path / "slides" / "a.tiff")
    command(tmp_path / "slides", "-o", tmp_path / "store")
    shutil.rmtree(tmp_path / "slides")
    assert open_store(tmp_path / "store").features("a").shape == (24, 512)


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux only")
@pytest.mark.parametrize("form", [(), ("--json",), ("--dry-run",), ("--dry-run", "--json")])
def test_names_that_are_not_utf8_are_printed_somehow(tmp_path: Path, form: tuple[str, ...]) -> None:
    slides = tmp_path / os.fsdecode(b"slides-\xff")
    tissue_slide(slides / "good.tiff")
    tissue_slide(slides / "other.tiff", seed=1).rename(slides / os.fsdecode(b"\xff.svs"))
    store = tmp_path / os.fsdecode(b"store-\xff")
    done = subprocess.run(
        [sys.executable, "-m", "mmsurv", "extract", slides, "-o", store, *SMALL, *form],
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr
    assert done.returncode == (0 if "--dry-run" in form else 1), done.stderr
    assert b"BadSlideIdError" in done.stderr
    text = done.stdout.decode("utf-8")
    if "--json" in form:
        assert json.loads(text)["failed"][0]["slide_id"] == "\udcff"
    else:
        assert "1 failed" in text or "1 would fail" in text
    if "--dry-run" not in form:
        assert open_store(store).slide_ids() == ["good"]
