"""Which encoders there are, by name, and which source builds each.

Owns names only. A bare name is torchvision's if torchvision has it, else a plug-in's, else timm's where timm is
installed; ``torchvision:``, ``plugin:`` or ``timm:`` in front of it says which. A recipe's fingerprint has the bare
name for torchvision and the prefixed one for the others, whichever way it was asked for.
"""

from __future__ import annotations

import difflib

from mmsurv.errors import ConfigError
from mmsurv_extract import plugins, timm_models, torchvision_models
from mmsurv_extract.architectures import FrozenModel
from mmsurv_extract.encoder_settings import EncoderSettings

TORCHVISION = "torchvision:"
_SUGGESTED = ["resnet18", "resnet50", "squeezenet1_1"]


def encoder_names() -> list[str]:
    """Names of all encoders but timm's, as a recipe has them: torchvision's, then plug-ins with their prefix."""
    return torchvision_models.names() + [f"{plugins.PREFIX}{name}" for name in plugins.names()]


def load_model(settings: EncoderSettings, *, allow_download: bool = False) -> FrozenModel:
    """Build the encoder that a recipe names, with its weights.

    Args:
        allow_download: whether weights that torchvision or timm name may be fetched where their caches lack them.

    Raises:
        ConfigError: no such encoder (the message has the nearest names), or timm is asked for and not installed.
        EncoderError: the source cannot build it.
        WeightsError: weights that cannot be found or read, or don't fit.
    """
    source, name = _source(settings.name)
    if source == TORCHVISION:
        return torchvision_models.load(name, settings, allow_download=allow_download)
    if source == plugins.PREFIX:
        return plugins.load(name, settings)
    return timm_models.load(name, settings, allow_download=allow_download)


def _source(asked: str) -> tuple[str, str]:
    """Prefix of the source that has this encoder, and its name there."""
    for prefix in (TORCHVISION, plugins.PREFIX, timm_models.PREFIX):
        if asked.startswith(prefix):
            name = asked.removeprefix(prefix)
            if prefix == timm_models.PREFIX and not timm_models.installed():
                raise ConfigError(f"encoder {asked!r} needs timm, which is not installed: {timm_models.INSTALL}.")
            if not _has(prefix, name):
                raise _unknown(asked)
            return prefix, name
    for prefix in (TORCHVISION, plugins.PREFIX, timm_models.PREFIX):
        if _has(prefix, asked):
            return prefix, asked
    raise _unknown(asked)


def _has(prefix: str, name: str) -> bool:
    if prefix == timm_models.PREFIX:
        return timm_models.is_name(name)
    return name in (torchvision_models.names() if prefix == TORCHVISION else plugins.names())


def _unknown(asked: str) -> ConfigError:
    from_timm = [f"{timm_models.PREFIX}{name}" for name in timm_models.names()]
    known = {name: name for name in encoder_names() + from_timm}
    known |= {name.partition(":")[2]: name for name in known if ":" in name and name.partition(":")[2] not in known}
    close = difflib.get_close_matches(asked, known, n=3, cutoff=0.5) or _SUGGESTED
    absent = "" if timm_models.installed() else f" timm is not installed; {timm_models.INSTALL} adds its models."
    return ConfigError(
        f"there is no encoder {asked!r}: expected the name of a torchvision classification model, of a plug-in or of "
        f"a timm model. Nearest: {', '.join(known[name] for name in close)}; docs/encoders.md says where each comes "
        f"from.{absent}"
    )
