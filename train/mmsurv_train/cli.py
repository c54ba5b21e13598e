"""The commands ``mmsurv train``, ``mmsurv evaluate`` and ``mmsurv report``.

Owns options, what is printed, and exit codes. Imports click and the settings only; the stages are imported
when a command runs.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmsurv.cohort.flags import cohort_options as with_cohort_options
from mmsurv.cohort.options import CohortOptions
from mmsurv_train.options import (
    memory_option,
    overlay,
    recipe_of,
    refuse_idle,
    setting_options,
    train_recipe_names,
)
from mmsurv_train.recipe import load_train_recipe

if TYPE_CHECKING:
    from mmsurv_train.inputs import Sources
    from mmsurv_train.run import Run

FOLDER = click.Path(file_okay=False, path_type=Path)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")


@click.command()
@click.option(
    "--recipe",
    metavar="NAME|PATH",
    help=f"A shipped recipe ({', '.join(train_recipe_names())}) or a TOML file; one with a grid is for mmsurv sweep. "
    "[default: the one of --model's name, or default]",
)
@click.option("--row", metavar="NAME", help="The row of a recipe that has rows, such as table1.")  # fmt: skip
@setting_options
@click.option("--inner-folds", type=click.IntRange(2), metavar="N",
              help="Choose among the recipe's rows and grid on N inner folds of each training part.")  # fmt: skip
@click.option("--store", type=click.Path(exists=True, file_okay=False),
              help="Feature store; not for models without tiles, such as rna and clinical.")  # fmt: skip
@click.option("--complete-cases", is_flag=True, help="Only cases with slides and RNA, whatever the model needs.")
@memory_option
@with_cohort_options
@click.option("-o", "--out", type=FOLDER, required=True, metavar="RUN", help="Run folder to write; must be free.")
@JSON
@click.pass_context
def train(
    context: click.Context,
    cohort_options: CohortOptions,
    recipe: str | None,
    row: str | None,
    inner_folds: int | None,
    store: str | None,
    complete_cases: bool,
    memory: int | None,
    out: Path,
    as_json: bool,
    **overrides: Any,
) -> None:
    """Fit a survival model on cached features and write a run folder.

    \b
    mmsurv train --store STORE --clinical clinical.csv --rna rna.csv -o runs/cross-attention
    mmsurv train --store STORE --clinical clinical.csv --rna rna.csv --model joint --folds 5 -o runs/joint
    mmsurv train --store STORE --clinical clinical.csv --rna rna.csv --seeds 5 --folds 5 -o runs/ensembles
    mmsurv train --clinical clinical.csv --rna rna.csv --model rna -o runs/rna

    All folds and seeds are trained in one pass. A training that was stopped goes on when the command is given again.
    """
    from mmsurv_train import summary
    from mmsurv_train.inputs import Sources
    from mmsurv_train.train import train as train_run
    from mmsurv_train.watching import watching

    name, said = recipe_of(recipe, overrides["model"]), ""
    sources = Sources(cohort=cohort_options, store=store, complete_cases=complete_cases, memory=memory)
    with watching() as watch:
        if inner_folds is None:
            settings = overlay(load_train_recipe(name, row=row), overrides)
            refuse_idle(overrides, [settings])
            run = train_run(settings, sources, out, command=command_line(context), **watch.callbacks())
        else:
            run, said = _nested(name, overrides, row, sources, out, inner_folds, command_line(context), watch)
    if as_json:
        _print_json({"run": str(out), "metrics": run.metrics})
    else:
        click.echo(summary.text(run.metrics))
        if said:
            click.echo(said)
        click.echo(f"Run: {out}")


def _nested(
    name: str, overrides: dict[str, Any], row: str | None, sources: Sources, out: Path, inner_folds: int, command: str,
    watch: Any,
) -> tuple[Run, str]:  # fmt: skip
    """Train with settings chosen on inner folds; the run, and what was chosen."""
    from mmsurv_train.nested import train_nested
    from mmsurv_train.sweep.plan import make_plan
    from mmsurv_train.sweep.recipe import load_sweep_recipe

    if row is not None:
        raise click.UsageError("--inner-folds chooses among the recipe's rows: leave --row out.")
    plan = make_plan(load_sweep_recipe(name), overrides)
    if len(plan.configurations) == 1:
        raise click.UsageError(f"--inner-folds: {plan.source} has one configuration, so there is nothing to choose.")
    run, selection = train_nested(plan, sources, out, inner_folds=inner_folds, command=command, **watch.callbacks())
    return run, selection.text()


@click.command()
@click.argument("run", type=FOLDER)
@click.option("--store", type=click.Path(exists=True, file_okay=False), help="Where the store is now.")
@click.option("--clinical", type=click.Path(exists=True, dir_okay=False), help="Where the clinical table is now.")
@click.option("--rna", type=click.Path(exists=True, dir_okay=False), help="Where the RNA table is now.")
@memory_option
@JSON
@click.pass_context
def evaluate(
    context: click.Context,
    run: Path,
    store: str | None,
    clinical: str | None,
    rna: str | None,
    memory: int | None,
    as_json: bool,
) -> None:
    """Compute the predictions and metrics of RUN again from its model, and compare them bit for bit.

    Needs the store and the tables, not the slides. Leaves with 1 when something differs.
    """
    from mmsurv_train import summary
    from mmsurv_train.evaluate import evaluate as evaluate_run

    found = evaluate_run(run, store=store, clinical=clinical, rna=rna, memory=memory)
    if as_json:
        _print_json(
            {
                "run": str(run),
                "identical": found.identical,
                "differences": found.differences,
                "metrics": found.metrics,
            }
        )
    else:
        click.echo(summary.text(found.metrics))
        for line in found.differences:
            click.echo(line)
        verdict = "identical to" if found.identical else "DIFFERENT from"
        click.echo(f"Computed again: {verdict} the predictions and metrics of {run}")
    if not found.identical:
        context.exit(1)


@click.command()
@click.argument("run", nargs=-1, required=True, type=FOLDER)
@click.option("-o", "--out", type=click.Path(dir_okay=False, path_type=Path), default="report.html",
              show_default=True, help="The HTML file to write.")  # fmt: skip
@click.option("--title", default="Survival models compared", show_default=True)
@click.option("--note", "notes", multiple=True, metavar="TEXT",
              help="A warning for the banner, such as that data are simulated; repeatable.")  # fmt: skip
def report(run: tuple[Path, ...], out: Path, title: str, notes: tuple[str, ...]) -> None:
    """Write one self-contained HTML page about one or more runs.

    \b
    mmsurv report runs/cross-attention runs/joint runs/wsi runs/rna -o report.html
    """
    from mmsurv_train.report import write_report
    from mmsurv_train.run import read_run

    write_report([read_run(path) for path in run], out, title=title, notes=notes)
    click.echo(f"Report: {out}")


def command_line(context: click.Context) -> str:
    """The command as it was given: only what stood on the command line, in the order of the options."""
    words = ["mmsurv", str(context.info_name)]
    for parameter in context.command.params:
        if context.get_parameter_source(str(parameter.name)) != click.core.ParameterSource.COMMANDLINE:
            continue
        value, flag = context.params[str(parameter.name)], parameter.opts[-1]
        if isinstance(parameter, click.Argument):
            words += map(str, value if isinstance(value, tuple) else (value,))
        elif isinstance(value, bool):
            words.append(flag)
        else:
            for item in value if isinstance(value, tuple) else (value,):
                words += [flag, str(item)]
    return shlex.join(words)


def _print_json(value: Any) -> None:
    from mmsurv_train.run import json_text

    click.echo(json_text(value), nl=False)
