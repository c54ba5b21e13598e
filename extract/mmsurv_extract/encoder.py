"""The frozen encoder: uint8 tiles in, float32 features out.

Owns the forward pass and what makes it fast (folding, channels_last, inference mode, normalisation on the device).
Which models there are is said in ``architectures.py``, where weights come from in ``weights_file.py``.
Shape suffixes: B tiles, H height, W width, D feature dim.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mmsurv.errors import ConfigError, EncoderError, WeightsError
from mmsurv_extract._torchvision import torchvision_version
from mmsurv_extract.architectures import (
    COMMON_PX,
    Architecture,
    Preprocessing,
    build_architecture,
    encoder_names,
    preprocessing,
    transformer_image_px,
    weights_names,
)
from mmsurv_extract.encoder_settings import RANDOM, EncoderSettings
from mmsurv_extract.fold import fold_batchnorm
from mmsurv_extract.random_weights import calm
from mmsurv_extract.weights import load_weights, weights_digest
from mmsurv_extract.weights_file import named_weights_file, read_state_dict

__all__ = ["Encoder", "EncoderSettings", "build_encoder", "encoder_names"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoder:
    """A frozen model that turns tiles into features; made by :func:`build_encoder`."""

    settings: EncoderSettings
    trunk: nn.Module
    device: torch.device
    dim: int
    """Features per tile."""
    input_px: int
    """Tile side the weights were evaluated on. No tile is resized to it."""
    fixed_px: int | None
    """The only tile side the model takes (vision transformers); None where it takes others too."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    weights_description: str
    """Where the weights came from, for people; not part of the fingerprint."""
    weights_sha256: str
    torchvision_version: str = torchvision_version

    @property
    def name(self) -> str:
        return self.settings.name

    def __call__(self, tiles: torch.Tensor | np.ndarray) -> np.ndarray:
        """Encode a batch.

        The same tile gives the same features in any batch, up to float noise: the order of additions inside a
        convolution depends on the batch size, the number of threads and the processor.

        Args:
            tiles: (B, H, W, 3) uint8 RGB, in host memory or on the encoder's device.

        Returns:
            (B, D) float32 in host memory; all finite.

        Raises:
            EncoderError: tiles of another shape or type, of a size the model cannot take, or features that are
                not finite.
        """
        tiles_BHW3 = self._checked(tiles)
        n_tiles, height, width, _ = tiles_BHW3.shape
        if n_tiles == 0:
            return np.empty((0, self.dim), dtype=np.float32)
        try:
            with torch.inference_mode(), _precision(self.device, self.settings.autocast):
                features = self.trunk(self._normalised(tiles_BHW3.to(self.device, non_blocking=True)))
                features_BD = features.float().cpu().numpy()
        except (RuntimeError, AssertionError, ValueError) as error:
            raise EncoderError(
                f"{self.name} cannot encode {n_tiles} tiles of {width} × {height} px ({_first_line(error)}). It was "
                f"made for tiles of {self.input_px} px; if memory ran out, use a smaller batch (--batch-size)."
            ) from error
        return self._finite(features_BD)

    def describe(self) -> dict[str, Any]:
        """What decides the features, flat and JSON-able: the encoder's part of a recipe's fingerprint.

        Weights are known by their digest, not by their path or name, so a copy elsewhere is the same recipe.
        """
        return {
            "name": self.name,
            "dim": self.dim,
            "weights": RANDOM if self.settings.weights == RANDOM else "file",
            "weights_sha256": self.weights_sha256,
            "mean": list(self.mean),
            "std": list(self.std),
            "fold": self.settings.fold,
            "channels_last": self.settings.channels_last,
            "autocast": self.settings.autocast,
        }

    def _checked(self, tiles: torch.Tensor | np.ndarray) -> torch.Tensor:
        if isinstance(tiles, np.ndarray):
            # torch cannot mark a tensor read-only and warns about an array that is.
            tiles = torch.from_numpy(tiles if tiles.flags.writeable else tiles.copy())
        if tiles.dtype != torch.uint8 or tiles.ndim != 4 or tiles.shape[-1] != 3:
            raise EncoderError(
                f"{self.name} expects tiles (B, H, W, 3) of uint8 RGB, found {tuple(tiles.shape)} of {tiles.dtype}."
            )
        height, width = tiles.shape[1:3]
        if self.fixed_px is not None and (height, width) != (self.fixed_px, self.fixed_px):
            raise EncoderError(
                f"{self.name} takes tiles of {self.fixed_px} × {self.fixed_px} px only, found {width} × {height}. Set "
                f"tiles.px = {self.fixed_px} in the recipe (--tile-px), or use a convolutional encoder."
            )
        return tiles

    def _normalised(self, tiles_BHW3: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) float32, (x / 255 - mean) / std as one multiply-add per value.

        Rows of W × 3 values are taken as the unit, so that the innermost loop is long and not three values.
        """
        n_tiles, height, width, _ = tiles_BHW3.shape
        std = torch.tensor(self.std, dtype=torch.float64)
        scale = (1 / (255 * std)).float().repeat(width).to(self.device)
        shift = (-torch.tensor(self.mean, dtype=torch.float64) / std).float().repeat(width).to(self.device)
        rows = tiles_BHW3.reshape(n_tiles, height, width * 3)
        values = torch.mul(rows, scale).add_(shift).view(n_tiles, height, width, 3).permute(0, 3, 1, 2)
        return values if self.settings.channels_last else values.contiguous()

    def _finite(self, features_BD: np.ndarray) -> np.ndarray:
        if features_BD.ndim != 2 or features_BD.shape[1] != self.dim:
            raise EncoderError(f"{self.name} gave features {features_BD.shape}, expected (B, {self.dim}).")
        bad = np.flatnonzero(~np.isfinite(features_BD).all(axis=1))
        if bad.size:
            raise EncoderError(
                f"{self.name} gave NaN or infinite features for {bad.size} of {len(features_BD)} tiles (first: row "
                f"{bad[0]} of the batch). Check the weights ({self.weights_description}), or use autocast none."
            )
        return features_BD


def build_encoder(settings: EncoderSettings, *, device: str = "cpu", allow_download: bool = False) -> Encoder:
    """Build an encoder, load its weights and make it fast.

    Args:
        device: "cpu", "cuda", or "auto" for CUDA where there is one.
        allow_download: whether torchvision's named weights may be fetched if torch's hub cache lacks them.

    Raises:
        ConfigError: unknown encoder or device.
        EncoderError: a device or precision this machine does not have.
        WeightsError: weights that cannot be found or read, or don't fit.
    """
    where = _device(device)
    if settings.autocast != "none" and where.type != "cuda":
        raise EncoderError(
            f"encoder.autocast = {settings.autocast!r} needs CUDA and this encoder is to run on {where}. "
            "Use --device cuda, or a recipe with autocast none."
        )
    architecture, expects, description = _with_weights(settings, allow_download)
    trunk = architecture.trunk
    digest = weights_digest(trunk.state_dict())
    if settings.fold:
        fold_batchnorm(trunk)
    trunk = trunk.to(where)
    if settings.channels_last:
        trunk = trunk.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Encoder(
        settings=settings,
        trunk=trunk,
        device=where,
        dim=architecture.dim,
        input_px=architecture.fixed_px or expects.input_px,
        fixed_px=architecture.fixed_px,
        mean=expects.mean,
        std=expects.std,
        weights_description=description,
        weights_sha256=digest,
    )


def _with_weights(settings: EncoderSettings, allow_download: bool) -> tuple[Architecture, Preprocessing, str]:
    """The architecture with its weights, the input they expect, and where they came from."""
    name, weights = settings.name, settings.weights
    named = weights_names(name)
    if weights == RANDOM:
        expects, seed = preprocessing(name), settings.weights_seed
        architecture = build_architecture(name, seed=seed)
        calm(architecture.trunk, px=architecture.fixed_px or COMMON_PX, seed=seed)
        return architecture, expects, f"random (seed {seed})"
    if weights in named:
        path, expects = named_weights_file(name, weights, allow_download=allow_download), preprocessing(name, weights)
        description = f"{named[weights].name} ({path.name})"
    else:
        path, expects, description = Path(weights), preprocessing(name), Path(weights).name
    if not path.is_file():
        raise WeightsError(
            f"{weights!r} is neither a file nor the name of weights of {name}. torchvision's names: "
            f'{", ".join(named)}; or the path of a .pth or .safetensors file, or "{RANDOM}".'
        )
    state = read_state_dict(path)
    architecture = build_architecture(name, image_px=transformer_image_px(state) or expects.input_px)
    load_weights(architecture, state, source=str(path))
    return architecture, expects, description


def _first_line(error: BaseException) -> str:
    """torch may add pages of backends and C++ frames."""
    return str(error).partition("\n")[0][:200]


def _device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        where = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"there is no device {device!r}: expected cpu, cuda or auto.") from error
    if where.type not in ("cpu", "cuda"):
        raise ConfigError(f"an encoder cannot run on {device!r}: expected cpu, cuda or auto.")
    if where.type == "cuda" and not torch.cuda.is_available():
        raise EncoderError("this machine has no CUDA device that torch can use. Use --device cpu.")
    return where


@contextlib.contextmanager
def _precision(device: torch.device, autocast: str) -> Iterator[None]:
    """Arithmetic of the forward pass on CUDA: what ``autocast`` says, repeatable, and never TF32 unasked."""
    if device.type != "cuda":
        yield
        return
    dtype = {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(autocast)
    with (
        torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False),
        torch.autocast("cuda", dtype=dtype, enabled=dtype is not None),
    ):
        yield
