"""Models without tiles: RNA, clinical variables, or both."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mmsurv_train.dims import Dims
from mmsurv_train.models.base import Pooled, SurvivalModel
from mmsurv_train.models.known import Known
from mmsurv_train.models.parts import Beside, Head
from mmsurv_train.recipe import ModelSettings


class TabularModel(SurvivalModel):
    """Embedded RNA ⊕ embedded clinical variables, as far as the model looks at them → dropout → linear layer.

    The models ``rna`` and ``clinical``. With no widths they are Cox regressions, fitted by gradient descent with early
    stopping; the floors fit the penalised Cox regression itself.

    Source: Steyaert et al. 2023 (the unimodal RNA model, with its widths); Cox 1972.
    """

    pools = "none"

    def __init__(self, settings: Sequence[ModelSettings], dims: Dims) -> None:
        super().__init__(settings, dims)
        self.beside = Beside(settings, dims, self.noise)
        self.head = Head(settings, dims, self.noise, dropped=self.beside.rna_width, kept=self.beside.clinical_width)

    def answer(self, known: Known, pooled: Pooled) -> Tensor:
        del pooled
        return self.head(*self.beside(known))
