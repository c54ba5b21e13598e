from __future__ import annotations

import operator
from collections.abc import Callable

import pytest
import torch
from torch import fx, nn

from mmsurv_extract import fuse
from mmsurv_extract.fuse import FusedConvolution, fuse_convolutions

pytestmark = pytest.mark.skipif(not fuse.available(), reason="this torch is built without oneDNN")


class Residual(nn.Module):
    """A convolution, something added to what it gives, an activation; what is added is said by ``add``."""

    def __init__(self, add: Callable[[nn.Module, torch.Tensor], torch.Tensor], activation: nn.Module) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(8, 8, 3, padding=1)
        self.shortcut = nn.Conv2d(8, 8, 1)
        self.weights = nn.Parameter(torch.rand(1, 8, 1, 1))
        self.activation = activation
        self.add = add

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.add(self, x))


def _same(model: nn.Module, x: torch.Tensor) -> nn.Module:
    """The fused model, after its output was compared with the model's own at two sizes, and the first again."""
    model = model.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    fused = fuse_convolutions(model)
    with torch.inference_mode():
        for images in (x, x[:1, :, :-3, :-5], x):
            torch.testing.assert_close(fused(images), model(images), rtol=1e-5, atol=1e-5)
    return fused


def _images(channels: int = 8) -> torch.Tensor:
    images = torch.randn(3, channels, 21, 30, generator=torch.Generator().manual_seed(0))
    return images.to(memory_format=torch.channels_last)


def _n_nodes(model: nn.Module) -> int:
    assert isinstance(model, fx.GraphModule)
    return sum(node.op in ("call_module", "call_function") for node in model.graph.nodes)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(), nn.Hardswish(), nn.SiLU()])
def test_an_activation_behind_a_convolution_joins_it(activation: nn.Module) -> None:
    convolution = nn.Conv2d(8, 6, 3, stride=2, padding=2, dilation=2, groups=2)
    assert _n_nodes(_same(nn.Sequential(convolution, nn.Identity(), activation), _images())) == 1


@pytest.mark.parametrize("sum_", [operator.add, operator.iadd, torch.add])
@pytest.mark.parametrize(("activation", "n_left"), [(nn.ReLU(), 1), (nn.ReLU6(), 2), (nn.SiLU(), 2)])
def test_a_sum_behind_a_convolution_joins_it_and_so_does_a_relu_behind_that(
    sum_: object, activation: nn.Module, n_left: int
) -> None:
    fused = _same(Residual(lambda m, x: sum_(m.convolution(x), x), activation), _images())  # type: ignore[operator]
    assert _n_nodes(fused) == n_left


def test_a_sum_of_two_convolutions_joins_the_later() -> None:
    assert _n_nodes(_same(Residual(lambda m, x: m.shortcut(x) + m.convolution(x), nn.ReLU()), _images())) == 2


def test_a_sum_that_broadcasts_is_right() -> None:
    _same(Residual(lambda m, x: m.convolution(x) + m.weights, nn.ReLU()), _images())
    _same(Residual(lambda m, x: m.convolution(x) + x.mean((2, 3), keepdim=True), nn.Hardswish()), _images())


def test_what_is_computed_after_the_convolution_or_read_twice_is_added_as_before() -> None:
    def later(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = m.convolution(x)  # type: ignore[operator]
        return y + x.tanh()

    def twice(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = m.convolution(x)  # type: ignore[operator]
        return (y + x) * y

    for add in (later, twice):
        _same(nn.Sequential(Residual(add, nn.ReLU()), nn.Conv2d(8, 8, 1), nn.ReLU()), _images())
    _same(Residual(lambda m, x: torch.add(m.convolution(x), x, alpha=3), nn.ReLU()), _images())


def test_a_convolution_that_runs_twice_or_pads_otherwise_stays() -> None:
    model = Residual(lambda m, x: m.shortcut(m.convolution(m.convolution(x))), nn.ReLU())
    model.shortcut.padding_mode = "reflect"
    model.shortcut.padding, model.shortcut._reversed_padding_repeated_twice = (1, 1), [1, 1, 1, 1]
    assert _same(model, _images()) is model


def test_a_model_without_anything_to_join_is_left_as_it_is() -> None:
    for model in (nn.Sequential(nn.Conv2d(8, 8, 1), nn.Tanh()), nn.Sequential(nn.ReLU())):
        assert fuse_convolutions(model) is model


def test_a_model_that_cannot_be_traced_is_left_as_it_is() -> None:
    model = Residual(lambda m, x: m.convolution(x) if x.sum() > 0 else x, nn.ReLU())
    assert _same(model, _images()) is model


def test_the_model_it_came_from_is_left_as_it_is() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    assert isinstance(fuse_convolutions(model).get_submodule("0"), FusedConvolution)
    assert type(model[0]) is nn.Conv2d
