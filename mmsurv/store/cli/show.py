"""``mmsurv store preview``: pictures of records."""

from __future__ import annotations

from pathlib import Path

import click

from mmsurv.errors import JobFailedError, MmsurvError
from mmsurv.store.cli.options import AS_JSON, SLIDE_IDS, STORE, echo_json, table


@click.command()
@STORE
@SLIDE_IDS
@click.option(
    "-o", "--output", "target", metavar="FOLDER", type=click.Path(path_type=Path),
    help="Where the pictures go.  [default: STORE/previews]",
)  # fmt: skip
@AS_JSON
def preview(path: Path, slide_ids: tuple[str, ...], target: Path | None, as_json: bool) -> None:
    """Draw a PNG of each slide of STORE, or of those named; the slides themselves are not needed.

    On the thumbnail: what was taken for tissue and for pen ink, the tiles that were encoded, and those that were
    rejected, by reason. A picture that is there is drawn anew.
    """
    from mmsurv.progress import progress
    from mmsurv.store import open_store
    from mmsurv.store.commit import publish_bytes
    from mmsurv.store.preview import render

    opened = open_store(path)
    folder = path / "previews" if target is None else target
    folder.mkdir(parents=True, exist_ok=True)
    wanted = list(slide_ids) or opened.slide_ids()
    written: list[str] = []
    problems: dict[str, str] = {}
    with progress(len(wanted), "Drawing", unit="slides") as advance:
        for slide_id in wanted:
            try:
                picture = folder / f"{slide_id}.png"
                publish_bytes(picture, render(opened.read(slide_id)), replace=True)
                written.append(str(picture))
            except MmsurvError as error:
                problems[slide_id] = f"{type(error).__name__}: {error}"
            advance(1)
    if as_json:
        echo_json({"written": written, "problems": problems})
    else:
        click.echo(f"{len(written)} pictures in {folder}")
    if problems:
        raise JobFailedError(f"{len(problems)} slides could not be drawn:\n{table(problems)}")
