from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from mmsurv.errors import EncoderError
from mmsurv_extract.encoder import Encoder, EncoderSettings, build_encoder

SETTINGS = EncoderSettings(name="squeezenet1_1", weights="random")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=needs_cuda)])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return build_encoder(SETTINGS, device=request.param)


def _batches(sizes: list[int], px: int = 40) -> Iterator[tuple[str, np.ndarray]]:
    for i, n in enumerate(sizes):
        yield f"batch {i}", np.random.default_rng(i).integers(0, 256, (n, px, px, 3), dtype=np.uint8)


def test_a_stream_gives_the_features_of_each_batch_with_its_key_in_order(encoder: Encoder) -> None:
    sizes = [4, 4, 0, 4, 1]
    streamed = list(encoder.encode_stream(_batches(sizes)))
    assert [key for key, _ in streamed] == [key for key, _ in _batches(sizes)]
    for (_, found), (_, tiles) in zip(streamed, _batches(sizes), strict=True):
        assert found.shape == (len(tiles), 512)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, encoder(tiles), rtol=1e-5, atol=1e-5)


def test_features_stay_what_they_were_while_the_stream_goes_on(encoder: Encoder) -> None:
    kept = [(features, features.copy()) for _, features in encoder.encode_stream(_batches([2, 2, 2, 2]))]
    assert all(np.array_equal(features, copy) for features, copy in kept)


def test_tiles_may_be_overwritten_once_the_next_batch_is_asked_for(encoder: Encoder) -> None:
    buffer = np.empty((3, 40, 40, 3), np.uint8)

    def reused() -> Iterator[tuple[str, np.ndarray]]:
        for key, tiles in _batches([3, 3, 3]):
            buffer[:] = tiles
            yield key, buffer

    expected = [encoder(tiles) for _, tiles in _batches([3, 3, 3])]
    for (_, found), wanted in zip(encoder.encode_stream(reused()), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_no_batches_give_no_features(encoder: Encoder) -> None:
    assert list(encoder.encode_stream(_batches([]))) == []


def test_a_stream_leaves_no_inference_mode_behind_between_batches(encoder: Encoder) -> None:
    for _ in encoder.encode_stream(_batches([1, 1])):
        assert not torch.is_inference_mode_enabled()


def test_an_error_ends_the_stream_and_no_later_batch_is_asked_for(encoder: Encoder) -> None:
    asked: list[str] = []

    def batches() -> Iterator[tuple[str, np.ndarray]]:
        for key, tiles in _batches([2, 2, 2, 2]):
            asked.append(key)
            yield key, tiles if key == "batch 0" else tiles.astype(np.float32)

    with pytest.raises(EncoderError, match="uint8 RGB, found"):
        list(encoder.encode_stream(batches()))
    assert asked == ["batch 0", "batch 1"]


@needs_cuda
@pytest.mark.parametrize("autocast", ["none", "float16", "bfloat16"])
def test_on_cuda_the_stream_gives_what_a_call_gives(autocast: str) -> None:
    encoder = build_encoder(dataclasses.replace(SETTINGS, autocast=autocast), device="cuda")
    for (_, found), (_, tiles) in zip(
        encoder.encode_stream(_batches([8] * 20, 224)), _batches([8] * 20, 224), strict=True
    ):
        assert np.array_equal(found, encoder(tiles))
