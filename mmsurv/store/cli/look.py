"""``mmsurv store``: look at, check and fill stores.

Owns options and printing; the work is done in ``base``, ``verify`` and ``interop``.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmsurv.errors import JobFailedError, MmsurvError

if TYPE_CHECKING:
    from mmsurv.store.base import FeatureStore
    from mmsurv.store.interop import Imported

STORE = click.argument("path", metavar="STORE", type=click.Path(path_type=Path))
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group()
def store() -> None:
    """Look at, check and fill feature stores."""


@store.command()
@STORE
@AS_JSON
def info(path: Path, as_json: bool) -> None:
    """What STORE holds and the recipe that made it."""
    from mmsurv.store import open_store

    opened = open_store(path)
    facts = _facts(opened)
    if as_json:
        click.echo(json.dumps(facts))
        return
    for key in ("path", "format", "backend", "slides", "tiles", "dim", "dtype", "bytes", "failures", "leftovers"):
        click.echo(f"{key:<14} {facts[key]}")
    click.echo(f"{'recipe_sha256':<14} {facts['recipe_sha256']}")
    click.echo("recipe")
    for key, value in _dotted(facts["recipe"]):
        click.echo(f"  {key:<30} {value}")
    if facts["recipe"].get("encoder", {}).get("weights") == "random":
        click.echo("The encoder's weights are random: these features show that the path works, nothing of tissue.")


@store.command(name="list")
@STORE
@click.option("--failures", "show_failures", is_flag=True, help="List the slides that failed instead.")
@AS_JSON
def list_(path: Path, show_failures: bool, as_json: bool) -> None:
    """The slides of STORE, one a line: tissue tiles, unreadable tiles, resolution, source."""
    from mmsurv.store import open_store

    opened = open_store(path)
    if show_failures:
        _list_failures(opened, as_json)
        return
    rows: list[dict[str, Any]] = []
    damaged = 0
    for slide_id in opened.slide_ids():
        try:
            # From the attributes alone: listing thousands of slides must not hash them.
            rows.append({"slide_id": slide_id, **opened.attributes(slide_id)})
        except MmsurvError as error:
            damaged += 1
            rows.append({"slide_id": slide_id, "problem": str(error)})
    if as_json:
        click.echo(json.dumps(rows))
    else:
        wide = max([8, *(len(row["slide_id"]) for row in rows)])
        click.echo(f"{'slide_id':<{wide}}  {'tissue tiles':>12}  {'unreadable':>10}  {'mpp':>8}  source")
        for row in rows:
            if "problem" in row:
                click.echo(f"{row['slide_id']:<{wide}}  damaged: {row['problem']}")
                continue
            mpp = f"{row['mpp']:.4g}" if "mpp" in row else "–"
            click.echo(
                f"{row['slide_id']:<{wide}}  {row.get('n_tissue_tiles', '–'):>12}  {row.get('n_unreadable', 0):>10}  "
                f"{mpp:>8}  {row.get('source', '–')}"
            )
    if damaged:
        raise JobFailedError(f"{damaged} of {len(rows)} records are damaged. `mmsurv store verify {path}` says how.")


@store.command()
@STORE
@click.argument("slide_ids", nargs=-1, metavar="[SLIDE_ID]...")
@AS_JSON
def verify(path: Path, slide_ids: tuple[str, ...], as_json: bool) -> None:
    """Hash every record of STORE again (or those named) and check what it holds.

    Exits 1 and names the slides if any record is damaged.
    """
    from mmsurv.progress import progress
    from mmsurv.store import open_store

    opened = open_store(path)
    wanted = list(slide_ids) or opened.slide_ids()
    found: dict[str, list[str]] = {}
    with progress(len(wanted), "Verifying", unit="slides") as advance:
        for slide_id in wanted:
            problems = opened.verify(slide_id)
            if problems:
                found[slide_id] = problems
            advance(1)
    leftovers = [str(leftover) for leftover in opened.leftovers()]
    strays = [str(stray) for stray in opened.strays()]
    if as_json:
        facts = {"slides": len(wanted), "problems": found, "leftovers": leftovers, "strays": strays}
        click.echo(json.dumps(facts))
    else:
        for slide_id, problems in found.items():
            for problem in problems:
                click.echo(f"{slide_id}: {problem}")
        for leftover in leftovers:
            click.echo(f"{leftover}: a writer's temporary file; nothing reads it. Delete it when no job is running.")
        for stray in strays:
            click.echo(f"{stray}: not a record; nothing reads it.")
    if found:
        raise JobFailedError(f"{len(found)} of {len(wanted)} records cannot be used; what to do stands beside each.")
    if not as_json:
        click.echo(f"{len(wanted)} records are whole.")


@store.command(name="import")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("-o", "--output", "path", required=True, type=click.Path(path_type=Path), help="The store to fill.")
@click.option(
    "--layout", type=click.Choice(["auto", "clam", "trident"]), default="auto", show_default=True,
    help="Whose files they are; auto tells by the attributes of the first.",
)  # fmt: skip
@click.option("--encoder", help="The encoder's name, where the files do not say it.")
@click.option("--patches", type=click.Path(path_type=Path), help="CLAM's patches folder, for tile sizes.")
@click.option("--dtype", type=click.Choice(["float16", "float32"]), default="float16", show_default=True)
def import_(source: Path, path: Path, layout: str, encoder: str | None, patches: Path | None, dtype: str) -> None:
    """Import SOURCE, a folder of CLAM or TRIDENT feature files (.h5), into a store.

    Slides that are there already are kept. A file that cannot be imported is named at the end; the rest is imported.
    """
    from mmsurv.progress import progress
    from mmsurv.store.interop import feature_files, import_features

    total = len(feature_files(source))
    with progress(total, "Importing", unit="slides") as advance:
        opened, results = import_features(
            source, path, layout=layout, encoder=encoder, patches=patches, dtype=dtype,  # type: ignore[arg-type]
            on_file=lambda result: advance(1),
        )  # fmt: skip
    bad = [result for result in results if result.problem]
    tiles = sum(result.n_tiles for result in results)
    click.echo(f"{len(results) - len(bad)} of {total} slides, {tiles} tiles × {opened.dim} in {opened.path}")
    if not any(result.problem is None for result in results):
        raise JobFailedError(_table(bad))
    _say_what_is_unknown(opened, results)
    if bad:
        raise JobFailedError(_table(bad))


def _say_what_is_unknown(opened: FeatureStore, results: list[Imported]) -> None:
    """The layouts keep less than a store does; what is missing is said once."""
    first = next(result for result in results if result.problem is None)
    record = opened.read(first.slide_id)
    missing = ["tissue fractions", "mpp", "thumbnail", "mask"]
    if "patch_size_level0" not in record.coords_attributes:
        missing.append("tile size (give --patches)")
    if opened.recipe["encoder"]["name"] == "unknown":
        missing.append("encoder (give --encoder)")
    click.echo(f"Not in the files, so unknown in the store: {', '.join(missing)}.", err=True)


def _table(bad: list[Imported]) -> str:
    lines = "\n".join(f"  {result.slide_id}: {result.problem}" for result in bad)
    return f"{len(bad)} files were not imported:\n{lines}"


def _facts(opened: FeatureStore) -> dict[str, Any]:
    slide_ids = opened.slide_ids()
    paths = [opened.record_path(slide_id) for slide_id in slide_ids]
    return {
        "path": str(opened.path),
        "format": opened.manifest.format,
        "backend": opened.manifest.backend,
        "slides": len(paths),
        "tiles": sum(_tiles_or_none(opened, slide_id) for slide_id in slide_ids),
        "dim": opened.dim,
        "dtype": opened.manifest.dtype,
        "bytes": sum(path.stat().st_size for path in paths),
        "failures": len(opened.failures()),
        "leftovers": len(opened.leftovers()),
        "recipe_sha256": opened.recipe_sha256,
        "recipe": dict(opened.recipe),
        "created": opened.manifest.created,
        "versions": dict(opened.manifest.versions),
    }


def _tiles_or_none(opened: FeatureStore, slide_id: str) -> int:
    try:
        return opened.n_tiles(slide_id)
    except MmsurvError:
        return 0  # a damaged record does not hide the rest; list and verify name it


def _list_failures(opened: FeatureStore, as_json: bool) -> None:
    failures = opened.failures()
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(failure) for failure in failures]))
        return
    for failure in failures:
        click.echo(
            f"{failure.slide_id}: {failure.error}: {failure.message} (attempt {failure.attempts}, {failure.source})"
        )
    click.echo(f"{len(failures)} slides failed.")


def _dotted(table: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in sorted(table.items()):
        rows += _dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return rows
