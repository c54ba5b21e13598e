"""What a training run is told: model, bags, RNA, fitting, split and evaluation.

Owns the settings and their checks, and the reading of training recipes; imports no torch. docs/recipes.md says where
the values of the shipped recipes come from.
"""

from __future__ import annotations

import difflib
import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

from mmsurv.cohort.options import RESERVED
from mmsurv.config import from_table, load_recipe
from mmsurv.errors import ConfigError
from mmsurv_train.modalities import LOOKS, Modality, ModelName, in_order

RECIPES = "mmsurv_train.recipes"

SWEEP_TABLES = ("grid", "sweep", "published")
"""Tables of a recipe that say what ``mmsurv sweep`` makes of it (``sweep/recipe.py``)."""

Loss = Literal["cox-efron", "cox-breslow", "nll"]
LOSSES: tuple[Loss, ...] = get_args(Loss)

RiskScale = Literal["log hazard", "score"]
"""What a unit of risk is: a log hazard, or nothing but a rank, as that of a discrete-time model (``discrete``)."""

MOST_SEED = 2**63 - 1
"""torch takes no greater one."""
MOST_DRAWS = 100_000
"""Of the bootstrap: an interval does not change visibly beyond, and takes minutes."""


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """[model]: which network, and its widths."""

    name: ModelName = "cross-attention"
    """Which model; docs/models.md has them all."""
    inputs: tuple[Modality, ...] = ()
    """wsi, rna, clinical: what it looks at; empty: the model's own, and clinical where [clinical] names variables."""
    dim: int = 256
    """Width of queries, keys and values together; heads share it evenly. Attention models only."""
    heads: int = 1
    """Attention heads. cross-attention only."""
    query: Literal["linear", "relu"] = "relu"
    """How RNA becomes the query: one linear layer (the paper), or a ReLU layer of ``query_hidden`` before it."""
    query_hidden: int = 64
    """Width of the query's ReLU layer."""
    rna_components: int = 0
    """The query of cross-attention sees so many first principal components of the training part's RNA, each of variance
    1; 0: all genes."""
    tile_components: int = 0
    """Keys and values of cross-attention see so many first principal components of the training part's standardised
    tile features, all on one scale; 0: the features themselves."""
    base: Literal["none", "ridge"] = "none"
    """What a model with tiles adds to: none; ridge: the risk of a penalised Cox regression on its RNA and clinical
    variables, fitted before and out of fold for the training patients. Then the network sees these inputs nowhere else
    but in the query. Only with a Cox loss; a model without tiles, or with nothing else, has none."""
    head: Literal["image", "image+rna"] = "image+rna"
    """What the survival layer of cross-attention sees: the attended image alone (the paper), or also the embedded
    RNA."""
    rna_widths: tuple[int, ...] = (64,)
    """Linear layers, ReLU between them, that embed the RNA for the survival layer; empty: the genes themselves."""
    clinical_widths: tuple[int, ...] = ()
    """The same for the clinical variables; they see no dropout."""
    hidden_widths: tuple[int, ...] = (64,)
    """ReLU layers of ``early`` and ``genomic-cnn``."""
    attention_hidden: int = 128
    """Width of the attention network of ``abmil`` and ``tanh-cross-attention``."""
    graph_layers: int = 3
    """Graph convolutions of ``patch-gcn``."""
    neighbours: int = 8
    """Nearest tiles of the same slide that a tile of ``patch-gcn`` hears."""
    gene_sets: str | None = None
    """GMT file of the gene sets of ``co-attention``."""
    least_genes: int = 5
    """Gene sets of which fewer genes are known are left out."""
    rna_dropout: float = 0.75
    """Dropout on the genes (also the query's, where it has a ReLU layer) and between the embedding's layers."""
    dropout: float = 0.25
    """Dropout before the survival layer, of what is not clinical, and before each of ``hidden_widths``."""
    attention_dropout: float = 0.0
    """Dropout on the attention weights. Attention models only."""
    modality_dropout: float = 0.0
    """Above 0: patients may lack modalities. In training each one a patient has is hidden at this rate, never all."""

    def __post_init__(self) -> None:
        for name in ("dim", "heads", "query_hidden", "attention_hidden", "graph_layers", "neighbours", "least_genes"):
            _check(getattr(self, name) >= 1, f"model.{name} must be at least 1, not {getattr(self, name)}")
        _check(
            self.dim % self.heads == 0,
            f"model.dim ({self.dim}) must be a multiple of model.heads ({self.heads})",
        )
        _check(
            self.rna_components >= 0, f"model.rna_components must be 0 (all genes) or more, not {self.rna_components}"
        )
        for name in ("rna_widths", "clinical_widths", "hidden_widths"):
            widths = getattr(self, name)
            _check(all(width >= 1 for width in widths), f"model.{name} must be positive, not {widths}")
        for name in ("rna_dropout", "dropout", "attention_dropout", "modality_dropout"):
            rate = getattr(self, name)
            _check(0 <= rate < 1, f"model.{name} must be at least 0 and below 1, not {rate}")
        self._check_inputs()

    def _check_inputs(self) -> None:
        _check(len(set(self.inputs)) == len(self.inputs), f"model.inputs names one twice: {', '.join(self.inputs)}")
        _check(
            LOOKS[self.name].tiles or "wsi" not in self.inputs,
            f"the model {self.name} cannot look at tiles: leave wsi out of model.inputs, or take another model",
        )
        lacking = [name for name in LOOKS[self.name].needs if self.inputs and name not in self.inputs]
        _check(
            not lacking,
            f"model.inputs must have {' and '.join(lacking)} for the model {self.name}, not only "
            f"{', '.join(self.inputs)}",
        )


