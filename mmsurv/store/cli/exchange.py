"""``mmsurv store import`` and ``export``: features of other tools become a store, and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mmsurv.errors import JobFailedError
from mmsurv.store.cli.options import output

if TYPE_CHECKING:
    from mmsurv.store.base import FeatureStore
    from mmsurv.store.interop import Imported


@click.command(name="import")
@click.argument("source", type=click.Path(path_type=Path))
@output("The store to fill.", "STORE")
@click.option(
    "--layout", type=click.Choice(["auto", "clam", "trident"]), default="auto", show_default=True,
    help="Whose files they are; auto tells by the attributes of the first.",
)  # fmt: skip
@click.option("--encoder", help="The encoder's name, where the files do not say it.")
@click.option("--patches", type=click.Path(path_type=Path), help="CLAM's patches folder, for tile sizes.")
@click.option("--dtype", type=click.Choice(["float16", "bfloat16", "float32"]), default="float16", show_default=True)
def import_(source: Path, target: Path, layout: str, encoder: str | None, patches: Path | None, dtype: str) -> None:
    """Import SOURCE, a folder of CLAM or TRIDENT feature files (.h5), into a store.

    Slides that are there already are kept. A file that cannot be imported is named at the end; the rest is imported.
    """
    from mmsurv.progress import progress
    from mmsurv.store.interop import feature_files, import_features

    total = len(feature_files(source))
    with progress(total, "Importing", unit="slides") as advance:
        opened, results = import_features(
            source, target, layout=layout, encoder=encoder, patches=patches, dtype=dtype,  # type: ignore[arg-type]
            on_file=lambda result: advance(1),
        )  # fmt: skip
    bad = [result for result in results if result.problem]
    tiles = sum(result.n_tiles for result in results)
    click.echo(f"{len(results) - len(bad)} of {total} slides, {tiles} tiles × {opened.dim} in {opened.path}")
    if not any(result.problem is None for result in results):
        raise JobFailedError(_table(bad))
    _say_what_is_unknown(opened, results)
    if bad:
        raise JobFailedError(_table(bad))


def _say_what_is_unknown(opened: FeatureStore, results: list[Imported]) -> None:
    """The layouts keep less than a store does; what is missing is said once."""
    first = next(result for result in results if result.problem is None)
    record = opened.read(first.slide_id)
    missing = ["tissue fractions", "mpp", "thumbnail", "mask"]
    if "patch_size_level0" not in record.coords_attributes:
        missing.append("tile size (give --patches)")
    if opened.recipe["encoder"]["name"] == "unknown":
        missing.append("encoder (give --encoder)")
    click.echo(f"Not in the files, so unknown in the store: {', '.join(missing)}.", err=True)


def _table(bad: list[Imported]) -> str:
    lines = "\n".join(f"  {result.slide_id}: {result.problem}" for result in bad)
    return f"{len(bad)} files were not imported:\n{lines}"
