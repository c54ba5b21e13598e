"""``mmsurv store convert``: a store in another format."""

from __future__ import annotations

from pathlib import Path

import click

from mmsurv.errors import JobFailedError
from mmsurv.store.cli.options import AS_JSON, STORE, backend, echo_json, output, table


@click.command()
@STORE
@output("The store to write: new, or an earlier copy to go on with.", "NEW")
@backend(required=True)
@AS_JSON
def convert(path: Path, target: Path, backend: str, as_json: bool) -> None:
    """Copy STORE into another format without loss.

    Every number, attribute and digest stays as it is. What NEW holds already is not written again, so an interrupted
    copy goes on. Failures are copied too.
    """
    from mmsurv.progress import progress
    from mmsurv.store import open_store
    from mmsurv.store.convert import convert as copy_store

    source = open_store(path)
    with progress(len(source), "Converting", unit="slides") as advance:
        done = copy_store(source, target, backend=backend, on_slide=lambda slide_id: advance(1))
    failures = done.store.failures()
    if as_json:
        echo_json(
            {
                "path": str(target), "backend": backend, "copied": done.copied, "kept": done.kept,
                "problems": done.problems, "failures": [failure.slide_id for failure in failures],
            }
        )  # fmt: skip
    else:
        click.echo(
            f"{len(done.copied)} records copied, {len(done.kept)} were there, {len(failures)} failures: {target}"
        )
    if done.problems:
        raise JobFailedError(f"{len(done.problems)} records were not copied:\n{table(done.problems)}")
