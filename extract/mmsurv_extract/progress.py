"""What a running job shows: bars with rate and ETA on a terminal, plain lines in a log.

Owns the display only. Everything goes to standard error, so that standard output is the result.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

import click


class Progress:
    """Counts slides and tiles and says how fast they come. Plain lines, one per slide."""

    def __init__(self, n_slides: int) -> None:
        self.n_slides = n_slides
        self.n_ended = 0
        self.n_tiles = 0
        self._slides_encoded = 0
        self._started = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def begin(self, slide_id: str, n_tiles: int) -> None:
        """A slide's tiles are about to be encoded."""

    def advance(self, n_tiles: int) -> None:
        """So many more tiles are encoded."""
        self.n_tiles += n_tiles

    def end(self, slide_id: str, outcome: str, *, encoded: bool = False) -> None:
        """A slide is finished with; ``outcome`` says how, in a few words."""
        self.n_ended += 1
        self._slides_encoded += encoded
        self.say(f"slide {self.n_ended}/{self.n_slides}  {slide_id}: {outcome}{self._forecast()}")

    def say(self, line: str) -> None:
        """A line for the log."""
        click.echo(line, err=True)

    def close(self) -> None:
        """Nothing more will come."""

    @property
    def rate(self) -> float:
        """Tiles per second since the job began."""
        return self.n_tiles / max(time.monotonic() - self._started, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """Estimate from the mean time per encoded slide; None before the first."""
        if not self._slides_encoded:
            return None
        return (time.monotonic() - self._started) / self._slides_encoded * (self.n_slides - self.n_ended)

    def _forecast(self) -> str:
        left = self.seconds_left
        if left is None or self.n_ended == self.n_slides:
            return ""
        return f"  ({self.rate:.1f} tiles/s, {duration(left)} left)"


class TerminalProgress(Progress):
    """Two bars: the slides of the job, and the tiles of the slide in work."""

    def __init__(self, n_slides: int) -> None:
        super().__init__(n_slides)
        from rich import progress
        from rich.console import Console

        self._bars = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
        )
        self._slides = self._bars.add_task("slides", total=n_slides, note="")
        self._current: Any = self._bars.add_task("tiles", total=None, note="")
        self._bars.start()

    def begin(self, slide_id: str, n_tiles: int) -> None:
        self._bars.reset(self._current, total=n_tiles, description=slide_id[-32:], note="")

    def advance(self, n_tiles: int) -> None:
        super().advance(n_tiles)
        self._bars.update(self._current, advance=n_tiles, note=f"{self.rate:.1f} tiles/s")

    def end(self, slide_id: str, outcome: str, *, encoded: bool = False) -> None:
        super().end(slide_id, outcome, encoded=encoded)
        left = self.seconds_left
        self._bars.update(self._slides, completed=self.n_ended, note="" if left is None else f"{duration(left)} left")

    def say(self, line: str) -> None:
        self._bars.console.print(line, markup=False, highlight=False)

    def close(self) -> None:
        self._bars.stop()


def make_progress(n_slides: int) -> Progress:
    """Bars if standard error is a terminal, lines otherwise."""
    return TerminalProgress(n_slides) if sys.stderr.isatty() else Progress(n_slides)


def duration(seconds: float) -> str:
    """Such as "45 s", "12 min", "3 h 20 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
