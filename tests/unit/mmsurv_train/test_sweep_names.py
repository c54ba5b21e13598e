"""Names of settings and configurations."""

from __future__ import annotations

import re

import pytest

from mmsurv_train.sweep.names import LONGEST, configuration_names, label, short_names


def names(*combinations, default="default"):
    return configuration_names(combinations, default=default)


def test_a_configuration_is_called_by_its_row_and_its_settings() -> None:
    grid = {"fit.learning_rate": 1e-3, "model.dropout": 0.25}
    assert names((None, grid)) == ["learning_rate=0.001,dropout=0.25"]
    assert names(("small", grid)) == ["small,learning_rate=0.001,dropout=0.25"]
    assert names((None, {})) == ["default"]


def test_settings_are_called_as_their_options_are_and_in_full_where_two_would_clash() -> None:
    assert short_names(["bags.size", "model.name", "rna.clip"]) == {
        "bags.size": "bag_size", "model.name": "model", "rna.clip": "clip",
    }  # fmt: skip
    assert short_names(["fit.seed", "split.seed", "evaluate.seed"]) == {
        "fit.seed": "fit.seed", "split.seed": "split_seed", "evaluate.seed": "evaluate.seed",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("fit.learning_rate", 0.001, "0.001"),
        ("fit.learning_rate", 1e-5, "1e-05"),
        ("model.dropout", 0.0, "0"),
        ("model.dropout", 0.1234567890123, "0.1234567890123"),
        ("bags.size", 0, "all"),
        ("fit.batch_size", 0, "all"),
        ("fit.patience", 0, "0"),
        ("bags.redraw", True, "true"),
        ("model.rna_widths", [64, 32], "64+32"),
        ("model.rna_widths", [], "none"),
        ("split.fold", None, "–"),
    ],
)
def test_values_are_written_for_people(key, value, text) -> None:
    assert label(key, value) == text


def test_a_name_that_no_folder_can_have_is_changed_and_ends_in_a_digest() -> None:
    (name,) = names(("../a b", {}))
    assert re.fullmatch(r"a-b-[0-9a-f]{8}", name)


def test_long_names_and_names_that_clash_without_case_stay_unique() -> None:
    long = "x" * 200
    found = names((f"{long}1", {}), (f"{long}2", {}), ("Row", {}), ("row", {}), ("other", {}))
    assert len({name.lower() for name in found}) == 5
    assert max(map(len, found)) <= LONGEST
    assert found[-1] == "other"
