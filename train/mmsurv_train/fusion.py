"""The survival models, by name.

Owns the networks: bags and RNA in, one log relative hazard per bag out (higher = earlier death). Every model takes
``forward(bags, rna_BG)``, with bags a list of (N, D) tensors of raw features and RNA as ``Preprocess`` scales it;
what a model does not need may be None. Models standardise features themselves and keep the numbers in their state.

Shape suffixes: B patients, N tiles of a bag, D feature dim, G genes, E embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from mmsurv_train.attention import CrossAttention
from mmsurv_train.recipe import ModelName, ModelSettings

Bag = Sequence[Tensor] | None
T = TypeVar("T")


class SurvivalModel(nn.Module):
    """What all models have in common."""

    pools: Literal["attention", "mean", "none"]
    """How tiles become one vector. For "mean", a bag may be given as its mean alone, one row."""

    def standardise_by(self, mean_D: Tensor, sd_D: Tensor) -> None:
        """Standardise features by the mean and standard deviation of the training part's tiles."""

    def attention(self, bags: Sequence[Tensor], rna_BG: Tensor) -> list[Tensor]:
        """Weights of each bag's tiles, tensors (H, N) that sum to 1 over tiles.

        Raises:
            ValueError: the model has no attention.
        """
        raise ValueError(f"{type(self).__name__} weighs all tiles alike: it has no attention to show")


class CrossAttentionFusion(SurvivalModel):
    """RNA asks, tiles answer: the attended mean of the tiles, alone or beside the RNA, gives the risk."""

    pools = "attention"

    def __init__(self, settings: ModelSettings, *, feature_dim: int, n_genes: int) -> None:
        super().__init__()
        if settings.query == "linear":
            self.query: nn.Module = nn.Linear(n_genes, settings.dim)
        else:
            self.query = nn.Sequential(
                nn.Dropout(settings.rna_dropout),
                nn.Linear(n_genes, settings.query_hidden),
                nn.ReLU(),
                nn.Linear(settings.query_hidden, settings.dim),
            )
        self.cross_attention = CrossAttention(
            feature_dim=feature_dim, dim=settings.dim, heads=settings.heads, dropout=settings.attention_dropout
        )
        self.rna = _rna_embedding(settings, n_genes) if settings.head == "image+rna" else None
        width = settings.dim + (_rna_width(settings, n_genes) if self.rna is not None else 0)
        self.head = _head(settings, width)

    def standardise_by(self, mean_D: Tensor, sd_D: Tensor) -> None:
        self.cross_attention.standardise_by(mean_D, sd_D)

    def forward(self, bags: Bag, rna_BG: Tensor | None) -> Tensor:
        rna_BG, bags = _given(rna_BG, "RNA"), _given(bags, "bags")
        image_BE = self.cross_attention(self.query(rna_BG)[:, None], bags)[:, 0]
        parts = [image_BE] if self.rna is None else [image_BE, self.rna(rna_BG)]
        return self.head(torch.cat(parts, 1))[:, 0]

    @torch.no_grad()
    def attention(self, bags: Sequence[Tensor], rna_BG: Tensor) -> list[Tensor]:
        return [weight_QHN[0] for weight_QHN in self.cross_attention.weights(self.query(rna_BG)[:, None], bags)]


class MeanPooling(SurvivalModel):
    """Mean of the standardised tile features: what the joint and the unimodal image model see of a bag."""

    pools = "mean"
    feature_mean: Tensor
    feature_sd: Tensor

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        self.register_buffer("feature_mean", torch.zeros(feature_dim))
        self.register_buffer("feature_sd", torch.ones(feature_dim))

    def standardise_by(self, mean_D: Tensor, sd_D: Tensor) -> None:
        self.feature_mean.copy_(mean_D)
        self.feature_sd.copy_(sd_D)

    def pool(self, bags: Bag) -> Tensor:
        bags = _given(bags, "bags")
        for index, bag in enumerate(bags):
            if bag.ndim != 2 or bag.shape[1] != len(self.feature_mean) or not len(bag):
                raise ValueError(
                    f"bag {index} must hold at least one tile of {len(self.feature_mean)} features, "
                    f"its shape is {tuple(bag.shape)}"
                )
        mean_BD = torch.stack([bag.to(self.feature_mean.dtype).mean(0) for bag in bags])
        return (mean_BD - self.feature_mean) / self.feature_sd


