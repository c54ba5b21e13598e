"""A run computes to the same bits again, and other data or a changed run are noticed and named."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mmsurv.cohort import CohortOptions
from mmsurv.errors import CorruptRecordError, RunError
from mmsurv.store import create_store, open_store
from mmsurv_train import inputs, predict
from mmsurv_train import run as runs
from mmsurv_train.evaluate import evaluate
from mmsurv_train.inputs import Sources
from mmsurv_train.recipe import EvaluateSettings, FitSettings, ModelSettings, SplitSettings, TrainRecipe
from mmsurv_train.train import train

JOINT = TrainRecipe(
    model=ModelSettings(name="joint"),
    fit=FitSettings(epochs=3, device="cpu"),
    split=SplitSettings(fractions=(0.6, 0.2, 0.2)),
    evaluate=EvaluateSettings(n_bootstrap=20),
)
CROSS_VALIDATED = dataclasses.replace(
    JOINT, split=SplitSettings(n_folds=3), fit=dataclasses.replace(JOINT.fit, n_seeds=2)
)
RNA = dataclasses.replace(JOINT, model=ModelSettings(name="rna"))


def sources(study: Path, *, store: bool = True, rna: bool = True) -> Sources:
    cohort = CohortOptions(clinical=str(study / "clinical.csv"), rna=str(study / "rna.csv") if rna else None)
    return Sources(cohort=cohort, store=str(study / "store") if store else None)


@pytest.fixture(scope="module")
def trained(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data and two runs on them, the second an ensemble of two seeds in each of three folds; copied
    by tests that change it."""
    folder = tmp_path_factory.mktemp("trained")
    for name in ("clinical.csv", "rna.csv"):
        shutil.copy(study / name, folder / name)
    shutil.copytree(study / "store", folder / "store")
    train(JOINT, sources(folder), folder / "runs" / "joint", command="mmsurv train …")
    train(CROSS_VALIDATED, sources(folder), folder / "runs" / "cv", command="mmsurv train … --folds 3")
    return folder


@pytest.fixture
def changed(trained: Path, tmp_path: Path) -> Path:
    """A copy of everything in another place, to be changed; the originals are out of its reach by name."""
    folder = tmp_path / "moved"
    shutil.copytree(trained, folder)
    for config in folder.glob("runs/**/config.toml"):
        config.write_text(config.read_text().replace(str(trained), "/nowhere"))
    return folder


@pytest.mark.parametrize("name", ["joint", "cv"])
def test_a_run_computes_to_the_same_bits(trained: Path, name: str) -> None:
    found = evaluate(trained / "runs" / name)
    assert found.identical, found.differences
    assert found.metrics == runs.read_run(trained / "runs" / name).metrics


@pytest.mark.parametrize("name", ["joint", "cv"])
def test_a_folder_that_was_moved_with_its_data_still_evaluates(changed: Path, name: str, monkeypatch) -> None:
    monkeypatch.chdir("/")
    assert evaluate(changed / "runs" / name).identical


def test_data_in_another_place_are_said_by_option(changed: Path, tmp_path: Path) -> None:
    shutil.move(changed / "store", tmp_path / "features")
    shutil.move(changed / "rna.csv", tmp_path / "genes.csv")
    with pytest.raises(RunError, match=r"run's rna is neither at .*Say where with --rna"):
        evaluate(changed / "runs" / "joint")
    found = evaluate(changed / "runs" / "joint", store=str(tmp_path / "features"), rna=str(tmp_path / "genes.csv"))
    assert found.identical


def test_slides_that_came_later_do_not_matter(changed: Path) -> None:
    record = open_store(changed / "store").read("slide-00")
    store = open_store(changed / "store")
    attributes = {key: record.attributes[key] for key in ("mpp", "mpp_source")}
    store.write(dataclasses.replace(record, slide_id="later", attributes=attributes))
    assert evaluate(changed / "runs" / "joint").identical


def test_another_memory_budget_gives_the_same_bits(trained: Path) -> None:
    assert evaluate(trained / "runs" / "cv", memory=200_000).identical


def test_a_changed_risk_of_one_network_is_found(changed: Path) -> None:
    path = changed / "runs" / "cv" / "fold-2" / runs.CASE_PREDICTIONS
    cases = runs.read_csv(path)
    cases.loc[0, "risk_1"] += 1e-12
    runs.write_csv(path, cases)
    (difference,) = evaluate(changed / "runs" / "cv").differences
    assert f"risk_1 of {cases['case_id'][0]}: saved" in difference


