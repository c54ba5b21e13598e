from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mmsurv.errors import EncoderError, WeightsError
from mmsurv_extract import timm_models
from mmsurv_extract.encoder_settings import EncoderSettings
from mmsurv_extract.weights import weights_digest

pytestmark = pytest.mark.skipif(not timm_models.installed(), reason="timm is not installed (the extra mmsurv[timm])")
NAME = "test_resnet"


def _load(weights: str, name: str = NAME, *, allow_download: bool = False, seed: int = 0) -> Any:
    settings = EncoderSettings(name=f"timm:{name}", weights=weights, weights_seed=seed)
    return timm_models.load(name, settings, allow_download=allow_download)


@pytest.fixture
def full_state() -> dict[str, torch.Tensor]:
    """Weights of the whole model, its classifier included, in timm's names."""
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return timm.create_model(NAME).state_dict()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the Hugging Face hub, and no way to the hub."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def _put(hub: Path, state: dict[str, torch.Tensor], tag: str = "r160_in1k") -> None:
    """Lay a file into the cache, as huggingface_hub does."""
    repository = hub / f"models--timm--{NAME}.{tag}"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    save_file(state, snapshot / "model.safetensors")


# Input


def test_the_expected_input_is_that_of_the_tag() -> None:
    assert timm_models.preprocessing("resnet18.a1_in1k").mean == (0.485, 0.456, 0.406)
    augmented = _load("random", "vit_tiny_patch16_224.augreg_in21k_ft_in1k")
    assert augmented.expects.mean == augmented.expects.std == (0.5, 0.5, 0.5)
    assert augmented.architecture.fixed_px == 224
    assert augmented.name == "timm:vit_tiny_patch16_224"


def test_a_model_that_takes_no_rgb_squares_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    configuration = timm.get_pretrained_cfg(NAME)
    configuration.input_size = (1, 128, 64)
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda name: configuration)
    with pytest.raises(EncoderError, match=r"timm:test_resnet.* 64 × 128 with 1 channels: expected square RGB"):
        _load("random")


# Weights


def test_random_weights_are_seeded_whatever_the_global_random_state() -> None:
    digests = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(digests))
        digests.append(weights_digest(_load("random", seed=seed).architecture.trunk.state_dict()))
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("suffix", ["pth", "pt", "safetensors"])
def test_a_local_file_in_timms_names_is_loaded_and_its_classifier_ignored(
    suffix: str, full_state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path = tmp_path / f"mine.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(full_state, path)
    loaded = _load(str(path))
    kept = {key: value for key, value in full_state.items() if not key.startswith("fc.")}
    assert weights_digest(loaded.architecture.trunk.state_dict()) == weights_digest(kept)
    assert loaded.weights == path.name


def test_a_local_file_of_another_model_is_refused_by_name(full_state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    del full_state["layer2.0.conv1.weight"]
    full_state["head.extra.weight"] = torch.zeros(1)
    torch.save(full_state, tmp_path / "mine.pth")
    with pytest.raises(
        WeightsError,
        match=r"(?s)mine\.pth: .*test_resnet.*missing +1: layer2\.0\.conv1.*unexpected +1: head\.extra",
    ):
        _load(str(tmp_path / "mine.pth"))


def test_weights_that_are_neither_tag_nor_file_are_refused_with_the_tags_there_are() -> None:
    with pytest.raises(WeightsError, match=r"'IMAGENET1K_V2' is neither .*test_resnet\. Names: r160_in1k, DEFAULT"):
        _load("IMAGENET1K_V2")


@pytest.mark.parametrize("weights", ["DEFAULT", "r160_in1k"])
def test_named_weights_are_not_downloaded_unless_allowed(weights: str, hub: Path) -> None:
    with pytest.raises(WeightsError, match=r"not on this machine: expected timm/test_resnet\.r160_in1k .*--download"):
        _load(weights)
    assert not hub.exists()


def test_a_failed_download_says_what_to_do(hub: Path) -> None:
    with pytest.raises(WeightsError, match=r"timm/test_resnet\.r160_in1k: the download .* failed .*Try again"):
        _load("DEFAULT", allow_download=True)


def test_named_weights_in_the_hubs_cache_are_used_without_asking(
    hub: Path, full_state: dict[str, torch.Tensor]
) -> None:
    _put(hub, full_state)
    loaded = _load("DEFAULT")
    kept = {key: value for key, value in full_state.items() if not key.startswith("fc.")}
    assert weights_digest(loaded.architecture.trunk.state_dict()) == weights_digest(kept)
    assert loaded.weights == "r160_in1k (model.safetensors)"


def test_named_weights_that_leave_a_parameter_unfilled_are_refused(
    hub: Path, full_state: dict[str, torch.Tensor]
) -> None:
    del full_state["layer3.0.bn1.weight"]
    _put(hub, full_state)
    with pytest.raises(WeightsError, match=r"(?s)not the weights of timm's test_resnet .*layer3\.0\.bn1\.weight"):
        _load("DEFAULT")
