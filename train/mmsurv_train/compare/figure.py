"""The forest plot of a comparison: every run's C-index above, the differences below, the numbers at the right.

Owns drawing only. The same numbers give the same bytes: no dates, ids by a fixed salt. Measures differ in colour,
lightness and shape, so print and colour-blind readers lose nothing; an open marker is a difference whose interval holds
zero.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmsurv_train import summary
from mmsurv_train.compare import text
from mmsurv_train.compare.comparison import Comparison
from mmsurv_train.report.figures import FAINT, HIGH, INK, LOW, STYLE

DOTS_PER_INCH = 200
BAND = "#f3f5f7"
MUTED = "#5b6770"
WIDTH, BETWEEN, FOOT = 9.2, 1.05, 0.65
"""Inches: of the picture, between its two parts and below them."""
LABEL_CHARACTER, MOST_LABEL = 0.082, 34
"""Inches for each; characters. A longer label is cut at its front, where paths are alike."""

COLUMNS_RIGHT = (0.75, 2.55, 3.4)
"""Right edges of the numbers, in inches from the axes."""

SERIES = {
    "c_index": (LOW, "o", "C-index of all patients together"),
    "fold_mean": (HIGH, "s", "mean of the folds’ C-indices"),
}
"""What is drawn of each run: colour, marker, words."""


@dataclass(frozen=True, kw_only=True)
class _Mark:
    """One point with its interval, and what stands at the right of it."""

    measure: str
    row: int
    value: float | None
    low: float | None
    high: float | None
    cells: tuple[str, ...]


@mpl.rc_context(STYLE)
def forest_plot(found: Comparison, level: str) -> Figure:
    """Harrell's C-index of every run and every pair's difference, at one level; of folds also their mean.

    Args:
        found: the comparison.
        level: ``case`` or ``wsi``.
    """
    measures = [name for name in SERIES if name in found.measures]
    pairs = [_pair_label(found, place) for place in range(len(found.pairs))]
    labels = [_short(label) for label in (*found.labels, *pairs)]
    row = 0.24 * len(measures) + 0.2
    above, below = len(found.items) * row, len(found.pairs) * row
    head = 1.0 if len(measures) == 1 else 1.2
    height = head + above + BETWEEN + below + FOOT
    figure = Figure(figsize=(WIDTH, height))
    left = 0.45 + LABEL_CHARACTER * max(map(len, labels))
    top = _axes(figure, (left, height - head - above, WIDTH - 3.75 - left, above), labels[: len(found.labels)])
    bottom = _axes(figure, (left, FOOT, WIDTH - 3.75 - left, below), labels[len(found.labels) :])
    _draw_runs(top, found, level, measures)
    _draw_pairs(bottom, found, level, measures)
    _captions(figure, found, level, measures, height)
    return figure


@mpl.rc_context(STYLE)
def to_svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


@mpl.rc_context(STYLE)
def to_png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return buffer.getvalue()


def _axes(figure: Figure, box: tuple[float, float, float, float], labels: Sequence[str]) -> Axes:
    """Axes at a place in inches, a row for each label, every other one on a faint band that goes under the numbers."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
    axes.set(ylim=(len(labels) - 0.5, -0.5), yticks=range(len(labels)))
    axes.set_yticklabels(labels)
    axes.tick_params(axis="y", length=0, pad=8)
    axes.tick_params(axis="x", labelsize=9, color=FAINT)
    axes.spines["left"].set_visible(False)
    for place in range(0, len(labels), 2):
        axes.axhspan(
            place - 0.5, place + 0.5, xmin=-(box[0] - 0.2) / box[2], xmax=1 + 3.55 / box[2], color=BAND, linewidth=0,
            clip_on=False, zorder=0,
        )  # fmt: skip
    axes.patch.set_alpha(0)
    return axes


def _draw_runs(axes: Axes, found: Comparison, level: str, measures: Sequence[str]) -> None:
    marks = []
    for measure in measures:
        for place, estimate in enumerate(found.levels[level].estimates[measure]):
            interval = summary.interval(estimate.to_table())
            cells = (summary.number(estimate.value), interval)
            marks.append(_Mark(measure=measure, row=place, value=estimate.value, low=estimate.low, high=estimate.high,
                               cells=cells))  # fmt: skip
    _limits(axes, marks)
    for mark in marks:
        if mark.row == 0 and mark.value is not None:
            colour = SERIES[mark.measure][0]
            axes.axvline(mark.value, color=colour, linewidth=0.8, linestyle=(0, (4, 3)), alpha=0.55, zorder=1)
        _mark(axes, mark, measures, filled=True)
    _heads(axes, ("C-index", f"{found.how.confidence:.0%} interval"))
    _cells(axes, marks, measures)
    axes.set_xlabel("C-index", labelpad=4, fontsize=9, color=MUTED)


def _draw_pairs(axes: Axes, found: Comparison, level: str, measures: Sequence[str]) -> None:
    several, marks = len(found.pairs) > 1, []
    for measure in measures:
        for place, one in enumerate(found.levels[level].differences[measure]):
            p = one.p_holm if several else one.p
            cells = (text.signed(one.value), text.interval(one), summary.p_value(p))
            marks.append(_Mark(measure=measure, row=place, value=one.value, low=one.low, high=one.high, cells=cells))
    _limits(axes, marks, holding=0.0)
    axes.axvline(0, color=INK, linewidth=1.1, zorder=1)
    for mark in marks:
        apart = mark.low is not None and mark.high is not None and not mark.low <= 0 <= mark.high
        _mark(axes, mark, measures, filled=apart)
    _heads(axes, ("difference", f"{found.how.confidence:.0%} interval", "Holm’s p" if several else "p"))
    _cells(axes, marks, measures)
    axes.xaxis.set_major_formatter(_signed_tick)
    axes.set_xlabel("← lower     difference in C-index     higher →", labelpad=4, fontsize=9, color=MUTED)


