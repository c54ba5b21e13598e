"""What every registered model promises."""

from __future__ import annotations

import copy
from typing import get_args

import pytest
import torch

from mmsurv_train.cox import neg_log_partial_likelihood
from mmsurv_train.dims import Dims
from mmsurv_train.models import build_model, model_names, narrow
from mmsurv_train.recipe import ModelName, ModelSettings

GENES, DIM, PATIENTS = 6, 5, 8

pytestmark = pytest.mark.parametrize("name", model_names())


def build(name, *, seed=0, **settings):
    settings = ModelSettings(name=name, dim=16, query_hidden=8, rna_widths=(7,), **settings)
    model = build_model(settings, Dims(features=DIM, genes=GENES), seeds=[seed])
    model.standardise_by(torch.full((DIM,), 0.2), torch.full((DIM,), 1.5))
    return model


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    bags = [torch.randn(n, DIM, generator=generator) for n in (4, 1, 30, 4, 9, 2, 4, 11)]
    return bags, torch.randn(PATIENTS, GENES, generator=generator)


def test_the_recipe_knows_the_name(name):
    assert name in get_args(ModelName)
    assert set(get_args(ModelName)) == set(model_names())


def test_one_risk_for_each_bag(name, inputs):
    risk = build(name).eval()(*inputs)
    assert (risk.shape, risk.dtype) == ((1, PATIENTS), torch.float32)
    assert torch.isfinite(risk).all()


def test_permuting_tiles_keeps_the_risk(name, inputs):
    bags, rna = inputs
    model = build(name).eval()
    torch.testing.assert_close(model([bag.flip(0) for bag in bags], rna), model(bags, rna))


def test_a_patients_risk_does_not_depend_on_who_else_is_scored(name, inputs):
    bags, rna = inputs
    model = build(name).eval()
    together = model(bags, rna)
    alone = torch.cat([model([bag], rna[i : i + 1]) for i, bag in enumerate(bags)], 1)
    torch.testing.assert_close(together, alone)


def test_half_precision_bags_are_taken_as_they_are(name, inputs):
    bags, rna = inputs
    model = build(name).eval()
    half = [bag.half() for bag in bags]
    torch.testing.assert_close(model(half, rna), model([bag.float() for bag in half], rna))


def test_initialisation_is_the_seeds_alone(name):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = build(name, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    again, other = build(name, seed=5), build(name, seed=6)
    pairs = list(zip(first.parameters(), again.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert any(not torch.equal(a, c) for a, _, c in pairs)


def test_every_parameter_learns(name, inputs):
    model = build(name, dropout=0.0, rna_dropout=0.0).train()
    time = torch.arange(1.0, PATIENTS + 1)
    neg_log_partial_likelihood(model(*inputs)[0], time, torch.ones(PATIENTS)).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        if not parameter_name.endswith("value.bias") and not parameter_name.endswith("rna.1.bias"):
            assert parameter.grad.abs().sum() > 0, parameter_name  # those two shift all risks alike


def test_saved_state_holds_all_that_scores(name, inputs):
    """Also the feature scales: a model is whole with its state."""
    model = build(name, seed=0).eval()
    settings = ModelSettings(name=name, dim=16, query_hidden=8, rna_widths=(7,))
    fresh = build_model(settings, Dims(features=DIM, genes=GENES), seeds=[9]).eval()
    fresh.load_state_dict(copy.deepcopy(model.state_dict()))
    assert torch.equal(fresh(*inputs), model(*inputs))


def test_networks_side_by_side_are_each_as_if_alone(name, inputs):
    settings = ModelSettings(name=name, dim=16, query_hidden=8, rna_widths=(7,))
    together = build_model(settings, Dims(features=DIM, genes=GENES), seeds=[5, 6, 7])
    risks = together.eval()(*inputs)
    for m, seed in enumerate([5, 6, 7]):
        alone = build_model(settings, Dims(features=DIM, genes=GENES), seeds=[seed]).eval()
        torch.testing.assert_close(alone(*inputs)[0], risks[m])


def test_leaving_some_networks_leaves_them_as_they_were(name, inputs):
    settings = ModelSettings(name=name, dim=16, query_hidden=8, rna_widths=(7,))
    model = build_model(settings, Dims(features=DIM, genes=GENES), seeds=[5, 6, 7]).eval()
    before = model(*inputs)
    narrow(model, [0, 2])
    torch.testing.assert_close(model(*inputs), before[[0, 2]])
    assert (model.networks, model.noise.seeds) == (2, (5, 7))
    assert all(len(parameter) == 2 and parameter.requires_grad for parameter in model.parameters())


def test_dropout_is_each_networks_own(name, inputs):
    """It comes from seed and step, whoever else is trained; and leaves alone those who are only scored."""
    settings = ModelSettings(name=name, dim=16, query_hidden=8, rna_widths=(7,), dropout=0.5)

    def risks(seeds, step):
        model = build_model(settings, Dims(features=DIM, genes=GENES), seeds=seeds).train()
        model.noise.begin(step, [5] * len(seeds))
        return model(*inputs)

    together = risks([5, 6], 3)
    torch.testing.assert_close(risks([6], 3)[0], together[1])
    assert not torch.allclose(risks([6], 4)[0], together[1])
    still = build_model(settings, Dims(features=DIM, genes=GENES), seeds=[6]).eval()(*inputs)[0]
    torch.testing.assert_close(together[1, 5:], still[5:])
    assert not torch.allclose(together[1, :5], still[:5])
