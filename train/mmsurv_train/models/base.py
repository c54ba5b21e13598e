"""What all survival models have in common.

Owns the interface: tiles and what else is known of patients in, one log relative hazard per bag out (higher = earlier
death). A model is a stack of M networks of one shape side by side, each with parameters of its own; one network is a
stack of one. What the tiles say is computed apart from the rest, so that whoever trains can read them once for many
models: ``ask`` says what to look for, ``answer`` turns what was found into outputs. Features come raw, RNA and
clinical variables as ``Preprocess`` scales them; models standardise features themselves and keep the numbers in their
state.

Shape suffixes: M networks, B patients, N tiles of a bag, D feature dim, R rows of u, P pooled numbers, K outputs.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn

from mmsurv_train.attention import CrossAttention, as_bags
from mmsurv_train.blocks import TileBags, converted
from mmsurv_train.dims import Dims
from mmsurv_train.layers import Noise
from mmsurv_train.models.each_bag import Pairs, read_each
from mmsurv_train.models.known import Known
from mmsurv_train.outputs import risk_of
from mmsurv_train.pool import softmax_pool
from mmsurv_train.recipe import ModelSettings

if TYPE_CHECKING:
    from mmsurv_train.frozen import Frozen
    from mmsurv_train.models.each_bag import BagReader

Pooled = tuple[Tensor, Tensor] | Tensor | None
"""What a model is told of the tiles: z (M, B, R, D) and s (M, B, R) of ``pool.softmax_pool`` for "attention", the mean
tile (M or 1, B, D) for "mean", what its reader made of each bag (M, B, P) for "tiles", None for "none"."""


class SurvivalModel(nn.Module):
    """A stack of networks."""

    pools: ClassVar[Literal["attention", "mean", "tiles", "none"]]
    """How tiles become one vector: by absorbed attention (``pool``), as their mean, or by a network of the model's own
    that sees every tile (``each_bag``)."""

    def __init__(self, settings: Sequence[ModelSettings], dims: Dims) -> None:
        super().__init__()
        self.networks, self.dims = len(settings), dims
        self.noise = Noise(range(len(settings)))
        self.modality_rates = tuple(one.modality_dropout for one in settings)
        self.attention_rates = tuple(one.attention_dropout for one in settings)
        """Dropout of each network's attention weights, drawn bag by bag by whoever reads the tiles."""

    def standardise_by(self, mean_MD: Tensor, sd_MD: Tensor) -> None:
        """Standardise features by the mean and standard deviation of the training part's tiles; (D,) for all alike."""

    def ask(self, known: Known) -> Tensor:
        """What to look for: u of ``pool.softmax_pool``, (M, B, R, D), where ``pools`` is "attention"; what its reader
        is told of each patient, (M, B, C), where it is "tiles"."""
        raise NotImplementedError

    @property
    def rows(self) -> int:
        """R: rows of u of one network and bag, where ``pools`` is "attention"."""
        raise NotImplementedError

    @property
    def reader(self) -> BagReader:
        """Where ``pools`` is "tiles": what sees the tiles."""
        raise NotImplementedError

    def answer(self, known: Known, pooled: Pooled) -> Tensor:
        """Outputs (M, B, K): the risk, or the logits of hazards; without the base."""
        raise NotImplementedError

    @property
    def n_heads(self) -> int:
        """H of ``attention``."""
        return self.rows if self.pools == "attention" else 1

    @property
    def like(self) -> Tensor:
        """A tensor of the model's dtype and device."""
        return next(itertools.chain(self.parameters(), self.buffers()))

    def base_risk(self, known: Known) -> Tensor | None:
        """What the model adds to, (M, B); None where it has no base."""
        beside = getattr(self, "beside", None)
        return None if beside is None or beside.base is None else beside.base(known)

    def outputs(self, known: Known, pooled: Pooled) -> Tensor:
        """Outputs (M, B, K), the base among them."""
        out_MBK, base_MB = self.answer(known, pooled), self.base_risk(known)
        return out_MBK if base_MB is None else out_MBK + base_MB[..., None]

    def take_frozen(self, frozen: Sequence[Frozen]) -> None:
        """Take what was fitted before training, for each network."""
        beside = getattr(self, "beside", None)
        if beside is not None and beside.base is not None:
            beside.base.take([one.base.stack for one in frozen if one.base is not None])

    def risks(self, known: Known, pooled: Pooled) -> Tensor:
        """Risks (M, B)."""
        return risk_of(self.outputs(known, pooled))

    def forward(
        self, bags: TileBags | Sequence[Tensor] | None, rna_BG: Tensor | None, clinical_BC: Tensor | None = None
    ) -> Tensor:
        """Risks (M, B) of bags and tables that all networks see alike; None for what the model does not look at.

        Attention weights are not dropped here, whatever the mode.
        """
        known = Known.of_all(self.networks, rna_BG, clinical_BC)
        if self.pools == "none":
            return self.risks(known, None)
        if bags is None:
            raise ValueError("this model needs bags")
        read = as_bags(bags, feature_dim=self.dims.features)
        if self.pools == "mean":
            return self.risks(known, _means(read, self.like)[None])
        if self.pools == "tiles":
            asked_MBC = self._asked(known, len(read.lengths))
            return self.risks(known, read_each(self.reader, asked_MBC, Pairs.of_all(self.networks, read), read))
        u_BMRD = self._asked(known, len(read.lengths)).transpose(0, 1)
        z_TD, s_T = softmax_pool(u_BMRD.flatten(0, 2), [u_BMRD.shape[1] * u_BMRD.shape[2]] * len(u_BMRD), read)
        z_BMRD, s_BMR = z_TD.view_as(u_BMRD), s_T.view(u_BMRD.shape[:3])
        return self.risks(known, (z_BMRD.transpose(0, 1), s_BMR.transpose(0, 1)))

    @torch.no_grad()
    def attention(
        self, bags: TileBags | Sequence[Tensor], rna_BG: Tensor | None, clinical_BC: Tensor | None = None
    ) -> list[Tensor]:
        """Weights of each bag's tiles, tensors (M, H, N) that sum to 1 over tiles.

        Raises:
            ValueError: the model has no attention.
        """
        return self.weights(Known.of_all(self.networks, rna_BG, clinical_BC), bags)

    @torch.no_grad()
    def weights(self, known: Known, bags: TileBags | Sequence[Tensor]) -> list[Tensor]:
        """Like ``attention``, of patients of whom the networks know this."""
        if self.pools in ("mean", "none"):
            raise ValueError(f"{type(self).__name__} weighs all tiles alike: it has no attention to show")
        read = as_bags(bags, feature_dim=self.dims.features)
        asked = self._asked(known, len(read.lengths))
        weights: list[Tensor] = []
        if self.pools == "tiles":
            read_each(self.reader, asked, Pairs.of_all(self.networks, read), read, weights=weights)
            return weights
        u_BMRD = asked.transpose(0, 1)
        rows = [u_BMRD.shape[1] * u_BMRD.shape[2]] * len(u_BMRD)
        softmax_pool(u_BMRD.flatten(0, 2), rows, read, weights=weights)
        return [a_RN.unflatten(0, u_BMRD.shape[1:3]) for a_RN in weights]

    def _asked(self, known: Known, n_bags: int) -> Tensor:
        """What is asked of each bag; alike for all bags of a model that looks at tiles only."""
        asked = self.ask(known)
        return asked if asked.shape[1] == n_bags else asked.expand(-1, n_bags, *asked.shape[2:])

    def _attention(self) -> CrossAttention:
        return next(module for module in self.modules() if isinstance(module, CrossAttention))


