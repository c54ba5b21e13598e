"""What is known of patients besides their tiles, and who lacks what.

Shape suffixes: M networks, B patients, G genes, C clinical columns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmsurv_train.modalities import Modality

if TYPE_CHECKING:
    from mmsurv_train.models.base import SurvivalModel


@dataclass(frozen=True, kw_only=True, eq=False)
class Known:
    """What M networks know of B patients; None for what a model does not look at."""

    rna: Tensor | None = None
    """Scaled RNA (M, B, G)."""
    clinical: Tensor | None = None
    """Coded clinical variables (M, B, C)."""
    base: Tensor | None = None
    """The base's risks (M, B), where they are not to be computed: those of training patients are out of fold."""
    shares: Mapping[Modality, Tensor] = field(default_factory=dict)
    """Each modality's share of ``base``, (M, B): that of one that is hidden must not be known."""
    has: Mapping[Modality, Tensor] = field(default_factory=dict)
    """Who has a modality, (M, B) bool; everyone where a modality is not named."""

    @classmethod
    def of_all(cls, networks: int, rna_BG: Tensor | None, clinical_BC: Tensor | None = None) -> Known:
        """The same for every network; everyone has everything."""
        rna = None if rna_BG is None else rna_BG.expand(networks, -1, -1)
        return cls(rna=rna, clinical=None if clinical_BC is None else clinical_BC.expand(networks, -1, -1))

    @property
    def shape(self) -> torch.Size | None:
        """(M, B); None where only tiles are known."""
        given = self.rna if self.rna is not None else self.clinical
        if given is not None:
            return given.shape[:2]
        return next((has.shape for has in self.has.values()), None)

    def need(self, modality: Modality) -> Tensor:
        """The values of a modality. Raises ValueError where there are none."""
        value = self.rna if modality == "rna" else self.clinical
        if value is None:
            what = "RNA" if modality == "rna" else f"{modality} variables"
            raise ValueError(f"this model needs {what}")
        return value

    def of(self, rows: Tensor) -> Known:
        """What is known of some patients."""
        return self._each(lambda value: value[:, rows.to(value.device)])

    def to(self, device: torch.device) -> Known:
        """The same on a device."""
        return self._each(lambda value: value.to(device))

    def for_networks(self, networks: int) -> Known:
        """The same for so many networks, from what is known by one."""
        return self._each(lambda value: value.expand(networks, *value.shape[1:]))

    def with_only(self, modalities: Collection[Modality]) -> Known:
        """As if patients had none of the other modalities."""
        has = {name: has & (name in modalities) for name, has in self.has.items()}
        return dataclasses.replace(self, has=has)

    @classmethod
    def side_by_side(cls, networks: Sequence[Known]) -> Known:
        """What several networks know, one after another; all have the same kinds of values."""
        first = networks[0]
        if len(networks) == 1:
            return first
        has = {name: torch.cat([one.has[name] for one in networks]) for name in first.has}
        shares = {name: torch.cat([one.shares[name] for one in networks]) for name in first.shares}
        values = {
            name: torch.cat([getattr(one, name) for one in networks])
            for name in ("rna", "clinical", "base")
            if getattr(first, name) is not None
        }
        return cls(**values, shares=shares, has=has)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Known:
        values = {
            name: change(getattr(self, name)) for name in ("rna", "clinical", "base") if getattr(self, name) is not None
        }
        shares, has = ({name: change(value) for name, value in of.items()} for of in (self.shares, self.has))
        return Known(**values, shares=shares, has=has)


def hide(known: Known, model: SurvivalModel) -> Known:
    """Hide modalities of the patients that are trained on, at each network's rate; a patient keeps at least one.

    Drawn from the network's noise of this step, so that it is the same whoever else is trained.
    """
    if not any(model.modality_rates):
        return known
    has_MBX = torch.stack(list(known.has.values()), 2)
    like_MBX = has_MBX.to(next(model.parameters()).dtype)
    kept_MBX = has_MBX & (model.noise.factors(model.modality_rates, like_MBX) > 0)
    kept_MBX = torch.where(kept_MBX.any(2, keepdim=True), kept_MBX, has_MBX)
    return dataclasses.replace(known, has=dict(zip(known.has, kept_MBX.unbind(2), strict=True)))
