from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mmsurv.errors import EncoderError
from mmsurv_extract.architectures import Architecture, FrozenModel, Preprocessing
from mmsurv_extract.compiled import require_compiler
from mmsurv_extract.encoder import Encoder, EncoderSettings, build_encoder, tiles_per_block

SETTINGS = EncoderSettings(name="tiny", weights="random")


def _tiny() -> FrozenModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trunk = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
    architecture = Architecture(name="tiny", trunk=trunk.eval().requires_grad_(False), dim=8, head=(), fixed_px=None)
    expects = Preprocessing(input_px=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    return FrozenModel(name="tiny", architecture=architecture, expects=expects, weights="random", library="a test")


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> Encoder:
    monkeypatch.setattr("mmsurv_extract.encoder.load_model", lambda *_, **__: _tiny())
    return build_encoder(SETTINGS)


@pytest.fixture
def compiled(eager: Encoder) -> Encoder:
    try:
        require_compiler(torch.device("cpu"))
    except EncoderError as error:
        pytest.skip(f"no C++ compiler that works: {error}")
    return build_encoder(dataclasses.replace(SETTINGS, compile=True))


def _tiles(n: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)


def test_a_compiled_encoder_gives_the_same_features_from_one_program_for_any_number_of_tiles(
    eager: Encoder, compiled: Encoder
) -> None:
    from torch._dynamo.utils import counters

    compiled(_tiles(1))
    programs = counters["stats"]["unique_graphs"]
    block = tiles_per_block(32, 32)
    for n in (block, 2 * block + 5, 3, block + 1):
        expected = eager(_tiles(n))
        found = compiled(_tiles(n))
        assert found.shape == (n, 8)
        assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    assert counters["stats"]["unique_graphs"] == programs > 0
    assert compiled.describe() == {**eager.describe(), "compile": True}


def test_without_a_compiler_the_error_comes_before_any_tile_and_says_what_to_do(
    eager: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", (str(tmp_path / "no-such-compiler"),))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    with pytest.raises(EncoderError, match=r"needs a C\+\+ compiler and Python's.*set encoder\.compile = false"):
        build_encoder(dataclasses.replace(eager.settings, compile=True))
