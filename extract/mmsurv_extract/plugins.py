"""Encoders of other distributions, found through the entry point group ``mmsurv.encoders``.

Owns what a plug-in hands over (:class:`PluginEncoder`), how it is checked before a slide is opened, and what is said
of one that is broken. Entry points are read as metadata; a plug-in is imported when it is asked for by name, so a
broken one cannot disturb the others or the command's help.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import torch
from torch import nn

from mmsurv.errors import ConfigError, EncoderError, MmsurvError
from mmsurv_extract.architectures import Architecture, FrozenModel, Preprocessing
from mmsurv_extract.encoder_settings import EncoderSettings

GROUP = "mmsurv.encoders"
PREFIX = "plugin:"
_PX_RANGE = (16, 4096)
# Beyond float noise: features of a tile that are another's business too.
_SAME = 1e-3


@dataclass(frozen=True, kw_only=True)
class PluginEncoder:
    """What the function behind an entry point of ``mmsurv.encoders`` returns.

    The function is called with one argument, the recipe's ``encoder.weights`` (a path, a name of the plug-in's own,
    or "random"), and should raise for one it does not know. torch's random state is seeded around the call. Nothing
    may be downloaded in it unless the name of the weights says so.
    """

    module: nn.Module
    """(B, 3, H, W) float32, normalised, to features (B, dim). It is put in eval mode and takes no gradient."""
    dim: int
    """Features per tile."""
    mean: tuple[float, float, float]
    """Per channel, of values in [0, 1]."""
    std: tuple[float, float, float]
    """Per channel, above 0."""
    input_px: int
    """Side of the square tiles it was made for, 16 to 4096; it is tried with such tiles when it is built."""
    provenance: str
    """Where the weights came from, for people. Not part of the fingerprint: the bytes of all parameters are."""
    any_size: bool = True
    """Whether it takes tiles of other sizes too."""
    revision: str = ""
    """Part of the fingerprint: change it when the code changes the features that the same weights give."""

    def __post_init__(self) -> None:
        checks = (
            ("module", "a torch.nn.Module", isinstance(self.module, nn.Module)),
            ("dim", "a whole number above 0", _is_whole(self.dim) and self.dim > 0),
            ("mean", "three finite numbers", _are_three(self.mean)),
            ("std", "three finite numbers above 0", _are_three(self.std) and min(self.std) > 0),
            ("input_px", "a whole number from 16 to 4096", _is_whole(self.input_px) and self._px_in_range()),
            (
                "provenance",
                "text that is not empty",
                isinstance(self.provenance, str) and bool(self.provenance.strip()),
            ),
            ("any_size", "true or false", isinstance(self.any_size, bool)),
            ("revision", "text", isinstance(self.revision, str)),
        )
        for field, expected, right in checks:
            if not right:
                raise ValueError(f"{field} must be {expected}, found {_shown(getattr(self, field))}")

    def _px_in_range(self) -> bool:
        return _PX_RANGE[0] <= self.input_px <= _PX_RANGE[1]


def names() -> list[str]:
    """Names of all plug-ins, sorted; none of them is imported."""
    return sorted(entry_points(group=GROUP).names)


def load(name: str, settings: EncoderSettings) -> FrozenModel:
    """Import a plug-in, let it build its encoder and check that.

    Args:
        name: one of :func:`names`.
        settings: its ``weights`` are handed to the plug-in, its ``weights_seed`` seeds torch around the call.

    Raises:
        ConfigError: two distributions have a plug-in of this name.
        EncoderError: the plug-in cannot be imported or fails, or what it gives is no encoder. An error of mmsurv's
            that it raises itself keeps its type.
    """
    point = _only(name)
    given = _called(point, settings)
    if not isinstance(given, PluginEncoder):
        raise EncoderError(
            f"{_who(point)} returned {_shown(given)}, expected a mmsurv_extract.plugins.PluginEncoder. {_REMEDY}"
        )
    module = given.module.eval().requires_grad_(False)
    _try_out(point, given, module)
    return FrozenModel(
        name=f"{PREFIX}{name}",
        architecture=Architecture(
            name=f"{PREFIX}{name}",
            trunk=module,
            dim=given.dim,
            head=(),
            fixed_px=None if given.any_size else given.input_px,
        ),
        expects=Preprocessing(input_px=given.input_px, mean=_floats(given.mean), std=_floats(given.std)),
        weights=given.provenance,
        library=_distribution(point),
        revision=given.revision,
        traceable=False,
    )


_REMEDY = "Tell its maintainers, or use another encoder; the others are not affected."


def _only(name: str) -> EntryPoint:
    points = list(entry_points(group=GROUP, name=name))
    if len(points) > 1:
        found = " and ".join(f"{_distribution(point)} ({point.value})" for point in points)
        raise ConfigError(f"{len(points)} plug-ins are named {name!r}: {found}. Uninstall all but one.")
    return points[0]


def _called(point: EntryPoint, settings: EncoderSettings) -> Any:
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(settings.weights_seed)
            return point.load()(settings.weights)
    except MmsurvError as error:
        raise type(error)(f"{_who(point)}: {error}") from error
    except Exception as error:
        raise EncoderError(
            f"{_who(point)} could not build its encoder with weights {settings.weights!r}: "
            f"{type(error).__name__}: {error}. {_REMEDY}"
        ) from error


def _try_out(point: EntryPoint, given: PluginEncoder, module: nn.Module) -> None:
    """Two images together, and one of them alone: as many features as promised, finite, and nobody else's business."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((2, 3, given.input_px, given.input_px), generator=generator) * 2 - 1
    try:
        with torch.inference_mode():
            together, alone = module(images), module(images[:1])
    except Exception as error:
        raise EncoderError(
            f"{_who(point)} cannot encode images (2, 3, {given.input_px}, {given.input_px}) of float32: "
            f"{type(error).__name__}: {error}. {_REMEDY}"
        ) from error
    expected = (2, given.dim)
    if not isinstance(together, torch.Tensor) or together.shape != expected or not together.is_floating_point():
        raise EncoderError(f"{_who(point)} gave {_shown(together)} for 2 images, expected {expected} floats. {_REMEDY}")
    if not bool(together.isfinite().all()):
        raise EncoderError(f"{_who(point)} gave NaN or infinite features. Check its weights ({given.provenance}).")
    if float((together[0] - alone[0]).abs().max()) > _SAME * float(together.abs().max()):
        raise EncoderError(
            f"{_who(point)} gives an image other features alone than beside another: it normalises over the batch or "
            f"draws at random in eval mode, and such features cannot be repeated. {_REMEDY}"
        )


def _who(point: EntryPoint) -> str:
    return f"the encoder plug-in {point.name!r} ({_distribution(point)}, {point.value})"


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "of no distribution"


def _shown(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{tuple(value.shape)} of {value.dtype}"
    return repr(value) if isinstance(value, int | float | str | tuple | list) else type(value).__name__


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_three(values: object) -> bool:
    return (
        isinstance(values, tuple | list)
        and len(values) == 3
        and all(isinstance(value, int | float) and math.isfinite(value) for value in values)
    )


def _floats(values: tuple[float, float, float]) -> tuple[float, float, float]:
    red, green, blue = values
    return float(red), float(green), float(blue)
