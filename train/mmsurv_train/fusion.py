"""The survival models, by name.

Owns the networks: tiles and RNA in, one log relative hazard per bag out (higher = earlier death). A model is a stack
of M networks of one shape side by side, each with parameters of its own; one network is a stack of one. What the
tiles say is computed in two halves, so that whoever trains can read them once for many models: ``ask`` says what to
look for, ``answer`` turns what was found into risks. Features come raw, RNA as ``Preprocess`` scales it; models
standardise features themselves and keep the numbers in their state.

Shape suffixes: M networks, B patients, N tiles of a bag, D feature dim, G genes, R rows of u, E embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from mmsurv_train.attention import CrossAttention, as_bags
from mmsurv_train.blocks import TileBags, converted
from mmsurv_train.layers import Dropout, Linear, Noise, initialise
from mmsurv_train.pool import softmax_pool
from mmsurv_train.recipe import ModelName, ModelSettings

Pooled = tuple[Tensor, Tensor] | Tensor | None
"""What a model is told of the tiles: z (M, B, R, D) and s (M, B, R) of ``pool.softmax_pool`` for "attention", the mean
tile (M or 1, B, D) for "mean", None for "none"."""


class SurvivalModel(nn.Module):
    """What all models have in common."""

    pools: Literal["attention", "mean", "none"]
    """How tiles become one vector."""

    def __init__(self, settings: Sequence[ModelSettings]) -> None:
        super().__init__()
        self.networks = len(settings)
        self.noise = Noise(range(len(settings)))

    def standardise_by(self, mean_MD: Tensor, sd_MD: Tensor) -> None:
        """Standardise features by the mean and standard deviation of the training part's tiles; (D,) for all alike."""

    def ask(self, rna_MBG: Tensor | None) -> Tensor:
        """What to look for: u of ``pool.softmax_pool``, (M, B, R, D). Models whose ``pools`` is "attention" only."""
        raise ValueError(f"{type(self).__name__} weighs all tiles alike: it has no attention to show")

    def answer(self, rna_MBG: Tensor | None, pooled: Pooled) -> Tensor:
        """Risks (M, B)."""
        raise NotImplementedError

    def attention_rates(self) -> tuple[float, ...]:
        """Dropout of each network's attention weights."""
        return (0.0,) * self.networks

    def forward(self, bags: TileBags | Sequence[Tensor] | None, rna_BG: Tensor | None) -> Tensor:
        """Risks (M, B) of bags and RNA that all networks see alike; None for what the model does not need.

        Attention weights are not dropped here, whatever the mode.
        """
        rna_MBG = None if rna_BG is None else rna_BG.expand(self.networks, -1, -1)
        if self.pools == "none":
            return self.answer(rna_MBG, None)
        dim, like = self._of_tiles()
        if bags is None:
            raise ValueError("this model needs bags")
        read = as_bags(bags, feature_dim=dim)
        if self.pools == "mean":
            return self.answer(rna_MBG, _means(read, like)[None])
        u_BMRD = self.ask(rna_MBG).transpose(0, 1)
        z_TD, s_T = softmax_pool(u_BMRD.flatten(0, 2), [u_BMRD.shape[1] * u_BMRD.shape[2]] * len(u_BMRD), read)
        z_BMRD, s_BMR = z_TD.view_as(u_BMRD), s_T.view(u_BMRD.shape[:3])
        return self.answer(rna_MBG, (z_BMRD.transpose(0, 1), s_BMR.transpose(0, 1)))

    @torch.no_grad()
    def attention(self, bags: TileBags | Sequence[Tensor], rna_BG: Tensor) -> list[Tensor]:
        """Weights of each bag's tiles, tensors (M, H, N) that sum to 1 over tiles.

        Raises:
            ValueError: the model has no attention.
        """
        u_BMRD = self.ask(rna_BG.expand(self.networks, -1, -1)).transpose(0, 1)
        read, weights = as_bags(bags, feature_dim=u_BMRD.shape[3]), list[Tensor]()
        rows = [u_BMRD.shape[1] * u_BMRD.shape[2]] * len(u_BMRD)
        softmax_pool(u_BMRD.flatten(0, 2), rows, read, weights=weights)
        return [a_RN.unflatten(0, u_BMRD.shape[1:3]) for a_RN in weights]

    def _of_tiles(self) -> tuple[int, Tensor]:
        """Width of the tiles' features, and a tensor of the model's dtype and device."""
        mean_MD = self.get_buffer("feature_mean") if self.pools == "mean" else self._attention().feature_mean
        return mean_MD.shape[1], mean_MD

    def _attention(self) -> CrossAttention:
        return next(module for module in self.modules() if isinstance(module, CrossAttention))


