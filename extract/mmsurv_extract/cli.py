"""``mmsurv extract``: slides in, feature store out.

Owns the options and what is printed. Imports the stage when the command runs, so that its help needs click only.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mmsurv_extract.discover import Discovery
    from mmsurv_extract.encoder import Encoder
    from mmsurv_extract.job import FailedSlide, JobOptions, JobSummary
    from mmsurv_extract.recipe import ExtractRecipe

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("slides", nargs=-1, required=True, type=PATH)
@click.option("-o", "--output", "store_path", required=True, type=PATH, help="Store to fill; made if missing.")
@click.option("--recipe", "recipe_name", default="resnet50-20x", show_default=True, metavar="NAME|PATH")
@click.option("--encoder", metavar="NAME", help="A torchvision classification model, such as resnet18.")
@click.option("--weights", metavar="FILE|NAME|random", help="Local file, torchvision's name, or seeded random weights.")
@click.option("--download", is_flag=True, help="Let torchvision fetch weights it names; otherwise nothing is fetched.")
@click.option("--tiles", "max_tiles", type=click.IntRange(min=0), help="Tiles per slide, N; 0 means all.")
@click.option("--tile-px", "px", type=int, help="Side of a tile in pixels.")
@click.option("--tile-mpp", type=float, help="Resolution of a tile, µm per pixel.")
@click.option("--seed", type=int, help="Seed of the sample of tiles.")
@click.option("--mpp", type=float, help="µm per pixel (level 0) of the slides that do not say.")
@click.option("--override-mpp", type=float, help="µm per pixel (level 0) of all slides named, whatever they say.")
@click.option("--mpp-from-objective", is_flag=True, help="Guess a missing mpp from the objective power, 10 / power.")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda")
@click.option("--workers", type=click.IntRange(min=1), help="Threads that read tiles.")
@click.option("--batch-size", default=32, show_default=True, type=click.IntRange(min=1), help="Tiles per batch.")
@click.option("--dry-run", is_flag=True, help="Count tiles, estimate time and bytes; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
def extract(
    slides: tuple[Path, ...], store_path: Path, device: str, download: bool, dry_run: bool, as_json: bool, **given: Any
) -> int:
    """Encode slides into a feature store.

    SLIDES are files or folders, searched recursively; a folder of .dcm files is one slide. A slide whose record is in
    the store is skipped, so an interrupted command is given again as it was; one whose record has fewer tiles than
    --tiles asks for is extended. A slide that fails is noted in the store, the others go on, and the command ends with
    exit code 1 and the list. Any number of processes may be started on one store: they share the slides out.
    """
    from mmsurv_extract.discover import find_slides

    recipe = _recipe(given)
    discovery = find_slides(slides)
    # Before torch is loaded, so that wrong options are answered at once.
    job = _job_options(given)

    from mmsurv_extract.encoder import build_encoder

    encoder = build_encoder(recipe.encoder, device=device, allow_download=download)
    if given["workers"] is None:
        job = _job_options({**given, "workers": _default_workers(encoder)})
    if dry_run:
        return _dry_run(discovery, store_path, recipe, encoder, job, as_json)
    return _extract(discovery, store_path, recipe, encoder, job, as_json)


def _recipe(given: dict[str, Any]) -> ExtractRecipe:
    from mmsurv.config import replace
    from mmsurv_extract.recipe import load_extract_recipe

    recipe = load_extract_recipe(given["recipe_name"])
    encoder = replace(recipe.encoder, "options", name=given["encoder"], weights=given["weights"])
    tiles = replace(
        recipe.tiles,
        "options",
        max_tiles=given["max_tiles"],
        px=given["px"],
        mpp=given["tile_mpp"],
        seed=given["seed"],
    )
    return replace(recipe, "options", encoder=encoder, tiles=tiles)


def _job_options(given: dict[str, Any]) -> JobOptions:
    from mmsurv.errors import ConfigError
    from mmsurv_extract.job import JobOptions
    from mmsurv_extract.resolution import MppOptions

    try:
        mpp = MppOptions(fill=given["mpp"], override=given["override_mpp"], from_objective=given["mpp_from_objective"])
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return JobOptions(batch_size=given["batch_size"], workers=given["workers"] or 1, mpp=mpp)


def _default_workers(encoder: Encoder) -> int:
    from mmsurv_extract.job import default_workers

    return default_workers(encoder.device.type)


def _extract(
    discovery: Discovery, store_path: Path, recipe: ExtractRecipe, encoder: Encoder, job: JobOptions, as_json: bool
) -> int:
    from mmsurv.errors import JobFailedError
    from mmsurv.store import create_store
    from mmsurv_extract.progress import make_progress
    from mmsurv_extract.recipe import fingerprint_table
    from mmsurv_extract.run import probe_encoder, run_job
    from mmsurv_extract.stop import StopOnSignal

    probe_encoder(encoder, recipe)
    recipe_table = fingerprint_table(recipe, encoder.describe())
    store = create_store(store_path, recipe=recipe_table, dim=encoder.dim, dtype=recipe.dtype)
    with StopOnSignal() as signals:
        n_slides = len(discovery.sources) + len(discovery.collisions)
        with make_progress(n_slides) as progress:
            summary = run_job(discovery, store, recipe, encoder, job, progress=progress, stop=signals.stop)
        _print_summary(summary, store_path, store.recipe_sha256, encoder, as_json)
        if summary.stopped:
            click.echo("Stopped. The slide in flight was dropped; the same command goes on from here.", err=True)
            return signals.exit_code
    if summary.failed:
        raise JobFailedError(_failure_table(summary.failed, summary.n_slides, store_path))
    return 0


def _dry_run(
    discovery: Discovery, store_path: Path, recipe: ExtractRecipe, encoder: Encoder, job: JobOptions, as_json: bool
) -> int:
    from mmsurv_extract.estimate import estimate_job, existing_store
    from mmsurv_extract.progress import duration, make_progress
    from mmsurv_extract.recipe import fingerprint_table
    from mmsurv_extract.stop import JobStopped, StopOnSignal

    table = fingerprint_table(recipe, encoder.describe())
    store = existing_store(store_path, table, dim=encoder.dim, dtype=recipe.dtype)
    with StopOnSignal() as signals, make_progress(len(discovery.sources)) as progress:
        try:
            found = estimate_job(discovery, store, recipe, encoder, job, progress=progress, stop=signals.stop)
        except JobStopped:
            return signals.exit_code
    if as_json:
        click.echo(json.dumps(found.to_table()))
        return 0
    click.echo(
        f"{found.n_slides} slides to encode, {found.n_extended} to extend, {found.n_skipped} in the store already, "
        f"{len(found.failed)} would fail."
    )
    click.echo(f"{found.n_tiles} tiles of {recipe.tiles.px} px at {recipe.tiles.mpp:g} µm per pixel.")
    if found.n_tiles:
        click.echo(f"About {duration(found.seconds)} at {found.tiles_per_second:.1f} tiles/s on {encoder.device}.")
    click.echo(f"About {found.bytes / 1e6:.1f} MB. Nothing was written.")
    return 0


def _print_summary(summary: JobSummary, store_path: Path, recipe_sha256: str, encoder: Encoder, as_json: bool) -> None:
    if as_json:
        table = {"store": str(store_path), "recipe_sha256": recipe_sha256, **summary.to_table()}
        click.echo(json.dumps(table))
        return
    # Not every file name is UTF-8; what cannot be printed is shown as a replacement character.
    weights = click.format_filename(encoder.weights_description)
    extended = f", {len(summary.extended)} extended" if summary.extended else ""
    click.echo(
        f"{click.format_filename(store_path)}: {len(summary.done)} slides encoded{extended} ({summary.n_tiles} tiles, "
        f"{summary.tiles_per_second:.1f} tiles/s), {len(summary.skipped)} skipped, {len(summary.failed)} failed. "
        f"Encoder: {encoder.name}, weights {weights}."
    )


def _failure_table(failed: list[FailedSlide], n_slides: int, store_path: Path) -> str:
    wide = max(len(slide.slide_id) for slide in failed)
    rows = "\n".join(
        f"  {slide.slide_id:<{wide}}  {slide.error}{' (in another process)' if slide.by_other else ''}: {slide.message}"
        for slide in failed
    )
    noted = f"noted in {store_path / 'failures'}"
    return f"{len(failed)} of {n_slides} slides failed, {noted}; the others are done.\n{rows}"
