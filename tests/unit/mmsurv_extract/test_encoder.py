from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mmsurv.errors import ConfigError, EncoderError, WeightsError
from mmsurv_extract import _torchvision
from mmsurv_extract.encoder import Encoder, EncoderSettings, build_encoder, encoder_names, tiles_per_block
from mmsurv_extract.fold import fold_batchnorm
from mmsurv_extract.torchvision_models import build_architecture, preprocessing

RANDOM18 = EncoderSettings(name="resnet18", weights="random")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return build_encoder(RANDOM18)


def _tiles(n: int, height: int = 64, width: int = 64) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def _relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max() / np.abs(b).max())


# Features


def test_a_tiles_features_do_not_depend_on_its_batch(encoder: Encoder) -> None:
    tiles = _tiles(7)
    one_by_one = np.concatenate([encoder(tile[None]) for tile in tiles])
    assert _relative(encoder(tiles), one_by_one) < 1e-5


def test_a_batch_larger_than_a_block_on_the_cpu_gives_the_features_of_its_blocks(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles = _tiles(7)
    whole = encoder(tiles)
    monkeypatch.setattr("mmsurv_extract.encoder.tiles_per_block", lambda height, width: 3)
    assert _relative(encoder(tiles), whole) < 1e-5
    assert encoder(tiles).tobytes() == np.concatenate([encoder(tiles[i : i + 3]) for i in (0, 3, 6)]).tobytes()


def test_blocks_hold_as_many_pixels_whatever_the_size_of_tiles() -> None:
    assert tiles_per_block(224, 224) >= 8
    assert tiles_per_block(112, 112) == 4 * tiles_per_block(224, 224)
    assert tiles_per_block(4096, 4096) == 1


def test_the_same_batch_gives_the_same_bytes(encoder: Encoder) -> None:
    assert encoder(_tiles(4)).tobytes() == build_encoder(RANDOM18)(_tiles(4)).tobytes()


def test_a_tensor_and_an_array_give_the_same_features(encoder: Encoder) -> None:
    tiles = _tiles(2)
    read_only = tiles.copy()
    read_only.flags.writeable = False
    assert encoder(torch.from_numpy(tiles)).tobytes() == encoder(read_only).tobytes()


def test_normalisation_is_that_of_the_weights(encoder: Encoder) -> None:
    tiles = torch.from_numpy(_tiles(2, 20, 30))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (encoder.mean, encoder.std))
    expected = (tiles.permute(0, 3, 1, 2).double() / 255 - mean) / std
    found = encoder.normalised(tiles)
    assert found.shape == (2, 3, 20, 30)
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=2e-6)


def test_convolutional_encoders_take_tiles_of_any_size_and_shape(encoder: Encoder) -> None:
    for height, width in ((33, 47), (224, 224), (299, 100)):
        assert encoder(_tiles(2, height, width)).shape == (2, 512)


def test_no_tiles_give_no_features(encoder: Encoder) -> None:
    assert encoder(_tiles(0)).shape == (0, 512)


def test_a_vision_transformer_says_which_size_it_takes() -> None:
    transformer = build_encoder(EncoderSettings(name="vit_b_32", weights="random"))
    with pytest.raises(EncoderError, match=r"vit_b_32 takes tiles of 224 × 224 px only, found 256 × 224"):
        transformer(_tiles(1, 224, 256))


def test_a_tile_too_small_for_the_network_is_an_encoder_error() -> None:
    alexnet = build_encoder(EncoderSettings(name="alexnet", weights="random"))
    with pytest.raises(EncoderError, match=r"alexnet cannot encode 1 tiles of 16 × 16 px"):
        alexnet(_tiles(1, 16, 16))


@pytest.mark.parametrize(
    "tiles",
    [_tiles(1).astype(np.float32), _tiles(1)[0], _tiles(1).transpose(0, 3, 1, 2), _tiles(1)[..., :2]],
    ids=["float", "one tile", "channels first", "two channels"],
)
def test_tiles_of_another_type_or_shape_are_refused(encoder: Encoder, tiles: np.ndarray) -> None:
    with pytest.raises(EncoderError, match=r"expects tiles \(B, H, W, 3\) of uint8 RGB, found"):
        encoder(tiles)


