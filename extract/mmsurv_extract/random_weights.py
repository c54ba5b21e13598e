"""Random weights that give usable features.

Left as they are initialised, batch normalisations do nothing in eval mode, and the signal of a deep network grows or
fades by orders of magnitude, beyond what float16 holds. Here each batch normalisation is set to the scale of what
enters it for one seeded pattern. The scale is one power of two per layer, and the pattern is made of integers, so that
float noise (threads, processors) cannot show in the weights' bytes.

The gates of squeeze-and-excitation blocks are damped as well: as initialised they are all but open or shut, and
dozens of them in a row (EfficientNet-B5) amplify float noise until it is all there is.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from mmsurv_extract._torchvision import SqueezeExcitation

_BLOCK_PX = 28
_GATE_DAMPING = 1 / 8


def calm(trunk: nn.Module, *, px: int, seed: int) -> None:
    """Damp gates, and set ``running_var`` of every batch normalisation so that what leaves it is of the order of 1.

    In place; parameters of convolutions and linear layers outside the gates keep their initial bytes.

    Args:
        trunk: a model in eval mode with freshly initialised weights.
        px: side of an image it takes.
        seed: of the pattern it is shown.
    """
    for module in trunk.modules():
        if isinstance(module, SqueezeExcitation):
            module.fc2.weight.mul_(_GATE_DAMPING)
    layers = [module for module in trunk.modules() if isinstance(module, nn.BatchNorm2d)]
    if not layers:
        return
    hooks = [layer.register_forward_pre_hook(_scale_one) for layer in layers]
    try:
        with torch.no_grad():
            trunk(_pattern(px, seed))
    finally:
        for hook in hooks:
            hook.remove()


def _scale_one(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    power = float(inputs[0].double().square().mean())
    if power > 0:
        layer.running_var.fill_(4.0 ** round(math.log(power, 4)))  # type: ignore[operator]


def _pattern(px: int, seed: int) -> torch.Tensor:
    """Four images (4, 3, px, px), each of a colour of its own with blocks and fine noise; values in [-2, 2)."""
    generator = torch.Generator().manual_seed(seed)

    def draw(high: int, side: int) -> torch.Tensor:
        return torch.randint(0, high, (4, 3, side, side), generator=generator)

    blocks = draw(64, math.ceil(px / _BLOCK_PX)).repeat_interleave(_BLOCK_PX, 2).repeat_interleave(_BLOCK_PX, 3)
    return (draw(128, 1) + blocks[..., :px, :px] + draw(64, px)).float() / 64 - 2
