"""What every encoder must do, over at least one model of each torchvision family, some of timm's and a plug-in.

With MMSURV_TEST_ALL_ENCODERS=1 it runs over all of torchvision's, which takes a while and several GB of memory.
"""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from mmsurv_extract import timm_models, torchvision_models
from mmsurv_extract._torchvision import models
from mmsurv_extract.architectures import FrozenModel
from mmsurv_extract.encoder import Encoder, EncoderSettings, build_encoder
from mmsurv_extract.registry import load_model

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
# timm's own test models, a few layers each: one that folds, one with activations in its normalisations, one that takes
# one size only.
OF_TIMM = {"timm:test_resnet": 96, "timm:test_efficientnet": 256, "timm:test_vit": 64}
PLUGIN = "plugin:contract"
DIMS = {**FAMILIES, **OF_TIMM, PLUGIN: 12}
TOLERANCE = 1e-4


def _params() -> list[object]:
    no_timm = pytest.mark.skipif(not timm_models.installed(), reason="timm is not installed (the extra mmsurv[timm])")
    everything = bool(os.environ.get("MMSURV_TEST_ALL_ENCODERS"))
    of_torchvision = torchvision_models.names() if everything else sorted(FAMILIES)
    return [*of_torchvision, *(pytest.param(name, marks=no_timm) for name in OF_TIMM), PLUGIN]


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A distribution with a plug-in on the path: the mean colours of four fields."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "contract_plugin.py").write_text(
        "from torch import nn\n"
        "from mmsurv_extract.plugins import PluginEncoder\n"
        "def build(weights):\n"
        "    module = nn.Sequential(nn.Conv2d(3, 3, 5), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())\n"
        "    half = (0.5, 0.5, 0.5)\n"
        "    return PluginEncoder(module=module, dim=12, mean=half, std=half, input_px=224, provenance=weights)\n"
    )
    facts = folder / "contract_plugin-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: contract_plugin\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[mmsurv.encoders]\ncontract = contract_plugin:build\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield
    sys.modules.pop("contract_plugin", None)


@pytest.fixture(scope="module", params=_params())
def model(request: pytest.FixtureRequest, plugin: None) -> FrozenModel:
    """Built once for the two encoders below: initialising large layers takes most of the time here."""
    return load_model(EncoderSettings(name=request.param, weights="random"))


def _encoder(model: FrozenModel, **settings: bool) -> Encoder:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmsurv_extract.encoder.load_model", lambda *_, **__: copy.deepcopy(model))
        return build_encoder(EncoderSettings(name=model.name, weights="random", **settings))


@pytest.fixture(scope="module")
def encoder(model: FrozenModel) -> Encoder:
    return _encoder(model)


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
    assert encoder.dim == DIMS.get(encoder.name, encoder.dim)
    assert np.isfinite(features.astype(np.float16)).all()
    assert (features.astype(np.float16) != 0).mean() > 0.25


def test_different_tiles_have_different_features(features: np.ndarray) -> None:
    assert np.ptp(features, axis=0).max() > 0.01 * np.abs(features).max()


def test_features_are_what_enters_the_last_classification_layer_of_the_librarys_own_model(
    model: FrozenModel, encoder: Encoder, tiles: np.ndarray, features: np.ndarray
) -> None:
    as_trained = _encoder(model, fold=False, channels_last=False)
    assert as_trained.weights_sha256 == encoder.weights_sha256
    x = torch.from_numpy(tiles).permute(0, 3, 1, 2).contiguous().float() / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (encoder.mean, encoder.std))
    with torch.no_grad():
        expected = _penultimate(as_trained, (x - mean) / std).numpy()
    assert np.abs(features - expected).max() < TOLERANCE * np.abs(expected).max()


def _penultimate(encoder: Encoder, images: torch.Tensor) -> torch.Tensor:
    if encoder.name == PLUGIN:
        return encoder.trunk(images)
    state = encoder.trunk.state_dict()
    if encoder.name in OF_TIMM:
        import timm

        full = timm.create_model(encoder.name.removeprefix("timm:")).eval()
        assert not full.load_state_dict(state, strict=False).unexpected_keys
        return full.forward_head(full.forward_features(images), pre_logits=True)
    options = {"aux_logits": False, "init_weights": False} if encoder.name in ("googlenet", "inception_v3") else {}
    model = models.get_model(encoder.name, weights=None, **options).eval()
    assert not model.load_state_dict(state, strict=False).unexpected_keys
    return _heard(model, images, nn.Conv2d if encoder.name.startswith("squeezenet") else nn.Linear)


def _heard(model: nn.Module, images: torch.Tensor, kind: type[nn.Module]) -> torch.Tensor:
    """Run torchvision's full model and listen at its last linear (or, in SqueezeNet, convolutional) layer."""
    *_, last = (layer for layer in model.modules() if isinstance(layer, kind))
    heard: list[torch.Tensor] = []
    last.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0]))
    model(images)
    return heard[0].mean((2, 3)) if heard[0].ndim == 4 else heard[0]
