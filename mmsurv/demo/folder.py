"""The demo's folder: what lies where in it, whose it is, and filling it with simulated data.

Owns the files ``demo.json``, ``slides/``, ``clinical.csv``, ``rna.csv.gz`` and ``truth.csv``. The other commands write
the rest. ``demo.json`` marks a folder as a demo's and holds its settings: one folder is for one set of settings.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmsurv import __version__
from mmsurv.demo.simulate import Simulated, SimulationSettings, paint_slide
from mmsurv.errors import ConfigError, JobFailedError
from mmsurv.provenance import difference_table

MARKER = "demo.json"

# Painting needs some 400 MB per slide in work; more workers than this gain little and cost memory.
MAX_WORKERS = 4


@dataclass(frozen=True)
class DemoFolder:
    """Paths of one demo."""

    root: Path

    @property
    def slides(self) -> Path:
        return self.root / "slides"

    @property
    def clinical(self) -> Path:
        return self.root / "clinical.csv"

    @property
    def rna(self) -> Path:
        return self.root / "rna.csv.gz"

    @property
    def truth(self) -> Path:
        return self.root / "truth.csv"

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    def run(self, model: str) -> Path:
        return self.root / "runs" / model


def claim(root: Path, settings: dict[str, Any]) -> DemoFolder:
    """Make ``root`` the folder of a demo with these settings, or find that it is.

    Args:
        root: a folder that is new, empty, or a demo's.
        settings: everything that changes the files in it (JSON values).

    Raises:
        ConfigError: the folder holds something else, or a demo with other settings, or cannot be made.
    """
    try:
        return _claim(root, settings)
    except OSError as error:
        raise ConfigError(
            f"{root} cannot be used as the demo's folder ({error.strerror}). Choose another folder with -o."
        ) from error


def _claim(root: Path, settings: dict[str, Any]) -> DemoFolder:
    marker = root / MARKER
    if marker.is_file():
        found = _settings_in(marker)
        if found != settings:
            raise ConfigError(
                f"{root} holds a demo with other settings:\n{difference_table(found, settings)}\n"
                "Repeat its settings to continue it, or choose another folder with -o."
            )
        return DemoFolder(root)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ConfigError(
            f"{root} is not empty and no demo's (it has no {MARKER}): nothing was touched. "
            "Choose another folder with -o."
        )
    root.mkdir(parents=True, exist_ok=True)
    unfinished = marker.with_name(f".{MARKER}.partial")
    unfinished.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(marker)
    return DemoFolder(root)


def _settings_in(marker: Path) -> dict[str, Any]:
    try:
        found = json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{marker} cannot be read ({error}). Choose another folder with -o.") from error
    if not isinstance(found, dict):
        raise ConfigError(
            f"{marker} does not hold a demo's settings: nothing was touched. Choose another folder with -o."
        )
    return found


def fill(
    folder: DemoFolder,
    settings: SimulationSettings,
    cohort: Simulated,
    *,
    on_slides: Callable[[float], None] | None = None,
) -> int:
    """Write the tables, and every slide that is not there yet.

    Args:
        folder: claimed for these settings.
        settings: of the simulation.
        cohort: what :func:`simulate` made of the settings.
        on_slides: told the number of slides that are there since its last call.

    Returns:
        The number of slides painted now; the others were there.

    Raises:
        JobFailedError: the disk is full, or a file cannot be written. What was written before stays.
    """
    try:
        return _fill(folder, settings, cohort, on_slides or (lambda _count: None))
    except OSError as error:
        raise JobFailedError(
            f"{folder.root}: the simulated data cannot be written ({error.strerror or error}). Make room (or check the "
            "permissions), then give the same command again: it goes on from here."
        ) from error


def _fill(
    folder: DemoFolder, settings: SimulationSettings, cohort: Simulated, on_slides: Callable[[float], None]
) -> int:
    cohort.clinical.to_csv(folder.clinical, index=False)
    cohort.rna.to_csv(folder.rna, compression={"method": "gzip", "mtime": 0})
    cohort.truth.to_csv(folder.truth, float_format="%.4f")
    folder.slides.mkdir(exist_ok=True)
    owner = dict(zip(cohort.clinical["slide_id"], cohort.clinical["case_id"], strict=True))
    wanted = {slide_id: path for slide_id in owner if not (path := folder.slides / f"{slide_id}.tiff").exists()}
    on_slides(len(owner) - len(wanted))
    with ThreadPoolExecutor(max_workers=min(MAX_WORKERS, os.cpu_count() or 1)) as pool:
        jobs = [
            pool.submit(paint_slide, path, settings, cohort.patients[owner[slide_id]], slide_id)
            for slide_id, path in wanted.items()
        ]
        try:
            for job in as_completed(jobs):
                job.result()
                on_slides(1)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return len(wanted)


def settings_table(settings: SimulationSettings, **further: Any) -> dict[str, Any]:
    """What ``demo.json`` says; the version is in it because another one may simulate otherwise."""
    return {"what": "mmsurv demo: simulated data", "mmsurv": __version__, **asdict(settings), **further}
