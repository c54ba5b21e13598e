"""How much memory is available, as made-up systems say it."""

from __future__ import annotations

import os

import pytest

from mmsurv_train.bags.memory import available, default_budget, size_text

GB = 10**9


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


@pytest.fixture
def machine(tmp_path):
    """A machine with 8 GB available and no groups; gives the function that says what is available."""
    write(tmp_path / "proc", meminfo="MemTotal: 16000000 kB\nMemFree: 1000000 kB\nMemAvailable: 8000000 kB")
    (tmp_path / "groups").mkdir()

    def found(cgroup=None):
        if cgroup is not None:
            write(tmp_path / "proc" / "self", cgroup=cgroup)
        return available(proc=tmp_path / "proc", groups=tmp_path / "groups")

    return found


def test_without_groups_it_is_what_the_machine_has(machine):
    assert machine() == 8_000_000 * 1024


def test_a_group_of_version_2_limits_it(machine, tmp_path):
    write(
        tmp_path / "groups" / "user" / "job",
        memory__max=4 * GB, memory__current=3 * GB, memory__stat=f"anon {GB}\ninactive_file {GB}\nactive_file {GB}",
    )  # fmt: skip
    assert machine("0::/user/job") == 2 * GB


def test_a_group_above_it_limits_it_too(machine, tmp_path):
    write(tmp_path / "groups" / "user" / "job", memory__max="max", memory__current=GB, memory__stat="inactive_file 0")
    write(tmp_path / "groups" / "user", memory__max=3 * GB, memory__current=GB, memory__stat="inactive_file 0")
    assert machine("0::/user/job") == 2 * GB


def test_in_a_container_the_groups_root_is_its_own(machine, tmp_path):
    write(tmp_path / "groups", memory__max=3 * GB, memory__current=GB, memory__stat="inactive_file 0")
    assert machine("0::/not/seen/from/inside") == 2 * GB


def test_a_group_of_version_1_limits_it(machine, tmp_path):
    write(
        tmp_path / "groups" / "memory" / "slurm" / "job_1",
        memory__limit_in_bytes=5 * GB, memory__usage_in_bytes=2 * GB, memory__stat=f"cache 1\ntotal_inactive_file {GB}",
    )  # fmt: skip
    assert machine("4:memory:/slurm/job_1\n1:cpu,cpuacct:/slurm\n0::/") == 4 * GB


def test_a_group_of_version_1_without_a_limit_leaves_it(machine, tmp_path):
    write(
        tmp_path / "groups" / "memory",
        memory__limit_in_bytes=2**63 - 4096, memory__usage_in_bytes=GB, memory__stat="total_inactive_file 0",
    )  # fmt: skip
    assert machine("4:memory:/") == 8_000_000 * 1024


def test_a_group_that_is_over_its_limit_has_nothing_left(machine, tmp_path):
    write(tmp_path / "groups", memory__max=GB, memory__current=2 * GB, memory__stat="inactive_file 0")
    assert machine("0::/") == 0


def test_a_system_that_does_not_say_it_counts_with_its_whole_memory(tmp_path):
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert available(proc=tmp_path, groups=tmp_path) == whole


def test_this_machine_has_some():
    assert 0 < default_budget() < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (64_000_000, "64 MB"), (12_345_678_901, "12.3 GB")],
)
def test_sizes_are_written_for_people(n_bytes, text):
    assert size_text(n_bytes) == text
