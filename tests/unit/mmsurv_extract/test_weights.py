from __future__ import annotations

import hashlib
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mmsurv.errors import WeightsError
from mmsurv_extract.architectures import Architecture
from mmsurv_extract.torchvision_models import build_architecture, same_size
from mmsurv_extract.weights import load_weights, weights_digest
from mmsurv_extract.weights_file import cached_file, read_state_dict

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def squeezenet() -> Architecture:
    return build_architecture("squeezenet1_1", seed=1)


@pytest.fixture
def state(squeezenet: Architecture) -> State:
    return {key: tensor.clone() for key, tensor in squeezenet.trunk.state_dict().items()}


@pytest.fixture
def other() -> Architecture:
    """The same architecture with other weights in it."""
    return build_architecture("squeezenet1_1", seed=2)


def _saved(state: object, path: Path) -> Path:
    torch.save(state, path)
    return path


# Reading


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": {"module." + key: value for key, value in state.items()}},
        lambda state: {"state_dict": {"model.module." + key: value for key, value in state.items()}},
        lambda state: {"_orig_mod." + key: value for key, value in state.items()},
    ],
    ids=["plain", "state_dict", "data-parallel", "lightning", "compiled"],
)
def test_what_training_programs_wrap_around_weights_is_taken_off(
    wrap: Callable[[State], object], state: State, tmp_path: Path
) -> None:
    read = read_state_dict(_saved(wrap(state), tmp_path / "weights.pth"))
    assert weights_digest(read) == weights_digest(state)


def test_safetensors_and_pth_of_the_same_weights_have_the_same_digest(state: State, tmp_path: Path) -> None:
    save_file(state, tmp_path / "weights.safetensors")
    pth = read_state_dict(_saved(state, tmp_path / "weights.pth"))
    assert weights_digest(read_state_dict(tmp_path / "weights.safetensors")) == weights_digest(pth)


