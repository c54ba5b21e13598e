"""What each model is made of; what holds for all of them is in tests/contract/test_models.py."""

from __future__ import annotations

import pytest
import torch

from mmsurv_train.dims import Dims
from mmsurv_train.layers import Dropout, Linear
from mmsurv_train.models import build_model
from mmsurv_train.recipe import ModelSettings

GENES, DIM = 5, 4


def build(**settings):
    return build_model(ModelSettings(**settings), Dims(features=DIM, genes=GENES), seeds=[0]).eval()


def linear_shapes(module):
    return [tuple(part.weight.shape[1:]) for part in module.modules() if isinstance(part, Linear)]


@pytest.fixture
def rna():
    return torch.randn(2, GENES, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def bags():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, DIM, generator=generator) for n in (6, 3)]


def test_joint_fusion_is_steyaerts_network():
    model = build(name="joint", rna_widths=(4096, 2048), rna_dropout=0.5, dropout=0.8)
    rna = [type(layer).__name__ for layer in model.beside.rna.layers]
    assert rna == ["Dropout", "Linear", "ReLU", "Dropout", "Linear"]
    assert linear_shapes(model) == [(4096, GENES), (2048, 4096), (1, DIM + 2048)]
    assert [layer.rates for layer in model.modules() if isinstance(layer, Dropout)] == [(0.5,), (0.5,), (0.8,)]


def test_the_papers_cross_attention_is_linear_up_to_the_softmax():
    model = build(name="cross-attention", query="linear", head="image", dim=8)
    assert isinstance(model.query, Linear)
    assert linear_shapes(model) == [(8, GENES), (8, DIM), (8, DIM), (1, 8)]


def test_the_default_cross_attention_also_shows_rna_to_the_head():
    model = build(name="cross-attention", dim=8, query_hidden=3, rna_widths=(6,))
    assert linear_shapes(model.query) == [(3, GENES), (8, 3)]
    assert linear_shapes(model.head) == [(1, 8 + 6)]


def test_without_rna_widths_the_head_sees_the_genes():
    assert linear_shapes(build(name="rna", rna_widths=())) == [(1, GENES)]


def test_cross_attention_weighs_tiles_by_rna(bags, rna):
    model = build(name="cross-attention", dim=8)
    weights, others = model.attention(bags, rna), model.attention(bags, rna.flip(0))
    assert [tuple(weight.shape) for weight in weights] == [(1, 1, 6), (1, 1, 3)]
    assert not torch.allclose(weights[0], others[0])


@pytest.mark.parametrize("name", ["joint", "wsi-mean", "rna"])
def test_models_without_attention_say_so(bags, rna, name):
    with pytest.raises(ValueError, match="it has no attention to show"):
        build(name=name).attention(bags, rna)


@pytest.mark.parametrize("name", ["joint", "wsi-mean"])
def test_mean_pooling_takes_a_bags_mean_for_the_bag(bags, rna, name):
    model = build(name=name)
    model.standardise_by(torch.full((DIM,), 0.4), torch.full((DIM,), 2.0))
    means = [bag.mean(0, keepdim=True) for bag in bags]
    torch.testing.assert_close(model(bags, rna), model(means, rna))


@pytest.mark.parametrize(("name", "what"), [("joint", "RNA"), ("cross-attention", "RNA"), ("rna", "RNA")])
def test_missing_rna_is_said(bags, name, what):
    with pytest.raises(ValueError, match=f"this model needs {what}"):
        build(name=name)(bags, None)


@pytest.mark.parametrize("name", ["joint", "wsi-mean", "cross-attention"])
def test_missing_or_wrong_bags_are_said(rna, name):
    model = build(name=name)
    with pytest.raises(ValueError, match="this model needs bags"):
        model(None, rna)
    with pytest.raises(ValueError, match="bag 1"):
        model([torch.zeros(2, DIM), torch.zeros(0, DIM)], rna)
    with pytest.raises(ValueError, match="bag 0"):
        model([torch.zeros(2, DIM + 1), torch.zeros(2, DIM + 1)], rna)
