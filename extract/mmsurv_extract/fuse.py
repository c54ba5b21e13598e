"""Convolutions on the CPU with their filters laid out once, and what follows them done while the output is in cache.

oneDNN runs every convolution of torch on the CPU. Called the usual way it lays the filters out anew for each batch,
and an activation or a residual sum reads and writes the whole map once more. Here a convolution is replaced, with the
activation and the sum behind it, by one call of the operator that ``torch.compile`` uses for the same purpose
(``torch.ops.mkldnn._convolution_pointwise``), which needs no compiler. The additions are the same in the same order.
"""

from __future__ import annotations

import logging
import operator
from collections import Counter
from typing import Any

import torch
from torch import fx, nn

from mmsurv_extract.fold import UNTRACEABLE

_log = logging.getLogger("mmsurv")

_ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
    nn.Hardswish: ("hardswish", []),
    nn.SiLU: ("swish", []),
}
_SUMS = (operator.add, operator.iadd, torch.add)
# The layout of filters is chosen for a batch; encoders are given about so many tiles at once.
_LAID_OUT_FOR = 32


def available() -> bool:
    """Whether this torch has the operators."""
    return torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name) for name in ("_convolution_pointwise", "_reorder_convolution_weight")
    )


def fuse_convolutions(model: nn.Module) -> nn.Module:
    """A model that gives the same features in fewer passes over memory.

    Args:
        model: in eval mode, float32, on the CPU, channels last, its batch normalisations folded. It is left as it is.

    Returns:
        A model that shares the parameters of ``model``; ``model`` itself where torch lacks the operators, where it
        cannot be traced, or where no convolution has anything behind it that could join it.
    """
    if not available() or not any(type(module) is nn.Conv2d for module in model.modules()):
        return model
    try:
        traced = fx.symbolic_trace(model)
    except UNTRACEABLE as error:
        _log.info("convolutions are not fused: the model cannot be traced (%s)", error)
        return model
    fused = _Fusion(traced)
    return fused.model if fused.run() else model


class FusedConvolution(nn.Module):
    """A convolution, the sum with another map if one is given, then an activation."""

    def __init__(self, convolution: nn.Conv2d, activation: tuple[str, list[float]] | None) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        self.kernel = convolution.kernel_size
        self.activation, self.scalars = activation or ("none", [])
        self.padding = [int(side) for side in convolution.padding]
        self.stride, self.dilation = list(convolution.stride), list(convolution.dilation)
        self.groups = convolution.groups
        self._laid_out: tuple[torch.Size, torch.Tensor] | None = None

    def forward(self, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        place = (self.padding, self.stride, self.dilation, self.groups)
        filters = self._filters(x.shape[1:])
        if other is None:
            return torch.ops.mkldnn._convolution_pointwise(
                x, filters, self.bias, *place, self.activation, self.scalars, None
            )
        after = None if self.activation == "none" else self.activation
        if other.shape != self._output_shape(x):  # a sum that broadcasts
            y = torch.ops.mkldnn._convolution_pointwise(x, filters, self.bias, *place, "none", [], None) + other
            return y if after is None else torch.relu(y)
        return torch.ops.mkldnn._convolution_pointwise.binary(
            x, other, filters, self.bias, *place, "add", 1.0, after, self.scalars, None
        )

    def _filters(self, image: torch.Size) -> torch.Tensor:
        """The filters as oneDNN wants them for images (C, H, W); laid out again when that changes."""
        if self._laid_out is None or self._laid_out[0] != image:
            place = (self.padding, self.stride, self.dilation, self.groups)
            batch = [_LAID_OUT_FOR, *image]
            self._laid_out = (image, torch.ops.mkldnn._reorder_convolution_weight(self.weight, *place, batch))
        return self._laid_out[1]

    def _output_shape(self, x: torch.Tensor) -> tuple[int, ...]:
        sides = zip(x.shape[2:], self.padding, self.dilation, self.kernel, self.stride, strict=True)
        return (
            len(x),
            len(self.weight),
            *((n + 2 * pad - dilation * (kernel - 1) - 1) // step + 1 for n, pad, dilation, kernel, step in sides),
        )


class _Fusion:
    """One pass over the graph of a traced model."""

    def __init__(self, model: fx.GraphModule) -> None:
        self.model = model
        self.modules = dict(model.named_modules())
        self.uses = Counter(str(node.target) for node in model.graph.nodes if node.op == "call_module")
        self.order = {node: i for i, node in enumerate(model.graph.nodes)}

    def run(self) -> int:
        """How many convolutions had something behind them that joined them."""
        joined = 0
        for node in list(self.model.graph.nodes):
            if not self._is_plain_convolution(node):
                continue
            last = self._past_nothing(node)
            other, last = self._sum(node, last)
            activation, last = self._activation(last, behind_sum=other is not None)
            joined += last is not node
            self._replace(node, last, other, activation)
        self.model.graph.eliminate_dead_code()
        self.model.recompile()
        return joined

    def _module(self, node: fx.Node) -> nn.Module | None:
        return self.modules[str(node.target)] if node.op == "call_module" else None

    def _is_plain_convolution(self, node: fx.Node) -> bool:
        module = self._module(node)
        return (
            type(module) is nn.Conv2d
            and self.uses[str(node.target)] == 1
            and module.padding_mode == "zeros"
            and not isinstance(module.padding, str)
        )

    def _only_user(self, node: fx.Node) -> fx.Node | None:
        users = list(node.users)
        return users[0] if len(users) == 1 else None

    def _past_nothing(self, node: fx.Node) -> fx.Node:
        """The last of the identities (folded batch normalisations) behind a node."""
        while (user := self._only_user(node)) is not None and type(self._module(user)) is nn.Identity:
            node = user
        return node

    def _sum(self, convolution: fx.Node, last: fx.Node) -> tuple[fx.Node | None, fx.Node]:
        """What is added to the convolution, if that is there before the convolution runs; and the sum."""
        user = self._only_user(last)
        if user is None or user.op != "call_function" or user.target not in _SUMS or user.kwargs or len(user.args) != 2:
            return None, last
        left, right = user.args
        other = right if left is last else left
        if not isinstance(other, fx.Node) or other is last or self.order[other] > self.order[convolution]:
            return None, last
        return other, user

    def _activation(self, last: fx.Node, *, behind_sum: bool) -> tuple[tuple[str, list[float]] | None, fx.Node]:
        user = self._only_user(last)
        module = None if user is None else self._module(user)
        if user is None or module is None or type(module) not in _ACTIVATIONS:
            return None, last
        if behind_sum and type(module) is not nn.ReLU:  # the operator knows no other behind a sum
            return None, last
        return _ACTIVATIONS[type(module)], user

    def _replace(self, node: fx.Node, last: fx.Node, other: fx.Node | None, activation: Any) -> None:
        fused = FusedConvolution(self.modules[str(node.target)], activation)
        self.model.set_submodule(str(node.target), fused)
        source = node.args[0]
        if last is not node:
            last.replace_all_uses_with(node)
        # After the line above, which would otherwise make the node its own argument.
        node.args = (source,) if other is None else (source, other)
        for erased in self._between(node, last, other):
            self.model.graph.erase_node(erased)

    def _between(self, node: fx.Node, last: fx.Node, other: fx.Node | None) -> list[fx.Node]:
        """The nodes behind ``node`` up to ``last``, the last one first."""
        found: list[fx.Node] = []
        while last is not node:
            found.append(last)
            last = next(n for n in last.all_input_nodes if n is not other or len(last.all_input_nodes) == 1)
        return found