class _Payload:
    """A pickle that makes a folder when it is read by plain pickle."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(
    write: Callable[[object, Path], object], state: State, tmp_path: Path
) -> None:
    write({"state_dict": state, "extra": _Payload(tmp_path / "it-ran")}, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=r"weights\.pth: refused\. .*which could run code"):
        read_state_dict(tmp_path / "weights.pth")
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><html></html>", b"PK\x03\x04", b"\x80\x02}", b"\0" * 64])
def test_a_file_that_is_not_weights_is_refused_by_name(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"page.{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=rf"page\.{suffix}: (refused|cannot be read)"):
        read_state_dict(path)


@pytest.mark.parametrize("share", [0.3, 0.99])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_truncated_file_is_refused(suffix: str, share: float, state: State, tmp_path: Path) -> None:
    path = tmp_path / f"weights.{suffix}"
    (torch.save if suffix == "pth" else save_file)(state, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(WeightsError, match="cannot be read"):
        read_state_dict(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nowhere\.pth: there is no such file"):
        read_state_dict(tmp_path / "nowhere.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(3), "expected a state dict .* found Tensor"),
        ({}, "It is empty"),
        ({"a": torch.zeros(1), "epoch": 3}, "'epoch' is int"),
        ({0: torch.zeros(1)}, "0 is Tensor, expected the name"),
        ({"state_dict": {}}, "It is empty"),
    ],
)
def test_tensors_that_are_no_state_dict_are_refused(content: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=message):
        read_state_dict(_saved(content, tmp_path / "weights.pth"))


def test_a_mapping_that_holds_itself_is_refused(tmp_path: Path) -> None:
    loop: dict[str, object] = {}
    loop["state_dict"] = loop
    with pytest.raises(WeightsError, match="'state_dict' is dict"):
        read_state_dict(_saved(loop, tmp_path / "weights.pth"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("features.denseblock1.denselayer2.norm.1.weight", "features.denseblock1.denselayer2.norm1.weight"),
        ("features.denseblock1.denselayer2.conv.2.weight", "features.denseblock1.denselayer2.conv2.weight"),
        ("encoder.layers.encoder_layer_0.mlp.linear_1.bias", "encoder.layers.encoder_layer_0.mlp.0.bias"),
        ("encoder.layers.encoder_layer_0.mlp.linear_2.bias", "encoder.layers.encoder_layer_0.mlp.3.bias"),
    ],
)
def test_names_of_older_torchvision_files_are_brought_up_to_date(old: str, new: str, tmp_path: Path) -> None:
    name = new.split(".")[0]
    model = build_architecture("densenet121" if name == "features" else "vit_b_32").trunk
    assert new in model.state_dict()
    assert list(read_state_dict(_saved({old: torch.zeros(1)}, tmp_path / "weights.pth"))) == [new]


# Fitting


def test_loading_replaces_every_parameter(state: State, other: Architecture) -> None:
    assert weights_digest(other.trunk.state_dict()) != weights_digest(state)
    load_weights(other, state, source="file")
    assert weights_digest(other.trunk.state_dict()) == weights_digest(state)


def test_a_classifier_in_the_file_changes_nothing(state: State, other: Architecture) -> None:
    load_weights(other, {**state, "classifier.1.weight": torch.ones(7, 512, 1, 1)}, source="file")
    assert weights_digest(other.trunk.state_dict()) == weights_digest(state)


def test_weights_of_the_trunk_child_alone_are_enough(state: State, other: Architecture) -> None:
    alone = {key.removeprefix("features."): value for key, value in state.items()}
    load_weights(other, alone, source="file")
    assert weights_digest(other.trunk.state_dict()) == weights_digest(state)


def test_half_precision_weights_are_widened(state: State, other: Architecture) -> None:
    load_weights(other, {key: value.half() for key, value in state.items()}, source="file")
    assert all(value.dtype == torch.float32 for value in other.trunk.state_dict().values())


def test_one_missing_parameter_is_named_and_nothing_is_loaded(state: State, other: Architecture) -> None:
    before = weights_digest(other.trunk.state_dict())
    del state["features.3.squeeze.bias"]
    with pytest.raises(WeightsError, match=r"missing      1: features\.3\.squeeze\.bias\n"):
        load_weights(other, state, source="file")
    assert weights_digest(other.trunk.state_dict()) == before


def test_another_shape_is_named_with_both_shapes(state: State, other: Architecture) -> None:
    state["features.0.bias"] = torch.zeros(96)
    with pytest.raises(WeightsError, match=re.escape("features.0.bias: expected (64,), found (96,)")):
        load_weights(other, state, source="file")


def test_a_deeper_network_of_the_same_family_is_refused() -> None:
    """Every tensor of ResNet-18 has its name and shape in ResNet-34 too; only what is left over tells them apart."""
    deep, shallow = build_architecture("resnet34"), build_architecture("resnet18")
    with pytest.raises(WeightsError, match=r"missing      none\n  unexpected   \d+: layer1\.2\.bn1"):
        load_weights(shallow, deep.trunk.state_dict(), source="file")


def test_the_architecture_a_full_file_belongs_to_is_suggested(squeezenet: Architecture, state: State) -> None:
    state |= {"classifier.1.weight": torch.zeros(1000, 512, 1, 1), "classifier.1.bias": torch.zeros(1000)}
    with pytest.raises(WeightsError, match="exactly as many parameters as squeezenet1_1"):
        load_weights(build_architecture("resnet18"), state, source="file", resembles=same_size)
    assert same_size(11_689_512) == ["resnet18"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(value: float, state: State, other: Architecture) -> None:
    before = weights_digest(other.trunk.state_dict())
    state["features.12.expand3x3.weight"][3, 2, 1, 0] = value
    with pytest.raises(WeightsError, match=r"features\.12\.expand3x3\.weight holds NaN or infinity"):
        load_weights(other, state, source="file")
    assert weights_digest(other.trunk.state_dict()) == before


def test_integers_are_no_weights(state: State, other: Architecture) -> None:
    with pytest.raises(WeightsError, match=r"features\.0\.weight is torch\.int8, expected torch\.float32"):
        load_weights(other, {key: value.to(torch.int8) for key, value in state.items()}, source="file")


def test_the_digest_depends_on_names_shapes_and_values_but_not_on_order_or_counters() -> None:
    state = {"a": torch.arange(6.0), "b": torch.ones(2)}
    digest = weights_digest(state)
    assert weights_digest({"b": state["b"], "a": state["a"], "bn.num_batches_tracked": torch.tensor(5)}) == digest
    assert weights_digest({"c": state["a"], "b": state["b"]}) != digest
    assert weights_digest({"a": state["a"].view(2, 3), "b": state["b"]}) != digest
    assert weights_digest({"a": state["a"].double(), "b": state["b"]}) != digest
    assert weights_digest({"a": state["a"] + 1e-7, "b": state["b"]}) != digest


def test_the_digest_does_not_depend_on_how_a_tensor_lies_in_memory() -> None:
    filters = torch.rand(8, 3, 5, 5)
    assert weights_digest({"w": filters.to(memory_format=torch.channels_last)}) == weights_digest({"w": filters})


# Files that libraries name by URL


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: State) -> Path:
    """Where an empty hub cache will have a file that is served, under a name that gives its digest."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    original = _saved(state, tmp_path / "original")
    digest = hashlib.sha256(original.read_bytes()).hexdigest()
    monkeypatch.setattr(
        torch.hub,
        "download_url_to_file",
        lambda url, path, hash_prefix, progress: Path(path).write_bytes(original.read_bytes()),
    )
    return tmp_path / "hub" / "checkpoints" / f"squeezenet1_1-{digest[:8]}.pth"


