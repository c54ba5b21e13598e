"""Fitting survival models on cached features: one, or many in as few passes over the features as can be.

Owns the preparation (who trains, scales fitted on the training part), the choice of which networks share a pass, and
what comes back.

Shape suffixes: P patients, G genes, D feature dim.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch

from mmsurv.errors import CohortError, ConfigError, MmsurvError, SplitError
from mmsurv_train.bags import Bags
from mmsurv_train.checkpoint import Checkpoint, SavedPass
from mmsurv_train.fitted_at_once import fitted_course
from mmsurv_train.frozen import Frozen
from mmsurv_train.models import Known, SurvivalModel, n_parameters
from mmsurv_train.passes import Pass
from mmsurv_train.patients import Patients, scorable_cases, slides_of
from mmsurv_train.predict import find_device
from mmsurv_train.prepare import base_of, dims_of, fit_frozen, fit_scales, known_of
from mmsurv_train.preprocess import Preprocess
from mmsurv_train.recipe import TrainRecipe
from mmsurv_train.stack import Network, model_of

if TYPE_CHECKING:
    from mmsurv.cohort import Cohort
    from mmsurv.split import Split

logger = logging.getLogger("mmsurv")

OnEpoch = Callable[[int, dict[str, float]], None]
"""Told the index of the job and the history's row of one epoch of one of its networks."""

MOST_BYTES = 4 << 30
"""Parameters, their gradients and moments, and RNA of the networks of one pass. More networks make further passes; the
number is fixed, since who shares a pass has a part in the last bits."""


@dataclass(frozen=True, kw_only=True)
class FitJob:
    """One model to fit: ``recipe.fit.n_seeds`` networks on one split."""

    recipe: TrainRecipe
    split: Split
    name: str = ""
    """For messages."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A trained model and what is needed to use it."""

    model: SurvivalModel
    """A stack of one network per seed, with the weights of their best epochs, on the CPU."""
    preprocess: Preprocess
    history: pd.DataFrame
    """One row per network and epoch: seed, epoch (from 1), loss, skipped_batches, validation_loss, validation_c_index
    (NaN where no pair of validation patients is comparable)."""
    best_epoch: tuple[int, ...]
    """Of each network."""


@dataclass(frozen=True, kw_only=True)
class FitFailed:
    """Why a model could not be fitted."""

    error: MmsurvError


