"""Arguments and options that several ``mmsurv store`` commands have."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

STORE = click.argument("path", metavar="STORE", type=click.Path(path_type=Path))
SLIDE_IDS = click.argument("slide_ids", nargs=-1, metavar="[SLIDE_ID]...")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def output(what: str, metavar: str = "FOLDER") -> Any:
    """The option ``-o``."""
    return click.option(
        "-o", "--output", "target", required=True, metavar=metavar, type=click.Path(path_type=Path), help=what
    )


def backend(**default: Any) -> Any:
    """The option ``--backend``."""
    return click.option("--backend", type=click.Choice(["hdf5", "zarr"]), help="The format of the files.", **default)


def echo_json(facts: Mapping[str, Any] | Sequence[Any]) -> None:
    click.echo(json.dumps(facts))


def table(problems: Mapping[str, str]) -> str:
    """One indented line per slide that went wrong."""
    return "\n".join(f"  {slide_id}: {problem}" for slide_id, problem in problems.items())
