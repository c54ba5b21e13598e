"""The frozen encoder: uint8 tiles in, float32 features out.

Owns the forward pass and what makes it fast (folding, fusing, compiling, channels_last, inference mode, normalisation
on the device). Which encoders there are is said in ``registry.py``.
Shape suffixes: B tiles, H height, W width, D feature dim.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from mmsurv.errors import EncoderError
from mmsurv_extract import stream
from mmsurv_extract.architectures import COMMON_PX, FrozenModel
from mmsurv_extract.compiled import compile_trunk
from mmsurv_extract.devices import choose_device, precision
from mmsurv_extract.encoder_settings import RANDOM, EncoderSettings
from mmsurv_extract.fold import fold_batchnorm
from mmsurv_extract.fuse import fuse_convolutions
from mmsurv_extract.registry import encoder_names, load_model
from mmsurv_extract.weights import weights_digest

__all__ = ["Encoder", "EncoderSettings", "build_encoder", "encoder_names"]

K = TypeVar("K")
# Between features that differ by float noise, relative to the largest.
_SAME = 1e-4


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoder:
    """A frozen model that turns tiles into features; made by :func:`build_encoder`."""

    name: str
    """As in the fingerprint: torchvision's name, or ``timm:`` or ``plugin:`` and the name there."""
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
    library: str
    """What built the model, with its version; not part of the fingerprint."""
    revision: str = ""
    """What a plug-in's author calls this state of its code."""

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
        tiles_BHW3 = self.checked(tiles)
        if len(tiles_BHW3) == 0:
            return np.empty((0, self.dim), dtype=np.float32)
        with self.explained(tiles_BHW3.shape), self.inference():
            features_BD = self._features(tiles_BHW3.to(self.device)).float().cpu().numpy()
        return self.finite(features_BD)

    def encode_stream(self, batches: Iterable[tuple[K, np.ndarray]]) -> Iterator[tuple[K, np.ndarray]]:
        """Encode batches in their order; see :func:`mmsurv_extract.stream.encode_stream`.

        For a job: ``for rows, features in encoder.encode_stream((b.rows, b.tiles) for b in reader.batches(…))``. On
        the CPU it is a loop over :meth:`__call__`; on CUDA copying and computing overlap.
        """
        return stream.encode_stream(self, batches)

    def describe(self) -> dict[str, Any]:
        """What decides the features, flat and JSON-able: the encoder's part of a recipe's fingerprint.

        Weights are known by their digest, not by their path or name, so a copy elsewhere is the same recipe.
        """
        table = {
            "name": self.name,
            "dim": self.dim,
            "weights": RANDOM if self.settings.weights == RANDOM else "file",
            "weights_sha256": self.weights_sha256,
            "mean": list(self.mean),
            "std": list(self.std),
            "fold": self.settings.fold,
            "channels_last": self.settings.channels_last,
            "autocast": self.settings.autocast,
            "compile": self.settings.compile,
        }
        return {**table, "revision": self.revision} if self.revision else table

    def checked(self, tiles: torch.Tensor | np.ndarray) -> torch.Tensor:
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

    def inference(self) -> contextlib.ExitStack:
        """The mode a forward pass runs in, as a context."""
        stack = contextlib.ExitStack()
        stack.enter_context(torch.inference_mode())
        stack.enter_context(precision(self.device, self.settings.autocast))
        return stack

    @contextlib.contextmanager
    def explained(self, shape: Sequence[int]) -> Iterator[None]:
        """Turn what torch raises about tiles of ``shape`` (B, H, W, 3) into an EncoderError."""
        n_tiles, height, width, _ = shape
        try:
            yield
        except EncoderError:
            raise
        except (RuntimeError, AssertionError, ValueError) as error:
            hint = " It is compiled: try encoder.compile = false." if self.settings.compile else ""
            raise EncoderError(
                f"{self.name} cannot encode {n_tiles} tiles of {width} × {height} px ({_first_line(error)}). It was "
                f"made for tiles of {self.input_px} px; if memory ran out, use a smaller batch (--batch-size).{hint}"
            ) from error

    def _features(self, tiles_BHW3: torch.Tensor) -> torch.Tensor:
        """(B, D); on the CPU in blocks, the last one filled up with black tiles where a program wants one size."""
        if self.device.type != "cpu":
            return self.trunk(self.normalised(tiles_BHW3))
        n_block = tiles_per_block(*tiles_BHW3.shape[1:3])
        parts = []
        for block in tiles_BHW3.split(n_block):
            n_added = n_block - len(block) if self.settings.compile else 0
            filled = nn.functional.pad(block, (0, 0) * 3 + (0, n_added)) if n_added else block
            parts.append(self.trunk(self.normalised(filled))[: len(block)])
        return torch.cat(parts)

    def normalised(self, tiles_BHW3: torch.Tensor) -> torch.Tensor:
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

    def finite(self, features_BD: np.ndarray) -> np.ndarray:
        if features_BD.ndim != 2 or features_BD.shape[1] != self.dim:
            raise EncoderError(f"{self.name} gave features {features_BD.shape}, expected (B, {self.dim}).")
        bad = np.flatnonzero(~np.isfinite(features_BD).all(axis=1))
        if bad.size:
            raise EncoderError(
                f"{self.name} gave NaN or infinite features for {bad.size} of {len(features_BD)} tiles (first: row "
                f"{bad[0]} of the batch). Check the weights ({self.weights_description}), or use autocast none."
            )
        return features_BD


