"""timm's models, where timm is installed, and how each becomes a feature trunk.

Owns their names, construction and the input each was made for. A feature is what timm gives without a classifier
(``num_classes=0``): the pooled features, after any hidden layer of the head. timm is imported when one of its names
is asked for, never before, and after torchvision (see ``_torchvision.py``); it is never let to fetch anything itself.
"""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from mmsurv.errors import ConfigError, EncoderError, WeightsError
from mmsurv_extract import _torchvision
from mmsurv_extract.architectures import Architecture, FrozenModel, Preprocessing
from mmsurv_extract.encoder_settings import RANDOM, EncoderSettings
from mmsurv_extract.random_weights import calm
from mmsurv_extract.weights import load_weights
from mmsurv_extract.weights_file import cached_file, local_file, read_state_dict

_log = logging.getLogger("mmsurv")
PREFIX = "timm:"
DEFAULT = "DEFAULT"
INSTALL = "python -m pip install 'mmsurv[timm]'"
# What timm raises for a name it has and options it cannot build.
_BUILD_ERRORS = (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError)


def installed() -> bool:
    """Whether timm is there; it is not imported to find out."""
    return importlib.util.find_spec("timm") is not None


def is_name(name: str) -> bool:
    """Whether timm is there and has this model, or this model with this tag (``resnet18.a1_in1k``)."""
    if not installed():
        return False
    architecture, _, tag = name.partition(".")
    return bool(_timm().is_model(architecture)) and (not tag or tag in _configurations(architecture))


def names() -> list[str]:
    """Names of timm's models without tags; empty where timm is not installed."""
    return list(_timm().list_models()) if installed() else []


def load(name: str, settings: EncoderSettings, *, allow_download: bool) -> FrozenModel:
    """A model with its weights.

    Args:
        name: one that :func:`is_name` knows. Its tag, or the tag that ``settings.weights`` names, says which input
            the model expects.
        settings: its ``weights`` and ``weights_seed`` are used. ``weights`` is a tag, ``DEFAULT`` for that of the
            name, a local file, or ``random``.

    Raises:
        EncoderError: timm cannot build the model, or it does not take RGB images.
        WeightsError: weights that cannot be found or read, or don't fit.
    """
    base, _, tag = name.partition(".")
    configurations, weights = _configurations(base), settings.weights
    if weights in configurations:
        tag = weights
    full = f"{base}.{tag}" if tag else base
    configuration = _timm().get_pretrained_cfg(full)
    if weights == RANDOM:
        architecture = _architecture(full, configuration, _built(full, settings.weights_seed))
        seed = settings.weights_seed
        calm(architecture.trunk, px=architecture.fixed_px or _input_px(full, configuration), seed=seed)
        description = f"random (seed {seed})"
    elif weights == DEFAULT or weights in configurations:
        path = _named_file(full, configuration, allow_download=allow_download)
        architecture = _architecture(full, configuration, _converted(full, read_state_dict(path), path))
        description = f"{configuration.tag or DEFAULT} ({path.name})"
    else:
        path = local_file(weights, of=f"{PREFIX}{base}", names=[*configurations, DEFAULT])
        architecture = _architecture(full, configuration, _built(full, 0))
        load_weights(architecture, read_state_dict(path), source=str(path))
        description = path.name
    return FrozenModel(
        name=f"{PREFIX}{base}",
        architecture=architecture,
        expects=preprocessing(full),
        weights=description,
        library=f"timm {_timm().__version__}",
        proven=False,
    )


def preprocessing(name: str) -> Preprocessing:
    """The input that a model was made for, as timm's configuration of its (default) tag says."""
    configuration = _timm().get_pretrained_cfg(name)
    return Preprocessing(
        input_px=_input_px(name, configuration), mean=tuple(configuration.mean), std=tuple(configuration.std)
    )


def _timm() -> ModuleType:
    """timm, imported after torchvision, whose import ``_torchvision`` has made safe.

    Raises:
        ConfigError: timm is not installed.
    """
    assert _torchvision.models
    if not installed():
        raise ConfigError(f"encoders named {PREFIX}… need timm, which is not installed: {INSTALL}.")
    import timm

    return timm


def _configurations(architecture: str) -> list[str]:
    """Tags of an architecture; one that timm keeps no weights of may have none."""
    from timm.models import get_arch_pretrained_cfgs

    found = get_arch_pretrained_cfgs(architecture)
    return [key.partition(".")[2] for key in found if key.partition(".")[2]]


def _input_px(name: str, configuration: Any) -> int:
    channels, height, width = configuration.input_size
    if channels != 3 or height != width:
        raise EncoderError(
            f"{PREFIX}{name} takes images of {width} × {height} with {channels} channels: expected square RGB tiles. "
            "Use another encoder."
        )
    return int(height)


def _created(name: str, seed: int, **options: Any) -> Any:
    """timm's model with seeded initial weights; the global random state is neither used nor changed."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return _timm().create_model(name, **options)


def _built(name: str, seed: int) -> Any:
    """The model without a classifier and with initial weights; nothing is fetched."""
    try:
        return _created(name, seed, pretrained=False, num_classes=0)
    except _BUILD_ERRORS as error:
        raise EncoderError(f"timm cannot build {name}: {error}. Use another encoder, or another timm.") from error


def _architecture(name: str, configuration: Any, model: Any) -> Architecture:
    heads = configuration.classifier or ()
    return Architecture(
        name=f"{PREFIX}{name}",
        trunk=model.eval().requires_grad_(False),
        # Before timm 1.0 all models were as wide at the end of the head as before it.
        dim=int(getattr(model, "head_hidden_size", None) or model.num_features),
        head=(heads,) if isinstance(heads, str) else tuple(heads),
        fixed_px=_input_px(name, configuration) if configuration.fixed_input_size else None,
    )


def _converted(name: str, state: dict[str, torch.Tensor], path: Path) -> Any:
    """The model with weights that timm itself names: they may need its conversion, and must fill the whole model."""
    try:
        model = _created(name, 0, pretrained=True, pretrained_cfg_overlay={"state_dict": state})
    except _BUILD_ERRORS as error:
        raise WeightsError(
            f"{path}: these are not the weights of timm's {name} ({error}). Delete the file and fetch it again."
        ) from error
    model.reset_classifier(0)
    return model


def _named_file(name: str, configuration: Any, *, allow_download: bool) -> Path:
    """The local file of timm's named weights, from the cache of the Hugging Face hub or of torch's."""
    if not configuration.hf_hub_id:
        if not configuration.url:
            raise WeightsError(f"timm names no weights for {name}. Name a local file (--weights FILE).")
        return cached_file(configuration.url, what=f"timm's weights of {name}", allow_download=allow_download)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    repository, _, revision = configuration.hf_hub_id.partition("@")
    wanted, offline = configuration.hf_hub_filename, not allow_download
    for file in (wanted,) if wanted else ("model.safetensors", "pytorch_model.bin"):
        try:
            return Path(hf_hub_download(repository, file, revision=revision or None, local_files_only=offline))
        except (EntryNotFoundError, OSError, ValueError) as error:  # the hub's HTTP errors are OSErrors
            reason = str(error).partition("\n")[0][:200]
            _log.debug("%s of %s: %s", file, repository, error)
    if allow_download:
        raise WeightsError(
            f"{repository}: the download of timm's weights of {name} failed ({reason}). Try again, or "
            "name a local file (--weights FILE)."
        )
    raise WeightsError(
        f"timm's weights of {name} are not on this machine: expected {repository} in the cache of the "
        "Hugging Face hub. Allow the download (--download), or name a local file (--weights FILE)."
    )