def _fetched(hub: Path, *, allow_download: bool) -> Path:
    return cached_file(f"https://example.org/models/{hub.name}", what="weights V1", allow_download=allow_download)


def test_named_weights_are_not_downloaded_unless_allowed(hub: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"(?s)weights V1 are not on this machine: expected .*checkpoints.*--download.*example\.org"
    ):
        _fetched(hub, allow_download=False)
    assert not hub.exists()


def test_named_weights_once_downloaded_are_used_without_asking(hub: Path) -> None:
    assert _fetched(hub, allow_download=True) == hub
    assert _fetched(hub, allow_download=False) == hub
    assert read_state_dict(hub)


def test_a_damaged_file_in_the_cache_is_refused(hub: Path) -> None:
    hub.parent.mkdir(parents=True)
    hub.write_bytes(b"half a file")
    with pytest.raises(WeightsError, match=r"SHA-256 .* does not begin with .* Delete it"):
        _fetched(hub, allow_download=True)


@pytest.mark.parametrize("error", [OSError("no route to host"), RuntimeError("invalid hash value")])
def test_a_failed_download_says_what_to_do(hub: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(WeightsError, match=rf"the download failed \({error}\)\. Try again, or put the file at"):
        _fetched(hub, allow_download=True)


# Real files


def test_real_weights_of_a_feature_trunk_and_of_a_full_model_fit(shared_data: Path) -> None:
    for encoder, file in (
        ("squeezenet1_1", "squeezenet1_1_imagenet_torchvision.pth"),
        ("mobilenet_v2", "mobilenet_v2_imagenet_torchvision_features.pth"),
    ):
        architecture = build_architecture(encoder)
        state = read_state_dict(shared_data / "weights" / file)
        load_weights(architecture, state, source=file)
        values = {tuple(value.flatten()[:16].tolist()) for value in state.values() if value.is_floating_point()}
        loaded = [value for value in architecture.trunk.state_dict().values() if value.is_floating_point()]
        assert loaded
        assert all(tuple(value.flatten()[:16].tolist()) in values for value in loaded)
