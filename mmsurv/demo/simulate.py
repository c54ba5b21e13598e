"""The simulated cohort: patients whose survival depends on tissue, RNA and the two together.

Owns what the numbers mean for survival. Nothing here is measured on people. The effects are far larger than any in
glioma, so that sixty patients suffice to learn from; they were chosen on other seeds than the demo's default, and what
made each patient is written to ``truth.csv`` beside the data.

A patient has a proliferation score p, a cellularity c, a state s (hypoxic or angiogenic), and a bleeding score in each
of two zones of the tissue: a in necrosis, b in the vascular zone. RNA shows p and s, the slide shows c, a and b, and

    log risk = 1.2 p + 0.8 c + 2.0 (a if hypoxic else b) + 0.3 z(age) + 0.1 (male)

so in the slide alone one cannot tell which bleeding matters, and in the RNA alone not how much there is. Times are
Weibull (shape 1.3) with a median of about 18 months; follow-up ends at random, for about 35 % before death.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mmsurv.demo.painter import MPP, Morphology, paint
from mmsurv.demo.tissue import write_slide

EFFECTS = {"proliferation": 1.2, "cellularity": 0.8, "bleeding": 2.0, "age": 0.3, "male": 0.1}
"""Log hazard ratio per standard deviation (per unit for ``male``)."""

WEIBULL_SHAPE = 1.3
MEDIAN_MONTHS = 18.0
CENSORED_SHARE = 0.35
TWO_SLIDES_SHARE = 0.25
N_GENES = {"PROLIF": 60, "STATE": 60, "IMMUNE": 20, "STROMA": 20, "OTHER": 40}
"""Genes per module. PROLIF follows p, STATE follows s; IMMUNE and STROMA vary together without meaning for survival,
OTHER is noise."""


@dataclass(frozen=True, kw_only=True)
class SimulationSettings:
    """What is simulated; the same settings give the same files, byte for byte."""

    patients: int = 60
    seed: int = 0
    slide_px: int = 2400
    """Mean side of a slide in pixels at 0.5 µm."""

    def __post_init__(self) -> None:
        if not 10 <= self.patients <= 999:
            raise ValueError(f"patients must be within 10 and 999, not {self.patients}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, not {self.seed}")
        if not 700 <= self.slide_px <= 10_000:
            raise ValueError(f"slide_px must be within 700 and 10000, not {self.slide_px}")


@dataclass(frozen=True, kw_only=True)
class Patient:
    """What makes a patient; scores are standard normal."""

    number: int
    proliferation: float
    cellularity: float
    hypoxic: bool
    """Which bleeding carries risk: that in necrosis, or, where False, that in the vascular zone."""
    necrosis_bleeding: float
    vascular_bleeding: float
    age: float
    sex: str
    histology: str
    slides: int

    @property
    def log_risk(self) -> float:
        """Log hazard, up to a constant; higher means an earlier death."""
        return (
            EFFECTS["proliferation"] * self.proliferation
            + EFFECTS["cellularity"] * self.cellularity
            + EFFECTS["bleeding"] * (self.necrosis_bleeding if self.hypoxic else self.vascular_bleeding)
            + EFFECTS["age"] * (self.age - 56) / 12
            + EFFECTS["male"] * (self.sex == "male")
        )


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """One simulated cohort."""

    patients: dict[str, Patient]
    """By case_id."""
    clinical: pd.DataFrame
    """One row per slide: slide_id, case_id, survival_months, vital_status (1 = died), age, sex, histology."""
    rna: pd.DataFrame
    """Index case_id, columns genes: log2 expression."""

    @property
    def truth(self) -> pd.DataFrame:
        """What made each patient, and the log risk; index case_id."""
        rows = [{**asdict(patient), "log_risk": patient.log_risk} for patient in self.patients.values()]
        return pd.DataFrame(rows, index=pd.Index(self.patients, name="case_id")).drop(columns="number")


def simulate(settings: SimulationSettings) -> Simulated:
    """Draw patients, their RNA and their survival; slides are painted by :func:`paint_slide`."""
    patients = {f"SIM-{number:03d}": _patient(settings.seed, number) for number in range(1, settings.patients + 1)}
    log_risk = np.array([patient.log_risk for patient in patients.values()])
    months, died = _survival(log_risk, np.random.default_rng([settings.seed, 1]))
    rows = [
        {
            "slide_id": f"{case_id}-{letter}",
            "case_id": case_id,
            "survival_months": months[index],
            "vital_status": died[index],
            "age": patient.age,
            "sex": patient.sex,
            "histology": patient.histology,
        }
        for index, (case_id, patient) in enumerate(patients.items())
        for letter in "AB"[: patient.slides]
    ]
    return Simulated(patients=patients, clinical=pd.DataFrame(rows), rna=_rna(patients, settings.seed))


def paint_slide(path: Path, settings: SimulationSettings, patient: Patient, slide_id: str) -> None:
    """Paint and write one slide; the file appears under ``path`` only when it is complete.

    Args:
        path: file to write.
        settings: of the cohort.
        patient: whose tissue it is.
        slide_id: its last letter tells the slides of a patient apart.
    """
    rng = np.random.default_rng([settings.seed, 2, patient.number, ord(slide_id[-1])])

    def share(score: float) -> float:
        return float(np.clip(0.22 * np.exp(0.75 * score + 0.1 * rng.standard_normal()), 0.0, 0.85))

    morphology = Morphology(
        density=float(2600 * np.exp(0.35 * patient.cellularity + 0.05 * rng.standard_normal())),
        necrosis_share=float(rng.uniform(0.22, 0.34)),
        vascular_share=float(rng.uniform(0.22, 0.34)),
        necrosis_bleeding=share(patient.necrosis_bleeding),
        vascular_bleeding=share(patient.vascular_bleeding),
        stain=(float(rng.normal(1.0, 0.06)), float(rng.normal(1.0, 0.06))),
    )
    height, width = (round(settings.slide_px * rng.uniform(0.94, 1.06)) for _ in range(2))
    unfinished = path.with_name(f".{path.name}.partial")
    try:
        write_slide(unfinished, paint(morphology, rng, height=height, width=width), mpp=MPP)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _patient(seed: int, number: int) -> Patient:
    """One patient from a stream of its own, so that a larger cohort begins with the same patients."""
    rng = np.random.default_rng([seed, 0, number])
    proliferation = rng.standard_normal()
    cellularity = 0.4 * proliferation + np.sqrt(1 - 0.4**2) * rng.standard_normal()
    aggressive = 0.7 * proliferation + 0.7 * cellularity + 0.8 * rng.standard_normal()
    grades = ("oligodendroglioma", "astrocytoma", "glioblastoma")
    return Patient(
        number=number,
        proliferation=proliferation,
        cellularity=cellularity,
        hypoxic=bool(rng.random() < 0.5),
        necrosis_bleeding=rng.standard_normal(),
        vascular_bleeding=rng.standard_normal(),
        age=round(float(np.clip(rng.normal(56, 12), 19, 89)), 1),
        sex="male" if rng.random() < 0.58 else "female",
        histology=grades[int(np.searchsorted([-0.6, 0.3], aggressive))],
        slides=1 + int(rng.random() < TWO_SLIDES_SHARE),
    )


def _survival(log_risk: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Months and death (1) or end of follow-up (0) of each patient."""
    scale = MEDIAN_MONTHS / np.log(2) ** (1 / WEIBULL_SHAPE)
    death = scale * (rng.exponential(size=log_risk.size) / np.exp(log_risk - log_risk.mean())) ** (1 / WEIBULL_SHAPE)
    follow_up = rng.uniform(0.25, 1.25, log_risk.size)
    # Follow-up is stretched so that the wanted share outlives it.
    follow_up *= np.quantile(death / follow_up, 1 - CENSORED_SHARE)
    months = np.maximum(np.minimum(death, follow_up), 0.1).round(2)
    return months, (death <= follow_up).astype(int)


def _rna(patients: dict[str, Patient], seed: int) -> pd.DataFrame:
    """log2 expression: each gene its own level, its module's score times a loading, and noise."""
    rng = np.random.default_rng([seed, 3])
    n = len(patients)
    scores = {
        "PROLIF": np.array([patient.proliferation for patient in patients.values()]),
        "STATE": np.array([1.0 if patient.hypoxic else -1.0 for patient in patients.values()]),
        "IMMUNE": rng.standard_normal(n),
        "STROMA": rng.standard_normal(n),
        "OTHER": np.zeros(n),
    }
    columns: dict[str, np.ndarray] = {}
    for module, count in N_GENES.items():
        loadings = rng.uniform(0.5, 1.0, count) * rng.choice([-1, 1], count)
        levels = rng.uniform(4, 9, count)
        noise = 0.6 * rng.standard_normal((n, count))
        values = np.maximum(levels + scores[module][:, None] * loadings + noise, 0).round(4)
        columns.update({f"SIM_{module}_{gene + 1:02d}": values[:, gene] for gene in range(count)})
    return pd.DataFrame(columns, index=pd.Index(patients, name="case_id"))
