"""``mmsurv extract`` and ``mmsurv store retry``: slides in, feature store out.

Owns the options, and what a dry run prints. Imports the stage when the command runs, so that its help needs click only.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mmsurv_extract.console import Task
    from mmsurv_extract.encoder import Encoder
    from mmsurv_extract.recipe import ExtractRecipe

PATH = click.Path(path_type=Path)

MPP = click.option("--mpp", type=float, help="µm per pixel (level 0) of the slides that do not say.")
OVERRIDE_MPP = click.option(
    "--override-mpp", type=float, help="µm per pixel (level 0) of all slides named, whatever they say."
)
MPP_FROM_OBJECTIVE = click.option(
    "--mpp-from-objective", is_flag=True, help="Guess a missing mpp from the objective power, 10 / power."
)
DEVICE = click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda|cuda:N")
WORKERS = click.option("--workers", type=click.IntRange(min=1), help="Threads that read tiles.")
BATCH_SIZE = click.option(
    "--batch-size", default=32, show_default=True, type=click.IntRange(min=1), help="Tiles per batch."
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")


@click.command()
@click.argument("slides", nargs=-1, required=True, type=PATH)
@click.option("-o", "--output", "store_path", required=True, type=PATH, help="Store to fill; made if missing.")
@click.option("--recipe", "recipe_name", default="resnet50-20x", show_default=True, metavar="NAME|PATH")
@click.option("--encoder", metavar="NAME", help="A model of torchvision or timm, or a plug-in's.")
@click.option("--weights", metavar="FILE|NAME|random", help="Local file, torchvision's name, or seeded random weights.")
@click.option("--download", is_flag=True, help="Let torchvision fetch weights it names; otherwise nothing is fetched.")
@click.option("--tiles", "max_tiles", type=click.IntRange(min=0), help="Tiles per slide, N; 0 means all.")
@click.option("--tile-px", "px", type=int, help="Side of a tile in pixels.")
@click.option("--tile-mpp", type=float, help="Resolution of a tile, µm per pixel.")
@click.option("--seed", type=int, help="Seed of the sample of tiles.")
@click.option("--dtype", type=click.Choice(["float16", "bfloat16", "float32"]), help="Type the features are stored in.")
@click.option("--backend", type=click.Choice(["hdf5", "zarr"]), help="Kind of a new store's files; hdf5 if not given.")
@MPP
@OVERRIDE_MPP
@MPP_FROM_OBJECTIVE
@DEVICE
@click.option("--compile/--no-compile", default=None, help="Compile the encoder first: minutes, then faster.")
@WORKERS
@BATCH_SIZE
@click.option("--dry-run", is_flag=True, help="Count tiles, estimate time and bytes; write nothing.")
@AS_JSON
def extract(
    slides: tuple[Path, ...], store_path: Path, device: str, download: bool, dry_run: bool, as_json: bool, **given: Any
) -> int:
    """Encode slides into a feature store.

    SLIDES are files or folders, searched recursively; a folder of .dcm files is one slide. A slide whose record is in
    the store is skipped, so an interrupted command is given again as it was; one whose record has fewer tiles than
    --tiles asks for is extended. A slide that fails is noted in the store, the others go on, and the command ends with
    exit code 1 and the list. Any number of processes may be started on one store: they share the slides out.
    """
    from mmsurv_extract.console import Task, mpp_options, run_tasks
    from mmsurv_extract.discover import find_slides
    from mmsurv_extract.job import JobOptions, default_workers

    recipe = _recipe(given)
    discovery = find_slides(slides)
    # Before torch is loaded, so that wrong options are answered at once.
    mpp = mpp_options(given)
    backend = _backend(given["backend"], store_path)

    from mmsurv.store import create_store
    from mmsurv_extract.encoder import build_encoder
    from mmsurv_extract.recipe import fingerprint_table
    from mmsurv_extract.run import probe_encoder

    encoder = build_encoder(recipe.encoder, device=device, allow_download=download)
    workers = given["workers"] or default_workers(encoder.device.type)
    options = JobOptions(batch_size=given["batch_size"], workers=workers, mpp=mpp)
    task = Task(discovery=discovery, recipe=recipe, options=options)
    if dry_run:
        return _dry_run(store_path, task, encoder, backend, as_json)
    probe_encoder(encoder, recipe)
    table = fingerprint_table(recipe, encoder.describe())
    store = create_store(store_path, recipe=table, dim=encoder.dim, dtype=recipe.dtype, backend=backend)
    return run_tasks([task], store, encoder, as_json=as_json)


@click.command()
@click.argument("path", metavar="STORE", type=PATH)
@click.argument("slide_ids", nargs=-1, metavar="[SLIDE_ID]...")
@click.option("--weights", metavar="FILE", help="The weights STORE was made with; not needed if they were random.")
@click.option("--weights-seed", default=0, show_default=True, type=int, help="Seed of random weights.")
@MPP
@OVERRIDE_MPP
@MPP_FROM_OBJECTIVE
@DEVICE
@WORKERS
@BATCH_SIZE
@AS_JSON
def retry(
    path: Path, slide_ids: tuple[str, ...], weights: str | None, weights_seed: int, device: str, as_json: bool,
    **given: Any,
) -> int:  # fmt: skip
    """Encode the slides again that failed (or those named), from where they were, with STORE's own recipe.

    Each is tried with the options it failed with, unless options of resolution are given. A slide that succeeds is
    no failure any more.
    """
    from mmsurv.store import open_store
    from mmsurv_extract.console import mpp_options, run_tasks
    from mmsurv_extract.job import JobOptions, default_workers
    from mmsurv_extract.resolution import MppOptions
    from mmsurv_extract.retry import failures_to_retry, recipe_of_store, require_recipe_of_store, retry_tasks

    store = open_store(path)
    failures = failures_to_retry(store, slide_ids)
    if not failures:
        click.echo(f"{click.format_filename(path)} notes no failures.")
        return 0
    asked = mpp_options(given)
    mpp = None if asked == MppOptions() else asked
    recipe = recipe_of_store(store, weights=weights, weights_seed=weights_seed)

    from mmsurv_extract.encoder import build_encoder

    encoder = build_encoder(recipe.encoder, device=device)
    require_recipe_of_store(store, recipe, encoder)
    workers = given["workers"] or default_workers(encoder.device.type)
    options = JobOptions(batch_size=given["batch_size"], workers=workers)
    tasks, gone = retry_tasks(store, failures, recipe, options, mpp)
    return run_tasks(tasks, store, encoder, failed=gone, as_json=as_json)


def _recipe(given: dict[str, Any]) -> ExtractRecipe:
    from mmsurv.config import replace
    from mmsurv_extract.recipe import load_extract_recipe

    recipe = load_extract_recipe(given["recipe_name"])
    encoder = replace(
        recipe.encoder, "options", name=given["encoder"], weights=given["weights"], compile=given["compile"]
    )
    tiles = replace(
        recipe.tiles,
        "options",
        max_tiles=given["max_tiles"],
        px=given["px"],
        mpp=given["tile_mpp"],
        seed=given["seed"],
    )
    return replace(recipe, "options", encoder=encoder, tiles=tiles, dtype=given["dtype"])


def _backend(given: str | None, store_path: Path) -> str:
    """The one asked for; else the one of the store that is there; else HDF5."""
    from mmsurv.store.manifest import FILE_NAME, read_manifest

    if given is None and (store_path / FILE_NAME).is_file():
        return read_manifest(store_path).backend
    return given or "hdf5"


def _dry_run(store_path: Path, task: Task, encoder: Encoder, backend: str, as_json: bool) -> int:
    from mmsurv_extract.estimate import estimate_job, existing_store
    from mmsurv_extract.progress import duration, make_progress
    from mmsurv_extract.recipe import fingerprint_table
    from mmsurv_extract.stop import JobStopped, StopOnSignal

    recipe, table = task.recipe, fingerprint_table(task.recipe, encoder.describe())
    store = existing_store(store_path, table, dim=encoder.dim, dtype=recipe.dtype, backend=backend)
    with StopOnSignal() as signals, make_progress(task.n_slides) as progress:
        try:
            found = estimate_job(
                task.discovery, store, recipe, encoder, task.options, progress=progress, stop=signals.stop
            )
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
