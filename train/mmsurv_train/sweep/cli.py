"""The command ``mmsurv sweep``.

Owns its options, what is printed, and exit codes. Imports click and the settings only; what trains is imported when
it does.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmsurv.cohort.flags import cohort_options as with_cohort_options
from mmsurv.cohort.options import CohortOptions
from mmsurv_train.cli import JSON, command_line
from mmsurv_train.options import memory_option, setting_options

if TYPE_CHECKING:
    from mmsurv_train.sweep.execute import Swept

FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.argument("recipe", metavar="RECIPE")
@setting_options
@click.option("--store", type=click.Path(exists=True, file_okay=False), help="Feature store; not for --model rna.")
@click.option("--complete-cases", is_flag=True, help="Only cases with slides and RNA, whatever the models need.")
@memory_option
@with_cohort_options
@click.option("-o", "--out", type=FOLDER, required=True, metavar="DIR",
              help="The sweep's folder: a new one, or one to go on with.")  # fmt: skip
@click.option("--note", "notes", multiple=True, metavar="TEXT",
              help="What readers of the table must know; it stands in table.md. Repeatable.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Print the plan and what of it is missing; train and write nothing.")
@JSON
@click.pass_context
def sweep(
    context: click.Context,
    cohort_options: CohortOptions,
    recipe: str,
    store: str | None,
    complete_cases: bool,
    memory: int | None,
    out: Path,
    notes: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    **overrides: Any,
) -> None:
    """Train all configurations of RECIPE, a shipped recipe or a TOML file, and put them in one table.

    Configurations are the recipe's rows × its grid, each trained on every fold from every seed. The same command
    again goes on where it was. Leaves with 1 when a configuration failed.

    \b
    mmsurv sweep table2 --store STORE --clinical clinical.csv --rna rna.csv --folds 5 --seeds 4 -o sweeps/table2
    mmsurv sweep mine.toml --store STORE --clinical clinical.csv --rna rna.csv --dry-run -o sweeps/mine
    """
    from mmsurv_train.inputs import Sources
    from mmsurv_train.sweep import text
    from mmsurv_train.sweep.plan import make_plan
    from mmsurv_train.sweep.recipe import load_sweep_recipe

    plan = make_plan(load_sweep_recipe(recipe), overrides)
    sources = Sources(cohort=cohort_options, store=store, complete_cases=complete_cases, memory=memory)
    if dry_run:
        _print_plan(plan, sources, out, as_json=as_json)
        return
    from mmsurv_train.sweep.execute import sweep as run_sweep
    from mmsurv_train.watching import watching

    click.echo(text.counts_text(plan), err=True)
    with watching(jobs="models") as watch:
        swept = run_sweep(plan, sources, out, command=command_line(context), watching=watch.callbacks(), notes=notes)
    _print_table(swept, out, as_json=as_json)
    context.exit(1 if swept.failed else 0)


def _print_plan(plan: Any, sources: Any, out: Path, *, as_json: bool) -> None:
    from mmsurv_train.sweep import text
    from mmsurv_train.sweep.execute import check, complete

    check(plan, sources, out)
    there = complete(plan, out)
    missing = [planned.name for planned in plan.configurations if planned.name not in there]
    if as_json:
        names = [planned.name for planned in plan.configurations]
        _print_json({"configurations": names, "folds": plan.n_folds, "networks": plan.n_networks, "missing": missing})
        return
    click.echo(text.plan_text(plan))
    click.echo(f"{len(there)} of {len(plan.configurations)} complete in {out}; nothing was trained or written.")


def _print_table(swept: Swept, out: Path, *, as_json: bool) -> None:
    if as_json:
        rows = swept.table.astype(object).where(swept.table.notna(), None).to_dict("records")
        _print_json({"sweep": str(out), "table": rows, "failed": swept.failed, "remarks": swept.remarks})
    else:
        click.echo(swept.text)
        click.echo(f"Sweep: {out}")
    if swept.failed:
        click.echo(f"failed    {', '.join(swept.failed)}; the reasons stand in {out / 'table.md'}.", err=True)


def _print_json(value: Any) -> None:
    from mmsurv_train.run import json_text

    click.echo(json_text(value), nl=False)
