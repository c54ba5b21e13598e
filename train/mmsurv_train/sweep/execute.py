"""A plan carried out in a folder: trained, evaluated, and put in a table.

Owns the folder of a sweep and the order of the steps. What is complete there is kept; what is missing is trained, so
the same command again goes on after any end. One process works in a folder at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from mmsurv.config import from_table
from mmsurv.errors import MmsurvError, RunError
from mmsurv.store.commit import publish_bytes
from mmsurv_train import run as runs
from mmsurv_train.asked import comparable
from mmsurv_train.inputs import Sources
from mmsurv_train.recipe import TrainRecipe
from mmsurv_train.sweep import identity, possible, rescore, text
from mmsurv_train.sweep.damage import repairable
from mmsurv_train.sweep.identity import CHECKPOINT, RUNS
from mmsurv_train.sweep.plan import Plan, Planned
from mmsurv_train.sweep.recipe import AtPrediction
from mmsurv_train.sweep.table import Result, table
from mmsurv_train.unfinished import threads

if TYPE_CHECKING:
    from mmsurv_train.run import Run

EVALUATIONS = "evaluations"
LOCK = ".lock"
TABLE_CSV = "table.csv"
TABLE_MD = "table.md"
PUBLISHED = "published.md"


@dataclass(frozen=True, kw_only=True)
class Swept:
    """What a sweep came to."""

    table: pd.DataFrame
    text: str
    """The table for people."""
    failed: dict[str, str]
    """Configuration → why it has no numbers."""
    remarks: list[str]
    """What readers of the numbers must know first; they stand in the text as well."""


def sweep(
    plan: Plan,
    sources: Sources,
    out: Path,
    *,
    command: str,
    watching: Mapping[str, Callable[..., None]],
    notes: Sequence[str] = (),
) -> Swept:
    """Train what is missing of a plan in the folder ``out``, evaluate it, and write its table.

    Args:
        plan: all configurations.
        sources: tables and store.
        out: the sweep's folder: new, or of the same plan and data.
        command: how the user asked for it, for the record.
        watching: the callbacks on_slide, on_start and on_epoch of ``mmsurv_train.train.train_all``.
        notes: what readers of the table must know; without any, those of an earlier command stay.

    Raises:
        RunError: the folder holds something else, is in use, or cannot be written.
        ConfigError, CohortError, SplitError, StoreError: the request or the data cannot be right.
    """
    identity.check_folder(out)
    wanted = identity.describe(plan, sources, command=command, notes=notes)
    identity.check_same(out, wanted)
    facts = possible.look(plan, sources)
    with _alone(out):
        there = identity.settle(out, wanted)
        with threads(int(there["threads"])):  # another number may sum in another order, and change the last bit
            done = _trained(plan, sources, out, command=command, watching=watching)
            results = _evaluated(plan, sources, out, done)
        numbers = table(plan, results)
        remarks = text.remarks(plan, facts, there["notes"])
        page = text.table_text(plan, results, numbers, remarks=remarks)
        _write_tables(plan, out, numbers, page)
    failed = {result.planned.name: str(result.reason) for result in results if result.metrics is None}
    return Swept(table=numbers, text=page, failed=failed, remarks=remarks)


def _write_tables(plan: Plan, out: Path, numbers: pd.DataFrame, page: str) -> None:
    publish_bytes(out / TABLE_CSV, runs.csv_bytes(numbers), replace=True)
    publish_bytes(out / TABLE_MD, page.encode(), replace=True)
    if plan.published is not None:
        publish_bytes(out / PUBLISHED, text.published_text(plan.published).encode(), replace=True)


def check(plan: Plan, sources: Sources, out: Path) -> None:
    """Refuse a folder that is not of this plan, without writing anything.

    Raises:
        RunError: as :func:`sweep`.
    """
    identity.check_folder(out)
    if (out / identity.PLAN).is_file():
        identity.check_same(out, identity.describe(plan, sources, command=""))


def complete(plan: Plan, out: Path) -> dict[str, Run]:
    """The configurations whose runs are complete in the folder ``out``, by name.

    Raises:
        RunError: a run there is not of the plan's settings, or is damaged.
    """
    found = {}
    for planned in plan.configurations:
        place = out / RUNS / planned.name
        if not place.exists():
            continue
        run = _read_whole(place)
        there = from_table(TrainRecipe, run.config["recipe"], source=str(place / runs.CONFIG), where="recipe.")
        if comparable(there) != comparable(planned.recipe):  # folds and device are compared by plan.json
            raise RunError(f"{place} is a run of other settings than the plan's. Move it out of the sweep's folder.")
        found[planned.name] = run
    return found


def _read_whole(place: Path) -> Run:
    """A run whose own files and folds are all there."""
    try:
        run = runs.read_run(place)
        for one in (run, *run.folds()):
            _ = one.metrics  # checked when it is read
    except MmsurvError as error:
        raise repairable(error, place, "trains") from error
    return run


def _trained(
    plan: Plan, sources: Sources, out: Path, *, command: str, watching: Mapping[str, Callable[..., None]]
) -> dict[str, Run | MmsurvError]:
    """All runs, by configuration.

    Those that are complete are named to ``train_all`` as well: it trains the others in the pass they began in, so that
    they end in the same bits.
    """
    from mmsurv_train.train import Configuration, train_all

    kept = complete(plan, out)
    if len(kept) == len(plan.configurations):
        return dict(kept)
    (out / RUNS).mkdir(exist_ok=True)
    _forget_evaluations(plan, out, kept)
    try:
        trained = train_all(
            [Configuration(name=planned.name, recipe=planned.recipe) for planned in plan.configurations],
            sources,
            {planned.name: out / RUNS / planned.name for planned in plan.configurations},
            checkpoint_folder=out / CHECKPOINT,
            command=command,
            **watching,
        )
    finally:
        with contextlib.suppress(OSError):
            (out / CHECKPOINT).rmdir()  # it stays if it holds anything
    return {**trained, **kept}


def _forget_evaluations(plan: Plan, out: Path, kept: Mapping[str, Run]) -> None:
    """Those of runs that were deleted: they are of networks that are gone."""
    for planned in plan.configurations:
        if planned.name not in kept:
            for at in plan.evaluations(planned):
                shutil.rmtree(_evaluation(out, planned, at), ignore_errors=True)


def _evaluated(plan: Plan, sources: Sources, out: Path, done: Mapping[str, Run | MmsurvError]) -> list[Result]:
    """Every configuration in every way of evaluation, in the plan's order."""
    asked = [(planned, at) for planned in plan.configurations for at in plan.evaluations(planned)]
    missing = []
    for planned, at in asked:
        run = done[planned.name]
        if at != planned.recipe.bags.at_prediction and not isinstance(run, MmsurvError):
            missing.append((run, at, _evaluation(out, planned, at)))
    rescore.evaluate_missing(missing, sources)
    return [_result(out, planned, at, done[planned.name]) for planned, at in asked]


def _result(out: Path, planned: Planned, at: AtPrediction, run: Run | MmsurvError) -> Result:
    if isinstance(run, MmsurvError):
        return Result(planned=planned, evaluated_with=at, metrics=None, reason=_reason(run, planned.name))
    if at == planned.recipe.bags.at_prediction:
        return Result(planned=planned, evaluated_with=at, metrics=run.metrics)
    return Result(planned=planned, evaluated_with=at, metrics=rescore.read_metrics(_evaluation(out, planned, at)))


def _evaluation(out: Path, planned: Planned, at: AtPrediction) -> Path:
    return out / EVALUATIONS / f"{planned.name},at_prediction={at}"


def _reason(error: MmsurvError, name: str) -> str:
    """In one line, without the configuration's name, which stands before it."""
    return " ".join(str(error).split()).removeprefix(name).lstrip(",: ")


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold the folder for this process; the system lets go of it when the process ends, however it ends.

    Raises:
        RunError: another process works in it, or it cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = (out / LOCK).open("a")
    except OSError as error:
        raise RunError(f"{out}: cannot be written ({error.strerror or error}). Name another place with -o.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(
                f"another mmsurv sweep is at work in {out}. Wait for it, or name another folder with -o."
            ) from None
        yield
