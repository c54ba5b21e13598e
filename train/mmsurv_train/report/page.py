"""The page: template and style from the package, filled and written at once.

Owns the rendering. Everything from a run is text to the template and escaped; only the figures are markup.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import jinja2

from mmsurv.errors import RunError
from mmsurv_train.report import content
from mmsurv_train.run import Run

GENERATOR = b'<meta name="generator" content="mmsurv">'
"""Stands at the top of every report, and tells it from other files."""


def write_report(runs: Sequence[Run], out: Path, *, title: str, notes: Sequence[str] = ()) -> None:
    """Write one HTML page: no script, no other file, no network.

    Args:
        runs: at least one; shown in this order.
        out: the file; a report that is there is replaced, nothing else is.
        title: heading of the page.
        notes: warnings of the user for the banner, such as that the data are simulated.

    Raises:
        RunError: no run, ``out`` is something else than a report, or it cannot be written.
    """
    if not runs:
        raise RunError("A report needs at least one run.")
    _refuse_other(out)
    html = render(runs, title=title, notes=notes)
    partial = out.with_name(f".{out.name}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(html, encoding="utf-8")
        partial.replace(out)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise RunError(f"{out}: cannot be written ({error.strerror}).") from error


def _refuse_other(out: Path) -> None:
    """Raises RunError: a file that is no report would be lost."""
    if not out.exists():
        return
    try:
        with out.open("rb") as file:
            is_report = GENERATOR in file.read(4096)
    except OSError as error:
        raise RunError(f"{out}: cannot be written ({error.strerror}).") from error
    if not is_report:
        raise RunError(f"{out} is there already, and no report of mmsurv. Name another file with -o, or delete it.")


def render(runs: Sequence[Run], *, title: str, notes: Sequence[str] = ()) -> str:
    """The page as text; the same runs give the same bytes."""
    files = resources.files(__package__)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(files.joinpath("template.html").read_text(encoding="utf-8"))
    style = files.joinpath("style.css").read_text(encoding="utf-8")
    return template.render(style=style, title=title, page=content.describe(runs, notes))