class CrossAttentionFusion(SurvivalModel):
    """RNA asks, tiles answer: the attended mean of the tiles, alone or beside the RNA, gives the risk."""

    pools = "attention"

    def __init__(self, settings: Sequence[ModelSettings], *, feature_dim: int, n_genes: int) -> None:
        super().__init__(settings)
        first, networks = settings[0], len(settings)
        if first.query == "linear":
            self.query: nn.Module = Linear(networks, n_genes, first.dim)
        else:
            self.query = nn.Sequential(
                Dropout([one.rna_dropout for one in settings], self.noise),
                Linear(networks, n_genes, first.query_hidden),
                nn.ReLU(),
                Linear(networks, first.query_hidden, first.dim),
            )
        self.cross_attention = CrossAttention(
            feature_dim=feature_dim, dim=first.dim, heads=first.heads, networks=networks
        )
        self.rna = _rna_embedding(settings, n_genes, self.noise) if first.head == "image+rna" else None
        width = first.dim + (_rna_width(first, n_genes) if self.rna is not None else 0)
        self.head = _head(settings, width, self.noise)
        # Its factors are drawn bag by bag by whoever reads the tiles; it is here for its rates.
        self.attention_dropout = Dropout([one.attention_dropout for one in settings], self.noise)

    def standardise_by(self, mean_MD: Tensor, sd_MD: Tensor) -> None:
        self.cross_attention.standardise_by(mean_MD, sd_MD)

    def attention_rates(self) -> tuple[float, ...]:
        return self.attention_dropout.rates

    def ask(self, rna_MBG: Tensor | None) -> Tensor:
        return self.cross_attention.ask(self.query(_given(rna_MBG))[:, :, None])

    def answer(self, rna_MBG: Tensor | None, pooled: Pooled) -> Tensor:
        assert isinstance(pooled, tuple)
        parts = [self.cross_attention.answer(*pooled)[:, :, 0]]
        if self.rna is not None:
            parts.append(self.rna(_given(rna_MBG)))
        return self.head(torch.cat(parts, 2))[..., 0]


class MeanPooling(SurvivalModel):
    """Mean of the standardised tile features: what the joint and the unimodal image model see of a bag."""

    pools = "mean"
    feature_mean: Tensor
    feature_sd: Tensor

    def __init__(self, settings: Sequence[ModelSettings], feature_dim: int) -> None:
        super().__init__(settings)
        self.register_buffer("feature_mean", torch.zeros(len(settings), feature_dim))
        self.register_buffer("feature_sd", torch.ones(len(settings), feature_dim))

    def standardise_by(self, mean_MD: Tensor, sd_MD: Tensor) -> None:
        self.feature_mean.copy_(mean_MD)
        self.feature_sd.copy_(sd_MD)

    def standardised(self, pooled: Pooled) -> Tensor:
        """The mean tile as the networks see it, (M, B, D)."""
        assert isinstance(pooled, Tensor)
        return (pooled - self.feature_mean[:, None]) / self.feature_sd[:, None]


class JointFusion(MeanPooling):
    """Mean of tile features ⊕ embedded RNA → dropout → linear layer (Steyaert et al. 2023)."""

    def __init__(self, settings: Sequence[ModelSettings], *, feature_dim: int, n_genes: int) -> None:
        super().__init__(settings, feature_dim)
        self.rna = _rna_embedding(settings, n_genes, self.noise)
        self.head = _head(settings, feature_dim + _rna_width(settings[0], n_genes), self.noise)

    def answer(self, rna_MBG: Tensor | None, pooled: Pooled) -> Tensor:
        image_MBD, rna_MBE = self.standardised(pooled), self.rna(_given(rna_MBG))
        return self.head(torch.cat([image_MBD, rna_MBE], 2))[..., 0]


