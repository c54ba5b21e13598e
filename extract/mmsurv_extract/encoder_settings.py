"""The ``[encoder]`` table of an extraction recipe. Imports nothing heavy, so that a command's help can show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RANDOM = "random"


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    name: str = "resnet50"
    """A torchvision classification model (resnet18), a timm model (timm:resnet18) or a plug-in (plugin:NAME)."""
    weights: str = "IMAGENET1K_V2"
    """A name torchvision or timm has for weights of this model, a local file (.pth, .pt, .safetensors), or "random".
    A plug-in says which it knows."""
    weights_seed: int = 0
    """Seed of the weights when they are random, 0 to 2**63 - 1; not used otherwise."""
    fold: bool = True
    """Merge each batch normalisation into the convolution before it, and on the CPU what follows that as well."""
    channels_last: bool = True
    """Keep images and filters with the channels innermost, which convolutions run faster on."""
    autocast: Literal["none", "float16", "bfloat16"] = "none"
    """Precision of the forward pass on CUDA; "none" is float32 without TF32. Refused on the CPU."""
    compile: bool = False
    """Run the model through torch.compile, which needs a compiler where the encoder runs."""

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError("encoder.name must name an encoder, not be empty")
        if not self.weights.strip():
            raise ValueError('encoder.weights must be a weights name, a file or "random", not be empty')
        if not 0 <= self.weights_seed < 2**63:
            raise ValueError(f"encoder.weights_seed must be 0 to 2**63 - 1, found {self.weights_seed}")
        if self.autocast not in ("none", "float16", "bfloat16"):
            raise ValueError(f"encoder.autocast must be none, float16 or bfloat16, found {self.autocast!r}")
