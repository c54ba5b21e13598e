"""The report's figures, as SVG markup to stand inside the page.

Owns drawing only. The same numbers give the same bytes: no dates, ids by a fixed salt. Every figure has a title and a
description for readers who do not see it, and its colours differ in lightness and line style, so print is enough.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmsurv_train import metrics

LOW, HIGH, INK, FAINT = "#1f6f8b", "#b4431c", "#1f2933", "#9aa5b1"
LABEL_WIDTH = 24
"""Characters of a label beside the axes."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mmsurv",
    "font.family": "sans-serif",
    "font.size": 10.0,
    "text.parse_math": False,  # labels are names of runs: a $ in one is a $
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One C-index with its interval, for the comparison."""

    model: str
    level: str
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, eq=False)
class Line:
    """A predicted survival curve."""

    time: np.ndarray
    survival: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Groups of patients at one time: predicted and observed survival, with the interval of the latter."""

    title: str
    predicted: Sequence[float]
    observed: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@mpl.rc_context(STYLE)
def survival_curves(
    cases: pd.DataFrame,
    high: np.ndarray,
    *,
    key: str,
    title: str,
    description: str,
    predicted: Sequence[Line] = (),
) -> Markup:
    """Kaplan–Meier curves of the high-risk and the low-risk group, 95 % bands, censoring marks, numbers at risk.

    Args:
        cases: columns time (months) and event.
        high: True for the high-risk group.
        key: distinguishes this figure's ids from those of the page's other figures.
        title, description: for readers who do not see the figure.
        predicted: further curves, dotted.
    """
    figure, axes = _figure(6.4, 4.1)
    figure.subplots_adjust(left=0.13, right=0.98, top=0.97, bottom=0.34)
    ticks = _month_ticks(float(cases["time"].max()))
    groups = (("low risk", ~high, LOW, "-"), ("high risk", high, HIGH, "--"))
    for row, (name, members, colour, style) in enumerate(groups):
        time, event = cases["time"].to_numpy()[members], cases["event"].to_numpy()[members]
        if len(time):
            _curve(axes, metrics.kaplan_meier(time, event), f"{name} (n = {len(time)})", colour, style)
        _at_risk(axes, name, ticks, metrics.at_risk(time, ticks), colour, row)
    for number, line in enumerate(predicted):
        label = "predicted, mean" if number == 0 else None
        axes.plot(line.time, line.survival, color=INK, linestyle=":", linewidth=1.4, label=label)
    axes.set(xlim=(0, ticks[-1]), ylim=(0, 1.03), xticks=ticks, xlabel="months", ylabel="share alive")
    axes.legend(loc="best")
    return _markup(figure, key=key, title=title, description=description)


@mpl.rc_context(STYLE)
def comparison(bars: Sequence[Bar], *, key: str, title: str, description: str) -> Markup:
    """C-indices with intervals, one line per model and level; 0.5 is chance."""
    models = list(dict.fromkeys(bar.model for bar in bars))
    height = 1.1 + 0.5 * len(models)
    figure, axes = _figure(6.4, height)
    figure.subplots_adjust(left=0.3, right=0.98, top=1 - 0.35 / height, bottom=0.5 / height)
    styles = {"case": (INK, "o", -0.13), "WSI": (LOW, "s", 0.13)}
    labelled: set[str] = set()
    axes.axvline(0.5, color=FAINT, linewidth=1, linestyle=":")
    for bar in bars:
        if bar.value is None:
            continue
        colour, marker, shift = styles[bar.level]
        y = models.index(bar.model) + shift
        if bar.low is not None and bar.high is not None:
            axes.plot([bar.low, bar.high], [y, y], color=colour, linewidth=1.6)
        label = "" if bar.level in labelled else f"{bar.level} level"
        axes.plot([bar.value], [y], marker, color=colour, markersize=6, linestyle="none", label=label or None)
        labelled.add(bar.level)
    axes.set(yticks=range(len(models)), ylim=(len(models) - 0.5, -0.5), xlabel="C-index (0.5 = chance)")
    axes.set_yticklabels([_broken(model) for model in models])
    if labelled:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.2, fontsize=9)
    return _markup(figure, key=key, title=title, description=description)


def _broken(label: str) -> str:
    """A long label in lines that fit beside the axes."""
    return "\n".join(textwrap.wrap(label, LABEL_WIDTH)) or label