@pytest.mark.parametrize("table", ["clinical", "rna"])
def test_a_table_that_changed_is_named(changed: Path, table: str) -> None:
    path = changed / f"{table}.csv"
    path.write_text(path.read_text() + "\n")
    with pytest.raises(RunError, match=f"the {table} table is not the one the run was made from"):
        evaluate(changed / "runs" / "joint")


def test_a_table_of_other_patients_is_named_before_it_is_joined(changed: Path) -> None:
    """Not the store, which would have no slide of theirs."""
    path = changed / "clinical.csv"
    path.write_text(path.read_text().replace("case-", "other-").replace("slide-", "elsewhere-"))
    with pytest.raises(RunError, match="the clinical table is not the one the run was made from"):
        evaluate(changed / "runs" / "joint")


def test_a_store_of_another_recipe_is_refused(changed: Path) -> None:
    old = open_store(changed / "store")
    new = create_store(changed / "other", recipe={"encoder": {"name": "resnet18", "weights": "random"}}, dim=8)
    own = {"slide_id", "recipe", "recipe_sha256", "row_order", "features_sha256", "record_sha256"}
    for slide_id in old.slide_ids():
        record = old.read(slide_id)
        kept = {key: value for key, value in record.attributes.items() if key not in own}
        new.write(dataclasses.replace(record, attributes=kept))
    with pytest.raises(RunError, match="the store was made by another recipe"):
        evaluate(changed / "runs" / "joint", store=str(changed / "other"))


def test_data_that_are_not_the_runs_are_refused_before_any_feature_is_read(changed: Path, monkeypatch) -> None:
    monkeypatch.setattr(inputs, "read_features", lambda *_, **__: pytest.fail("features were read"))
    path = changed / "rna.csv"
    path.write_text(path.read_text() + "\n")
    with pytest.raises(RunError, match="the rna table is not the one the run was made from"):
        evaluate(changed / "runs" / "cv")


def test_a_store_of_another_width_is_refused(changed: Path) -> None:
    """Its recipe and its records claim to be the run's: only the width tells."""
    old = open_store(changed / "store")
    new = create_store(changed / "wide", recipe=dict(old.recipe), dim=16)
    own = {"slide_id", "recipe", "recipe_sha256", "row_order", "features_sha256", "record_sha256"}
    digests = {}
    for slide_id in old.slide_ids():
        record = old.read(slide_id)
        kept = {key: value for key, value in record.attributes.items() if key not in own}
        new.write(dataclasses.replace(record, features=np.tile(record.features, 2), attributes=kept))
        digests[slide_id] = new.attributes(slide_id)["features_sha256"]
    path = changed / "runs" / "joint" / runs.PROVENANCE
    claimed = json.loads(path.read_text())
    claimed["digests"]["records"] = {name: digests[name] for name in claimed["digests"]["records"]}
    runs.write_json(path, claimed)
    with pytest.raises(RunError, match=r"the model takes 8 features per tile, and those of .*wide have 16.*--store"):
        evaluate(changed / "runs" / "joint", store=str(changed / "wide"))


def test_a_record_that_was_made_anew_is_named(changed: Path) -> None:
    store = open_store(changed / "store")
    record = store.read("slide-07")
    own = {"slide_id", "recipe", "recipe_sha256", "row_order", "features_sha256", "record_sha256"}
    kept = {key: value for key, value in record.attributes.items() if key not in own}
    store.record_path("slide-07").unlink()
    store.write(dataclasses.replace(record, features=record.features + record.features.dtype.type(1), attributes=kept))
    with pytest.raises(RunError, match=r"1 of \d+ slide records are not those the run was made from: slide-07"):
        evaluate(changed / "runs" / "joint")


def test_a_record_with_a_flipped_byte_is_refused(changed: Path) -> None:
    path = open_store(changed / "store").record_path("slide-07")
    data = bytearray(path.read_bytes())
    extent = open_store(changed / "store").read_extent(path)
    assert extent is not None
    data[extent.offset] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptRecordError, match="slide-07"):
        evaluate(changed / "runs" / "joint")


def test_a_record_that_is_gone_is_named(changed: Path) -> None:
    open_store(changed / "store").record_path("slide-07").unlink()
    with pytest.raises(RunError, match=r"store: 1 of the run's 53 slides are no longer there: slide-07\. .*--store"):
        evaluate(changed / "runs" / "joint")