def test_features_that_are_not_finite_are_refused_with_their_row() -> None:
    class Overflow(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            features = torch.ones(len(x), 512)
            features[1, 5] = float("inf")
            return features

    broken = dataclasses.replace(build_encoder(RANDOM18), trunk=Overflow())
    with pytest.raises(EncoderError, match=r"NaN or infinite features for 1 of 3 tiles \(first: row 1 of"):
        broken(_tiles(3))


# Speed that changes nothing


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_folding_and_channels_last_keep_the_features(name: str) -> None:
    plain = EncoderSettings(name=name, weights="random", fold=False, channels_last=False)
    expected = build_encoder(plain)(_tiles(2))
    for changes in ({"fold": True}, {"channels_last": True}):
        found = build_encoder(dataclasses.replace(plain, **changes))
        assert _relative(found(_tiles(2)), expected) < 1e-5


def test_folding_leaves_no_batch_normalisation_that_follows_a_convolution() -> None:
    for name, n_left in (("resnet18", 0), ("inception_v3", 0), ("densenet121", 62)):
        trunk = build_architecture(name).trunk
        n_before = sum(isinstance(module, nn.BatchNorm2d) for module in trunk.modules())
        assert fold_batchnorm(trunk) == n_before - n_left
        assert sum(isinstance(module, nn.BatchNorm2d) for module in trunk.modules()) == n_left


def test_a_convolution_that_something_else_reads_is_not_folded() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(3, 3, 1)
            self.norm = nn.BatchNorm2d(3)
            self.norm.running_var.fill_(9.0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.convolution(x)
            return self.norm(y) + y

    model = Shared().eval()
    x = torch.rand(1, 3, 4, 4)
    expected = model(x)
    assert fold_batchnorm(model) == 0
    torch.testing.assert_close(model(x), expected)


def test_a_model_that_cannot_be_traced_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(x) if x.sum() > 0 else x

    assert fold_batchnorm(Branching().eval()) == 0
    assert "cannot be traced" in caplog.text


# Weights


def test_random_weights_are_the_same_bytes_whatever_the_global_random_state_and_threads() -> None:
    first = build_encoder(RANDOM18).weights_sha256
    threads = torch.get_num_threads()
    torch.manual_seed(99)
    torch.set_num_threads(1 if threads > 1 else 2)
    before = torch.random.get_rng_state()
    try:
        assert build_encoder(RANDOM18).weights_sha256 == first
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_scale_of_a_random_layer_is_one_power_of_two_which_float_noise_cannot_move() -> None:
    plain = build_encoder(dataclasses.replace(RANDOM18, fold=False))
    variances = [module.running_var for module in plain.trunk.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(len(variance.unique()) == 1 for variance in variances)
    exponents = [float(variance[0].log2()) / 2 for variance in variances]
    assert all(exponent.is_integer() for exponent in exponents)
    assert len(set(exponents)) > 1


def test_another_seed_gives_other_random_weights(encoder: Encoder) -> None:
    other = build_encoder(dataclasses.replace(RANDOM18, weights_seed=1))
    assert other.weights_sha256 != encoder.weights_sha256
    assert other.weights_description == "random (seed 1)"


@pytest.mark.parametrize("name", ["resnet101", "mobilenet_v3_small"])
def test_random_features_of_deep_networks_neither_explode_nor_vanish(name: str) -> None:
    tiles = _tiles(2, 224, 224)
    assert 0.01 < build_encoder(EncoderSettings(name=name, weights="random"))(tiles).std() < 100
    with torch.inference_mode():
        as_initialised = build_architecture(name).trunk(torch.from_numpy(tiles).permute(0, 3, 1, 2) / 64 - 2)
    stored = as_initialised.half()
    assert not stored.isfinite().all() or not stored.any(), "calming is not needed for this model any more"


def test_the_digest_is_of_the_weights_as_they_came_not_as_they_are_run(encoder: Encoder) -> None:
    plain = build_encoder(dataclasses.replace(RANDOM18, fold=False, channels_last=False))
    assert plain.weights_sha256 == encoder.weights_sha256


def test_weights_from_a_file_are_those_that_run_and_are_known_by_digest(encoder: Encoder, tmp_path: Path) -> None:
    plain = build_encoder(dataclasses.replace(RANDOM18, fold=False))
    torch.save(plain.trunk.state_dict(), tmp_path / "mine.pth")
    copy = build_encoder(EncoderSettings(name="resnet18", weights=str(tmp_path / "mine.pth")))
    assert copy.weights_description == "mine.pth"
    assert copy.weights_sha256 == encoder.weights_sha256
    assert copy(_tiles(2)).tobytes() == encoder(_tiles(2)).tobytes()
    assert str(tmp_path) not in json.dumps(copy.describe())


def test_a_vision_transformers_size_is_read_off_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "small.pth"
    file.touch()
    state = build_architecture("vit_b_32", image_px=96).trunk.state_dict()
    monkeypatch.setattr("mmsurv_extract.torchvision_models.read_state_dict", lambda path: state)
    small = build_encoder(EncoderSettings(name="vit_b_32", weights=str(file)))
    assert small.input_px == small.fixed_px == 96
    assert small(_tiles(1, 96, 96)).shape == (1, 768)


def test_weights_that_are_neither_name_nor_file_are_refused_with_the_names_there_are() -> None:
    with pytest.raises(WeightsError, match=r"'IMAGENET1K_V2' is neither a file .*resnet18.*IMAGENET1K_V1, DEFAULT"):
        build_encoder(EncoderSettings(name="resnet18", weights="IMAGENET1K_V2"))


def test_named_weights_that_are_not_there_are_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    with pytest.raises(WeightsError, match=r"weights DEFAULT of resnet50 are not on this machine: .*--download"):
        build_encoder(EncoderSettings(name="resnet50", weights="DEFAULT"))


def test_real_weights_tell_tissue_apart_from_ink(shared_data: Path) -> None:
    """Features of real weights on real tissue: two halves of a region are nearer to each other than to pen marks."""
    from PIL import Image

    weights = shared_data / "weights" / "mobilenet_v2_imagenet_torchvision_features.pth"
    encoder = build_encoder(EncoderSettings(name="mobilenet_v2", weights=str(weights)))
    region = next(iter(sorted((shared_data / "tiles").glob("glioma_TCGA-*.png"))))
    tissue = np.asarray(Image.open(region).convert("RGB"))
    ink = np.asarray(Image.open(shared_data / "tiles" / "ink.jpeg").convert("RGB").resize((224, 224)))
    features = encoder(np.stack([tissue[:224, :224], tissue[-224:, -224:], ink]))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    assert unit[0] @ unit[1] > unit[0] @ unit[2] + 0.05


# Settings, names, fingerprint


def test_the_description_is_json_and_names_all_that_changes_features(encoder: Encoder) -> None:
    described = json.loads(json.dumps(encoder.describe()))
    assert described == encoder.describe()
    assert described["name"] == "resnet18"
    assert described["weights"] == "random"
    assert re.fullmatch("[0-9a-f]{64}", described["weights_sha256"])
    assert described["mean"] == [0.485, 0.456, 0.406]
    assert {"std", "fold", "channels_last", "autocast", "dim"} <= described.keys()


def test_inputs_follow_the_weights() -> None:
    assert preprocessing("resnet50", "IMAGENET1K_V2").input_px == 224
    assert preprocessing("vit_b_16", "IMAGENET1K_SWAG_E2E_V1").input_px == 384
    assert preprocessing("vit_b_16").input_px == 224
    assert preprocessing("efficientnet_v2_l").mean == (0.5, 0.5, 0.5)
    assert preprocessing("inception_v3").mean == (0.5, 0.5, 0.5)


def test_an_unknown_encoder_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(ConfigError, match=r"no encoder 'resnet5O'.*Nearest: resnet50"):
        build_encoder(EncoderSettings(name="resnet5O", weights="random"))


def test_the_resnets_of_the_paper_and_its_kin_are_there() -> None:
    assert {f"resnet{depth}" for depth in (18, 34, 50, 101, 152)} <= set(encoder_names())
    assert not [name for name in encoder_names() if "rcnn" in name or "3d" in name]


def test_every_encoder_is_listed_in_the_documentation() -> None:
    page = Path(__file__).parents[3] / "docs" / "encoders.md"
    listed = set(re.findall(r"`([a-z0-9_]+)`", page.read_text(encoding="utf-8")))
    assert set(encoder_names()) <= listed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": " "}, "encoder.name"),
        ({"weights": ""}, "encoder.weights"),
        ({"weights_seed": -1}, "encoder.weights_seed"),
        ({"weights_seed": 2**63}, "encoder.weights_seed"),
        ({"autocast": "float8"}, "encoder.autocast"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EncoderSettings(**changes)  # type: ignore[arg-type]


def test_reduced_precision_is_refused_on_the_cpu() -> None:
    with pytest.raises(EncoderError, match=r"autocast = 'bfloat16' needs CUDA"):
        build_encoder(dataclasses.replace(RANDOM18, autocast="bfloat16"))


@pytest.mark.parametrize("device", ["gpu", "meta"])
def test_a_device_that_is_none_is_refused(device: str) -> None:
    with pytest.raises(ConfigError, match=r"expected cpu, cuda, cuda:K .* or auto"):
        build_encoder(RANDOM18, device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none_is_refused_and_auto_takes_the_cpu() -> None:
    with pytest.raises(EncoderError, match="no CUDA device"):
        build_encoder(RANDOM18, device="cuda")
    assert build_encoder(RANDOM18, device="auto").device == torch.device("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_features_of_the_cpu(encoder: Encoder) -> None:
    assert _relative(build_encoder(RANDOM18, device="cuda")(_tiles(4)), encoder(_tiles(4))) < 1e-4


# torchvision


def test_torchvision_is_imported_whether_or_not_its_operators_load() -> None:
    program = (
        "from mmsurv_extract import _torchvision as t\n"
        "import torch, torchvision\n"
        "missing = not torchvision.extension._has_ops()\n"
        "assert missing == (t.DECLARED is not None), (missing, t.DECLARED)\n"
        "assert torchvision.models is t.models and torch.ops.torchvision.nms\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_nothing_is_declared_where_the_operators_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops, "load_library", lambda path: None)
    assert _torchvision._declare_missing_operators() is None


def test_nothing_is_declared_without_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_torchvision.importlib.util, "find_spec", lambda name: None)
    assert _torchvision._declare_missing_operators() is None


def test_the_compiled_operators_are_found_by_any_suffix_of_this_python(tmp_path: Path) -> None:
    assert _torchvision.extension_file(tmp_path) is None
    for suffix in _torchvision.importlib.machinery.EXTENSION_SUFFIXES:
        file = tmp_path / f"_C{suffix}"
        file.touch()
        assert _torchvision.extension_file(tmp_path) == file
        file.unlink()


def test_settings_are_known_without_importing_torch() -> None:
    program = "import mmsurv_extract.encoder_settings, sys; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