def fit(
    recipe: TrainRecipe,
    cohort: Cohort,
    bags: Bags | None,
    split: Split,
    *,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> Fitted:
    """Train on the training part and choose the epoch on the validation part; the test part is never looked at.

    Scales are fitted on the training part as well. On one machine, with one number of threads, the same arguments
    give the same bits; the global random state is neither used nor changed.

    Args:
        recipe: what to fit, and how.
        cohort: outcomes, RNA and which slide is whose.
        bags: features of the cohort's slides; may be None for the model ``rna``.
        split: which patients train and which validate. Patients without what the model needs are left out of both,
            with a warning.
        on_epoch: called after each epoch of each network with its row of the history.
        checkpoint: where to save what was reached, and to go on from.

    Raises:
        CohortError: the cohort lacks what the model needs.
        SplitError: the training or the validation part has no patient, or no death, or one unknown to the cohort.
        ConfigError: risks stopped being finite (the learning rate is too high), or the device is not there.
        RunError: the checkpoint is of something else, or cannot be written.
    """
    told: OnEpoch | None = None if on_epoch is None else lambda _job, row: on_epoch(row)
    (result,) = fit_many([FitJob(recipe=recipe, split=split)], cohort, bags, on_epoch=told, checkpoint=checkpoint)
    if isinstance(result, FitFailed):
        raise result.error
    return result


def fit_many(
    jobs: Sequence[FitJob],
    cohort: Cohort,
    bags: Bags | None,
    *,
    on_epoch: OnEpoch | None = None,
    checkpoint: Checkpoint | None = None,
    dtype: torch.dtype = torch.float32,
) -> list[Fitted | FitFailed]:
    """Fit many models, those that can share the reading of the features in one pass.

    A model is the same as fitted alone, to the order of sums: its patients, initialisation, bags and dropout depend on
    its own recipe and split only.

    Args:
        jobs: what to fit; folds, settings and seeds may differ, the device may not.
        cohort, bags, checkpoint: as for ``fit``.
        on_epoch: told the index of the job and a network's row after each of its epochs.
        dtype: of parameters and sums; float64 is for checks.

    Returns:
        For each job its model, or why it has none: a CohortError or SplitError as of ``fit``, or a ConfigError where
        its risks stopped being finite.

    Raises:
        RunError: as for ``fit``.
        ConfigError: the device is not there.
    """
    devices = sorted({job.recipe.fit.device for job in jobs})
    if len(devices) > 1:
        raise ConfigError(f"Models of one call must have one fit.device, not {', '.join(devices)}.")
    device = find_device(devices[0])
    prepared = _Preparation(cohort, bags.to(device) if bags is not None else None, device, dtype)
    networks, failed = list[Network](), dict[int, FitFailed]()
    for index, job in enumerate(jobs):
        try:
            networks += prepared.networks(index, job)
        except MmsurvError as error:  # also of a file of gene sets
            failed[index] = FitFailed(error=error)
    results: dict[int, list[Any]] = {index: [] for index in range(len(jobs))}
    fitted_at_once = [network for network in networks if network.recipe.model.name == "late"]
    for network in fitted_at_once:
        results[network.job].append(
            fitted_course(network, prepared.patients, prepared.bags, prepared.of_patients(network), dtype=dtype)
        )
    for number, together in enumerate(_passes([network for network in networks if network not in fitted_at_once])):
        tiles = prepared.bags if together[0].recipe.needs_tiles else None
        running = Pass(
            together,
            prepared.patients,
            tiles,
            prepared.of_patients,
            device=device,
            dtype=dtype,
            on_epoch=lambda one, row: on_epoch(one.job, {"seed": one.seed, **row}) if on_epoch else None,
        )
        if checkpoint:
            SavedPass(checkpoint, number).run(running)
        else:
            running.run()
        for network, course in running.courses.items():
            results[network.job].append(course)
        prepared.forget()
    return [failed[index] if index in failed else _result(results[index]) for index in range(len(jobs))]


@dataclass(eq=False)
class _Preparation:
    """What jobs share: the patients, and the scales of one split and one [rna] table."""

    cohort: Cohort
    bags: Bags | None
    device: torch.device
    dtype: torch.dtype
    _scales: dict[Any, Preprocess] = field(default_factory=dict)
    _kept_frozen: dict[Any, Frozen] = field(default_factory=dict)
    _values: dict[Any, Known] = field(default_factory=dict)
    _usable: dict[Any, set[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        slides = slides_of(self.cohort, self.bags) if self.bags is not None else {}
        self.patients = Patients.collect(sorted(self.cohort.cases.index), self.cohort, slides)
        self._row = {case: row for row, case in enumerate(self.patients.case_ids)}

    def networks(self, index: int, job: FitJob) -> list[Network]:
        """The networks of one job."""
        recipe = job.recipe
        if recipe.needs_rna and self.cohort.rna is None:  # also where patients may lack it: nothing could be learnt
            raise CohortError(
                f"Model {recipe.model.name} needs RNA and the cohort has none. Give an RNA table (--rna)."
            )
        needs = (recipe.model.name, recipe.inputs, recipe.may_lack, recipe.clinical.columns)
        if needs not in self._usable:
            self._usable[needs] = set(scorable_cases(recipe, self.cohort, self.bags))
        train = _part(job.split, "train", self.cohort, self._usable[needs])
        validation = _part(job.split, "validation", self.cohort, self._usable[needs])
        preprocess = self._preprocess(job, train)
        frozen = self._frozen(job, train, preprocess)
        rows = [pd.Index(part).map(self._row).to_numpy(dtype="int64") for part in (train, validation)]
        fit = job.recipe.fit
        return [
            Network(
                job=index,
                seed=seed,
                recipe=job.recipe,
                preprocess=preprocess,
                frozen=frozen,
                train=rows[0],
                validation=rows[1],
            )
            for seed in range(fit.seed, fit.seed + fit.n_seeds)
        ]

    def of_patients(self, network: Network) -> Known:
        """What a network knows of all patients besides tiles, (1, P, …); zeros for those without, whom it does not see
        or is told so."""
        preprocess, recipe = network.preprocess, network.recipe
        key = (id(preprocess), recipe.inputs, recipe.may_lack)
        case_ids, data = self.patients.case_ids, (self.cohort, self.bags)
        if key not in self._values:
            self._values[key] = known_of(case_ids, preprocess, recipe, *data, dtype=self.dtype, device=self.device)
        if not recipe.has_base:
            return self._values[key]
        with_base = (*key, id(network.frozen))
        if with_base not in self._values:
            found = base_of(network.frozen, case_ids, network.train, preprocess, recipe, *data)
            assert found is not None
            base_P, shares = found
            self._values[with_base] = dataclasses.replace(
                self._values[key],
                base=self._of_one(base_P),
                shares={name: self._of_one(share_P) for name, share_P in shares.items()},
            )
        return self._values[with_base]

    def _of_one(self, values_P: np.ndarray) -> torch.Tensor:
        """Values of all patients as one network knows them, (1, P)."""
        return torch.from_numpy(values_P)[None].to(self.device, self.dtype)

    def forget(self) -> None:
        """Let go of what the networks of a pass shared."""
        self._values.clear()

    def _frozen(self, job: FitJob, train: list[str], preprocess: Preprocess) -> Frozen:
        recipe = job.recipe
        late = recipe.model.name == "late"
        model = recipe.model
        components = (model.name, model.rna_components, model.tile_components)
        key = (id(preprocess), tuple(train), late, recipe.has_base, recipe.inputs, components)
        if key not in self._kept_frozen:
            self._kept_frozen[key] = fit_frozen(recipe, train, preprocess, self.cohort, self.bags)
        return self._kept_frozen[key]

    def _preprocess(self, job: FitJob, train: list[str]) -> Preprocess:
        recipe = job.recipe
        of_loss = (recipe.fit.loss == "nll", recipe.fit.nll_bins)
        of_sets = (recipe.model.name == "co-attention", recipe.model.gene_sets, recipe.model.least_genes)
        key = (tuple(train), recipe.rna, recipe.clinical, recipe.inputs, of_loss, of_sets)
        if key not in self._scales:
            slides = slides_of(self.cohort, self.bags) if recipe.needs_tiles else {}
            self._scales[key] = fit_scales(recipe, train, self.cohort, self.bags, slides)
        return self._scales[key]


def _passes(networks: Sequence[Network]) -> list[list[Network]]:
    """Networks that see the same bags together, up to the memory of one pass."""
    alike: dict[Any, list[Network]] = {}
    for network in networks:
        recipe = network.recipe
        key = (recipe.bags, recipe.fit.batch_size, recipe.fit.data_seed, recipe.needs_tiles)
        alike.setdefault(key, []).append(network)
    passes = []
    for group in alike.values():
        room, together = 0, list[Network]()
        for network in group:
            size = _bytes_of(network)
            if together and size > room:
                passes.append(together)
                room, together = 0, []
            if not together:
                room = MOST_BYTES
            room -= size
            together.append(network)
        passes.append(together)
    return passes


def _bytes_of(network: Network) -> int:
    """What a network needs in training: its parameters five times (gradient, two moments, the best), its RNA thrice,
    and what it asks of each bag and is answered, with gradients and copies."""
    dims, model = dims_of(network.recipe, network.preprocess), network.recipe.model
    parameters = n_parameters(model, dims)
    seen = len(network.train) + len(network.validation)
    vectors = 8 * (model.heads if model.name == "cross-attention" else 1)
    return 4 * (5 * parameters + seen * (3 * (dims.genes + dims.clinical) + vectors * dims.features))


def _result(courses: Sequence[Any]) -> Fitted | FitFailed:
    failed = [course.failed for course in courses if course.failed]
    if failed:
        return FitFailed(error=ConfigError(failed[0]))
    first = courses[0].network
    rows = [{"seed": course.network.seed, **row} for course in courses for row in course.judge.history]
    skipped = max(row["skipped_batches"] for row in rows)
    if skipped:  # as many in every epoch: there are fewer deaths than batches
        logger.warning("%d batches without a death are skipped in every epoch.", skipped)
    return Fitted(
        model=model_of([course.judge.best for course in courses], first),
        preprocess=first.preprocess,
        history=pd.DataFrame(rows),
        best_epoch=tuple(course.judge.best_epoch for course in courses),
    )


def _part(split: Split, part: Literal["train", "validation"], cohort: Cohort, known: set[str]) -> list[str]:
    """The part's cases that can be used, sorted; the part must have a death."""
    cases = sorted(split.cases(part))
    strangers = [case for case in cases if case not in cohort.cases.index]
    if strangers:
        raise SplitError(
            f"The split's {part} part names {len(strangers)} cases the cohort does not have, the first "
            f"{strangers[0]!r}. Use the split that was made for this cohort."
        )
    cases = [case for case in cases if case in known]
    events = int(cohort.cases.loc[cases, "event"].sum())
    if len(cases) < 2 or not events:
        need = "nothing can be learnt" if part == "train" else "the best epoch cannot be told"
        raise SplitError(
            f"The {part} part has {len(cases)} usable patients and {events} deaths: {need}. "
            "Take another split.seed, larger split.fractions for it, or fewer folds."
        )
    return cases