def test_a_changed_prediction_is_found_with_both_numbers(changed: Path) -> None:
    path = changed / "runs" / "joint" / runs.PREDICTIONS
    slides = runs.read_csv(path)
    slides.loc[3, "risk"] += 1e-12
    runs.write_csv(path, slides)
    differences = evaluate(changed / "runs" / "joint").differences
    assert f"risk of {slides['slide_id'][3]}: saved {slides['risk'][3]}" in differences[0]
    assert len(differences) == 1


def test_a_changed_metric_is_found_by_its_field(changed: Path) -> None:
    path = changed / "runs" / "cv" / runs.METRICS
    metrics = json.loads(path.read_text())
    metrics["parts"]["out-of-fold"]["case"]["c_index"]["value"] = 0.99
    path.write_text(runs.json_text(metrics))
    (difference,) = evaluate(changed / "runs" / "cv").differences
    assert "parts.out-of-fold.case.c_index.value: saved 0.99" in difference


def test_a_changed_number_of_a_list_is_found_by_its_place(changed: Path) -> None:
    path = changed / "runs" / "cv" / runs.METRICS
    metrics = json.loads(path.read_text())
    metrics["parts"]["out-of-fold"]["case"]["calibration"][1]["groups"][0]["n"] = 77
    path.write_text(runs.json_text(metrics))
    (difference,) = evaluate(changed / "runs" / "cv").differences
    assert "parts.out-of-fold.case.calibration.1.groups.0.n: saved 77, computed" in difference


def test_a_missing_row_and_a_changed_baseline_are_found(changed: Path) -> None:
    folder = changed / "runs" / "joint"
    slides = runs.read_csv(folder / runs.PREDICTIONS)
    runs.write_csv(folder / runs.PREDICTIONS, slides.iloc[1:])
    (folder / runs.BASELINE).write_text("time\n")
    differences = "\n".join(evaluate(folder).differences)
    assert f"other rows than computed: {slides['slide_id'][0]}" in differences
    assert "baseline.csv: differs" in differences


@pytest.mark.parametrize("name", ["joint", "cv"])
def test_a_changed_survival_is_found_with_both_numbers(changed: Path, name: str) -> None:
    path = changed / "runs" / name / runs.SURVIVAL
    table = runs.read_csv(path)
    saved = table["survival_36"][2]
    table.loc[2, "survival_36"] = saved + 1e-9
    runs.write_csv(path, table)
    (difference,) = evaluate(changed / "runs" / name).differences
    assert f"survival_36 of {table['case_id'][2]}: saved {saved + 1e-9}, computed {saved}" in difference


def test_survival_follows_from_the_saved_risk_and_baseline_of_the_own_fold(trained: Path) -> None:
    run = runs.read_run(trained / "runs" / "cv")
    table, cases = run.survival, run.predictions.cases
    assert table["case_id"].tolist() == cases["case_id"].tolist()
    for k, fold in zip(run.config["folds"], run.folds(), strict=True):
        mine = (cases["fold"] == k).to_numpy()
        steps = fold.baseline[fold.baseline["time"] <= 12]["cumulative_hazard"].iloc[-1]
        expected = np.exp(-steps * np.exp(cases["raw_risk"][mine]))
        np.testing.assert_allclose(table["survival_12"][mine], expected, rtol=1e-12)
        own = fold.survival[fold.survival["part"] == "test"].set_index("case_id")["survival_12"]
        assert own.to_dict() == table[mine].set_index("case_id")["survival_12"].to_dict()


def test_changed_weights_give_other_risks_in_a_fold(changed: Path) -> None:
    fold = changed / "runs" / "cv" / "fold-1"
    state = runs.read_run(fold).weights()
    name = next(key for key, value in state.items() if value.ndim == 2)
    state[name] = state[name] + 0.1
    runs.write_weights(fold, state)
    differences = "\n".join(evaluate(changed / "runs" / "cv").differences)
    assert "fold-1/predictions.csv: risk of" in differences
    assert "fold-0/" not in differences
    assert "cv/predictions.csv: " in differences


def test_weights_of_another_model_are_refused(changed: Path) -> None:
    runs.write_weights(changed / "runs" / "joint", {"w": torch.ones(3)})
    with pytest.raises(RunError, match="the saved model does not fit its recipe"):
        evaluate(changed / "runs" / "joint")


def test_a_preprocess_without_its_keys_is_refused(changed: Path) -> None:
    (changed / "runs" / "joint" / runs.PREPROCESS).write_text("{}")
    with pytest.raises(RunError, match=r"preprocess\.json"):
        evaluate(changed / "runs" / "joint")