@mpl.rc_context(STYLE)
def training_curves(histories: Sequence[pd.DataFrame], *, key: str, title: str, description: str) -> Markup:
    """Training and validation loss by epoch, a line for each network of each fold."""
    figure, axes = _figure(6.4, 2.6)
    figure.subplots_adjust(left=0.13, right=0.98, top=0.96, bottom=0.2)
    for k, history in enumerate(histories):
        for column, colour, line in (("loss", LOW, "-"), ("validation_loss", HIGH, "--")):
            label = column.replace("_", " ") if k == 0 else None
            axes.plot(history["epoch"], history[column], color=colour, linestyle=line, linewidth=1, label=label)
    axes.set(xlabel="epoch", ylabel="Cox loss per event")
    axes.legend(loc="best", fontsize=9)
    return _markup(figure, key=key, title=title, description=description)


@mpl.rc_context(STYLE)
def calibration(panels: Sequence[Panel], *, key: str, title: str, description: str) -> Markup:
    """Predicted against observed survival of groups of patients, a panel for each time."""
    figure = Figure(figsize=(6.4, 2.7))
    figure.subplots_adjust(left=0.1, right=0.98, top=0.88, bottom=0.2, wspace=0.2)
    for axes, panel in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
        observed = np.array(panel.observed)
        error = np.abs([observed - np.array(panel.low), np.array(panel.high) - observed])
        axes.errorbar(
            panel.predicted, observed, yerr=error, color=LOW, marker="o", markersize=4, linestyle="none", elinewidth=1.2
        )
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1], xlabel="predicted")
        axes.set_title(panel.title, fontsize=10)
    figure.axes[0].set_ylabel("observed")
    return _markup(figure, key=key, title=title, description=description)


def _curve(axes: Axes, curve: pd.DataFrame, label: str, colour: str, line: str) -> None:
    axes.step(curve["time"], curve["survival"], where="post", color=colour, linestyle=line, linewidth=1.8, label=label)
    axes.fill_between(curve["time"], curve["low"], curve["high"], step="post", color=colour, alpha=0.12, linewidth=0)
    marks = curve[curve["censored"]]
    axes.plot(marks["time"], marks["survival"], "|", color=colour, markersize=5, linestyle="none")


def _at_risk(axes: Axes, name: str, ticks: np.ndarray, counts: np.ndarray, colour: str, row: int) -> None:
    """A row of numbers under the axis, each below its tick."""
    y = -0.34 - 0.1 * row
    if row == 0:
        axes.text(-0.12, -0.25, "at risk", transform=axes.transAxes, fontsize=9, va="center")
    axes.text(-0.12, y, name.removesuffix(" risk"), transform=axes.transAxes, fontsize=9, color=colour, va="center")
    for tick, count in zip(ticks, counts, strict=True):
        axes.text(
            tick, y, str(count), transform=axes.get_xaxis_transform(), fontsize=9, ha="center", va="center",
            color=colour,
        )  # fmt: skip


def _month_ticks(last: float) -> np.ndarray:
    """Five to nine ticks at whole years, half-years or fewer months, beginning at 0 and reaching ``last``."""
    for step in (1, 3, 6, 12, 24, 36, 60, 120):
        if last / step <= 8:
            break
    return np.arange(0, np.ceil(last / step) * step + step / 2, step)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure that no global state knows of; sizes in inches."""
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots()


@mpl.rc_context(STYLE)
def _markup(figure: Figure, *, key: str, title: str, description: str) -> Markup:
    """The figure as an <svg> element that scales, with ids of its own, a title and a description."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].rstrip()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{key}-', svg)
    svg = re.sub(r'href="#', f'href="#{key}-', svg)
    svg = svg.replace("url(#", f"url(#{key}-")
    labels = f'role="img" aria-labelledby="{key}-title {key}-desc"'
    texts = f'<title id="{key}-title">{escape(title)}</title><desc id="{key}-desc">{escape(description)}</desc>'
    head = re.match(r'<svg[^>]*?viewBox="([^"]*)"[^>]*>', svg)
    if head is None:
        raise ValueError("matplotlib wrote no <svg> with a viewBox.")
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{head[1]}"'
    return Markup(f"{opening} {labels}>{texts}{svg[head.end() :]}")