class JointFusion(MeanPooling):
    """Mean of tile features ⊕ embedded RNA → dropout → linear layer (Steyaert et al. 2023)."""

    def __init__(self, settings: ModelSettings, *, feature_dim: int, n_genes: int) -> None:
        super().__init__(feature_dim)
        self.rna = _rna_embedding(settings, n_genes)
        self.head = _head(settings, feature_dim + _rna_width(settings, n_genes))

    def forward(self, bags: Bag, rna_BG: Tensor | None) -> Tensor:
        return self.head(torch.cat([self.pool(bags), self.rna(_given(rna_BG, "RNA"))], 1))[:, 0]


class WsiOnly(MeanPooling):
    """Mean of tile features → dropout → linear layer."""

    def __init__(self, settings: ModelSettings, *, feature_dim: int, n_genes: int) -> None:
        super().__init__(feature_dim)
        self.head = _head(settings, feature_dim)

    def forward(self, bags: Bag, rna_BG: Tensor | None = None) -> Tensor:
        return self.head(self.pool(bags))[:, 0]


class RnaOnly(SurvivalModel):
    """Embedded RNA → dropout → linear layer."""

    pools = "none"

    def __init__(self, settings: ModelSettings, *, feature_dim: int, n_genes: int) -> None:
        super().__init__()
        self.rna = _rna_embedding(settings, n_genes)
        self.head = _head(settings, _rna_width(settings, n_genes))

    def forward(self, bags: Bag, rna_BG: Tensor | None) -> Tensor:
        return self.head(self.rna(_given(rna_BG, "RNA")))[:, 0]


_MODELS: dict[ModelName, Callable[..., SurvivalModel]] = {
    "cross-attention": CrossAttentionFusion,
    "joint": JointFusion,
    "wsi": WsiOnly,
    "rna": RnaOnly,
}


def model_names() -> list[str]:
    """Names ``build_model`` knows."""
    return list(_MODELS)


def build_model(settings: ModelSettings, *, feature_dim: int, n_genes: int, seed: int) -> SurvivalModel:
    """A freshly initialised model.

    Args:
        settings: which model, and its widths.
        feature_dim: width of a tile's features; 0 for a model without tiles.
        n_genes: genes as ``Preprocess`` keeps them; 0 for a model without RNA.
        seed: of the initialisation. The global random state is neither used nor changed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _MODELS[settings.name](settings, feature_dim=feature_dim, n_genes=n_genes)


def _rna_embedding(settings: ModelSettings, n_genes: int) -> nn.Module:
    """Dropout and a linear layer for each width, ReLU between them."""
    layers: list[nn.Module] = [nn.Dropout(settings.rna_dropout)]
    width = n_genes
    for index, next_width in enumerate(settings.rna_widths):
        if index:
            layers += [nn.ReLU(), nn.Dropout(settings.rna_dropout)]
        layers.append(nn.Linear(width, next_width))
        width = next_width
    return nn.Sequential(*layers)


def _rna_width(settings: ModelSettings, n_genes: int) -> int:
    return settings.rna_widths[-1] if settings.rna_widths else n_genes


def _head(settings: ModelSettings, width: int) -> nn.Module:
    """Dropout → linear layer, without a bias: adding one number to all risks changes no Cox likelihood."""
    return nn.Sequential(nn.Dropout(settings.dropout), nn.Linear(width, 1, bias=False))


def _given(value: T | None, what: str) -> T:
    if value is None:
        raise ValueError(f"this model needs {what}")
    return value
