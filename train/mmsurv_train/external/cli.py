"""The command ``mmsurv predict``.

Owns options and what is printed. Imports click and the settings only; the stage is imported when the command runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mmsurv.cohort.flags import cohort_options as with_cohort_options
from mmsurv.cohort.options import CohortOptions
from mmsurv_train.options import memory_option

if TYPE_CHECKING:
    from mmsurv_train.external.predict import External

FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.argument("run", type=FOLDER)
@click.option("--store", type=click.Path(exists=True, file_okay=False), help="Feature store of the new slides.")
@click.option("--min-gene-coverage", type=click.FloatRange(0, 1), default=0.9, show_default=True, metavar="SHARE",
              help="Of the model's genes, the least share that must be in the RNA table.")  # fmt: skip
@click.option("--stratum", metavar="COLUMN",
              help="A column of the clinical table: case-level results also for each of its values. "
                   "GBM and LGG are shown apart without it.")  # fmt: skip
@click.option("--device", help="cpu, cuda, cuda:N or auto. [default: the run's]")
@memory_option
@with_cohort_options
@click.option("-o", "--out", type=FOLDER, required=True, metavar="OUT", help="Folder to write; must be free.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
@click.pass_context
def predict(
    context: click.Context,
    cohort_options: CohortOptions,
    run: Path,
    store: str | None,
    min_gene_coverage: float,
    stratum: str | None,
    device: str | None,
    memory: int | None,
    out: Path,
    as_json: bool,
) -> None:
    """Predict the patients of another cohort with the models of RUN.

    \b
    mmsurv predict runs/cross-attention --store STORE --clinical clinical.csv --rna rna.csv -o external

    Genes are found by name, and slides must be encoded by the recipe of the run's store. The clinical table needs no
    outcomes; where it has some, risks and survival are measured by them. Of a cross-validation, the risk is the mean
    over folds.
    """
    from mmsurv_train.cli import command_line
    from mmsurv_train.external.folder import write_prediction
    from mmsurv_train.external.predict import predict_external
    from mmsurv_train.inputs import Sources
    from mmsurv_train.place import check_free
    from mmsurv_train.run import json_text
    from mmsurv_train.watching import watching

    check_free(out)
    sources = Sources(cohort=cohort_options, store=store, memory=memory)
    with watching() as watch:
        found = predict_external(
            run, sources, least_genes=min_gene_coverage, device=device, stratum=stratum, on_slide=watch.on_slide
        )
    write_prediction(found, out, command=command_line(context))
    for line in (*found.data.notices(found.recipe.model.name), *_loud(found)):
        click.echo(line, err=True)
    if as_json:
        click.echo(json_text({"prediction": str(out), "seen": found.seen, "metrics": found.metrics}), nl=False)
    else:
        click.echo(_text(found))
        click.echo(f"Prediction: {out}")


def _loud(found: External) -> list[str]:
    """What a reader must not overlook."""
    lines = [f"WARNING: {line}" for line in found.warnings]
    if found.seen:
        shown = "; ".join(f"{case}: {why}" for case, why in list(found.seen.items())[:3])
        more = f"; and {len(found.seen) - 3} more" if len(found.seen) > 3 else ""
        lines.append(
            f"WARNING: {len(found.seen)} of {len(found.risks.cases)} cases are known to the models, so their risks are "
            f"no prediction. They are marked as seen and left out of the metrics. {shown}{more}"
        )
    return lines


def _text(found: External) -> str:
    from mmsurv_train import summary

    cases, slides = found.risks.cases, found.risks.slides
    folds = len(found.run.folds())
    of = f", mean of {folds} folds" if folds else ""
    lines = [f"{found.recipe.model.name}{of}: {len(cases)} cases, {len(slides)} slides predicted"]
    if found.genes is not None:
        genes = found.genes
        there = len(genes.genes) - len(genes.missing)
        lines.append(
            f"genes: {there} of the model's {len(genes.genes)} are there (coverage {genes.coverage:.1%}), "
            f"{genes.extra} others ignored"
        )
    if found.metrics is not None:
        left = found.metrics["left_out"]
        lines += [
            f"external cohort; not measured: {left['seen']} cases known to the models, {left['without_outcome']} "
            "without outcome",
            summary.text(found.metrics),
        ]
    return "\n".join(lines)