def _signed_tick(value: float, _place: float) -> str:
    return "0" if abs(value) < 1e-9 else f"{value:+.3g}".replace("-", "−")


def _limits(axes: Axes, marks: Sequence[_Mark], *, holding: float | None = None) -> None:
    numbers = [value for mark in marks for value in (mark.value, mark.low, mark.high) if value is not None]
    numbers += [holding] if holding is not None else []
    low, high = (min(numbers), max(numbers)) if numbers else (0.0, 1.0)
    space = max(0.06 * (high - low), 0.01)
    axes.set_xlim(low - space, high + space)
    axes.locator_params(axis="x", nbins=6)
    axes.grid(axis="x", color=FAINT, alpha=0.25, linewidth=0.7)
    axes.set_axisbelow(True)


def _mark(axes: Axes, mark: _Mark, measures: Sequence[str], *, filled: bool) -> None:
    if mark.value is None:
        return
    colour, marker, _ = SERIES[mark.measure]
    y = _y(mark, measures)
    if mark.low is not None and mark.high is not None:
        axes.errorbar(
            [mark.value], [y], xerr=[[max(0.0, mark.value - mark.low)], [max(0.0, mark.high - mark.value)]],
            color=colour, elinewidth=1.7, capsize=3, capthick=1.3, linestyle="none", zorder=3,
        )  # fmt: skip
    axes.plot(
        [mark.value], [y], marker, markersize=7, markerfacecolor=colour if filled else "white",
        markeredgecolor=colour, markeredgewidth=1.6, linestyle="none", zorder=4,
    )  # fmt: skip


def _y(mark: _Mark, measures: Sequence[str]) -> float:
    """The row, a little higher or lower where several measures share it."""
    return mark.row + (measures.index(mark.measure) - (len(measures) - 1) / 2) * 0.36


def _heads(axes: Axes, heads: Sequence[str]) -> None:
    for head, place in zip(heads, COLUMNS_RIGHT, strict=False):
        axes.annotate(
            head, (1, 1), xycoords="axes fraction", xytext=(place * 72, 7), textcoords="offset points", ha="right",
            va="bottom", fontsize=8.5, color=MUTED, annotation_clip=False,
        )  # fmt: skip


def _cells(axes: Axes, marks: Sequence[_Mark], measures: Sequence[str]) -> None:
    for mark in marks:
        colour = SERIES[mark.measure][0] if len(measures) > 1 else INK
        for cell, place in zip(mark.cells, COLUMNS_RIGHT, strict=False):
            axes.annotate(
                cell, (1, _y(mark, measures)), xycoords=("axes fraction", "data"), xytext=(place * 72, 0),
                textcoords="offset points", ha="right", va="center", fontsize=9.5, color=colour, annotation_clip=False,
            )  # fmt: skip


def _captions(figure: Figure, found: Comparison, level: str, measures: Sequence[str], height: float) -> None:
    counts = found.levels[level]
    slides = f"{counts.n} slides of " if level == "wsi" else ""
    title = f"C-index, {summary.LEVEL_NAMES[level]} level: {slides}{counts.cases} patients in all runs"
    alone = " (not adjusted for the other pairs)" if len(found.pairs) > 1 else ""
    note = (
        f"Paired bootstrap over patients, {found.how.n_resamples} draws. Filled: the interval of the difference{alone} "
        "leaves out 0."
    )
    said = (title, "bold", 11.5, 0.3), (note, "normal", 8.5, 0.52)
    for words, weight, size, down in said:
        figure.text(0.2 / WIDTH, 1 - down / height, words, weight=weight, fontsize=size, va="center",
                    color=INK if weight == "bold" else MUTED)  # fmt: skip
    if len(measures) > 1:
        x = 0.2
        for measure in measures:
            colour, marker, words = SERIES[measure]
            symbol = "●" if marker == "o" else "■"
            figure.text(x / WIDTH, 1 - 0.76 / height, f"{symbol} {words}", fontsize=9, color=colour, va="center")
            x += 0.35 + 0.068 * len(words)
    if not _all_pairs(found):
        axes = figure.axes[1]
        axes.annotate(
            f"minus {_short(found.labels[0])}", (0, 1), xycoords="axes fraction", xytext=(-8, 7),
            textcoords="offset points", ha="right", va="bottom", fontsize=8.5, color=MUTED, annotation_clip=False,
        )  # fmt: skip


def _pair_label(found: Comparison, place: int) -> str:
    pair = found.pairs[place]
    if not _all_pairs(found) or len(found.pair_label(pair)) <= MOST_LABEL:
        return found.pair_label(pair) if _all_pairs(found) else found.labels[pair.other]
    half = (MOST_LABEL - 3) // 2
    return " − ".join(_short(found.labels[one], half) for one in (pair.other, pair.reference))


def _all_pairs(found: Comparison) -> bool:
    return any(pair.reference for pair in found.pairs)


def _short(label: str, most: int = MOST_LABEL) -> str:
    return label if len(label) <= most else f"…{label[1 - most :]}"
