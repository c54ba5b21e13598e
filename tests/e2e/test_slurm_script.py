"""The Slurm script, run by bash in an environment made up as Slurm makes it; ``srun`` is a stand-in.

It has not been run on a cluster here: what is shown is that the script does what it says with what Slurm says it gets.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mmsurv.demo.tissue import write_slide
from mmsurv.store import open_store

SCRIPT = Path(__file__).parents[2] / "extract" / "slurm" / "extract.sbatch"
PATIENCE_S = 120

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")

SRUN = """#!/bin/bash
# Starts the processes of a job and hands SIGTERM to them, as srun does; its code is the highest of theirs.
while [[ $1 == --* ]]; do shift; done
for ((i = 0; i < SLURM_NTASKS; i++)); do
    SLURM_PROCID=$i SLURM_LOCALID=$i "$@" &
    processes+=($!)
done
trap 'kill -TERM "${processes[@]}"' TERM
code=0
for process in "${processes[@]}"; do
    while true; do
        wait "$process"; one=$?
        kill -0 "$process" 2> /dev/null || break
    done
    (( one > code )) && code=$one
done
exit $code
"""
SAYS_WHAT_IT_GOT = """#!/bin/bash
echo "got $* OMP=$OMP_NUM_THREADS"
exit ${FAKE_CODE:-0}
"""


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder for PATH with srun and an mmsurv that encodes without torch."""
    folder = tmp_path / "bin"
    folder.mkdir()
    job = f'#!/bin/bash\nshift\nexec {sys.executable} -m mmsurv_extract.testing "$@"\n'
    for name, text in (("srun", SRUN), ("mmsurv", job), ("says", SAYS_WHAT_IT_GOT)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def start(tools: Path, *arguments: object, **variables: object) -> subprocess.Popen[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "CUDA", "OMP"))}
    environment = {
        **kept,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "71",
        "SLURM_ARRAY_JOB_ID": "70",
        "SLURM_ARRAY_TASK_ID": "1",
        "SLURM_NTASKS": "1",
        "SLURM_CPUS_PER_TASK": "3",
        **{name: str(value) for name, value in variables.items()},
    }
    return subprocess.Popen(
        ["bash", SCRIPT, *map(str, arguments)], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, err


def make_slides(folder: Path, count: int) -> Path:
    folder.mkdir()
    for i in range(count):
        rng = np.random.default_rng(i)
        uneven = rng.integers(-30, 30, (16, 16, 3)).repeat(16, axis=0).repeat(16, axis=1)
        rgb = np.clip(np.array([190, 110, 160]) + uneven, 0, 255).astype(np.uint8)
        write_slide(folder / f"{i}.tiff", rgb, mpp=0.5)
    return folder


def test_bash_finds_no_mistake_in_the_script() -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    text = SCRIPT.read_text(encoding="utf-8")
    for option in ("--array=", "--requeue", "--signal=B:TERM@60", "--open-mode=append"):
        assert f"#SBATCH {option}" in text


def test_without_arguments_the_usage_is_said(tools: Path) -> None:
    code, _, err = finish(start(tools))
    assert code == 2
    assert "usage: sbatch" in err


@pytest.mark.parametrize(
    ("variables", "devices"),
    [
        ({}, ["cpu"]),
        ({"CUDA_VISIBLE_DEVICES": "3"}, ["cuda"]),
        ({"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_NTASKS": 2}, ["cuda:0", "cuda:1"]),
        ({"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_NTASKS": 3}, ["cuda:0", "cuda:0", "cuda:1"]),
        ({"CUDA_VISIBLE_DEVICES": "0,1", "MMSURV_DEVICE": "cpu"}, ["cpu"]),
    ],
    ids=["no GPU", "its own GPU", "all GPUs of the node", "more processes than GPUs", "told otherwise"],
)
def test_each_process_gets_its_gpu(tools: Path, variables: dict[str, object], devices: list[str]) -> None:
    code, out, err = finish(start(tools, "a folder", "-o", "store", MMSURV="says", **variables))
    assert code == 0, err
    expected = [f"got extract a folder -o store --device {device} OMP=3" for device in devices]
    assert sorted(out.splitlines()) == sorted(expected)


@pytest.mark.parametrize("code", [1, 2, 143])
def test_the_exit_code_is_the_command_s(tools: Path, code: int) -> None:
    assert finish(start(tools, "slides", "-o", "store", MMSURV="says", FAKE_CODE=code))[0] == code


def test_array_tasks_share_one_store_and_a_preempted_one_leaves_it_whole(tools: Path, tmp_path: Path) -> None:
    slides, path = make_slides(tmp_path / "slides", 6), tmp_path / "store"
    job = (slides, "-o", path, "--batch-size", 4, "--seconds", 0.04)
    first, second = (start(tools, *job, SLURM_ARRAY_TASK_ID=task) for task in (0, 1))
    deadline = time.monotonic() + PATIENCE_S
    while not list((path / "slides").glob("*.h5")):
        assert time.monotonic() < deadline
        assert first.poll() is None
        time.sleep(0.02)
    first.send_signal(signal.SIGTERM)
    code, out, err = finish(first)
    assert code == 143, err
    stopped = json.loads(out)
    assert stopped["stopped"]
    assert "Traceback" not in err
    code, out, err = finish(second)
    assert code == 0, err
    rest = json.loads(out)
    store = open_store(path)
    assert store.slide_ids() == [f"{i}" for i in range(6)]
    assert [store.verify(slide_id) for slide_id in store.slide_ids()] == [[]] * 6
    assert sorted(stopped["done"] + rest["done"]) == store.slide_ids(), "each slide was encoded once"
    assert store.leftovers() == []
    assert list((path / "leases").iterdir()) == []
