"""What every encoder must do, over at least one model of each torchvision family.

With MMSURV_TEST_ALL_ENCODERS=1 it runs over all of them, which takes a while and several GB of memory.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from torch import nn

from mmsurv_extract._torchvision import models
from mmsurv_extract.encoder import Encoder, EncoderSettings, build_encoder, encoder_names

FAMILIES = {
    "alexnet": 4096,
    "convnext_tiny": 768,
    "densenet121": 1024,
    "efficientnet_b0": 1280,
    "googlenet": 1024,
    "inception_v3": 2048,
    "maxvit_t": 512,
    "mnasnet0_5": 1280,
    "mobilenet_v2": 1280,
    "mobilenet_v3_small": 1024,
    "regnet_x_400mf": 400,
    "regnet_y_400mf": 440,
    "resnet18": 512,
    "resnet50": 2048,
    "shufflenet_v2_x0_5": 1024,
    "squeezenet1_1": 512,
    "swin_t": 768,
    "vgg11_bn": 4096,
    "vit_b_32": 768,
}
NAMES = encoder_names() if os.environ.get("MMSURV_TEST_ALL_ENCODERS") else sorted(FAMILIES)
TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=NAMES)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return build_encoder(EncoderSettings(name=request.param, weights="random"))


@pytest.fixture(scope="module")
def tiles(encoder: Encoder) -> np.ndarray:
    side = encoder.fixed_px or 224
    rng = np.random.default_rng(7)
    blocks = rng.integers(60, 256, (2, 8, 8, 3), dtype=np.uint8)
    return blocks.repeat(side // 8 + 1, 1).repeat(side // 8 + 1, 2)[:, :side, :side]


@pytest.fixture(scope="module")
def features(encoder: Encoder, tiles: np.ndarray) -> np.ndarray:
    return encoder(tiles)


def test_features_are_one_finite_row_per_tile_that_float16_can_hold(
    encoder: Encoder, tiles: np.ndarray, features: np.ndarray
) -> None:
    assert features.shape == (len(tiles), encoder.dim)
    assert features.dtype == np.float32
    assert encoder.dim == FAMILIES.get(encoder.name, encoder.dim)
    assert np.isfinite(features.astype(np.float16)).all()
    assert (features.astype(np.float16) != 0).mean() > 0.25


def test_different_tiles_have_different_features(features: np.ndarray) -> None:
    assert np.ptp(features, axis=0).max() > 0.01 * np.abs(features).max()


def test_features_are_what_enters_the_last_classification_layer_of_torchvisions_own_model(
    encoder: Encoder, tiles: np.ndarray, features: np.ndarray
) -> None:
    as_trained = build_encoder(EncoderSettings(name=encoder.name, weights="random", fold=False, channels_last=False))
    assert as_trained.weights_sha256 == encoder.weights_sha256
    expected = _penultimate(as_trained, tiles)
    assert np.abs(features - expected).max() < TOLERANCE * np.abs(expected).max()


def _penultimate(encoder: Encoder, tiles: np.ndarray) -> np.ndarray:
    """Run torchvision's full model and listen at its last linear (or, in SqueezeNet, convolutional) layer."""
    options = {"aux_logits": False, "init_weights": False} if encoder.name in ("googlenet", "inception_v3") else {}
    model = models.get_model(encoder.name, weights=None, **options).eval()
    given = model.load_state_dict(encoder.trunk.state_dict(), strict=False)
    assert not given.unexpected_keys
    kind = nn.Conv2d if encoder.name.startswith("squeezenet") else nn.Linear
    *_, last = (layer for layer in model.modules() if isinstance(layer, kind))
    heard: list[torch.Tensor] = []
    last.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0]))
    x = torch.from_numpy(tiles).permute(0, 3, 1, 2).contiguous().float() / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (encoder.mean, encoder.std))
    with torch.no_grad():
        model((x - mean) / std)
    return (heard[0].mean((2, 3)) if heard[0].ndim == 4 else heard[0]).numpy()
