"""torchvision's classification models, and how each becomes a feature trunk.

Owns their names, construction, the input each was made for, and the cut: **a feature is what enters the model's last
classification layer**, for every model alike. That layer is the last linear one, so the feature of a ResNet is its
global average pool (512 or 2048 numbers), that of VGG and AlexNet the second hidden layer of their classifier (4096).
SqueezeNet classifies by a 1 × 1 convolution over a map: there the feature is the average of the map that enters it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from mmsurv_extract._torchvision import models, torchvision_version
from mmsurv_extract.architectures import COMMON_PX, Architecture, FrozenModel, Preprocessing
from mmsurv_extract.encoder_settings import RANDOM, EncoderSettings
from mmsurv_extract.random_weights import calm
from mmsurv_extract.weights import load_weights
from mmsurv_extract.weights_file import cached_file, local_file, read_state_dict

# The child that classifies, by every name torchvision gives it.
_HEADS = ("fc", "classifier", "head", "heads")
# Side classifiers used in training only. They are not built; a weights file may hold them.
_SIDE_HEADS = ("AuxLogits", "aux1", "aux2")
_WITH_SIDE_HEADS = ("googlenet", "inception_v3")
_FIXED_SIZE = ("vit_", "maxvit_")


def names() -> list[str]:
    """Names of all torchvision's classification models, sorted."""
    return sorted(models.list_models(module=models))


def load(name: str, settings: EncoderSettings, *, allow_download: bool) -> FrozenModel:
    """A model with its weights.

    Args:
        name: one of :func:`names`.
        settings: its ``weights`` and ``weights_seed`` are used.

    Raises:
        WeightsError: weights that cannot be found or read, or don't fit.
    """
    weights, named, expects = settings.weights, weights_names(name), preprocessing(name)
    if weights == RANDOM:
        architecture = build_architecture(name, seed=settings.weights_seed)
        calm(architecture.trunk, px=architecture.fixed_px or COMMON_PX, seed=settings.weights_seed)
        description = f"random (seed {settings.weights_seed})"
    else:
        if weights in named:
            path = cached_file(named[weights].url, what=f"weights {weights} of {name}", allow_download=allow_download)
            expects, description = preprocessing(name, weights), f"{named[weights].name} ({path.name})"
        else:
            path = local_file(weights, of=name, names=list(named))
            description = path.name
        state = read_state_dict(path)
        architecture = build_architecture(name, image_px=transformer_image_px(state) or expects.input_px)
        load_weights(architecture, state, source=str(path), resembles=same_size)
    return FrozenModel(
        name=name,
        architecture=architecture,
        expects=expects,
        weights=description,
        library=f"torchvision {torchvision_version}",
    )


def weights_names(name: str) -> dict[str, Any]:
    """torchvision's named weights of a model: name to entry (``url``, ``transforms``, ``meta``), DEFAULT included."""
    return dict(models.get_model_weights(name).__members__)


def preprocessing(name: str, weights: str | None = None) -> Preprocessing:
    """The input that named weights expect.

    Args:
        weights: one of :func:`weights_names`; without it (a local file, random weights), normalisation is that of
            the model's default weights and ``input_px`` the smallest size of any of its weights.
    """
    entries = weights_names(name)
    transforms = entries[weights or "DEFAULT"].transforms()
    sizes = [entries[weights]] if weights else entries.values()
    input_px = min(entry.transforms().crop_size[0] for entry in sizes)
    mean, std = tuple(transforms.mean), tuple(transforms.std)
    if name in _WITH_SIDE_HEADS:
        # Weights ported from TensorFlow. torchvision undoes the ImageNet normalisation inside the model
        # (transform_input) to arrive at (x - 0.5) / 0.5; here it is applied in the first place.
        mean = std = (0.5, 0.5, 0.5)
    return Preprocessing(input_px=input_px, mean=mean, std=std)


def build_architecture(name: str, *, image_px: int = COMMON_PX, seed: int = 0) -> Architecture:
    """Build a model with seeded initial weights and cut its classifier off.

    Args:
        image_px: the image side of a vision transformer; other models don't need to know.
        seed: of the initial weights. The global random state is neither used nor changed.
    """
    options: dict[str, Any] = {}
    if name in _WITH_SIDE_HEADS:
        options = {"aux_logits": False, "init_weights": False, "transform_input": False}
    elif name.startswith("vit_"):
        options = {"image_size": image_px}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = models.get_model(name, weights=None, **options)
    head = next(child for child, _ in model.named_children() if child in _HEADS)
    dim = _cut(model, head)
    fixed_px = image_px if name.startswith("vit_") else COMMON_PX if name.startswith(_FIXED_SIZE) else None
    return Architecture(
        name=name,
        trunk=model.eval().requires_grad_(False),
        dim=dim,
        head=(head, *_SIDE_HEADS),
        fixed_px=fixed_px,
    )


def transformer_image_px(state: Mapping[str, torch.Tensor]) -> int | None:
    """The image side that weights of a vision transformer were made for, read off their shapes; None for others."""
    positions, patches = state.get("encoder.pos_embedding"), state.get("conv_proj.weight")
    if positions is None or patches is None or positions.ndim != 3 or patches.ndim != 4:
        return None
    return round((positions.shape[1] - 1) ** 0.5) * patches.shape[-1]


def same_size(n_parameters: int) -> list[str]:
    """Encoders whose full model has exactly this many parameters: what an unknown file may be, at no cost."""
    return [
        name
        for name in names()
        if any(entry.meta["num_params"] == n_parameters for entry in weights_names(name).values())
    ]


def _cut(model: nn.Module, head: str) -> int:
    """Take the last classification layer off, in place, and return the width of what entered it."""
    layers = [
        (key, layer)
        for key, layer in model.named_modules()
        if key.split(".")[0] == head and isinstance(layer, nn.Linear | nn.Conv2d)
    ]
    key, last = layers[-1]
    if isinstance(last, nn.Linear):
        model.set_submodule(key, nn.Identity())
        return last.in_features
    model.set_submodule(head, nn.AdaptiveAvgPool2d(1))
    return last.in_channels
