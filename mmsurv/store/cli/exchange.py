"""``mmsurv store import`` and ``export``: features of other tools become a store, and back."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import click

from mmsurv.errors import ConfigError, JobFailedError
from mmsurv.store.cli.options import AS_JSON, SLIDE_IDS, STORE, backend, echo_json, output, table


@click.command(name="import")
@click.argument("source", type=click.Path(path_type=Path))
@output("The store to fill.", "STORE")
@click.option(
    "--layout", type=click.Choice(["auto", "clam", "trident", "stamp"]), default="auto", show_default=True,
    help="Whose files they are; auto tells by what is in the first.",
)  # fmt: skip
@click.option("--encoder", help="The encoder's name, where the files do not say it.")
@click.option(
    "--patches", type=click.Path(path_type=Path),
    help="CLAM's patches folder, for tile sizes.  [default: SOURCE/patches, if there]",
)  # fmt: skip
@click.option("--mpp", type=click.FloatRange(0, min_open=True), help="STAMP: µm per level-0 pixel of all slides.")
@click.option(
    "--mpp-table", type=click.Path(path_type=Path), metavar="CSV", help="STAMP: the same by slide: slide_id, mpp."
)
@click.option(
    "--dtype", type=click.Choice(["float16", "bfloat16", "float32"]), default="float16", show_default=True,
    help="The type to store features in.",
)  # fmt: skip
@backend(default="hdf5", show_default=True)
@AS_JSON
def import_(
    source: Path, target: Path, layout: str, encoder: str | None, patches: Path | None, mpp: float | None,
    mpp_table: Path | None, dtype: str, backend: str, as_json: bool,
) -> None:  # fmt: skip
    """Import SOURCE, a folder of CLAM, TRIDENT or STAMP feature files (.h5), into a store.

    Slides that are there already are kept. A file that cannot be imported is named at the end; the rest is imported.
    Every field that the store has no place for, or that the files do not say, is a warning.
    """
    from mmsurv.progress import progress
    from mmsurv.store.interop.foreign import ForeignOptions
    from mmsurv.store.interop.importing import UNKNOWN, feature_files, import_features

    if mpp is not None and mpp_table is not None:
        raise ConfigError("Give --mpp or --mpp-table, not both.")
    options = ForeignOptions(patches=patches, mpp=_read_mpp(mpp_table) if mpp_table else mpp)
    total = len(feature_files(source))
    with progress(total, "Importing", unit="slides") as advance:
        opened, results = import_features(
            source, target, layout=layout, encoder=encoder, options=options, dtype=dtype, backend=backend,  # type: ignore[arg-type]
            on_file=lambda result: advance(1),
        )  # fmt: skip
    problems = {result.slide_id: result.problem for result in results if result.problem}
    tiles = sum(result.n_tiles for result in results)
    there = [result.slide_id for result in results if result.was_there]
    lost, unknown = _count(result.lost for result in results), _count(result.unknown for result in results)
    if as_json:
        echo_json(
            {
                "path": str(opened.path), "imported": [r.slide_id for r in results if not r.problem],
                "were_there": there,
                "tiles": tiles,
                "dim": opened.dim, "problems": problems, "lost": lost, "unknown": unknown,
            }
        )  # fmt: skip
    else:
        kept = f" ({len(there)} were there)" if there else ""
        click.echo(f"{total - len(problems)} of {total} slides{kept}, {tiles} tiles × {opened.dim} in {opened.path}")
    for name, count in lost.items():
        click.echo(f"warning: lost: {name}, of {count} slides: a store has no place for it.", err=True)
    for name, count in unknown.items():
        click.echo(f"warning: unknown: {name}, of {count} slides: {UNKNOWN[name]}.", err=True)
    if problems:
        raise JobFailedError(f"{len(problems)} files were not imported:\n{table(problems)}")


@click.command()
@STORE
@SLIDE_IDS
@output("Where the files go.")
@click.option("--layout", type=click.Choice(["clam", "trident"]), required=True, help="Whose files to write.")
@AS_JSON
def export(path: Path, slide_ids: tuple[str, ...], target: Path, layout: str, as_json: bool) -> None:
    """Write STORE, or the slides named, as the files of another tool: float32, in raster order.

    clam: h5_files/<slide>.h5 and patches/<slide>.h5; trident: features_<encoder>/<slide>.h5. A file that is there is
    not written over. Every field that the layout has no place for is a warning.
    """
    from mmsurv.progress import progress
    from mmsurv.store import open_store
    from mmsurv.store.interop.exporting import export_store

    opened = open_store(path)
    wanted = list(slide_ids) or opened.slide_ids()
    with progress(len(wanted), "Exporting", unit="slides") as advance:
        done = export_store(opened, target, layout=layout, slide_ids=wanted, on_slide=lambda slide_id: advance(1))
    if as_json:
        echo_json(
            {
                "path": str(target), "layout": layout, "written": done.written, "kept": done.kept,
                "problems": done.problems, "lost": dict(done.lost),
            }
        )  # fmt: skip
    else:
        click.echo(f"{len(done.written)} slides written, {len(done.kept)} were there: {target}")
    for name, count in done.lost.items():
        click.echo(f"warning: lost: {name}, of {count} slides: {layout} has no place for it.", err=True)
    if done.problems:
        raise JobFailedError(f"{len(done.problems)} slides were not exported:\n{table(done.problems)}")


def _count(names: Iterable[tuple[str, ...]]) -> dict[str, int]:
    return dict(Counter(name for found in names for name in found))


def _read_mpp(path: Path) -> dict[str, float]:
    """µm per pixel by slide id, from a CSV file with columns slide_id and mpp."""
    found: dict[str, float] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if not {"slide_id", "mpp"} <= set(rows.fieldnames or ()):
                raise ConfigError(f"{path}: columns are {', '.join(rows.fieldnames or ())}; expected slide_id and mpp.")
            for number, row in enumerate(rows, start=2):
                try:
                    value = float(row["mpp"])
                except (TypeError, ValueError):
                    value = math.nan
                if not 0 < value < math.inf:
                    raise ConfigError(f"{path}, line {number}: mpp is {row['mpp']!r}, expected µm per pixel.")
                found[row["slide_id"]] = value
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read as a table of slide_id and mpp ({error}).") from error
    return found
