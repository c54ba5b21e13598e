"""Progress of long work: a bar on a terminal, plain lines in a log.

Owns how progress looks. Everything goes to stderr, so that stdout stays what a command prints for its reader.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

import click

LOG_EVERY_SECONDS = 30.0


@contextlib.contextmanager
def progress(total: int, label: str, *, unit: str) -> Iterator[Callable[[float], None]]:
    """Show progress of ``total`` units of work.

    Args:
        total: how many units there are.
        label: what is being done, such as "Encoding".
        unit: the plural of what is counted, such as "tiles".

    Yields:
        A function that is told how many units were done since the last call.
    """
    if sys.stderr.isatty():
        with _bar(total, label, unit) as advance:
            yield advance
    else:
        yield _lines(total, label, unit)


@contextlib.contextmanager
def _bar(total: int, label: str, unit: str) -> Iterator[Callable[[float], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text("" if not task.speed else f"{task.speed:.3g} {unit}/s")

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit), Rate(),
        TimeElapsedColumn(), TextColumn("ETA"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total)
        yield lambda count: bar.advance(task, count)


def _lines(total: int, label: str, unit: str) -> Callable[[float], None]:
    start = last = time.monotonic()
    done = 0.0

    def advance(count: float) -> None:
        nonlocal done, last
        done += count
        now = time.monotonic()
        if now - last >= LOG_EVERY_SECONDS and done < total:
            last = now
            rate = done / (now - start)
            click.echo(
                f"{label}: {done:.0f} of {total} {unit}, {rate:.3g} {unit}/s, ETA {(total - done) / rate:.0f} s",
                err=True,
            )

    return advance
