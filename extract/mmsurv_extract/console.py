"""A job run from the command line: signals, progress, what is printed and the exit code.

Owns what ``mmsurv extract`` and ``mmsurv store retry`` have in common.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmsurv.errors import ConfigError, JobFailedError
from mmsurv_extract.discover import Discovery
from mmsurv_extract.job import FailedSlide, JobOptions, JobSummary
from mmsurv_extract.progress import make_progress
from mmsurv_extract.recipe import ExtractRecipe
from mmsurv_extract.resolution import MppOptions
from mmsurv_extract.run import run_job
from mmsurv_extract.stop import StopOnSignal

if TYPE_CHECKING:
    from mmsurv.store import FeatureStore
    from mmsurv_extract.encoder import Encoder


@dataclass(frozen=True, kw_only=True)
class Task:
    """Slides that are encoded with the same options."""

    discovery: Discovery
    recipe: ExtractRecipe
    options: JobOptions

    @property
    def n_slides(self) -> int:
        return len(self.discovery.sources) + len(self.discovery.collisions)


def mpp_options(given: dict[str, Any]) -> MppOptions:
    """What the options of the command line say about resolution.

    Raises:
        ConfigError: values that cannot be.
    """
    try:
        return MppOptions(fill=given["mpp"], override=given["override_mpp"], from_objective=given["mpp_from_objective"])
    except ValueError as error:
        raise ConfigError(str(error)) from error


def run_tasks(
    tasks: Sequence[Task], store: FeatureStore, encoder: Encoder, *, failed: Sequence[FailedSlide] = (), as_json: bool
) -> int:
    """Run jobs one after the other and print what came of them.

    Args:
        tasks: the jobs.
        store: where to.
        encoder: the store's.
        failed: slides that failed before any job.
        as_json: print the summary as one JSON object.

    Returns:
        The exit code: 0, or 128 + the number of the signal that stopped the work.

    Raises:
        JobFailedError: slides failed; the message is their table.
    """
    total = JobSummary(failed=list(failed))
    n_slides = sum(task.n_slides for task in tasks)
    with StopOnSignal() as signals:
        with make_progress(n_slides) as progress:
            for task in tasks:
                found = run_job(
                    task.discovery, store, task.recipe, encoder, task.options, progress=progress, stop=signals.stop
                )
                total.add(found)
        _print_summary(total, store, encoder, as_json)
        if total.stopped:
            click.echo("Stopped. The slide in flight was dropped; the same command goes on from here.", err=True)
            return signals.exit_code
    if total.failed:
        raise JobFailedError(_failure_table(total.failed, n_slides + len(failed), store.path))
    return 0


def _print_summary(summary: JobSummary, store: FeatureStore, encoder: Encoder, as_json: bool) -> None:
    if as_json:
        table = {"store": str(store.path), "recipe_sha256": store.recipe_sha256, **summary.to_table()}
        click.echo(json.dumps(table))
        return
    # Not every file name is UTF-8; what cannot be printed is shown as a replacement character.
    weights = click.format_filename(encoder.weights_description)
    extended = f", {len(summary.extended)} extended" if summary.extended else ""
    click.echo(
        f"{click.format_filename(store.path)}: {len(summary.done)} slides encoded{extended} ({summary.n_tiles} tiles, "
        f"{summary.tiles_per_second:.1f} tiles/s), {len(summary.skipped)} skipped, {len(summary.failed)} failed. "
        f"Encoder: {encoder.name}, weights {weights}."
    )


def _failure_table(failed: Sequence[FailedSlide], n_slides: int, store_path: Path) -> str:
    wide = max(len(slide.slide_id) for slide in failed)
    rows = "\n".join(
        f"  {slide.slide_id:<{wide}}  {slide.error}{' (in another process)' if slide.by_other else ''}: {slide.message}"
        for slide in failed
    )
    noted = f"noted in {store_path / 'failures'}"
    return f"{len(failed)} of {n_slides} slides failed, {noted}; the others are done.\n{rows}"
