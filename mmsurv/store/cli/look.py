"""``mmsurv store info`` and ``list``: what a store holds."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmsurv.errors import JobFailedError, MmsurvError
from mmsurv.store.cli.options import AS_JSON, STORE, echo_json

if TYPE_CHECKING:
    from mmsurv.store.base import FeatureStore

REJECTED = ("n_unreadable", "n_out_of_focus", "n_near_white")


@click.command()
@STORE
@AS_JSON
def info(path: Path, as_json: bool) -> None:
    """What STORE holds and the recipe that made it."""
    from mmsurv.store import open_store

    opened = open_store(path)
    facts = _facts(opened)
    if as_json:
        echo_json(facts)
        return
    for key in ("path", "format", "backend", "slides", "tiles", "dim", "dtype", "bytes", "failures", "leftovers"):
        click.echo(f"{key:<14} {facts[key]}")
    click.echo(f"{'recipe_sha256':<14} {facts['recipe_sha256']}")
    click.echo("recipe")
    for key, value in _dotted(facts["recipe"]):
        click.echo(f"  {key:<30} {value}")
    if facts["recipe"].get("encoder", {}).get("weights") == "random":
        click.echo("The encoder's weights are random: these features show that the path works, nothing of tissue.")


@click.command(name="list")
@STORE
@click.option("--failures", "show_failures", is_flag=True, help="List the slides that failed instead.")
@AS_JSON
def list_(path: Path, show_failures: bool, as_json: bool) -> None:
    """The slides of STORE, one a line: tissue tiles, rejected tiles, resolution, source."""
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
        echo_json(rows)
    else:
        wide = max([8, *(len(row["slide_id"]) for row in rows)])
        click.echo(f"{'slide_id':<{wide}}  {'tissue tiles':>12}  {'rejected':>8}  {'mpp':>8}  source")
        for row in rows:
            if "problem" in row:
                click.echo(f"{row['slide_id']:<{wide}}  damaged: {row['problem']}")
                continue
            mpp = f"{row['mpp']:.4g}" if "mpp" in row else "–"
            rejected = sum(int(row.get(name, 0)) for name in REJECTED)
            click.echo(
                f"{row['slide_id']:<{wide}}  {row.get('n_tissue_tiles', '–'):>12}  {rejected:>8}  "
                f"{mpp:>8}  {row.get('source', '–')}"
            )
    if damaged:
        raise JobFailedError(
            f"{damaged} of {len(rows)} records are damaged. `mmsurv store verify {opened.path}` says how."
        )


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
        "bytes": sum(path.stat().st_size for path in paths if path.is_file()),
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
        echo_json([dataclasses.asdict(failure) for failure in failures])
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
