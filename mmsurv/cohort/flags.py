"""The command-line options that say what a cohort is, shared by every command that reads one.

Owns their spelling and help. Imports click only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar, get_args

import click

from mmsurv.cohort.options import CohortOptions, EventCoding, IdRule, TimeUnit
from mmsurv.errors import ConfigError

Command = TypeVar("Command", bound=Callable[..., Any])
FILE = click.Path(exists=True, dir_okay=False)


def cohort_options(function: Command) -> Command:
    """Add ``--clinical`` (required) and all other cohort options to a command.

    The command receives them as one keyword argument, ``cohort_options``: a checked :class:`CohortOptions`.
    """
    clinical = click.option(
        "--clinical", required=True, type=FILE, help="Clinical table: one row per slide or per case."
    )
    return _add(function, clinical)


def cohort_options_with_argument(function: Command) -> Command:
    """As :func:`cohort_options`, but the clinical table is the command's argument CLINICAL."""
    return _add(function, click.argument("clinical", type=FILE))


def _add(function: Command, clinical: Callable[[Any], Any]) -> Command:
    names = [field.name for field in fields(CohortOptions)]

    @functools.wraps(function)
    def command(*args: Any, **kwargs: Any) -> Any:
        values = {name: kwargs.pop(name) for name in names}
        try:
            options = CohortOptions(**values)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return function(*args, cohort_options=options, **kwargs)

    result: Any = command
    for option in reversed([clinical, *_shared()]):
        result = option(result)
    return result


def _shared() -> list[Callable[[Any], Any]]:
    def column(flag: str, meaning: str, known: str) -> Callable[[Any], Any]:
        return click.option(flag, metavar="NAME", help=f"Column of the {meaning}. [known names: {known}]")

    def choice(flag: str, choices: Any, meaning: str) -> Callable[[Any], Any]:
        values = get_args(choices)
        return click.option(flag, type=click.Choice(values), default=values[0], show_default=True, help=meaning)

    return [
        click.option("--rna", type=FILE, help="RNA table, CSV or Parquet: one row per case, one column per gene."),
        choice("--id-rule", IdRule, "tcga: a case id is the first 12 characters of a barcode or slide name."),
        choice("--event-coding", EventCoding, "1=event: 0, 1. dead: Alive, Dead. censorship: 0 is an event."),
        choice("--time-unit", TimeUnit, "Unit of the time column."),
        column("--case-column", "case id", "case_id, case"),
        column("--slide-column", "slide id or file name", "slide_id, wsi_file_name"),
        column("--time-column", "time", "survival_months, time; with days: survival_days, time"),
        column("--event-column", "outcome", "event, vital_status; with censorship: censorship"),
        column("--rna-case-column", "case id in the RNA table", "case_id, case, else the first"),
        click.option(
            "--clinical-column", "clinical_columns", multiple=True, metavar="NAME",
            help="A further clinical column to keep, such as age; may be given several times.",
        ),
        click.option("--rna-log2", is_flag=True, help="Take log2(x + 1) of the RNA."),
        click.option("--strip-ensembl-versions", is_flag=True, help="ENSG00000141510.18 becomes ENSG00000141510."),
    ]  # fmt: skip
