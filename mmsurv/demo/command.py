"""`mmsurv demo`: a simulated cohort, then every command of the project on it.

Owns the order of things and what is said between them.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mmsurv.demo.folder import DemoFolder
    from mmsurv.demo.simulate import SimulationSettings

FOLDS = 5
PATIENTS = 60
FEWEST_PATIENTS = 30
"""With fewer, an eighth of a fold's training patients is too few to choose an epoch by."""
QUICK_FOLDS = 3
QUICK_PATIENTS = 36
SLIDE_PX = 2400
QUICK_SLIDE_PX = 800


@click.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default="mmsurv-demo",
    show_default=True,
    metavar="DIR",
    help="Folder to make; a demo's folder is gone on with.",
)
@click.option(
    "--weights",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="Weights of a ResNet-18 (torchvision's) for the encoder, instead of seeded random ones.",
)
@click.option(
    "--patients",
    type=click.IntRange(FEWEST_PATIENTS, 999),
    metavar="N",
    help=f"Number of patients. [default: {PATIENTS}; with --quick {QUICK_PATIENTS}]",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the simulated cohort.")
@click.option("--quick", is_flag=True, help="Few patients, small slides, three folds: to see that everything runs.")
def demo(output: Path, weights: str | None, patients: int | None, seed: int, quick: bool) -> None:
    """The whole path on a small simulated cohort, in minutes; ends with a report.

    Paints slides of tumour tissue, draws RNA and survival that depend on both, and runs the project's own commands
    on them, printing each, so that any of them can be repeated and changed. Nothing is downloaded. The data are
    simulated: the numbers say that the path works, nothing about patients.

    Interrupted or failed, the same command goes on where it stopped: slides, features and runs that are done are kept.
    """
    from mmsurv.demo.folder import claim, settings_table
    from mmsurv.demo.simulate import SimulationSettings
    from mmsurv.demo.stages import run, stages

    settings = SimulationSettings(
        patients=patients or (QUICK_PATIENTS if quick else PATIENTS),
        seed=seed,
        slide_px=QUICK_SLIDE_PX if quick else SLIDE_PX,
    )
    folds = QUICK_FOLDS if quick else FOLDS
    folder = claim(output, settings_table(settings, folds=folds, weights=weights or "random"))
    timings = {"simulate": _simulate(folder, settings)}
    for stage in stages(folder, folds=folds, weights=weights):
        name = stage.arguments[0]
        timings[name] = timings.get(name, 0.0) + run(stage)
    _conclude(folder, timings, folds=folds, random_weights=weights is None)


def _conclude(folder: DemoFolder, timings: dict[str, float], *, folds: int, random_weights: bool) -> None:
    """The table, what it is worth, where the time went, and the report."""
    from mmsurv.demo.stages import MODELS
    from mmsurv.demo.table import counts, results_table

    what = "Simulated data, random encoder weights" if random_weights else "Simulated data"
    click.secho(f"\n{what}", fg="yellow", bold=True, nl=False)
    click.echo(f": {folds}-fold cross-validation, {counts(folder.run(MODELS[0]))},")
    click.echo("out-of-fold C-index (0.5 = chance, 1 = perfect) with 95 % bootstrap interval by patient:\n")
    click.echo(results_table({model: folder.run(model) for model in MODELS}))
    click.echo("\nWith so few patients the intervals are wide: they do not rank the models.\n")
    parts = [f"{name} {seconds:.0f} s" for name, seconds in timings.items()]
    click.echo(f"Time: {', '.join(parts)}; in all {sum(timings.values()):.0f} s")
    click.echo(f"Report: {folder.report}")


def _simulate(folder: DemoFolder, settings: SimulationSettings) -> float:
    """Fill the folder, with a progress bar; seconds it took."""
    from mmsurv.demo.folder import fill
    from mmsurv.demo.simulate import simulate
    from mmsurv.demo.stages import heading
    from mmsurv.progress import progress

    heading(f"Simulated data: paint the slides and draw RNA and survival of {settings.patients} patients.")
    start = time.monotonic()
    cohort = simulate(settings)
    with progress(len(cohort.clinical), "Painting", unit="slides") as on_slides:
        painted = fill(folder, settings, cohort, on_slides=on_slides)
    seconds = time.monotonic() - start
    click.echo(f"{folder.slides}, {folder.clinical.name}, {folder.rna.name}: {painted} slides painted now.")
    click.secho(f"({seconds:.0f} s)", dim=True)
    return seconds
