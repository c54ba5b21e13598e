"""What a sweep's folder was made from, so that only the same sweep goes on in it.

Owns plan.json: what was asked, the digests of the data, and the versions that compute. Where tables and store lie,
how much memory is used, how the command was typed and what it notes change no number, so they are not compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmsurv import provenance
from mmsurv.config import to_table
from mmsurv.errors import RunError
from mmsurv.store.commit import publish_bytes
from mmsurv_train import run as runs
from mmsurv_train.inputs import Sources, gene_sets_digest
from mmsurv_train.place import METRICS
from mmsurv_train.sweep.plan import Plan

FORMAT = 1
PLAN = "plan.json"
RUNS = "runs"
CHECKPOINT = ".checkpoint"
COMPUTING = ("mmsurv", "torch", "numpy", "pandas", "scikit-survival")
"""Libraries of which another version may give other digits."""
COMPARED = ("asked", "data", "versions", "device")
SHOWN = 20
"""Differences listed when a folder is refused."""


def describe(plan: Plan, sources: Sources, *, command: str, notes: Sequence[str] = ()) -> dict[str, Any]:
    """plan.json of a sweep that is about to begin; hashes the tables and reads the digest of every slide's record.

    Raises:
        CohortError, StoreError: the data, or a file of gene sets, cannot be read.
        ConfigError: the device is not there.
    """
    import torch

    from mmsurv_train.predict import device_text, find_device

    return {
        "format": FORMAT,
        "made": provenance.now(),
        "command": command,
        "notes": list(notes),
        "recipe": plan.source,
        "asked": _asked(plan),
        "data": _data(plan, sources),
        "versions": {name: found for name, found in provenance.versions().items() if name in COMPUTING},
        "device": device_text(find_device(plan.recipe.fit.device)),
        "threads": torch.get_num_threads(),
        "networks": {
            "configurations": len(plan.configurations),
            "folds": plan.n_folds,
            "in_all": plan.n_networks,
        },
    }


def settle(folder: Path, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Write plan.json into a sweep's folder in which nothing was trained yet, or check that the one there is the same.

    Returns:
        The plan of the folder: of the first command that trained there, or ``wanted``; with the notes of the latest
        command that had some.

    Raises:
        RunError: as :func:`check_same`.
    """
    there = check_same(folder, wanted)
    settled = dict(wanted) if there is None else {**there, "notes": wanted["notes"] or there.get("notes", [])}
    if settled != there:
        folder.mkdir(parents=True, exist_ok=True)
        publish_bytes(folder / PLAN, runs.json_text(settled).encode(), replace=True)  # at once: never half of it
    return settled


def check_same(folder: Path, wanted: Mapping[str, Any]) -> dict[str, Any] | None:
    """Refuse a folder in which another plan was begun; one of which nothing was trained yet may be replaced.

    Returns:
        The folder's plan, which is the same as ``wanted``; None where there is none that binds.

    Raises:
        RunError: the folder holds another plan, names each field, old → new; or its plan is damaged.
    """
    begun = _is_begun(folder)
    if not (folder / PLAN).is_file():
        return None
    try:
        there = read_plan(folder)
    except RunError:
        if begun:
            raise
        return None
    if there.get("format") != FORMAT:
        raise RunError(f"{folder / PLAN} says format {there.get('format')!r}; this version reads format {FORMAT}.")
    asked = json.loads(runs.json_text(wanted))  # both as JSON has them
    found = provenance.differences(*({name: table.get(name) for name in COMPARED} for table in (there, asked)))
    if not found:
        return there
    if begun:
        raise RunError(_refusal(folder, found))
    return None


def read_plan(folder: Path) -> dict[str, Any]:
    """plan.json of a sweep's folder.

    Raises:
        RunError: there is none, or it is damaged.
    """
    if not (folder / PLAN).is_file():
        raise RunError(f"{folder} is not a sweep: it has no {PLAN}. Name the folder that `mmsurv sweep -o` wrote.")
    try:
        there = runs.read_json(folder / PLAN)
        if there.get("format") == FORMAT and not isinstance(there.get("threads"), int):
            raise RunError(f"{folder / PLAN}: the key threads is missing or no number.")
    except RunError as error:
        raise RunError(
            f"{error} The file was changed or cut: put a copy of it back, or name another folder with -o. The runs in "
            f"{folder / RUNS} can still be evaluated and reported."
        ) from error
    return there


def _is_begun(folder: Path) -> bool:
    """Whether something was trained by the folder's plan: a whole run, or the state of a pass."""
    return any(folder.glob(f"{RUNS}/*/{METRICS}")) or any(folder.glob(f"{CHECKPOINT}/*"))


def check_folder(folder: Path) -> None:
    """Refuse a place that is taken by something else, before anything is read.

    Raises:
        RunError: a file, or a folder with something in it that is not a sweep.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; a sweep is a folder. Name another place with -o.")
    if folder.is_dir() and not (folder / PLAN).is_file():
        strangers = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        if strangers:
            raise RunError(
                f"{folder} holds {', '.join(strangers[:3])} and is no sweep (no {PLAN}). Name another place with -o."
            )


def _refusal(folder: Path, found: list[tuple[str, Any, Any]]) -> str:
    old = {key: before for key, before, _ in found[:SHOWN]}
    new = {key: after for key, _, after in found[:SHOWN]}
    more = [f"  … and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return "\n".join(
        [
            f"{folder} holds another sweep than the one asked for:",
            provenance.difference_table(old, new),
            *more,
            "Ask for the same to go on with it, or name another folder with -o.",
        ]
    )


def _asked(plan: Plan) -> dict[str, Any]:
    """What all configurations share, and what each has for itself; a file of folds counts by what it holds."""
    shared = to_table(plan.recipe)
    shared["fit"].pop("device")  # what it came to is compared
    if plan.recipe.split.folds_file is not None:
        shared["split"]["folds_file"] = "as in data.folds"
    for key in plan.varying:
        table, name = key.split(".")
        shared[table].pop(name, None)
    return {
        "settings": shared,
        "configurations": {
            planned.name: {key: planned.setting(key) for key in plan.varying} for planned in plan.configurations
        },
        "at_prediction": list(plan.settings.at_prediction),
    }


def _data(plan: Plan, sources: Sources) -> dict[str, Any]:
    from mmsurv.cohort import load_cohort
    from mmsurv.store import open_store

    store = None if sources.store is None else open_store(sources.store)
    cohort = load_cohort(sources.cohort, store_slides=None if store is None else store.slide_ids())
    options = {name: value for name, value in to_table(sources.cohort).items() if name not in ("clinical", "rna")}
    data: dict[str, Any] = {"options": options, "complete_cases": sources.complete_cases}
    paths = {"clinical": sources.cohort.clinical, "rna": sources.cohort.rna, "folds": plan.recipe.split.folds_file}
    data |= {name: provenance.file_digest(Path(path)) for name, path in paths.items() if path is not None}
    data["gene_sets"] = {planned.name: gene_sets_digest(planned.recipe) for planned in plan.configurations}
    if store is not None:
        data["store"] = store.recipe_sha256
        slide_ids = cohort.slides["slide_id"].tolist()
        data["records"] = {slide_id: str(store.attributes(slide_id)["features_sha256"]) for slide_id in slide_ids}
    return data
