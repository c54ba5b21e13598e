"""Late fusion: nothing but a Cox regression on the scores of single modalities."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmsurv_train.dims import Dims
from mmsurv_train.frozen import Frozen
from mmsurv_train.models.base import MeanPooling, Pooled
from mmsurv_train.models.known import Known
from mmsurv_train.models.parts import Beside
from mmsurv_train.recipe import ModelSettings


class LateFusion(MeanPooling):
    """Penalised Cox regressions on mean tile, RNA and clinical variables, each alone, then one on their scores.

    The scores that are weighed are out of fold. Nothing is trained by gradient descent, and seeds make no difference.
    Steyaert et al. take the scores of unimodal networks; a ridge regression on the same inputs is what those add up to
    without hidden layers.

    Source: Steyaert et al. 2023 (late fusion).
    """

    def __init__(self, settings: Sequence[ModelSettings], dims: Dims) -> None:
        super().__init__(settings, dims)
        self.beside = Beside(settings, dims, self.noise)
        self.register_buffer("image_weight", torch.zeros(len(settings), dims.features))
        self.register_buffer("image_shift", torch.zeros(len(settings)))

    def take_frozen(self, frozen: Sequence[Frozen]) -> None:
        super().take_frozen(frozen)
        for m, one in enumerate(frozen):
            if self.dims.features and one.base is not None:
                weight_D, shift = one.base.stack.parts["wsi"].linear
                self.get_buffer("image_weight")[m] = torch.from_numpy(weight_D)
                self.get_buffer("image_shift")[m] = shift

    def answer(self, known: Known, pooled: Pooled) -> Tensor:
        if not self.dims.features:
            shape = known.shape
            assert shape is not None
            return self.get_buffer("image_shift").new_zeros(*shape, 1)
        weight_MD, shift_M = self.get_buffer("image_weight"), self.get_buffer("image_shift")
        share_MB = torch.einsum("mbd,md->mb", self.standardised(pooled), weight_MD) + shift_M[:, None]
        has_MB = known.has.get("wsi")
        return (share_MB if has_MB is None else torch.where(has_MB, share_MB, 0.0))[..., None]
