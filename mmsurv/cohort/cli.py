"""``mmsurv cohort``: check a join before training on it.

Owns the command only.
"""

from __future__ import annotations

from pathlib import Path

import click

from mmsurv.cohort.flags import cohort_options_with_argument
from mmsurv.cohort.options import CohortOptions
from mmsurv.errors import CohortError


@click.command()
@cohort_options_with_argument
@click.option("--store", type=click.Path(exists=True, file_okay=False), help="Feature store: join its slides too.")
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Write the whole report here, as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole report as JSON.")
def cohort(cohort_options: CohortOptions, store: str | None, output: str | None, as_json: bool) -> None:
    """Join CLINICAL with RNA and slides by id, and report what did not join.

    CLINICAL has one row per slide or one row per case, and the columns of case, time and outcome. Contradictions are
    refused with file, row and column; what merely has no partner is counted and listed.
    """
    import json

    from mmsurv.cohort.join import load_cohort

    store_slides = None
    if store is not None:
        from mmsurv.store import open_store

        store_slides = open_store(store).slide_ids()
    report = load_cohort(cohort_options, store_slides=store_slides).report
    text = json.dumps(report.to_table(), indent=2)
    if output is not None:
        try:
            Path(output).write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise CohortError(f"{output}: the report cannot be written ({error.strerror}).") from error
    click.echo(text if as_json else report.to_text())
