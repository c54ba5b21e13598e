"""The command ``mmsurv attention``.

Owns options, the file that is written (whole or not at all) and what is printed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmsurv.errors import RunError
from mmsurv_train.digits import counted
from mmsurv_train.options import memory_option

if TYPE_CHECKING:
    import pandas as pd

FOLDER = click.Path(file_okay=False, path_type=Path)
SUFFIXES = (".csv", ".parquet")


@click.command()
@click.argument("run", type=FOLDER)
@click.option("--slide", "slides", multiple=True, metavar="ID", help="Only this slide; repeatable. [default: all]")
@click.option("--case", "cases", multiple=True, metavar="ID", help="Only the slides of this case; repeatable.")
@click.option("--fold", type=click.IntRange(0), metavar="K",
              help="The model of fold K. [default: of the fold that had the case in its test part]")  # fmt: skip
@click.option("--bag", type=click.Choice(["case", "slide"]),
              help="Over whose tiles weights add up to 1. [default: as the run's bags are]")  # fmt: skip
@click.option("--store", type=click.Path(exists=True, file_okay=False), help="Where the store is now.")
@click.option("--clinical", type=click.Path(exists=True, dir_okay=False), help="Where the clinical table is now.")
@click.option("--rna", type=click.Path(exists=True, dir_okay=False), help="Where the RNA table is now.")
@memory_option
@click.option("-o", "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, metavar="FILE",
              help="The .csv or .parquet file to write; must be free.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a line.")
def attention(run: Path, out: Path, as_json: bool, **asked: Any) -> None:
    """Write the attention weight of every tile, for any slide of the store.

    \b
    mmsurv attention runs/cross-attention -o attention.parquet
    mmsurv attention runs/cross-attention --slide TCGA-02-0047-01Z-00-DX1 -o one.csv
    mmsurv attention runs/cross-attention --case TCGA-02-0047 -o one.csv

    One row a tile: slide, case, level-0 position, and the weight (mean over networks and heads, and each one's).
    """
    from mmsurv_train.explain.weights import Asked, tile_weights
    from mmsurv_train.run import json_text

    if out.suffix not in SUFFIXES:
        raise click.UsageError(f"-o must end in {' or '.join(SUFFIXES)}, not {out.suffix or 'nothing'!r}.")
    with _whole_or_none(out) as temporary:
        tables = _readable(run, tile_weights(run, Asked(**asked)))
        n_slides, n_tiles = _write(tables, temporary, parquet=out.suffix == ".parquet")
    if as_json:
        click.echo(json_text({"file": str(out), "slides": n_slides, "tiles": n_tiles}), nl=False)
    else:
        click.echo(f"{counted(n_tiles, 'tile')} of {counted(n_slides, 'slide')}: {out}")


def _readable(run: Path, tables: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """The tables; an error of the file system meanwhile is one of reading, not of the file that is written."""
    try:
        yield from tables
    except OSError as error:
        what = error.filename or run
        raise RunError(f"{what}: cannot be read ({error.strerror or error}).") from error


@contextmanager
def _whole_or_none(out: Path) -> Iterator[Path]:
    """A temporary name beside ``out`` that takes its place at the end.

    Raises:
        RunError: ``out`` is taken, or cannot be written.
    """
    if out.exists():
        raise RunError(f"{out} is there already. Name another file with -o, or delete it.")
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        yield temporary
        temporary.replace(out)
    except OSError as error:
        raise RunError(f"{out}: cannot be written ({error.strerror or error}).") from error
    finally:
        temporary.unlink(missing_ok=True)


def _write(tables: Iterable[pd.DataFrame], path: Path, *, parquet: bool) -> tuple[int, int]:
    """Write slide by slide; says how many slides and tiles."""
    from mmsurv_train.run import csv_bytes

    n_slides = n_tiles = 0
    writer: Any = None
    try:
        with path.open("wb") as file:
            for table in tables:
                if parquet:
                    import pyarrow as pa
                    from pyarrow import parquet as pq

                    rows = pa.Table.from_pandas(table, preserve_index=False)
                    writer = writer or pq.ParquetWriter(file, rows.schema)
                    writer.write_table(rows)
                else:
                    text = csv_bytes(table)
                    file.write(text if not n_slides else text.split(b"\n", 1)[1])
                n_slides, n_tiles = n_slides + 1, n_tiles + len(table)
            if writer is not None:
                writer.close()
                writer = None
    finally:
        if writer is not None:
            writer.close()
    return n_slides, n_tiles
