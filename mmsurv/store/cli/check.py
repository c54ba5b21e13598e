"""``mmsurv store verify`` and ``prune``: whether a store is whole, and what in it is of no more use."""

from __future__ import annotations

import math
from pathlib import Path

import click

from mmsurv.errors import JobFailedError
from mmsurv.store.cli.options import AS_JSON, SLIDE_IDS, STORE, echo_json


@click.command()
@STORE
@SLIDE_IDS
@AS_JSON
def verify(path: Path, slide_ids: tuple[str, ...], as_json: bool) -> None:
    """Hash every record of STORE again (or those named) and check what it holds.

    Exits 1 and names the slides if any record is damaged; a warning alone does not.
    """
    from mmsurv.progress import progress
    from mmsurv.store import open_store
    from mmsurv.store.verify import examine

    opened = open_store(path)
    wanted = list(slide_ids) or opened.slide_ids()
    problems: dict[str, list[str]] = {}
    warnings: dict[str, list[str]] = {}
    with progress(len(wanted), "Verifying", unit="slides") as advance:
        for slide_id in wanted:
            found = examine(opened, slide_id)
            if found.problems:
                problems[slide_id] = found.problems
            if found.warnings:
                warnings[slide_id] = found.warnings
            advance(1)
    leftovers = [str(leftover) for leftover in opened.leftovers()]
    strays = [str(stray) for stray in opened.strays()]
    if as_json:
        echo_json(
            {
                "slides": len(wanted), "problems": problems, "warnings": warnings, "leftovers": leftovers,
                "strays": strays,
            }
        )  # fmt: skip
    else:
        _print(problems, warnings, leftovers, strays)
    if problems:
        raise JobFailedError(f"{len(problems)} of {len(wanted)} records cannot be used; what to do stands beside each.")
    if not as_json:
        click.echo(f"{len(wanted)} records are whole.")


def _print(
    problems: dict[str, list[str]], warnings: dict[str, list[str]], leftovers: list[str], strays: list[str]
) -> None:
    for slide_id, sentences in problems.items():
        for sentence in sentences:
            click.echo(f"{slide_id}: {sentence}")
    for slide_id, sentences in warnings.items():
        for sentence in sentences:
            click.echo(f"{slide_id}: warning: {sentence}")
    for leftover in leftovers:
        click.echo(f"{leftover}: a writer's temporary file; nothing reads it. `mmsurv store prune` removes it.")
    for stray in strays:
        click.echo(f"{stray}: not a record; nothing reads it.")


def _finite(context: click.Context, parameter: click.Parameter, value: float) -> float:
    if not math.isfinite(value):
        raise click.BadParameter(f"{value} is no number of hours.")
    return value


@click.command()
@STORE
@click.option(
    "--older-than", "hours", type=click.FloatRange(min=0), default=24.0, show_default=True, metavar="HOURS",
    callback=_finite,
    help="Age from which a temporary file or a lease is nobody's any more, by the file system's times.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@AS_JSON
def prune(path: Path, hours: float, dry_run: bool, as_json: bool) -> None:
    """Remove from STORE what is of no more use; never a record.

    That is: temporary files of writers that died, damaged records that were moved aside, leases without a heartbeat,
    and failures of slides that have a record since. A lease of a process that runs on this machine stays, and so does
    what lies behind a folder that is a link.
    """
    from mmsurv.store import open_store
    from mmsurv.store.prune import skipped, useless

    opened = open_store(path)
    links = skipped(opened)
    if not as_json:
        for link in links:
            click.echo(f"{link}: a link, so nothing in it is removed.")
    removed = []
    for found in useless(opened, older_than_s=hours * 3600):
        if not dry_run:
            found.path.unlink(missing_ok=True)
        removed.append(found)
        if not as_json:
            click.echo(f"{found.path}: {found.reason}")
    size = sum(found.size for found in removed)
    if as_json:
        listed = [{"path": str(found.path), "reason": found.reason, "bytes": found.size} for found in removed]
        echo_json({"removed": listed, "bytes": size, "dry_run": dry_run, "skipped": [str(link) for link in links]})
        return
    done = "would be removed" if dry_run else "removed"
    click.echo(f"{len(removed)} files {done}, {size} bytes." if removed else "Nothing to remove.")
