"""What is fitted before networks are: principal components of RNA and of tiles."""

from __future__ import annotations

import numpy as np

from mmsurv_train.frozen import principal_components, tile_components

RNA = np.random.default_rng(0).normal(size=(30, 8)) * np.arange(1, 9) + 3


def test_components_of_rna_have_variance_1_and_are_uncorrelated_over_the_training_patients():
    scores = RNA @ principal_components(RNA, 4).T
    np.testing.assert_allclose(np.cov(scores.T, bias=True), np.eye(4), atol=1e-9)


def test_the_first_is_where_patients_differ_most():
    assert np.abs(principal_components(RNA, 1)[0] / (1 / RNA.std(0))).argmax() == 7


def test_their_sign_is_fixed_by_the_largest_weight():
    for component in principal_components(RNA, 4):
        assert component[np.abs(component).argmax()] > 0


def test_components_that_few_patients_cannot_have_are_0():
    found = principal_components(RNA[:3], 5)
    assert found.shape == (5, 8)
    assert not found[2:].any()
    assert found[:2].any(axis=1).all()


def test_components_of_tiles_are_in_units_of_the_firsts_spread():
    covariance = np.diag([9.0, 4.0, 1.0])
    found = tile_components(covariance, 2)
    np.testing.assert_allclose(found @ covariance @ found.T, np.diag([1.0, 4 / 9]), atol=1e-12)
