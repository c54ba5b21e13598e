"""Parts that survival models are put together from: embeddings, stand-ins for what a patient lacks, the survival layer.

Shape suffixes: M networks, B patients, E embedding, K outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmsurv_train.dims import Dims
from mmsurv_train.floors import Stacked
from mmsurv_train.layers import Dropout, Linear, Noise
from mmsurv_train.modalities import Modality
from mmsurv_train.models.known import Known
from mmsurv_train.recipe import ModelSettings


class StandIn(nn.Module):
    """A learnt vector in the place of what a patient lacks; there only where patients may lack something."""

    def __init__(self, networks: int, width: int, modality: Modality) -> None:
        super().__init__()
        self.modality = modality
        self.token = nn.Parameter(torch.zeros(networks, width))

    def forward(self, x_MBE: Tensor, known: Known) -> Tensor:
        has_MB = known.has.get(self.modality)
        return x_MBE if has_MB is None else torch.where(has_MB[..., None], x_MBE, self.token[:, None])


def may_lack(settings: Sequence[ModelSettings]) -> bool:
    """Whether patients may lack a modality: all networks of a stack are alike in it."""
    return settings[0].modality_dropout > 0


class Embedding(nn.Module):
    """RNA or clinical variables as one vector: dropout and a linear layer for each width, ReLU between them."""

    def __init__(self, settings: Sequence[ModelSettings], dims: Dims, noise: Noise, modality: Modality) -> None:
        super().__init__()
        first, networks, self.modality = settings[0], len(settings), modality
        widths = first.rna_widths if modality == "rna" else first.clinical_widths
        rates = [one.rna_dropout if modality == "rna" else 0.0 for one in settings]
        layers: list[nn.Module] = [Dropout(rates, noise)]
        self.width = dims.of(modality)
        for index, width in enumerate(widths):
            if index:
                layers += [nn.ReLU(), Dropout(rates, noise)]
            layers.append(Linear(networks, self.width, width))
            self.width = width
        self.layers = nn.Sequential(*layers)
        self.stand_in = StandIn(networks, self.width, modality) if may_lack(settings) else None

    def forward(self, known: Known) -> Tensor:
        x_MBE = self.layers(known.need(self.modality))
        return x_MBE if self.stand_in is None else self.stand_in(x_MBE, known)


class Base(nn.Module):
    """The risk of penalised Cox regressions on RNA and clinical variables, fitted before (``floors``), not learnt.

    The share of a modality that a patient lacks is 0.
    """

    def __init__(self, networks: int, dims: Dims) -> None:
        super().__init__()
        self.modalities: tuple[Modality, ...] = tuple(name for name in TABLES if dims.of(name))
        for name in self.modalities:
            self.register_buffer(f"{name}_weight", torch.zeros(networks, dims.of(name)))
            self.register_buffer(f"{name}_shift", torch.zeros(networks))

    def take(self, stacks: Sequence[Stacked]) -> None:
        """The coefficients of each network."""
        for name in self.modalities:
            for m, (weight_X, shift) in enumerate(one.parts[name].linear for one in stacks):
                self.get_buffer(f"{name}_weight")[m] = torch.from_numpy(weight_X)
                self.get_buffer(f"{name}_shift")[m] = shift

    def forward(self, known: Known) -> Tensor:
        """(M, B)."""
        if known.base is not None and not known.has:
            return known.base
        shares = []
        for name in self.modalities:
            share_MB = known.shares[name] if name in known.shares else self._share(name, known)
            has_MB = known.has.get(name)
            shares.append(share_MB if has_MB is None else torch.where(has_MB, share_MB, 0.0))
        return torch.stack(shares).sum(0)

    def _share(self, name: Modality, known: Known) -> Tensor:
        weight_MX, shift_M = self.get_buffer(f"{name}_weight"), self.get_buffer(f"{name}_shift")
        return torch.einsum("mbx,mx->mb", known.need(name), weight_MX) + shift_M[:, None]


TABLES: tuple[Modality, ...] = ("rna", "clinical")


class Beside(nn.Module):
    """What stands beside the tiles: RNA and clinical variables for the survival layer, as far as the model has them, or
    a base to which it adds."""

    def __init__(
        self, settings: Sequence[ModelSettings], dims: Dims, noise: Noise, *, rna: bool = True, clinical: bool = True
    ) -> None:
        super().__init__()
        self.base = Base(len(settings), dims) if dims.base and (dims.genes or dims.clinical) else None
        rna, clinical = rna and not dims.base, clinical and not dims.base
        self.rna = Embedding(settings, dims, noise, "rna") if rna and dims.genes else None
        self.clinical = Embedding(settings, dims, noise, "clinical") if clinical and dims.clinical else None
        self.rna_width = self.rna.width if self.rna else 0
        self.clinical_width = self.clinical.width if self.clinical else 0

    def forward(self, known: Known) -> tuple[list[Tensor], list[Tensor]]:
        """What dropout may hit (RNA), and what it may not (the few clinical variables)."""
        return [self.rna(known)] if self.rna else [], [self.clinical(known)] if self.clinical else []


class Head(nn.Module):
    """Dropout → linear layer. Without a bias where it gives a risk: adding one number to all changes no likelihood."""

    def __init__(
        self, settings: Sequence[ModelSettings], dims: Dims, noise: Noise, *, dropped: int, kept: int = 0
    ) -> None:
        """
        Args:
            dropped, kept: widths of what dropout may and may not hit.
        """
        super().__init__()
        self.dropout = Dropout([one.dropout for one in settings], noise)
        self.linear = Linear(len(settings), dropped + kept, dims.outputs, bias=dims.outputs > 1)

    def forward(self, dropped: Sequence[Tensor], kept: Sequence[Tensor] = ()) -> Tensor:
        """(M, B, K)."""
        parts = [self.dropout(torch.cat(list(dropped), 2))] if dropped else []
        return self.linear(torch.cat([*parts, *kept], 2))