@pytest.mark.parametrize("name", ["joint", "cv"])
@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("slides", None, "the key slides is missing"),
        ("cases", [1], "cases must be a list of texts"),
        ("threads", 0, "threads must be a positive whole number, not 0"),
        ("digests", None, "the key digests is missing"),
        ("digests", {"records": []}, r"digests\.records must be a table"),
        ("device", 7, "device must be text"),
    ],
)
def test_a_damaged_provenance_is_named_with_its_key(changed: Path, name: str, key: str, value, message: str) -> None:
    path = changed / "runs" / name / runs.PROVENANCE
    record = json.loads(path.read_text())
    record.pop(key) if value is None else record.update({key: value})
    runs.write_json(path, record)
    with pytest.raises(RunError, match=rf"provenance\.json: {message}"):
        evaluate(changed / "runs" / name)


def test_a_run_says_its_device_and_a_difference_names_it(changed: Path) -> None:
    place = changed / "runs" / "joint"
    record = json.loads((place / runs.PROVENANCE).read_text())
    assert record["device"] == "cpu"
    runs.write_json(place / runs.PROVENANCE, {**record, "device": "cuda (NVIDIA H100)"})
    (place / runs.BASELINE).write_text("changed\n")
    assert "since the run: device cuda (NVIDIA H100) → cpu" in evaluate(place).differences


def test_a_run_is_computed_again_with_its_own_number_of_threads(changed: Path, monkeypatch) -> None:
    """Another number may sum in another order, and so change the last bit of a larger model."""
    before, seen, predict_many = torch.get_num_threads(), [], predict.predict_many

    def watched(*arguments):
        seen.append(torch.get_num_threads())
        return predict_many(*arguments)

    path = changed / "runs" / "joint" / runs.PROVENANCE
    record = json.loads(path.read_text())
    runs.write_json(path, {**record, "threads": before + 1})
    monkeypatch.setattr(predict, "predict_many", watched)
    assert evaluate(changed / "runs" / "joint").identical
    assert (seen, torch.get_num_threads()) == ([before + 1], before)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(study: Path, trained: Path, tmp_path: Path) -> None:
    train(JOINT, sources(study), tmp_path / "again", command="")
    other = dataclasses.replace(JOINT, fit=dataclasses.replace(JOINT.fit, seed=1))
    train(other, sources(study), tmp_path / "other", command="")
    first, again, differing = (
        (folder / runs.PREDICTIONS).read_bytes()
        for folder in (trained / "runs" / "joint", tmp_path / "again", tmp_path / "other")
    )
    assert first == again
    assert first != differing


def test_rna_alone_needs_no_store(study: Path, tmp_path: Path) -> None:
    run = train(RNA, sources(study, store=False), tmp_path / "run", command="")
    assert len(run.predictions.slides) == 53  # the clinical table lists them
    assert evaluate(tmp_path / "run").identical


def test_rna_alone_without_slides_has_only_the_case_level(study: Path, tmp_path: Path) -> None:
    table = pd.read_csv(study / "clinical.csv").drop(columns="slide_id").drop_duplicates("case_id")
    table.to_csv(tmp_path / "cases.csv", index=False)
    cohort = CohortOptions(clinical=str(tmp_path / "cases.csv"), rna=str(study / "rna.csv"))
    run = train(RNA, Sources(cohort=cohort), tmp_path / "run", command="")
    test = run.metrics["parts"]["test"]
    assert test["wsi"]["n"] == 0
    assert test["case"]["n"] > 0
    assert evaluate(tmp_path / "run").identical


def test_a_model_gets_only_the_cases_it_can_score(study: Path, trained: Path, tmp_path: Path) -> None:
    joint = runs.read_run(trained / "runs" / "joint")
    assert len(joint.provenance["cases"]) == 37  # of 40: two have no RNA, one has no slide
    assert joint.provenance["join"]["cases_without_what_the_model_needs"] == 3
    rna = train(RNA, sources(study), tmp_path / "rna", command="")
    assert len(rna.provenance["cases"]) == 38
    complete = dataclasses.replace(sources(study), complete_cases=True)
    same = train(RNA, complete, tmp_path / "complete", command="")
    assert same.provenance["cases"] == joint.provenance["cases"]


def test_a_run_made_without_a_store_takes_none(study: Path, tmp_path: Path) -> None:
    train(RNA, sources(study, store=False), tmp_path / "run", command="")
    with pytest.raises(RunError, match="was made without --store"):
        evaluate(tmp_path / "run", store=str(study / "store"))
