"""What every registered model promises."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from mmsurv_train.bags.neighbours import nearest
from mmsurv_train.blocks import ListedBags
from mmsurv_train.cox import neg_log_partial_likelihood
from mmsurv_train.dims import Dims
from mmsurv_train.floors import RidgeCox, Stacked
from mmsurv_train.floors.stacked import FittedStack, Part
from mmsurv_train.frozen import Frozen
from mmsurv_train.modalities import LOOKS, MODELS
from mmsurv_train.models import Known, build_model, model_names, narrow
from mmsurv_train.recipe import ModelSettings

GENES, DIM, PATIENTS, CLINICAL = 6, 5, 8, 3

pytestmark = pytest.mark.parametrize("name", model_names())


SETTINGS = {"dim": 16, "query_hidden": 8, "rna_widths": (7,), "attention_hidden": 6, "hidden_widths": (5,)}
DIMS = Dims(features=DIM, genes=GENES, clinical=CLINICAL, gene_sets=((0, 1), (2, 3, 4, 5)))


class Placed(ListedBags):
    """Bags whose tiles lie where their first two features say, so that a tile that moves in a bag keeps its place."""

    def neighbours(self, index, k):
        return torch.from_numpy(nearest(self.bags[index][:, :2].double().numpy(), k).astype("int64"))


def build(name, *, seeds=(0,), dims=DIMS, **settings):
    """A model with scales that are not those it is born with."""
    model = build_model(ModelSettings(name=name, **{**SETTINGS, **settings}), own_dims(name, dims), seeds=list(seeds))
    model.standardise_by(torch.full((DIM,), 0.2), torch.full((DIM,), 1.5))
    model.take_frozen(
        [Frozen(components=COMPONENTS, base=FittedStack(stack=STACK, out_of_fold=np.zeros(0)))] * len(seeds)
    )
    return model


def weights(n):
    model = RidgeCox(weight=np.linspace(-1, 1, n), shift=0.25, penalty=1.0)
    return Part(model=model, mean=0.5, sd=2.0, weight=0.75)


STACK = Stacked(parts={"wsi": weights(DIM), "rna": weights(GENES), "clinical": weights(CLINICAL)})
COMPONENTS = np.linspace(-1, 1, 2 * GENES).reshape(2, GENES)


def own_dims(name, dims):
    """What a model looks at unless told otherwise, and clinical variables."""
    own = {*LOOKS[name].own, "clinical"}
    return dataclasses.replace(
        dims,
        features=dims.features if "wsi" in own else 0,
        genes=dims.genes if "rna" in own else 0,
        base=dims.base or name == "late",
    )


def score(model, bags, rna, clinical):
    """Risks (M, B), with what the model looks at."""
    return model(Placed(bags), rna if model.dims.genes else None, clinical)


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    bags = [torch.randn(n, DIM, generator=generator) for n in (4, 1, 30, 4, 9, 2, 4, 11)]
    return bags, torch.randn(PATIENTS, GENES, generator=generator), torch.randn(PATIENTS, CLINICAL, generator=generator)


def test_every_model_of_the_recipe_can_be_built(name):
    assert name in MODELS
    assert set(MODELS) == set(model_names())


def test_its_docstring_names_a_source(name):
    assert "Source: " in (type(build(name)).__doc__ or "")


def test_docs_have_a_row_for_it(name):
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    assert f"| `{name}` |" in text


def test_one_risk_for_each_bag(name, inputs):
    risk = score(build(name).eval(), *inputs)
    assert (risk.shape, risk.dtype) == ((1, PATIENTS), torch.float32)
    assert torch.isfinite(risk).all()


def test_logits_of_hazards_give_one_risk(name, inputs):
    if name == "late":
        return  # a Cox regression; the recipe refuses it
    risk = score(build(name, dims=dataclasses.replace(DIMS, outputs=4)).eval(), *inputs)
    assert risk.shape == (1, PATIENTS)
    assert bool(((risk > -4) & (risk < 0)).all())


def test_permuting_tiles_keeps_the_risk(name, inputs):
    bags, rna, clinical = inputs
    model = build(name).eval()
    torch.testing.assert_close(score(model, [bag.flip(0) for bag in bags], rna, clinical), score(model, *inputs))


def test_a_patients_risk_does_not_depend_on_who_else_is_scored(name, inputs):
    bags, rna, clinical = inputs
    model = build(name).eval()
    together = score(model, *inputs)
    alone = [score(model, [bag], rna[i : i + 1], clinical[i : i + 1]) for i, bag in enumerate(bags)]
    torch.testing.assert_close(together, torch.cat(alone, 1))


def test_half_precision_bags_are_taken_as_they_are(name, inputs):
    bags, rna, clinical = inputs
    model = build(name).eval()
    half = [bag.half() for bag in bags]
    found = score(model, half, rna, clinical)
    torch.testing.assert_close(found, score(model, [bag.float() for bag in half], rna, clinical))


def test_initialisation_is_the_seeds_alone(name):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = build(name, seeds=[5])
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    again, other = build(name, seeds=[5]), build(name, seeds=[6])
    pairs = list(zip(first.parameters(), again.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert name == "late" or any(not torch.equal(a, c) for a, _, c in pairs)  # it has nothing to initialise


def test_every_parameter_learns(name, inputs):
    if name == "late":
        return  # it has none: it is fitted at once
    model = build(name, dropout=0.0, rna_dropout=0.0, clinical_widths=(3,)).train()
    time = torch.arange(1.0, PATIENTS + 1)
    neg_log_partial_likelihood(score(model, *inputs)[0], time, torch.ones(PATIENTS)).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        if not parameter_name.endswith(SHIFTS):
            assert parameter.grad.abs().sum() > 0, parameter_name


SHIFTS = ("value.bias", "rna.layers.1.bias", "clinical.layers.1.bias")
"""They shift all risks alike."""


def test_gradients_are_those_of_finite_differences(name, inputs):
    """Also through the readers that see a bag again on the way back."""
    bags, rna, clinical = inputs
    model = build(name).double().eval()
    if name == "late":
        return  # nothing to differentiate by
    weights = torch.linspace(-1, 1, PATIENTS, dtype=torch.float64)

    def value():
        return (score(model, [bag.double() for bag in bags], rna.double(), clinical.double())[0] * weights).sum()

    value().backward()
    for parameter_name, parameter in model.named_parameters():
        flat = parameter.detach().flatten()
        place = int(parameter.grad.abs().flatten().argmax())
        before, found = flat[place].item(), []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                parameter.view(-1)[place] = before + step
                found.append(value().item())
                parameter.view(-1)[place] = before
        slope = (found[0] - found[1]) / 2e-6
        assert abs(slope - parameter.grad.flatten()[place].item()) < 1e-5 * max(1, abs(slope)), parameter_name


def test_saved_state_holds_all_that_scores(name, inputs):
    """Also the feature scales: a model is whole with its state."""
    model = build(name).eval()
    fresh = build_model(ModelSettings(name=name, **SETTINGS), own_dims(name, DIMS), seeds=[9]).eval()
    fresh.load_state_dict(copy.deepcopy(model.state_dict()))
    assert torch.equal(score(fresh, *inputs), score(model, *inputs))


def test_networks_side_by_side_are_each_as_if_alone(name, inputs):
    risks = score(build(name, seeds=[5, 6, 7]).eval(), *inputs)
    for m, seed in enumerate([5, 6, 7]):
        torch.testing.assert_close(score(build(name, seeds=[seed]).eval(), *inputs)[0], risks[m])


def test_leaving_some_networks_leaves_them_as_they_were(name, inputs):
    model = build(name, seeds=[5, 6, 7]).eval()
    before = score(model, *inputs)
    narrow(model, [0, 2])
    torch.testing.assert_close(score(model, *inputs), before[[0, 2]])
    assert (model.networks, model.noise.seeds) == (2, (5, 7))
    assert all(len(parameter) == 2 and parameter.requires_grad for parameter in model.parameters())


def test_dropout_is_each_networks_own(name, inputs):
    """It comes from seed and step, whoever else is trained; and leaves alone those who are only scored."""

    def risks(seeds, step):
        model = build(name, seeds=seeds, dropout=0.5).train()
        model.noise.begin(step, [5] * len(seeds))
        return score(model, *inputs)

    together, still = risks([5, 6], 3), score(build(name, seeds=[6]).eval(), *inputs)[0]
    torch.testing.assert_close(risks([6], 3)[0], together[1])
    torch.testing.assert_close(together[1, 5:], still[5:])
    if name in ("clinical", "late"):  # few variables see no dropout, and what is not trained none either
        torch.testing.assert_close(together[1], still)
        return
    assert not torch.allclose(risks([6], 4)[0], together[1])
    assert not torch.allclose(together[1, :5], still[:5])


def test_attention_weights_add_up_to_1_where_there_are_any(name, inputs):
    bags, rna, clinical = inputs
    model = build(name, seeds=[0, 1]).eval()
    given = (Placed(bags), rna if model.dims.genes else None, clinical)
    if model.pools in ("mean", "none"):
        with pytest.raises(ValueError, match="it has no attention to show"):
            model.attention(*given)
        return
    for bag, weights in zip(bags, model.attention(*given), strict=True):
        assert (weights.shape[0], weights.shape[2]) == (2, len(bag))
        torch.testing.assert_close(weights.sum(2), torch.ones(weights.shape[:2]))
        assert bool((weights >= 0).all())


def test_what_a_base_says_is_added_to_the_risk(name, inputs):
    """A model with tiles and a base sees RNA and clinical variables nowhere but in the base, and in its query."""
    bags, rna, clinical = inputs
    if name in ("wsi-mean", "rna", "clinical", "late"):
        return  # nothing to add to, or nothing but a base
    dims = Dims(features=DIM, genes=GENES, clinical=CLINICAL, base=True, gene_sets=DIMS.gene_sets)
    model = build_model(ModelSettings(name=name, **SETTINGS), dims, seeds=[3]).eval()
    before = model(Placed(bags), rna, clinical)
    model.take_frozen([Frozen(base=FittedStack(stack=STACK, out_of_fold=np.zeros(0)))])
    tables = {"rna": rna.double().numpy(), "clinical": clinical.double().numpy()}
    expected = np.sum([STACK.parts[table].risk(values) for table, values in tables.items()], axis=0)
    added = model(Placed(bags), rna, clinical) - before
    torch.testing.assert_close(added[0].double(), torch.from_numpy(expected), rtol=1e-4, atol=1e-5)
    assert model.beside.rna is None
    assert model.beside.clinical is None


def test_what_is_hidden_is_not_known_to_the_base(name, inputs):
    """In training as at prediction: the share of a hidden modality is 0."""
    _, rna, clinical = inputs
    if name in ("wsi-mean", "rna", "clinical", "late"):
        return  # no base beside tiles
    dims = Dims(features=DIM, genes=GENES, clinical=CLINICAL, base=True, gene_sets=DIMS.gene_sets)
    model = build_model(ModelSettings(name=name, modality_dropout=0.5, **SETTINGS), dims, seeds=[3]).eval()
    model.take_frozen([Frozen(base=FittedStack(stack=STACK, out_of_fold=np.zeros(0)))])
    has = {"wsi": torch.ones(1, PATIENTS, dtype=torch.bool), "rna": torch.zeros(1, PATIENTS, dtype=torch.bool)}
    shares = {"rna": torch.full((1, PATIENTS), 7.0), "clinical": torch.full((1, PATIENTS), 2.0)}
    known = Known(rna=rna[None], clinical=clinical[None], base=torch.full((1, PATIENTS), 9.0), shares=shares, has=has)
    assert model.base_risk(known).tolist() == [[2.0] * PATIENTS]
