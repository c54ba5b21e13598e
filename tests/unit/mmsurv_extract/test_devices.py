from __future__ import annotations

import pytest
import torch

from mmsurv.errors import ConfigError, EncoderError
from mmsurv_extract.devices import choose_device


def _gpus(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    """Let torch say that it has so many CUDA devices, the last of them current; none is used."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: n - 1)


@pytest.mark.parametrize("device", ["gpu", "meta", "cuda:x", "cuda:-1", "cpu:1", ""])
def test_what_is_no_device_is_refused(device: str) -> None:
    with pytest.raises(ConfigError, match=r"expected cpu, cuda, cuda:K .* or auto"):
        choose_device(device)


def test_a_gpu_beyond_those_there_are_is_refused_with_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    _gpus(monkeypatch, 2)
    with pytest.raises(EncoderError, match=r"sees 2 CUDA devices \(cuda:0 to cuda:1\), not cuda:2"):
        choose_device("cuda:2")
    _gpus(monkeypatch, 1)
    with pytest.raises(EncoderError, match=r"sees 1 CUDA device \(cuda:0\), not cuda:1.*CUDA_VISIBLE_DEVICES"):
        choose_device("cuda:1")


def test_a_gpu_without_any_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    _gpus(monkeypatch, 0)
    for device in ("cuda", "cuda:0"):
        with pytest.raises(EncoderError, match=r"no CUDA device that torch can use\. Use --device cpu"):
            choose_device(device)


def test_a_gpu_is_known_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    _gpus(monkeypatch, 4)
    assert choose_device("cuda:2") == torch.device("cuda", 2)
    assert choose_device("cuda") == choose_device("auto") == torch.device("cuda", 3)
    assert choose_device("cpu") == choose_device("cpu:0") == torch.device("cpu")


def test_auto_is_the_cpu_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    _gpus(monkeypatch, 0)
    assert choose_device("auto") == torch.device("cpu")