class MeanPooling(SurvivalModel):
    """Mean of the standardised tile features: all that a model without attention sees of a bag."""

    pools = "mean"
    feature_mean: Tensor
    feature_sd: Tensor

    def __init__(self, settings: Sequence[ModelSettings], dims: Dims) -> None:
        super().__init__(settings, dims)
        if not dims.features:  # RNA and clinical variables only
            self.pools = "none"  # type: ignore[assignment, misc]
        self.register_buffer("feature_mean", torch.zeros(len(settings), dims.features))
        self.register_buffer("feature_sd", torch.ones(len(settings), dims.features))

    def standardise_by(self, mean_MD: Tensor, sd_MD: Tensor) -> None:
        self.feature_mean.copy_(mean_MD)
        self.feature_sd.copy_(sd_MD)

    def standardised(self, pooled: Pooled) -> Tensor:
        """The mean tile as the networks see it, (M, B, D)."""
        assert isinstance(pooled, Tensor)
        return (pooled - self.feature_mean[:, None]) / self.feature_sd[:, None]


def _means(bags: TileBags, like: Tensor) -> Tensor:
    mean_BD = like.new_zeros(len(bags.lengths), bags.dim)
    for index, _, x_nD in converted(bags, range(len(bags.lengths)), like):
        mean_BD[index] += x_nD.sum(0)
    return mean_BD / torch.tensor(list(bags.lengths), dtype=like.dtype, device=like.device)[:, None]
