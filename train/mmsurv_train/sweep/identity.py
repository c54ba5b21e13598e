"""What a sweep's folder was made from, so that only the same sweep goes on in it.

Owns plan.json: what was asked, the digests of the data, and the versions that compute. Where tables and store lie,
how much memory is used and how the command was typed change no number, so they are not compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmsurv import provenance
from mmsurv.config import to_table
from mmsurv.errors import RunError
from mmsurv.store.commit import publish_bytes
from mmsurv_train import run as runs
from mmsurv_train.inputs import Sources
from mmsurv_train.sweep.plan import Plan

FORMAT = 1
PLAN = "plan.json"
COMPUTING = ("mmsurv", "torch", "numpy", "pandas", "scikit-survival")
"""Libraries of which another version may give other digits."""
COMPARED = ("asked", "data", "versions", "device")
SHOWN = 20
"""Differences listed when a folder is refused."""


def describe(plan: Plan, sources: Sources, *, command: str) -> dict[str, Any]:
    """plan.json of a sweep that is about to begin; hashes the tables and reads the digest of every slide's record.

    Raises:
        CohortError, StoreError: the data cannot be read.
        ConfigError: the device is not there.
    """
    import torch

    from mmsurv_train.predict import device_text, find_device

    return {
        "format": FORMAT,
        "made": provenance.now(),
        "command": command,
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
    """Write plan.json into a new sweep's folder, or check that the one there is the same.

    Returns:
        The plan of the folder: of the first command that ran there, or ``wanted``.

    Raises:
        RunError: the folder holds another plan, or something else than a sweep; names each field, old → new.
    """
    path = folder / PLAN
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        publish_bytes(path, runs.json_text(wanted).encode())  # at once: a killed first command leaves no half of it
        return dict(wanted)
    there, wanted = runs.read_json(path), json.loads(runs.json_text(wanted))  # both as JSON has them
    if there.get("format") != FORMAT:
        raise RunError(f"{path} says format {there.get('format')!r}; this version reads format {FORMAT}.")
    found = provenance.differences(*({name: table.get(name) for name in COMPARED} for table in (there, wanted)))
    if found:
        raise RunError(_refusal(folder, found))
    return there


def read_plan(folder: Path) -> dict[str, Any]:
    """plan.json of a sweep's folder.

    Raises:
        RunError: there is none, or it is damaged.
    """
    if not (folder / PLAN).is_file():
        raise RunError(f"{folder} is not a sweep: it has no {PLAN}. Name the folder that `mmsurv sweep -o` wrote.")
    return runs.read_json(folder / PLAN)


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
    if store is not None:
        data["store"] = store.recipe_sha256
        slide_ids = cohort.slides["slide_id"].tolist()
        data["records"] = {slide_id: str(store.attributes(slide_id)["features_sha256"]) for slide_id in slide_ids}
    return data
