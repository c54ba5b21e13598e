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

from mmsurv.demo.simulate import SimulationSettings, paint_slide, simulate
from mmsurv.errors import ConfigError
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
        ConfigError: the folder holds something else, or a demo with other settings.
    """
    marker = root / MARKER
    if marker.is_file():
        try:
            found = json.loads(marker.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{marker} cannot be read ({error}). Choose another folder with -o.") from error
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


def fill(
    folder: DemoFolder, settings: SimulationSettings, *, on_slide: Callable[[int, int], None] | None = None
) -> int:
    """Write the tables, and every slide that is not there yet.

    Args:
        folder: claimed for these settings.
        settings: of the simulation.
        on_slide: called with (slides there, slides in all) at the start and after each slide.

    Returns:
        The number of slides painted now; the others were there.
    """
    cohort = simulate(settings)
    cohort.clinical.to_csv(folder.clinical, index=False)
    cohort.rna.to_csv(folder.rna, compression={"method": "gzip", "mtime": 0})
    cohort.truth.to_csv(folder.truth, float_format="%.4f")
    folder.slides.mkdir(exist_ok=True)
    owner = dict(zip(cohort.clinical["slide_id"], cohort.clinical["case_id"], strict=True))
    slide_ids = list(owner)
    paths = {slide_id: folder.slides / f"{slide_id}.tiff" for slide_id in slide_ids}
    wanted = [slide_id for slide_id in slide_ids if not paths[slide_id].exists()]
    report = on_slide or (lambda done, total: None)
    done = len(slide_ids) - len(wanted)
    report(done, len(slide_ids))
    with ThreadPoolExecutor(max_workers=min(MAX_WORKERS, os.cpu_count() or 1)) as pool:
        jobs = [
            pool.submit(paint_slide, paths[slide_id], settings, cohort.patients[owner[slide_id]], slide_id)
            for slide_id in wanted
        ]
        try:
            for job in as_completed(jobs):
                job.result()
                done += 1
                report(done, len(slide_ids))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return len(wanted)


def settings_table(settings: SimulationSettings, **further: Any) -> dict[str, Any]:
    """What ``demo.json`` says."""
    return {"what": "mmsurv demo: simulated data", **asdict(settings), **further}