@dataclass(frozen=True, kw_only=True)
class BagSettings:
    """[bags]: what one risk is computed from."""

    unit: Literal["case", "slide"] = "case"
    """case: all tiles of all slides of a patient. slide: one slide per patient and step; a patient's risk is the
    mean of its slides' risks."""
    size: int = 0
    """Tiles per bag while training; 0 = all. A case's bag shares them evenly among its slides. A slide with fewer
    tiles gives all it has."""
    redraw: bool = True
    """Draw other tiles every epoch (a cyclic window of the stored, shuffled rows); false: always the first ones."""
    at_prediction: Literal["all", "size"] = "all"
    """Tiles per bag at validation and prediction: all, or the first ``size`` (the paper), themselves a seeded
    uniform sample."""

    def __post_init__(self) -> None:
        _check(self.size >= 0, f"bags.size must be 0 (all tiles) or more, not {self.size}")

    @property
    def size_at_prediction(self) -> int:
        """Tiles per bag at validation and prediction; 0 = all."""
        return self.size if self.at_prediction == "size" else 0


@dataclass(frozen=True, kw_only=True)
class RnaSettings:
    """[rna]: how gene values are scaled; every number is fitted on the training part only."""

    standardise: bool = True
    """z-score per gene."""
    clip: float = 5.0
    """Bring values further from the gene's median than this many standard deviations (as its interquartile range
    has them) to that border, before the z-score; 0 = keep them."""
    min_variance: float = 0.0
    """Drop genes whose variance in the training part is not above this."""

    def __post_init__(self) -> None:
        _check(self.clip >= 0, f"rna.clip must be 0 (no clipping) or more, not {self.clip}")
        _check(self.min_variance >= 0, f"rna.min_variance must be 0 or more, not {self.min_variance}")


