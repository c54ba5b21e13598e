"""What a source of encoders hands over: a feature trunk, the input it expects, and the two as one frozen model.

Owns these three shapes of data and nothing else, so that names (``registry.py``), construction
(``torchvision_models.py``, ``timm_models.py``, ``plugins.py``) and the origin of weights (``weights_file.py``,
``weights.py``) do not need each other to speak of a model.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

COMMON_PX = 224
"""The image side that nearly every model takes, unless its weights fix another."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    input_px: int
    """Side of the square images the weights were evaluated on."""
    mean: tuple[float, float, float]
    """Per channel, of values in [0, 1]."""
    std: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    name: str
    trunk: nn.Module
    """(B, 3, H, W) float to (B, dim); in eval mode, takes no gradient."""
    dim: int
    head: tuple[str, ...]
    """Parts of the full model that no feature depends on (or not wholly): a weights file may hold more of them."""
    fixed_px: int | None
    """The only image side the model takes; None where any above its stride will do."""


@dataclass(frozen=True, kw_only=True)
class FrozenModel:
    """An architecture with its weights in it."""

    name: str
    """The one name it has in a recipe's fingerprint, however it was asked for."""
    architecture: Architecture
    expects: Preprocessing
    weights: str
    """Where the weights came from, for people; not part of the fingerprint."""
    library: str
    """What built it, with its version, for people."""
    revision: str = ""
    """What the author of a plug-in calls this state of its code; part of the fingerprint where not empty."""
    traceable: bool = True
    """Whether its graph may be taken apart to make it faster; a plug-in's module is run as it came."""
    proven: bool = True
    """Whether tests of ours compare the features of all its kin, made faster, with those of the model as it came. The
    others are compared when they are built."""