def tiles_per_block(height: int, width: int) -> int:
    """How many tiles of a batch go through a model on the CPU together: 8 of 224 px, or as many smaller ones.

    The maps of so many stay in a processor's cache, and below the size from which memory is asked of the system anew
    for every map. Where there are more threads than 8, each gets a tile.
    """
    return max(1, max(8, torch.get_num_threads()) * COMMON_PX**2 // (height * width))


def build_encoder(settings: EncoderSettings, *, device: str = "cpu", allow_download: bool = False) -> Encoder:
    """Build an encoder, load its weights and make it fast.

    Args:
        device: "cpu", "cuda", "cuda:K" for the GPU numbered K, or "auto" for CUDA where there is one.
        allow_download: whether weights that torchvision or timm name may be fetched if their caches lack them.

    Raises:
        ConfigError: unknown encoder or device.
        EncoderError: a device, precision or compiler this machine does not have, or a plug-in that is broken.
        WeightsError: weights that cannot be found or read, or don't fit.
    """
    where = choose_device(device)
    if settings.autocast != "none" and where.type != "cuda":
        raise EncoderError(
            f"encoder.autocast = {settings.autocast!r} needs CUDA and this encoder is to run on {where}. "
            "Use --device cuda, or a recipe with autocast none."
        )
    model = load_model(settings, allow_download=allow_download)
    digest = weights_digest(model.architecture.trunk.state_dict())
    return Encoder(
        name=model.name,
        settings=settings,
        trunk=_made_fast(model, settings, where),
        device=where,
        dim=model.architecture.dim,
        input_px=model.architecture.fixed_px or model.expects.input_px,
        fixed_px=model.architecture.fixed_px,
        mean=model.expects.mean,
        std=model.expects.std,
        weights_description=model.weights,
        weights_sha256=digest,
        library=model.library,
        revision=model.revision,
    )


def _made_fast(model: FrozenModel, settings: EncoderSettings, where: torch.device) -> nn.Module:
    trunk, fold = model.architecture.trunk, settings.fold and model.traceable
    px = model.architecture.fixed_px or model.expects.input_px
    before = None if model.proven or not fold else _sample(trunk, px)
    if fold:
        fold_batchnorm(trunk)
    if settings.channels_last:
        trunk = trunk.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if fold and settings.channels_last and where.type == "cpu" and not settings.compile:
        trunk = fuse_convolutions(trunk)
    if before is not None:
        _require_same(before, _sample(trunk, px), model.name)
    trunk = trunk.to(where)
    return compile_trunk(trunk, where) if settings.compile else trunk


def _sample(trunk: nn.Module, px: int) -> torch.Tensor:
    """Features of one image of noise."""
    with torch.inference_mode():
        return trunk(torch.rand((1, 3, px, px), generator=torch.Generator().manual_seed(0)) * 2 - 1)


def _require_same(expected: torch.Tensor, found: torch.Tensor, name: str) -> None:
    """A graph that was traced along another way than the model goes would be folded wrongly."""
    if expected.shape != found.shape or float((found - expected).abs().max()) > _SAME * float(expected.abs().max()):
        raise EncoderError(
            f"folding batch normalisations changes the features of {name}, so it cannot be folded. Set "
            "encoder.fold = false."
        )


def _first_line(error: BaseException) -> str:
    """torch may add pages of backends and C++ frames."""
    return str(error).partition("\n")[0][:200]
