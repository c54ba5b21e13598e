"""Scales of RNA and features: fitted on the training part, applied by gene name, stored exactly."""

from __future__ import annotations

import json
import logging

import numpy as np
import pandas as pd
import pytest

from mmsurv.errors import CohortError, RunError
from mmsurv_train.preprocess import Preprocess
from mmsurv_train.recipe import RnaSettings

PLAIN = RnaSettings(clip=0)


@pytest.fixture
def rna():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(5, 3, (40, 4)), columns=["TP53", "IDH1", "EGFR", "ATRX"])
    return table.rename_axis("case_id")


def test_training_patients_come_out_with_mean_zero_and_unit_sd(rna):
    scaled = Preprocess.fit(rna, PLAIN).rna(rna)
    assert (scaled.dtype, scaled.shape) == (np.float32, (40, 4))
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.std(0), 1, rtol=1e-6)


def test_other_patients_are_scaled_by_the_training_part(rna):
    fitted = Preprocess.fit(rna.iloc[:20], PLAIN)
    expected = (rna.iloc[20:] - rna.iloc[:20].mean()) / rna.iloc[:20].std(ddof=0)
    np.testing.assert_allclose(fitted.rna(rna.iloc[20:]), expected, rtol=1e-5)


def test_genes_are_found_by_name_not_by_place(rna):
    fitted = Preprocess.fit(rna, PLAIN)
    elsewhere = rna[["ATRX", "EGFR", "TP53", "IDH1"]].assign(extra=1.0)
    np.testing.assert_array_equal(fitted.rna(elsewhere), fitted.rna(rna))


def test_missing_genes_are_named(rna):
    fitted = Preprocess.fit(rna, PLAIN)
    with pytest.raises(CohortError, match="2 of the model's 4 genes are not in the RNA table, the first 'EGFR'"):
        fitted.rna(rna[["TP53", "ATRX"]])


@pytest.mark.parametrize("settings", [PLAIN, RnaSettings()])
def test_genes_that_do_not_vary_in_training_are_dropped(rna, settings, caplog):
    rna = rna.iloc[:37]
    assert np.full(37, 0.1).var() > 0  # rounding: of 37 patients with 0.1 each, numpy's variance is not zero
    table = rna.assign(flat=0.1, empty=np.nan)
    with caplog.at_level(logging.WARNING, logger="mmsurv"):
        fitted = Preprocess.fit(table, settings)
    assert fitted.genes == ("TP53", "IDH1", "EGFR", "ATRX")
    assert fitted.dropped_genes == ("empty", "flat")
    assert "2 of 6 genes do not vary" in caplog.text


def test_min_variance_drops_genes_that_hardly_vary(rna):
    table = rna.assign(quiet=rna["TP53"] * 0.01)
    assert Preprocess.fit(table, RnaSettings(min_variance=0.1)).dropped_genes == ("quiet",)
    assert "quiet" in Preprocess.fit(table, RnaSettings()).genes


def test_a_table_in_which_nothing_varies_is_refused(rna):
    with pytest.raises(CohortError, match="None of the 4 genes varies among the 40 training patients"):
        Preprocess.fit(rna * 0, RnaSettings())


def test_missing_values_become_the_training_median(rna):
    fitted = Preprocess.fit(rna, PLAIN)
    patient = rna.iloc[:1].assign(IDH1=np.nan)
    expected = rna.iloc[:1].assign(IDH1=rna["IDH1"].median())
    np.testing.assert_array_equal(fitted.rna(patient), fitted.rna(expected))
    holed = rna.copy()
    holed.iloc[::3, 0] = np.nan
    assert np.isfinite(Preprocess.fit(holed, RnaSettings()).rna(holed)).all()


def test_one_wild_value_does_not_squeeze_the_others(rna):
    wild = rna.copy()
    wild.iloc[0, 0] = 1e6
    clipped = Preprocess.fit(wild, RnaSettings(clip=5.0)).rna(wild)[:, 0]
    assert clipped[1:].std() > 0.5
    assert 2 < clipped[0] < 8
    assert Preprocess.fit(wild, PLAIN).rna(wild)[1:, 0].std() < 1e-3


def test_a_gene_that_is_mostly_zero_is_kept():
    counts = pd.DataFrame({"rare": [0.0] * 36 + [1.0, 2.0, 3.0, 4.0]})
    scaled = Preprocess.fit(counts, RnaSettings()).rna(counts)
    assert np.ptp(scaled) > 1


def test_standardising_can_be_left_out(rna):
    fitted = Preprocess.fit(rna, RnaSettings(standardise=False, clip=0))
    np.testing.assert_allclose(fitted.rna(rna), rna, rtol=1e-6)


def test_dead_channels_are_floored():
    fitted = Preprocess.fit(None, PLAIN, features=(np.zeros(4), np.array([0.0, 1e-9, 2.0, 4.0])))
    np.testing.assert_allclose(fitted.feature_sd, [0.02, 0.02, 2, 4])
    assert Preprocess.fit(None, PLAIN, features=(np.ones(2), np.zeros(2))).feature_sd.tolist() == [1, 1]


@pytest.mark.parametrize("settings", [PLAIN, RnaSettings()])
def test_the_stored_table_gives_back_every_bit(rna, settings):
    features = (np.random.default_rng(1).normal(size=7), np.random.default_rng(2).random(7))
    fitted = Preprocess.fit(rna, settings, features=features)
    again = Preprocess.from_table(json.loads(json.dumps(fitted.to_table(), allow_nan=False)))
    np.testing.assert_array_equal(again.rna(rna), fitted.rna(rna))
    np.testing.assert_array_equal(again.feature_mean, fitted.feature_mean)
    np.testing.assert_array_equal(again.feature_sd, fitted.feature_sd)
    assert (again.genes, again.n_genes, again.feature_dim) == (fitted.genes, 4, 7)


def test_a_model_without_rna_has_no_genes():
    fitted = Preprocess.from_table(Preprocess.fit(None, PLAIN, features=(np.zeros(3), np.ones(3))).to_table())
    assert (fitted.n_genes, fitted.feature_dim) == (0, 3)


def test_a_cut_table_is_refused(rna):
    table = Preprocess.fit(rna, PLAIN).to_table()
    with pytest.raises(RunError, match="has no key 'median'"):
        Preprocess.from_table({key: value for key, value in table.items() if key != "median"})
    with pytest.raises(RunError, match="mean holds 3 numbers for 4 genes"):
        Preprocess.from_table({**table, "mean": table["mean"][:3]})