@dataclass(frozen=True, kw_only=True)
class ClinicalSettings:
    """[clinical]: which clinical variables models look at; their coding is fitted on the training part only."""

    columns: tuple[str, ...] = ()
    """Columns of the clinical table, such as age."""
    rare: int = 5
    """Levels of a text column that fewer training patients have are one level, "other"."""

    def __post_init__(self) -> None:
        _check(self.rare >= 1, f"clinical.rare must be at least 1, not {self.rare}")
        twice = sorted({name for name in self.columns if self.columns.count(name) > 1})
        _check(not twice, f"clinical.columns names {', '.join(map(repr, twice))} more than once")
        for name in self.columns:
            _check_column("clinical.columns", name)


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """[fit]: optimisation, and how the epoch is chosen."""

    epochs: int = 200
    batch_size: int = 0
    """Patients per step, stratified by event; 0 = all training patients form one risk set."""
    learning_rate: float = 5e-4
    weight_decay: float = 3e-3
    """L2 penalty of Adam."""
    patience: int = 30
    """Stop after this many epochs without a better one; 0 = never."""
    select: Literal["c-index", "loss", "last"] = "loss"
    """What the best epoch is best at, on the validation patients as one risk set. The loss is finer than the
    C-index, which a small validation part knows only in coarse steps. last: the last epoch is taken, whatever the
    validation patients say."""
    image_loss: float = 0.0
    """Weight of a second loss, of what the tiles alone add to the base (where there is one): it makes the attention
    learn what the base knows as well."""
    loss: Loss = "cox-efron"
    """cox-efron, cox-breslow: the negative log partial likelihood, ties by either. nll: the negative log likelihood of
    the time interval of each death (MCAT and its family)."""
    nll_bins: int = 4
    """Time intervals of nll, with as many deaths of the training part in each."""
    nll_alpha: float = 0.15
    """Extra weight of nll for patients whose death was seen: their terms count once, the others' 1 − this."""
    seed: int = 0
    """Of initialisation and dropout."""
    n_seeds: int = 1
    """Networks, from seeds ``seed``, ``seed`` + 1, …, whose mean risk is the model's."""
    data_seed: int = 0
    """Of batches, bags and slides drawn: one for all models of a pass."""
    device: str = "auto"
    """cpu, cuda, cuda:N (the N-th, counted from 0), or auto: cuda where there is one."""

    def __post_init__(self) -> None:
        _check(self.epochs >= 1, f"fit.epochs must be at least 1, not {self.epochs}")
        _check(
            self.batch_size == 0 or self.batch_size >= 2,
            f"fit.batch_size must be 0 (all patients) or at least 2, not {self.batch_size}: "
            "a risk set of one patient says nothing",
        )
        _check(self.learning_rate > 0, f"fit.learning_rate must be above 0, not {self.learning_rate}")
        _check(self.weight_decay >= 0, f"fit.weight_decay must be 0 or more, not {self.weight_decay}")
        _check(self.patience >= 0, f"fit.patience must be 0 (never stop) or more, not {self.patience}")
        _check(self.image_loss >= 0, f"fit.image_loss must be 0 or more, not {self.image_loss}")
        _check(2 <= self.nll_bins <= 100, f"fit.nll_bins must be from 2 to 100, not {self.nll_bins}")
        _check(0 <= self.nll_alpha < 1, f"fit.nll_alpha must be at least 0 and below 1, not {self.nll_alpha}")
        _check_seed("fit.seed", self.seed)
        _check_seed("fit.data_seed", self.data_seed)
        _check(self.n_seeds >= 1, f"fit.n_seeds must be at least 1, not {self.n_seeds}")
        _check(
            self.seed + self.n_seeds - 1 <= MOST_SEED,
            f"fit.seed ({self.seed}) is too high for {self.n_seeds} seeds: the last may be {MOST_SEED} (2⁶³ − 1)",
        )
        _check(
            re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", self.device) is not None,
            f"fit.device must be auto, cpu, cuda or cuda:N, not {self.device!r}",
        )

    @property
    def ties(self) -> Literal["efron", "breslow"]:
        """How ties are treated."""
        return "breslow" if self.loss == "cox-breslow" else "efron"

    @property
    def risk_scale(self) -> RiskScale:
        """What a unit of risk is."""
        return "score" if self.loss == "nll" else "log hazard"

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each network."""
        return tuple(range(self.seed, self.seed + self.n_seeds))


@dataclass(frozen=True, kw_only=True)
class SplitSettings:
    """[split]: which patients train, validate and test."""

    seed: int = 0
    fractions: tuple[float, ...] = (0.7, 0.1, 0.2)
    """Train, validation, test."""
    n_folds: int = 0
    """Cross-validate over this many folds; 0 = one split."""
    folds_file: str | None = None
    """CSV of case_id and fold, instead of folds made here."""
    fold: int | None = None
    """Train only this fold of ``folds_file`` or ``n_folds``."""

    def __post_init__(self) -> None:
        _check_seed("split.seed", self.seed)
        _check(
            len(self.fractions) == 3
            and all(share > 0 for share in self.fractions)
            and abs(sum(self.fractions) - 1) < 1e-9,
            f"split.fractions must be three positive shares that add up to 1, not {self.fractions}",
        )
        _check(self.n_folds == 0 or self.n_folds >= 2, f"split.n_folds must be 0 or at least 2, not {self.n_folds}")
        _check(self.fold is None or self.fold >= 0, f"split.fold must be 0 or more, not {self.fold}")


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """[evaluate]: how results are measured."""

    floors: bool = True
    """Fit penalised Cox regressions on the same patients and inputs, and show them beside the model."""
    n_bootstrap: int = 1000
    """Draws of patients for the intervals; 0 = no intervals."""
    confidence: float = 0.95
    seed: int = 0
    tau_months: float | None = None
    """Uno's C-index looks no further than this; left out: the ``tau_quantile`` of the training part's times."""
    tau_quantile: float = 0.9
    times_months: tuple[float, ...] = (12.0, 36.0, 60.0)
    """At which AUC, Brier score and calibration are given, and survival is predicted; increasing."""
    calibration_groups: int = 5
    """Most groups of patients by predicted survival; each holds at least 10."""
    stratum: str | None = None
    """A column of the clinical table: every case-level number also for each of its values."""

    def __post_init__(self) -> None:
        _check_seed("evaluate.seed", self.seed)
        _check(
            0 <= self.n_bootstrap <= MOST_DRAWS,
            f"evaluate.n_bootstrap must be from 0 to {MOST_DRAWS}, not {self.n_bootstrap}",
        )
        _check(0 < self.confidence < 1, f"evaluate.confidence must be between 0 and 1, not {self.confidence}")
        _check(
            self.tau_months is None or self.tau_months > 0,
            f"evaluate.tau_months must be above 0, not {self.tau_months}",
        )
        _check(0 < self.tau_quantile <= 1, f"evaluate.tau_quantile must be in (0, 1], not {self.tau_quantile}")
        times = self.times_months
        rising = all(earlier < later for earlier, later in itertools.pairwise((0.0, *times, math.inf)))
        _check(
            len(times) > 0 and rising,
            f"evaluate.times_months must be months above 0 that increase, at least one, not {times}",
        )
        if self.stratum is not None:
            _check_column("evaluate.stratum", self.stratum)
        _check(
            self.calibration_groups >= 1,
            f"evaluate.calibration_groups must be at least 1, not {self.calibration_groups}",
        )


@dataclass(frozen=True, kw_only=True)
class TrainRecipe:
    """A whole training recipe, one table each."""

    BESIDE: ClassVar[tuple[str, ...]] = ("rows", *SWEEP_TABLES)  # may stand in a recipe's file as well

    model: ModelSettings = field(default_factory=ModelSettings)
    bags: BagSettings = field(default_factory=BagSettings)
    rna: RnaSettings = field(default_factory=RnaSettings)
    clinical: ClinicalSettings = field(default_factory=ClinicalSettings)
    fit: FitSettings = field(default_factory=FitSettings)
    split: SplitSettings = field(default_factory=SplitSettings)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)

    def __post_init__(self) -> None:
        name, bags = self.model.name, self.bags
        _check(
            not self.clinical.columns or "clinical" in self.inputs,
            "clinical.columns names variables and model.inputs lacks clinical: add it (--input clinical), or name none",
        )
        _check(
            name != "late" or self.fit.loss != "nll",
            "the model late is a Cox regression: fit.loss must be cox-efron or cox-breslow",
        )
        _check(
            name != "patch-gcn" or (bags.size == 0 and bags.at_prediction == "all"),
            "the model patch-gcn needs bags.size = 0: neighbours of a few drawn tiles are not neighbours on the slide",
        )

    def require_complete(self) -> None:
        """Check what a shipped recipe cannot know, and the user must name.

        Raises:
            ConfigError: clinical variables or gene sets are needed and not named.
        """
        name = self.model.name
        if "clinical" in self.inputs and not self.clinical.columns:
            raise ConfigError(
                f"the model {name} looks at clinical variables, and none are named: add --clinical-variable COLUMN "
                "(clinical.columns)."
            )
        if name == "co-attention" and self.model.gene_sets is None:
            raise ConfigError("the model co-attention needs gene sets: name a GMT file, --gene-sets (model.gene_sets).")

    @property
    def inputs(self) -> tuple[Modality, ...]:
        """What the model looks at, in one order."""
        own = LOOKS[self.model.name].own
        clinical: tuple[Modality, ...] = ("clinical",) if self.clinical.columns else ()
        return in_order({*(self.model.inputs or (*own, *clinical))})

    @property
    def needs_tiles(self) -> bool:
        """Whether tiles are looked at."""
        return "wsi" in self.inputs

    @property
    def needs_rna(self) -> bool:
        """Whether RNA is looked at."""
        return "rna" in self.inputs

    @property
    def has_base(self) -> bool:
        """Whether a network adds to the risk of a penalised Cox regression on the other inputs."""
        fused = "wsi" in self.inputs and len(self.inputs) > 1
        return self.model.base == "ridge" and fused and self.model.name != "late" and self.fit.loss != "nll"

    @property
    def may_lack(self) -> bool:
        """Whether a patient is scored from what there is; otherwise a case without one of the inputs cannot be."""
        return self.model.modality_dropout > 0


def load_train_recipe(name_or_path: str, *, row: str | None = None) -> TrainRecipe:
    """Read a training recipe.

    Args:
        name_or_path: a shipped recipe (``default``, ``table1``, ``table2``) or a TOML file.
        row: which ``[rows.NAME]`` table to lay over the recipe's own keys; one row for each row of a paper's table.

    Raises:
        ConfigError: no such recipe, an unknown or missing row (the message lists them), or a setting that cannot be.
    """
    table, source = load_recipe(name_or_path, RECIPES)
    if table.get("grid"):
        raise ConfigError(
            f"{source} has a grid, so it is many settings: train them all with mmsurv sweep, or have one chosen "
            "inside each training part with --inner-folds."
        )
    table = {name: value for name, value in table.items() if name not in SWEEP_TABLES}
    rows = take_rows(table, source)
    if row is None and rows:
        raise ConfigError(f"{source} has rows: choose one with --row. Rows: {', '.join(rows)}.")
    if row is not None:
        if row not in rows:
            raise ConfigError(f"{source} has no row {row!r}. {_rows_hint(row, list(rows))}")
        table = overlay(table, rows[row])
        source = f"{source}, row {row}"
    return from_table(TrainRecipe, table, source=source)


def take_rows(table: dict[str, Any], source: str) -> dict[str, Mapping[str, Any]]:
    """Take ``[rows]`` out of a recipe's table: what each row lays over it, by name.

    Raises:
        ConfigError: they are not tables.
    """
    rows = table.pop("rows", {})
    if not isinstance(rows, Mapping) or not all(isinstance(value, Mapping) for value in rows.values()):
        raise ConfigError(f"{source}: rows must hold one table per row, as in [rows.NAME.fit].")
    return dict(rows)


def overlay(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the keys of ``over`` over it, table by table."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        result[key] = overlay(below, value) if both else value  # type: ignore[arg-type]
    return result


def _rows_hint(row: str, rows: list[str]) -> str:
    if not rows:
        return "It has no rows at all: leave --row out."
    close = difflib.get_close_matches(row, rows, n=1)
    return (f"Did you mean {close[0]!r}? " if close else "") + f"Rows: {', '.join(rows)}."


def _check_seed(name: str, seed: int) -> None:
    _check(0 <= seed <= MOST_SEED, f"{name} must be from 0 to {MOST_SEED} (2⁶³ − 1), not {seed}")


def _check_column(setting: str, name: str) -> None:
    _check(
        name not in RESERVED, f"{setting} cannot name {name!r}, the name of an outcome. Rename the column if it is none"
    )


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)
