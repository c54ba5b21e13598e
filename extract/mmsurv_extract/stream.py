"""Batches through an encoder, with copies and arithmetic overlapped on CUDA.

While the GPU computes batch k, the features of batch k - 1 come back from it and batch k + 1 is copied to it and
normalised there, each on a CUDA stream of its own; the reader and the writer have the CPU meanwhile. On the CPU there
is nothing to overlap, and this is a loop. The CUDA part has not been run by its authors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

if TYPE_CHECKING:
    from mmsurv_extract.encoder import Encoder

K = TypeVar("K")


def encode_stream(encoder: Encoder, batches: Iterable[tuple[K, np.ndarray]]) -> Iterator[tuple[K, np.ndarray]]:
    """Encode batches, in their order.

    On CUDA one batch is in flight: batch k + 1 is asked for before the features of batch k are given. So whatever
    makes the batches (a reader) and whatever takes the features (a record) may be slow in turns. An array of tiles
    may be reused as soon as the next batch is asked for.

    Args:
        batches: pairs of anything (such as the rows the tiles belong to) and tiles (B, H, W, 3) uint8.

    Yields:
        The same anything, and features (B, D) float32 in host memory.

    Raises:
        EncoderError: as :meth:`Encoder.__call__`. No later batch is asked for.
    """
    if encoder.device.type != "cuda":
        for key, tiles in batches:
            yield key, encoder(tiles)
        return
    lanes = _Lanes(encoder)
    flying: tuple[K, _Flight] | None = None
    for key, tiles in batches:
        started = lanes.start(tiles)
        if flying is not None:
            yield flying[0], flying[1].features()
        flying = (key, started)
    if flying is not None:
        yield flying[0], flying[1].features()


class _Lanes:
    """Three CUDA streams: tiles in, arithmetic, features out."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.tiles_in, self.arithmetic, self.features_out = (torch.cuda.Stream(encoder.device) for _ in range(3))
        # The weights were put there on the stream that is current now.
        self.arithmetic.wait_stream(torch.cuda.current_stream(encoder.device))

    def start(self, tiles: np.ndarray) -> _Flight:
        """Hand a batch to the GPU and come back at once. No context outlives this call, so none leaks to a consumer."""
        host = self.encoder.checked(tiles)
        n_tiles = len(host)
        if n_tiles == 0:
            return _Flight(self.encoder, torch.empty((0, self.encoder.dim)), None)
        with self.encoder.explained(host.shape), self.encoder.inference():
            # A copy into page-locked memory: torch keeps it until the copy to the device that reads it has ended.
            pinned = host.pin_memory()
            with torch.cuda.stream(self.tiles_in):
                images = self.encoder.normalised(pinned.to(self.encoder.device, non_blocking=True))
            self.arithmetic.wait_stream(self.tiles_in)
            with torch.cuda.stream(self.arithmetic):
                # Memory that one stream got and another uses must not be given away before the other has done with it.
                images.record_stream(self.arithmetic)
                features = self.encoder.trunk(images).float()
            self.features_out.wait_stream(self.arithmetic)
            with torch.cuda.stream(self.features_out):
                features.record_stream(self.features_out)
                landed = torch.empty(features.shape, dtype=features.dtype, pin_memory=True)
                landed.copy_(features, non_blocking=True)
                done = torch.cuda.Event()
                done.record(self.features_out)
        return _Flight(self.encoder, landed, done, tuple(host.shape))


@dataclass
class _Flight:
    """A batch that the GPU is at work on."""

    encoder: Encoder
    landing: torch.Tensor
    done: torch.cuda.Event | None
    shape: tuple[int, ...] = (0, 0, 0, 3)

    def features(self) -> np.ndarray:
        """Wait for the features (B, D) float32. An array of their own: the page-locked memory is used again."""
        if self.done is not None:
            with self.encoder.explained(self.shape):
                self.done.synchronize()
        return self.encoder.finite(np.array(self.landing.numpy()))