class WsiOnly(MeanPooling):
    """Mean of tile features → dropout → linear layer."""

    def __init__(self, settings: Sequence[ModelSettings], *, feature_dim: int, n_genes: int) -> None:
        del n_genes
        super().__init__(settings, feature_dim)
        self.head = _head(settings, feature_dim, self.noise)

    def answer(self, rna_MBG: Tensor | None, pooled: Pooled) -> Tensor:
        del rna_MBG
        return self.head(self.standardised(pooled))[..., 0]


class RnaOnly(SurvivalModel):
    """Embedded RNA → dropout → linear layer."""

    pools = "none"

    def __init__(self, settings: Sequence[ModelSettings], *, feature_dim: int, n_genes: int) -> None:
        del feature_dim
        super().__init__(settings)
        self.rna = _rna_embedding(settings, n_genes, self.noise)
        self.head = _head(settings, _rna_width(settings[0], n_genes), self.noise)

    def answer(self, rna_MBG: Tensor | None, pooled: Pooled) -> Tensor:
        del pooled
        return self.head(self.rna(_given(rna_MBG)))[..., 0]


_MODELS: dict[ModelName, Callable[..., SurvivalModel]] = {
    "cross-attention": CrossAttentionFusion,
    "joint": JointFusion,
    "wsi": WsiOnly,
    "rna": RnaOnly,
}

PER_NETWORK = ("rna_dropout", "dropout", "attention_dropout")
"""Settings in which the networks of one stack may differ; the others make its shape."""


def model_names() -> list[str]:
    """Names ``build_model`` knows."""
    return list(_MODELS)


def build_model(settings: ModelSettings, *, feature_dim: int, n_genes: int, seeds: Sequence[int]) -> SurvivalModel:
    """A freshly initialised model of one network for each seed.

    Args:
        settings: which model, and its widths.
        feature_dim: width of a tile's features; 0 for a model without tiles.
        n_genes: genes as ``Preprocess`` keeps them; 0 for a model without RNA.
        seeds: of initialisation and dropout. The global random state is neither used nor changed.
    """
    return build_stack([settings] * len(seeds), feature_dim=feature_dim, n_genes=n_genes, seeds=seeds)


def build_stack(
    settings: Sequence[ModelSettings], *, feature_dim: int, n_genes: int, seeds: Sequence[int]
) -> SurvivalModel:
    """Like ``build_model``, of networks that differ in settings of ``PER_NETWORK``, one for each network."""
    with torch.random.fork_rng(devices=[]):
        model = _MODELS[settings[0].name](settings, feature_dim=feature_dim, n_genes=n_genes)
    model.noise.seeds = tuple(seeds)
    initialise(model, seeds)
    return model


def n_parameters(settings: ModelSettings, *, feature_dim: int, n_genes: int) -> int:
    """Numbers that one network learns."""
    with torch.device("meta"):
        model = _MODELS[settings.name]([settings], feature_dim=feature_dim, n_genes=n_genes)
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
    model.networks = len(places)


def _rna_embedding(settings: Sequence[ModelSettings], n_genes: int, noise: Noise) -> nn.Module:
    """Dropout and a linear layer for each width, ReLU between them."""
    rates = [one.rna_dropout for one in settings]
    layers: list[nn.Module] = [Dropout(rates, noise)]
    width = n_genes
    for index, next_width in enumerate(settings[0].rna_widths):
        if index:
            layers += [nn.ReLU(), Dropout(rates, noise)]
        layers.append(Linear(len(settings), width, next_width))
        width = next_width
    return nn.Sequential(*layers)


def _rna_width(settings: ModelSettings, n_genes: int) -> int:
    return settings.rna_widths[-1] if settings.rna_widths else n_genes


def _head(settings: Sequence[ModelSettings], width: int, noise: Noise) -> nn.Module:
    """Dropout → linear layer, without a bias: adding one number to all risks changes no Cox likelihood."""
    return nn.Sequential(Dropout([one.dropout for one in settings], noise), Linear(len(settings), width, 1, bias=False))


def _means(bags: TileBags, like: Tensor) -> Tensor:
    mean_BD = like.new_zeros(len(bags.lengths), bags.dim)
    for index, _, x_nD in converted(bags, range(len(bags.lengths)), like):
        mean_BD[index] += x_nD.sum(0)
    return mean_BD / torch.tensor(list(bags.lengths), dtype=like.dtype, device=like.device)[:, None]


def _given(rna: Tensor | None) -> Tensor:
    if rna is None:
        raise ValueError("this model needs RNA")
    return rna
