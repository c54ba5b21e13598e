"""The command ``mmsurv compare``.

Owns options and what is printed. Imports click only; the stage is imported when the command runs.
"""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("run", nargs=-1, required=True, metavar="RUN RUN...")
@click.option("--all-pairs", is_flag=True, help="Every pair of runs, not only those with the first.")
@click.option("--bootstrap", type=click.IntRange(1, 100_000), default=2000, show_default=True, metavar="N",
              help="Resamples of patients.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the resamples.")
@click.option("--confidence", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.95,
              show_default=True, help="Of the intervals.")  # fmt: skip
@click.option("-o", "--out", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Folder to write: table, record and forest plots; must be free.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def compare(
    run: tuple[str, ...],
    all_pairs: bool,
    bootstrap: int,
    seed: int,
    confidence: float,
    out: Path | None,
    as_json: bool,
) -> None:
    """Compare runs by a paired bootstrap over the patients that all of them report; the first is the reference.

    \b
    mmsurv compare runs/joint runs/cross-attention runs/rna -o comparison
    mmsurv compare runs/cross-attention:rna runs/cross-attention

    RUN is a run folder, of one split or of a cross-validation, or RUN:FLOOR, a simple model fitted beside it. Numbers
    are of the test part, of a cross-validation out-of-fold.
    """
    from mmsurv_train.compare.comparison import compare as compare_items
    from mmsurv_train.compare.items import read_items
    from mmsurv_train.compare.paired import Resampling
    from mmsurv_train.compare.text import text
    from mmsurv_train.compare.writing import write_comparison
    from mmsurv_train.place import check_free
    from mmsurv_train.run import json_text

    if out is not None:
        check_free(out)
    how = Resampling(n_resamples=bootstrap, seed=seed, confidence=confidence)
    found = compare_items(read_items(run), how, all_pairs=all_pairs)
    if out is not None:
        write_comparison(found, out)
    if as_json:
        click.echo(json_text(found.to_table()), nl=False)
        return
    click.echo(text(found))
    if out is not None:
        click.echo(f"Comparison: {out}")
