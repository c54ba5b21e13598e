"""Draws docs/images/overview.png, the picture in README.md, from a finished demo.

    mmsurv demo
    python docs/make_picture.py mmsurv-demo -o docs/images/overview.png

Everything in it is read from the demo's folder: a slide's thumbnail and tiles, the stored features of all tiles, the
out-of-fold risks of one model. The data are simulated, and the picture says so.
"""

from __future__ import annotations

import io
from pathlib import Path

import click
import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.patches import Rectangle
from PIL import Image

from mmsurv.store import FeatureStore, SlideRecord, open_store
from mmsurv_train import metrics
from mmsurv_train.report import figures
from mmsurv_train.run import read_run

LOW, HIGH, INK, FAINT = figures.LOW, figures.HIGH, figures.INK, figures.FAINT
N_SHOWN = 12
COLOURS = 160
STYLE = figures.STYLE | {
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
}


@click.command()
@click.argument("demo", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-o", "--out", type=click.Path(dir_okay=False, path_type=Path), default="docs/images/overview.png")
@click.option("--slide", help="Slide to show. [default: the first]")
@click.option("--model", default="cross-attention", show_default=True)
def main(demo: Path, out: Path, slide: str | None, model: str) -> None:
    """Draw the picture of the finished demo in the folder DEMO."""
    store = open_store(demo / "store")
    record = store.read(slide or store.slide_ids()[0])
    pixels = _level0(demo / "slides" / f"{record.attributes['slide_id']}.tiff")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11.4, 3.5), dpi=130, facecolor="white")
        axes = figure.subplots(1, 4, width_ratios=(1.0, 0.76, 1.1, 1.25))
        figure.subplots_adjust(left=0.01, right=0.99, top=0.88, bottom=0.2, wspace=0.2)
        _slide(axes[0], record, pixels)
        _tiles(axes[1], record, pixels)
        _features(axes[2], store, record)
        _survival(axes[3], demo / "runs" / model)
        figure.text(
            0.01, 0.02,
            "Simulated data, made and analysed by `mmsurv demo`: painted tissue, drawn RNA and survival, "
            f"ResNet-18 with {_weights(store)}. It shows the path and says nothing about patients.",
            fontsize=8, color=HIGH,
        )  # fmt: skip
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
    out.parent.mkdir(parents=True, exist_ok=True)
    Image.open(buffer).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(out, optimize=True)
    click.echo(f"{out}: {out.stat().st_size / 1000:.0f} kB")


def _weights(store: FeatureStore) -> str:
    weights = store.recipe["encoder"]["weights"]
    return "random weights" if weights == "random" else f"the weights {weights}"


def _level0(path: Path) -> np.ndarray:
    import tifffile

    return tifffile.imread(path, key=0)


def _slide(axes: Axes, record: SlideRecord, pixels: np.ndarray) -> None:
    step = 4
    axes.imshow(pixels[::step, ::step])
    side = record.coords_attributes["patch_size_level0"]
    for index, (x, y) in enumerate(record.coords.tolist()):
        colour, width = (INK, 1.3) if index < N_SHOWN else (FAINT, 0.4)
        box = Rectangle((x / step, y / step), side / step, side / step, fill=False, ec=colour, lw=width)
        axes.add_patch(box)
    axes.set_axis_off()
    axes.set_title(f"1  slide, {len(record.coords)} tiles")


def _tiles(axes: Axes, record: SlideRecord, pixels: np.ndarray) -> None:
    """The first rows of the record: a uniform sample of the tissue."""
    side, gap = int(record.coords_attributes["patch_size_level0"]), 14
    columns = 3
    rows = N_SHOWN // columns
    canvas = np.full((rows * (side + gap) - gap, columns * (side + gap) - gap, 3), 255, np.uint8)
    for index, (x, y) in enumerate(record.coords[:N_SHOWN].tolist()):
        tile = pixels[y : y + side, x : x + side]
        top, left = (side + gap) * (index // columns), (side + gap) * (index % columns)
        canvas[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    axes.imshow(canvas, interpolation="antialiased")
    axes.set_axis_off()
    axes.set_title("2  tiles, encoded once")


def _features(axes: Axes, store: FeatureStore, record: SlideRecord) -> None:
    """All tiles of all slides on the first two principal components, each in its tile's own colour."""
    features, colours = [], []
    for slide_id in store.slide_ids():
        one = store.read(slide_id)
        features.append(one.features.astype(np.float64))
        colours.append(_mean_colours(one))
    matrix = np.concatenate(features)
    spread = matrix.std(axis=0)
    matrix = (matrix - matrix.mean(axis=0))[:, spread > 0] / spread[spread > 0]
    left, values, _ = np.linalg.svd(matrix, full_matrices=False)
    place = left[:, :2] * values[:2]
    axes.scatter(*place.T, c=np.concatenate(colours), s=5, lw=0)
    start = sum(len(rows) for rows in features[: store.slide_ids().index(str(record.attributes["slide_id"]))])
    own = place[start : start + len(record.features)]
    axes.scatter(*own.T, s=14, facecolors="none", edgecolors=INK, lw=0.7, label="this slide")
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(f"{len(matrix)} tiles × {store.dim} features, two main axes")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.03, -0.03), handletextpad=0.2)
    axes.set_title("3  feature store")


def _mean_colours(record: SlideRecord) -> np.ndarray:
    """(N, 3) mean RGB of each tile, 0 to 1, from the record's thumbnail."""
    if record.thumbnail is None:
        raise click.ClickException(f"{record.attributes['slide_id']} has no thumbnail.")
    thumbnail = imread(io.BytesIO(record.thumbnail), format="jpeg")
    scale = float(record.attributes["thumbnail_downsample"])
    side = int(int(record.coords_attributes["patch_size_level0"]) / scale)
    corners = (record.coords / scale).astype(int).tolist()
    return np.array([thumbnail[y : y + side, x : x + side].mean(axis=(0, 1)) / 255 for x, y in corners])


def _survival(axes: Axes, path: Path) -> None:
    run = read_run(path)
    cases: pd.DataFrame = run.predictions.cases
    part = run.metrics["parts"]["out-of-fold"]["case"]
    high = cases["high_risk"].to_numpy(bool)
    for name, members, colour, line in (("low", ~high, LOW, "-"), ("high", high, HIGH, "--")):
        curve = metrics.kaplan_meier(cases["time"][members], cases["event"][members])
        axes.step(curve["time"], curve["survival"], where="post", color=colour, ls=line, lw=1.6,
                  label=f"{name} risk (n = {int(members.sum())})")  # fmt: skip
        axes.fill_between(curve["time"], curve["low"], curve["high"], step="post", color=colour, alpha=0.13, lw=0)
    c_index = part["c_index"]
    axes.text(
        0.98, 0.72, f"C-index {c_index['value']:.2f}\n[{c_index['low']:.2f}, {c_index['high']:.2f}]",
        transform=axes.transAxes, ha="right", va="top",
    )  # fmt: skip
    axes.set(ylim=(0, 1.03), xlim=(0, None), xlabel="months", ylabel="share alive")
    axes.legend(loc="upper right")
    axes.set_title(f"4  out-of-fold risk: {run.name}")


if __name__ == "__main__":
    main()
