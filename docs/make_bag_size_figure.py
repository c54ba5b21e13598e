"""Draws what bags of few tiles did, from the folder of a finished sweep of the recipe bag-size (docs/bag-size.md).

    mmsurv sweep bag-size --store STORE --clinical clinical.csv --rna rna.csv --folds 5 -o sweeps/bag-size
    python docs/make_bag_size_figure.py sweeps/bag-size -o bag-size.png --note "planted tile features"

Prints the numbers of the figure as a Markdown table. Everything is read from the sweep's files; nothing is computed
again but means over networks.
"""

from __future__ import annotations

from pathlib import Path

import click
import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmsurv_train.report import figures
from mmsurv_train.run import Run, read_run
from mmsurv_train.sweep.identity import read_plan
from mmsurv_train.sweep.text import NONE, markdown

LOW, HIGH, INK, FAINT = figures.LOW, figures.HIGH, figures.INK, figures.FAINT
STYLE = figures.STYLE | {"font.size": 9.0, "axes.titlesize": 10.0, "axes.titlelocation": "left"}
BY_TILES = ("bag", "loss, last tenth", "from epoch to epoch", "least validation loss", "its epoch",
            "C-index (case), same bag", "C-index (case), all tiles")  # fmt: skip


LEAST_EPOCHS = 5
"""With fewer the second half has no two differences between epochs."""


@click.command()
@click.argument("sweep", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-o", "--out", type=click.Path(dir_okay=False, path_type=Path), default="bag-size.png", show_default=True)
@click.option("--note", required=True, help="What the features are, such as: planted tile features. It stands below.")
def main(sweep: Path, out: Path, note: str) -> None:
    """Draw the figure of the finished sweep in the folder SWEEP."""
    read_plan(sweep)
    table = pd.read_csv(sweep / "table.csv", float_precision="round_trip")
    if "bags.size" not in table.columns:
        raise click.ClickException(f"{sweep / 'table.csv'} has no column bags.size: is it a sweep of the bag size?")
    table = table[table["status"] == "complete"]
    names = table.drop_duplicates("configuration").set_index("bags.size")["configuration"]
    histories = {int(size): history(read_run(sweep / "runs" / name)) for size, name in names.items()}
    by_size = pd.DataFrame([numbers(size, histories[size], table) for size in histories])
    click.echo(markdown(BY_TILES, [cells(row) for _, row in by_size.iterrows()]))
    if by_size["between"].isna().any():
        fewest = min(int(rows.groupby("network")["epoch"].count().min()) for rows in histories.values())
        click.echo(f"from epoch to epoch –: needs at least {LEAST_EPOCHS} epochs, and there are {fewest}.")
    with mpl.rc_context(STYLE):
        draw(histories, by_size, note).savefig(out)
    click.echo(f"Figure: {out}")


def history(run: Run) -> pd.DataFrame:
    """The epochs of all networks of a run; the column network tells fold and seed apart."""
    parts = [member.history.assign(fold=fold) for fold, member in enumerate(run.folds() or [run])]
    rows = pd.concat(parts, ignore_index=True)
    return rows.assign(network=rows["fold"].astype(str) + "/" + rows["seed"].astype(str))


def between_epochs(loss: pd.Series) -> float:
    """How much a loss moves from one epoch to the next in its second half.

    The standard deviation of successive differences, divided by √2: of a curve that falls slowly, what is left when
    its fall is taken out.
    """
    return float(loss.iloc[len(loss) // 2 :].diff().std(ddof=1) / np.sqrt(2))


def numbers(size: int, rows: pd.DataFrame, table: pd.DataFrame) -> dict[str, float]:
    """Means over networks (folds × seeds); the C-indices are those of table.csv."""
    networks = [network.sort_values("epoch") for _, network in rows.groupby("network")]
    best = [network.loc[network["validation_loss"].idxmin()] for network in networks]
    found = {
        "size": size,
        "loss": np.mean([network["loss"].tail(max(1, len(network) // 10)).mean() for network in networks]),
        "between": np.mean([between_epochs(network["loss"]) for network in networks]),
        "validation": np.mean([row["validation_loss"] for row in best]),
        "epoch": np.mean([row["epoch"] for row in best]),
    }
    for at in ("size", "all"):
        row = table[(table["bags.size"] == size) & (table["evaluated_with"] == (at if size else "size"))]
        for name in ("mean", "sd", "low", "high"):
            found[f"{at}_{name}"] = float(row[f"case_{name}"].iloc[0])
    return found


def cells(row: pd.Series) -> list[str]:
    """A row of the printed table."""
    c_index = [number(row[f"{at}_mean"]) + spread(row[f"{at}_sd"]) for at in ("size", "all")]
    return [
        label(row["size"]), number(row["loss"]), number(row["between"], 4), number(row["validation"]),
        number(row["epoch"], 0), *c_index,
    ]  # fmt: skip


def number(value: float, digits: int = 3) -> str:
    """A number for people; a dash for one that does not exist."""
    return NONE if pd.isna(value) else f"{value:.{digits}f}"


def spread(sd: float) -> str:
    """What follows a mean over seeds; nothing after that of one seed."""
    return "" if pd.isna(sd) else f" ± {sd:.3f}"


def label(size: float) -> str:
    """A bag size for people."""
    return f"{size:.0f}" if size else "all"


def draw(histories: dict[int, pd.DataFrame], by_size: pd.DataFrame, note: str) -> Figure:
    """Four panels: training loss, its movement, validation loss, C-index."""
    figure = Figure(figsize=(11.4, 3.4), dpi=130, facecolor="white")
    axes = figure.subplots(1, 4)
    figure.subplots_adjust(left=0.05, right=0.99, top=0.88, bottom=0.28, wspace=0.34)
    shades = mpl.colormaps["viridis"](np.linspace(0.9, 0.0, len(histories)))
    for (size, rows), shade in zip(histories.items(), shades, strict=True):
        for axis, column in ((axes[0], "loss"), (axes[2], "validation_loss")):
            mean = rows.groupby("epoch")[column].mean()
            axis.plot(mean.index, mean, color=shade, linewidth=1.2, label=label(size))
    places = np.arange(len(by_size))
    axes[1].bar(places, by_size["between"], color=FAINT, width=0.6)
    for at, colour, text, shift in (("size", HIGH, "same bag", -0.1), ("all", LOW, "all tiles", 0.1)):
        mean, low, high = (by_size[f"{at}_{name}"] for name in ("mean", "low", "high"))
        axes[3].errorbar(
            places + shift, mean, yerr=[mean - low, high - mean], fmt="o", ms=4, lw=1, color=colour, label=text
        )
    for axis in (axes[1], axes[3]):
        axis.set_xticks(places, [label(size) for size in by_size["size"]])
        axis.set_xlabel("tiles per bag while training")
    _title(axes[0], "Training loss", "epoch")
    _title(axes[1], "Its movement between epochs", "tiles per bag while training")
    _title(axes[2], "Validation loss, same bag", "epoch")
    _title(axes[3], "C-index (case)", "tiles per bag while training")
    axes[0].legend(title="tiles per bag", fontsize=7, title_fontsize=7)
    figure.legend(
        *axes[3].get_legend_handles_labels(),
        title="evaluated with",
        ncols=2,
        loc="lower right",
        fontsize=7,
        title_fontsize=7,
    )
    figure.text(0.01, 0.03, f"Means over networks; intervals as in table.md. Data: {note}.", color=INK, fontsize=8)
    return figure


def _title(axis: Axes, title: str, below: str) -> None:
    axis.set_title(title)
    axis.set_xlabel(below)


if __name__ == "__main__":
    main()
