"""Many models in one pass are the same as each alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mmsurv.errors import ConfigError, RunError
from mmsurv.split import Split
from mmsurv_train import fit as fit_module
from mmsurv_train.bags import Bags
from mmsurv_train.checkpoint import Checkpoint
from mmsurv_train.cox import neg_log_partial_likelihood
from mmsurv_train.fit import FitFailed, FitJob, fit, fit_many
from mmsurv_train.passes import Pass
from mmsurv_train.predict import predict
from mmsurv_train.recipe import BagSettings, ClinicalSettings, FitSettings, ModelSettings, TrainRecipe

PATIENTS, GENES, DIM = 30, 7, 6


@dataclasses.dataclass
class Cohort:
    """As much of a cohort as fitting asks for."""

    cases: pd.DataFrame
    rna: pd.DataFrame
    slides: pd.DataFrame


@pytest.fixture(scope="module")
def cohort():
    rng = np.random.default_rng(1)
    names = pd.Index([f"case-{i:02d}" for i in range(PATIENTS)], name="case_id")
    time = np.round(rng.exponential(20, PATIENTS) + 1, 1)
    time[3] = time[8]  # tied deaths
    cases = pd.DataFrame({"time": time, "event": rng.integers(0, 3, PATIENTS) > 0}, index=names)
    cases.loc[names[[3, 8]], "event"] = True
    cases["age"], cases["grade"] = rng.normal(50, 9, PATIENTS), rng.choice(["II", "III", "IV"], PATIENTS)
    rna = pd.DataFrame(rng.normal(size=(PATIENTS, GENES)), index=names, columns=list("ABCDEFG"))
    rna.iloc[:, 6] = 0.0
    rna.iloc[0, 6] = 1.0  # varies only where case 0 trains: networks of different numbers of genes
    owners = [*names, *names[:12]]
    slides = pd.DataFrame({"slide_id": [f"s{i:02d}" for i in range(len(owners))], "case_id": owners})
    return Cohort(cases, rna, slides)


@pytest.fixture(scope="module")
def bags(cohort):
    rng = np.random.default_rng(2)
    lengths = dict(zip(cohort.slides["slide_id"], rng.integers(1, 40, len(cohort.slides)), strict=True))
    features = {name: rng.normal(size=(n, DIM)).astype(np.float32) for name, n in lengths.items()}
    return Bags.from_arrays(features, coords={name: rng.integers(0, 9, (n, 2)) for name, n in lengths.items()})


def splits(cohort, n=3):
    names = cohort.cases.index
    fold = np.arange(PATIENTS) % n
    found = []
    for k in range(n):
        parts = pd.Series(np.where(fold == k, "test", "train"), index=names)
        parts[names[(fold != k) & (np.arange(PATIENTS) % 4 == 3)]] = "validation"
        found.append(Split(parts))
    return found


def recipe(*, name="cross-attention", bags=None, model=None, clinical=(), **options):
    settings = {"name": name, "dim": 8, "query_hidden": 5, "rna_widths": (4,), **(model or {})}
    return TrainRecipe(
        model=ModelSettings(**settings),
        bags=BagSettings(**(bags or {})),
        clinical=ClinicalSettings(columns=clinical, rare=1),
        fit=FitSettings(**{"epochs": 3, "patience": 0, "learning_rate": 0.01, "device": "cpu", **options}),
    )


def jobs_of(cohort, recipes):
    return [FitJob(recipe=one, split=split) for one in recipes for split in splits(cohort)]


CLINICAL = ("age", "grade")
ON_A_BASE = {"base": "ridge", "query": "linear", "rna_components": 2, "tile_components": 3}
SETS = str(Path(__file__).parent / "sets.gmt")
VARIANTS = {
    "all tiles": {},
    "heads and attention dropout": {"model": {"heads": 2, "attention_dropout": 0.4, "query": "linear"}},
    "bags of 5": {"bags": {"size": 5}},
    "batches of slides": {"bags": {"size": 5, "unit": "slide"}, "batch_size": 8},
    "first tiles, predicted so": {"bags": {"size": 3, "redraw": False, "at_prediction": "size"}},
    "breslow": {"loss": "cox-breslow"},
    "patience": {"patience": 2, "epochs": 9},
    "joint": {"name": "joint"},
    "joint of one tile": {"name": "joint", "bags": {"size": 1, "unit": "slide"}, "batch_size": 8},
    "wsi": {"name": "wsi-mean"},
    "rna": {"name": "rna"},
    "on a base": {"model": {**ON_A_BASE, "attention_dropout": 0.4}, "clinical": CLINICAL, "image_loss": 0.5},
    "joint on a base": {"name": "joint", "model": {"base": "ridge"}, "select": "last"},
    "clinical": {"name": "clinical", "clinical": CLINICAL},
    "hazards of intervals": {"loss": "nll", "nll_bins": 3},
    "early": {"name": "early", "clinical": CLINICAL, "model": {"hidden_widths": (5,)}},
    "genomic-cnn": {"name": "genomic-cnn", "model": {"hidden_widths": (5,)}},
    "abmil": {"name": "abmil", "model": {"attention_hidden": 4, "attention_dropout": 0.4}},
    "tanh": {"name": "tanh-cross-attention", "model": {"attention_hidden": 4, "attention_dropout": 0.4}},
    "graph": {"name": "patch-gcn", "model": {"attention_hidden": 4, "graph_layers": 2, "neighbours": 3}},
    "who may lack something": {"model": {"modality_dropout": 0.3}, "clinical": CLINICAL},
    "abmil, who may lack something": {"name": "abmil", "model": {"modality_dropout": 0.3, "inputs": ("wsi", "rna")}},
    "abmil on a base": {
        "name": "abmil", "model": {"base": "ridge", "inputs": ("wsi", "rna"), "attention_dropout": 0.4},
        "select": "last", "image_loss": 0.5,
    },
    "abmil, hazards of intervals": {"name": "abmil", "loss": "nll", "nll_bins": 3},
    "gene sets": {"name": "co-attention", "model": {"gene_sets": SETS, "least_genes": 1, "attention_dropout": 0.4}},
    "gene sets, who may lack something": {
        "name": "co-attention", "model": {"gene_sets": SETS, "least_genes": 1, "modality_dropout": 0.3},
    },
    "tanh, who may lack something": {"name": "tanh-cross-attention", "model": {"modality_dropout": 0.3}},
    "early without tiles": {"name": "early", "clinical": CLINICAL, "model": {"inputs": ("rna", "clinical")}},
    "late": {"name": "late", "clinical": CLINICAL},
}  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_m_models_in_one_pass_equal_m_runs(name, cohort, bags):
    """Folds, seeds, learning rates, dropouts and penalties beside one another; stopping at different epochs."""
    variant = VARIANTS[name]
    model = variant.get("model", {})
    recipes = [
        recipe(**{**variant, "n_seeds": 2}),
        recipe(**{**variant, "seed": 7, "learning_rate": 0.03, "weight_decay": 0.1,
                  "model": {**model, "dropout": 0.5, "rna_dropout": 0.2}}),
    ]  # fmt: skip
    together = fit_many(jobs_of(cohort, recipes), cohort, bags, dtype=torch.float64)
    for job, in_company in zip(jobs_of(cohort, recipes), together, strict=True):
        for seed in range(job.recipe.fit.n_seeds):
            own = dataclasses.replace(job.recipe.fit, n_seeds=1, seed=job.recipe.fit.seed + seed)
            alone = FitJob(recipe=dataclasses.replace(job.recipe, fit=own), split=job.split)
            (single,) = fit_many([alone], cohort, bags, dtype=torch.float64)
            assert single.best_epoch[0] == in_company.best_epoch[seed]
            history = in_company.history[in_company.history["seed"] == own.seed].reset_index(drop=True)
            pd.testing.assert_frame_equal(single.history, history, rtol=1e-8, atol=1e-10)
            for key, value in single.model.state_dict().items():
                torch.testing.assert_close(
                    value, in_company.model.state_dict()[key][seed : seed + 1], rtol=1e-8, atol=1e-8
                )


@pytest.mark.parametrize(("dtype", "epochs", "least"), [(torch.float64, 50, 1e-8), (torch.float32, 10, 1e-4)])
def test_after_many_steps_they_are_still_the_same(cohort, bags, dtype, epochs, least):
    """One step an epoch. The losses of the last epoch are compared: they depend on every step before."""
    this = recipe(epochs=epochs, n_seeds=2, model={"attention_dropout": 0.2})
    jobs = jobs_of(cohort, [this])
    together = fit_many(jobs, cohort, bags, dtype=dtype)
    for job, in_company in zip(jobs, together, strict=True):
        one = dataclasses.replace(this, fit=dataclasses.replace(this.fit, n_seeds=1, seed=1))
        (alone,) = fit_many([FitJob(recipe=one, split=job.split)], cohort, bags, dtype=dtype)
        mine = in_company.history[in_company.history["seed"] == 1].reset_index(drop=True)
        assert len(mine) == epochs
        for column in ("loss", "validation_loss"):
            np.testing.assert_allclose(alone.history[column], mine[column], rtol=least, atol=0)


@pytest.mark.parametrize("heads", [1, 2])
def test_folds_with_other_numbers_of_batches_share_a_pass(cohort, bags, heads):
    """The smaller one sits out the last step; it is no batch of its own that lacked a death. Also as another stack."""
    names = cohort.cases.index
    small, large = (
        Split(pd.Series(["train"] * n + ["validation"] * (24 - n) + ["test"] * 6, index=names)) for n in (16, 17)
    )
    jobs = [
        FitJob(recipe=recipe(batch_size=8), split=small),
        FitJob(recipe=recipe(batch_size=8, model={"heads": heads}), split=large),
    ]
    together = fit_many(jobs, cohort, bags, dtype=torch.float64)
    for job, in_company in zip(jobs, together, strict=True):
        (alone,) = fit_many([job], cohort, bags, dtype=torch.float64)
        pd.testing.assert_frame_equal(alone.history, in_company.history, rtol=1e-8)


def test_models_of_one_call_have_one_device(cohort, bags):
    jobs = [FitJob(recipe=recipe(device=device), split=splits(cohort)[0]) for device in ("cpu", "auto")]
    with pytest.raises(ConfigError, match=r"one fit\.device, not auto, cpu"):
        fit_many(jobs, cohort, bags)


def test_a_full_disk_at_a_checkpoint_is_said(cohort, bags, tmp_path, monkeypatch):
    import safetensors.torch
    from safetensors import SafetensorError

    def full(*_args, **_options):
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    checkpoint = Checkpoint(folder=tmp_path, identity="this", every_seconds=0)
    with pytest.raises(RunError, match=r"cannot be written \(No space left on device\). Free space there"):
        fit_many(jobs_of(cohort, [recipe()]), cohort, bags, checkpoint=checkpoint)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bag_settings", [{}, {"unit": "slide"}, {"size": 4, "at_prediction": "size"}])
def test_the_validation_loss_is_that_of_the_predicted_risks(cohort, bags, bag_settings):
    """Also where validation patients ride along with the next step: no dropout, the parameters that epoch left."""
    this = recipe(bags=bag_settings, epochs=6, model={"attention_dropout": 0.5})
    split = splits(cohort)[0]
    fitted = fit(this, cohort, bags, split)
    risks = predict(fitted, this, cohort, bags).cases.set_index("case_id")["risk"]
    cases = split.cases("validation")
    time, event = (torch.from_numpy(cohort.cases.loc[cases, name].to_numpy()) for name in ("time", "event"))
    loss = neg_log_partial_likelihood(torch.tensor(risks[cases].to_numpy()), time, event)
    row = fitted.history.set_index("epoch").loc[fitted.best_epoch[0]]
    assert row["validation_loss"] == pytest.approx(loss.item(), rel=1e-5)


def test_one_network_that_runs_away_does_not_touch_the_others(cohort, bags):
    wild = recipe(learning_rate=1e30)
    jobs = jobs_of(cohort, [recipe(n_seeds=2), wild])
    results = fit_many(jobs, cohort, bags)
    alone = fit_many(jobs[:3], cohort, bags)
    for k in range(3):
        assert isinstance(results[3 + k], FitFailed)
        assert "stopped being finite (seed 0). Lower fit.learning_rate (1e+30)" in str(results[3 + k].error)
        np.testing.assert_allclose(results[k].history["loss"], alone[k].history["loss"], rtol=1e-5)


def test_networks_of_other_bag_settings_make_passes_of_their_own(cohort, bags):
    jobs = jobs_of(cohort, [recipe(), recipe(bags={"size": 2}), recipe(name="rna")])
    results = fit_many(jobs, cohort, bags)
    for k in (0, 3, 6):
        (alone,) = fit_many([jobs[k]], cohort, bags)
        np.testing.assert_allclose(results[k].history["loss"], alone.history["loss"], rtol=1e-5)


def test_a_pass_holds_no_more_networks_than_its_memory(cohort, bags, monkeypatch):
    jobs = jobs_of(cohort, [recipe(n_seeds=2)])
    whole = fit_many(jobs, cohort, bags, dtype=torch.float64)
    made = []

    def counted(networks, *args, **options):
        made.append(len(networks))
        return Pass(networks, *args, **options)

    monkeypatch.setattr(fit_module, "MOST_BYTES", 1)
    monkeypatch.setattr(fit_module, "Pass", counted)
    parts = fit_many(jobs, cohort, bags, dtype=torch.float64)
    assert made == [1] * 6
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one.history["validation_loss"], other.history["validation_loss"], rtol=1e-8)


class KilledError(Exception):
    pass


@pytest.mark.parametrize("name", ["heads and attention dropout", "batches of slides", "patience", "joint"])
def test_a_killed_pass_goes_on_to_the_same_bits(cohort, bags, tmp_path, name):
    jobs = jobs_of(cohort, [recipe(**{**VARIANTS[name], "n_seeds": 2, "epochs": 7})])
    expected = fit_many(jobs, cohort, bags)
    checkpoint = Checkpoint(folder=tmp_path / "state", identity="this", every_seconds=0)

    def kill(_job, row):
        if row["epoch"] == 4:
            raise KilledError

    with pytest.raises(KilledError):
        fit_many(jobs, cohort, bags, checkpoint=checkpoint, on_epoch=kill)
    seen = []
    found = fit_many(jobs, cohort, bags, checkpoint=checkpoint, on_epoch=lambda _job, row: seen.append(row["epoch"]))
    assert min(seen) >= 3
    again = fit_many(jobs, cohort, bags, checkpoint=checkpoint, on_epoch=lambda *_: pytest.fail("it was finished"))
    for one, other, third in zip(expected, found, again, strict=True):
        pd.testing.assert_frame_equal(one.history, other.history, check_exact=True)
        pd.testing.assert_frame_equal(one.history, third.history, check_exact=True)
        for key, value in one.model.state_dict().items():
            assert torch.equal(value, other.model.state_dict()[key])
            assert torch.equal(value, third.model.state_dict()[key])


def test_a_checkpoint_of_other_work_or_a_damaged_one_is_refused(cohort, bags, tmp_path):
    jobs = jobs_of(cohort, [recipe(epochs=1)])
    checkpoint = Checkpoint(folder=tmp_path, identity="this", every_seconds=0)
    fit_many(jobs, cohort, bags, checkpoint=checkpoint)
    other = dataclasses.replace(checkpoint, identity="that")
    with pytest.raises(RunError, match=r"pass-0.safetensors was left by a training of other settings.*Delete"):
        fit_many(jobs, cohort, bags, checkpoint=other)
    (tmp_path / "pass-0.safetensors").write_bytes(b"half")
    with pytest.raises(RunError, match=r"pass-0.safetensors is no checkpoint.*Delete"):
        fit_many(jobs, cohort, bags, checkpoint=checkpoint)


@pytest.mark.parametrize("unit", ["case", "slide"])
@pytest.mark.parametrize("name", ["joint", "cross-attention", "abmil"])
def test_patients_without_slides_train_and_validate_on_what_they_have(cohort, bags, name, unit):
    """As many bags as patients, though one has two and one has none: what is judged is still each patient's own."""
    lacking = [case for part in ("train", "validation") for case in splits(cohort)[0].cases(part)[:2]]
    slides = cohort.slides[~cohort.slides["case_id"].isin(lacking)]
    model = {"modality_dropout": 0.3, "inputs": ("wsi", "rna")}
    this = recipe(name=name, model=model, bags={"unit": unit}, epochs=2)
    holed = dataclasses.replace(cohort, slides=slides)
    fitted = fit(this, holed, bags, splits(cohort)[0])
    risks = predict(fitted, this, holed, bags).cases.set_index("case_id")["risk"]
    validation = sorted(splits(cohort)[0].cases("validation"))
    outcomes = cohort.cases.loc[validation]
    loss = neg_log_partial_likelihood(
        torch.from_numpy(risks[validation].to_numpy()),
        torch.from_numpy(outcomes["time"].to_numpy()),
        torch.from_numpy(outcomes["event"].to_numpy()),
    )
    best = fitted.history.set_index("epoch").loc[fitted.best_epoch[0], "validation_loss"]
    assert best == pytest.approx(loss.item(), rel=1e-4)


def test_one_job_that_cannot_be_fitted_stops_no_other(cohort, bags, tmp_path):
    (tmp_path / "alien.gmt").write_text("one\t-\tX\tY\n")
    alien = recipe(name="co-attention", model={"gene_sets": str(tmp_path / "alien.gmt"), "least_genes": 1}, epochs=1)
    first, *_ = splits(cohort)
    bad, good = fit_many(
        [FitJob(recipe=alien, split=first), FitJob(recipe=recipe(epochs=1), split=first)], cohort, bags
    )
    assert isinstance(bad, FitFailed)
    assert isinstance(good.history, pd.DataFrame)


@pytest.mark.parametrize("inputs", [("wsi",), ("rna",)])
def test_late_fusion_of_one_modality_is_its_score(cohort, bags, inputs):
    this = recipe(name="late", model={"inputs": inputs})
    assert np.isfinite(predict(fit(this, cohort, bags, splits(cohort)[0]), this, cohort, bags).cases["risk"]).all()
