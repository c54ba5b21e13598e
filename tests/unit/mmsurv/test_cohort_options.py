"""Options: checked, round-tripping through a run's config, and cheap to import."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from mmsurv.cohort import CohortOptions, cohort_options
from mmsurv.config import from_table, to_table
from mmsurv.errors import ConfigError


def test_options_survive_a_config_table() -> None:
    options = CohortOptions(clinical="c.csv", rna="r.csv", event_coding="dead", clinical_columns=("age", "sex"))
    assert from_table(CohortOptions, to_table(options), source="config.toml") == options


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"event_coding": "0=event"}, r"event_coding must be one of 1=event, dead, censorship, not '0=event'"),
        ({"clinical_columns": ("age", "age")}, r"names 'age' more than once"),
        ({"clinical_columns": ("event",)}, r"cannot hold 'event'"),
        ({"clinical": ""}, r"clinical must name a table"),
    ],
)
def test_options_that_cannot_be_right_are_refused(options: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        CohortOptions(**{"clinical": "c.csv", **options})  # type: ignore[arg-type]


def test_a_command_receives_one_checked_object() -> None:
    seen: list[object] = []

    @click.command()
    @cohort_options
    @click.option("--other")
    def command(cohort_options: CohortOptions, other: str) -> None:
        seen.extend([cohort_options, other])

    arguments = ["--clinical", __file__, "--time-unit", "days", "--clinical-column", "age", "--clinical-column", "sex"]
    result = CliRunner().invoke(command, [*arguments, "--rna-log2", "--other", "x"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    expected = CohortOptions(clinical=__file__, time_unit="days", clinical_columns=("age", "sex"), rna_log2=True)
    assert seen == [expected, "x"]
    with pytest.raises(ConfigError, match="more than once"):
        CliRunner().invoke(
            command,
            ["--clinical", __file__, "--clinical-column", "a", "--clinical-column", "a"],
            catch_exceptions=False,
        )


def test_the_options_load_no_heavy_library() -> None:
    code = (
        "import sys, mmsurv.cohort, mmsurv.cohort.cli; "
        "print(sorted({'pandas', 'numpy', 'pyarrow', 'h5py', 'torch'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
