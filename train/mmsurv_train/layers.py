"""Layers of many networks of one shape, side by side, and the dropout that each network draws for itself.

Every parameter has a leading dimension M. What network m computes depends on its own slice and its own seed, so
that it is the same whether it is trained alone or beside others, to the order of sums.

Shape suffixes: M networks, B patients, I inputs, O outputs, W width.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmsurv_train.threads import run_beside, share_out

WORTH_THREADS = 1 << 16
"""Dropout factors of a network from which on several threads draw them faster than one."""


def number(*parts: object) -> int:
    """A number below 2⁶³ fixed by its parts."""
    text = "/".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


class Noise:
    """Where M networks' dropout comes from: each from its own seed and the step, so that no state is carried along."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self.seeds = tuple(seeds)
        self.step = 0
        self.rows: tuple[int, ...] | None = None
        """How many of each network's patients, from the first, are trained on; None = all. The others have none."""
        self._generators: list[torch.Generator] | None = None

    def begin(self, step: int, rows: Sequence[int]) -> None:
        """Start a training step; the same step draws the same again."""
        self.step, self.rows, self._generators = step, tuple(rows), None

    def factors(self, rates: Sequence[float], like_MBW: Tensor) -> Tensor:
        """Dropout factors of the shape of ``like``: 0, or 1 / (1 − rate)."""
        if self._generators is None:
            self._generators = [torch.Generator(like_MBW.device) for _ in self.seeds]
            for generator, seed in zip(self._generators, self.seeds, strict=True):
                generator.manual_seed(number(seed, self.step))
        # In one layout, whatever that of the values: it is the order in which factors are drawn.
        factors_MBW = torch.ones_like(like_MBW, memory_format=torch.contiguous_format)
        generators = self._generators

        def draw(networks: list[int]) -> None:
            for m in networks:
                mine_BW = factors_MBW[m] if self.rows is None else factors_MBW[m, : self.rows[m]]
                mine_BW.bernoulli_(1 - rates[m], generator=generators[m]).div_(1 - rates[m])

        dropping = [m for m, rate in enumerate(rates) if rate]
        if like_MBW.device.type == "cpu" and like_MBW[0].numel() >= WORTH_THREADS:
            run_beside(draw, share_out(dropping, lambda _: 1.0, torch.get_num_threads()))
        else:
            draw(dropping)
        return factors_MBW

    def of_bag(self, m: int, rate: float, name: str, like: Tensor, n_tiles: int, n_rows: int) -> Tensor:
        """Factors (N, R) of one network's attention weights over one bag, whatever other bags there are."""
        generator = torch.Generator(like.device).manual_seed(number(self.seeds[m], self.step, name))
        return like.new_empty(n_tiles, n_rows).bernoulli_(1 - rate, generator=generator).div_(1 - rate)


class Dropout(nn.Module):
    """Dropout at a rate of each network's own."""

    def __init__(self, rates: Sequence[float], noise: Noise) -> None:
        super().__init__()
        self.rates, self.noise = tuple(rates), noise

    def forward(self, x_MBW: Tensor) -> Tensor:
        if not self.training or not any(self.rates):
            return x_MBW
        return x_MBW * self.noise.factors(self.rates, x_MBW)


class Linear(nn.Module):
    """M linear layers, initialised as ``torch.nn.Linear`` is."""

    def __init__(self, networks: int, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(networks, outputs, inputs))
        self.bias = nn.Parameter(torch.empty(networks, outputs)) if bias else None

    @torch.no_grad()
    def initialise(self, m: int, generator: torch.Generator) -> None:
        """Draw the parameters of network m."""
        bound = 1 / math.sqrt(self.weight.shape[2]) if self.weight.shape[2] else 0.0
        for parameter in (self.weight, self.bias):
            if parameter is not None:
                parameter[m].uniform_(-bound, bound, generator=generator)

    @torch.no_grad()
    def initialise_as_torch(self) -> None:
        """Draw all parameters from torch's global random state."""
        if not self.weight.is_meta:
            for m in range(len(self.weight)):
                self.initialise(m, torch.default_generator)

    def forward(self, x_MBI: Tensor) -> Tensor:
        return linear(x_MBI, self.weight, self.bias)


def linear(x_MBI: Tensor, weight_MOI: Tensor, bias_MO: Tensor | None = None) -> Tensor:
    """``torch.nn.functional.linear`` of each network, (M, B, O)."""
    if len(weight_MOI) == 1:  # a batch of one product is slower than one product
        return nn.functional.linear(x_MBI[0], weight_MOI[0], None if bias_MO is None else bias_MO[0])[None]
    # The weights come first, so that their gradient is laid out as they are and needs no copy.
    if bias_MO is None:
        return torch.bmm(weight_MOI, x_MBI.mT).mT
    return torch.baddbmm(bias_MO[:, :, None], weight_MOI, x_MBI.mT).mT


@torch.no_grad()
def initialise(model: nn.Module, seeds: Sequence[int]) -> None:
    """Draw the parameters of network m from the m-th seed; the global random state is neither used nor changed."""
    for m, seed in enumerate(seeds):
        generator = torch.Generator().manual_seed(seed)
        for module in model.modules():
            if isinstance(module, Linear):
                module.initialise(m, generator)
