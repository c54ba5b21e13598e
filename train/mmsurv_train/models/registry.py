"""The survival models by name, and how they are built and narrowed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from mmsurv_train.dims import Dims
from mmsurv_train.layers import Dropout, initialise
from mmsurv_train.modalities import ModelName
from mmsurv_train.models.base import SurvivalModel
from mmsurv_train.models.cross_attention import CrossAttentionFusion
from mmsurv_train.models.graph import PatchGcn
from mmsurv_train.models.late import LateFusion
from mmsurv_train.models.means import EarlyFusion, GenomicCnn, JointFusion, WsiMean
from mmsurv_train.models.tabular import TabularModel
from mmsurv_train.models.tiles import Abmil, CoAttention, TanhCrossAttention
from mmsurv_train.recipe import ModelSettings

_MODELS: dict[ModelName, Callable[[Sequence[ModelSettings], Dims], SurvivalModel]] = {
    "cross-attention": CrossAttentionFusion,
    "tanh-cross-attention": TanhCrossAttention,
    "co-attention": CoAttention,
    "joint": JointFusion,
    "early": EarlyFusion,
    "late": LateFusion,
    "genomic-cnn": GenomicCnn,
    "abmil": Abmil,
    "patch-gcn": PatchGcn,
    "wsi-mean": WsiMean,
    "rna": TabularModel,
    "clinical": TabularModel,
}

PER_NETWORK = ("rna_dropout", "dropout", "attention_dropout")
"""Settings in which the networks of one stack may differ; the others make its shape."""


def model_names() -> list[ModelName]:
    """Names ``build_model`` knows."""
    return list(_MODELS)


def build_model(settings: ModelSettings, dims: Dims, *, seeds: Sequence[int]) -> SurvivalModel:
    """A freshly initialised model of one network for each seed.

    Args:
        settings: which model, and its widths.
        dims: what it sees and gives.
        seeds: of initialisation and dropout. The global random state is neither used nor changed.
    """
    return build_stack([settings] * len(seeds), dims, seeds=seeds)


def build_stack(settings: Sequence[ModelSettings], dims: Dims, *, seeds: Sequence[int]) -> SurvivalModel:
    """Like ``build_model``, of networks that differ in settings of ``PER_NETWORK``, one for each network."""
    with torch.random.fork_rng(devices=[]):
        model = _MODELS[settings[0].name](settings, dims)
    model.noise.seeds = tuple(seeds)
    initialise(model, seeds)
    return model


def n_parameters(settings: ModelSettings, dims: Dims) -> int:
    """Numbers that one network learns."""
    with torch.device("meta"):
        model = _MODELS[settings.name]([settings], dims)
    return sum(parameter.numel() for parameter in model.parameters())


@torch.no_grad()
def narrow(model: SurvivalModel, which: Sequence[int]) -> None:
    """Leave only some networks in a stack, with new parameters that hold their values."""
    places = torch.tensor(list(which))
    for module in model.modules():
        if isinstance(module, Dropout):
            module.rates = tuple(module.rates[m] for m in which)
        for name, parameter in module.named_parameters(recurse=False):
            module.register_parameter(name, nn.Parameter(parameter[places.to(parameter.device)]))
        for name, buffer in module.named_buffers(recurse=False):
            module.register_buffer(name, buffer[places.to(buffer.device)])
    model.noise.seeds = tuple(model.noise.seeds[m] for m in which)
    model.modality_rates = tuple(model.modality_rates[m] for m in which)
    model.attention_rates = tuple(model.attention_rates[m] for m in which)
    model.networks = len(places)
