"""Merging batch normalisations into the convolutions before them.

A frozen batch normalisation is a multiply and an add per channel, which the convolution's own filters and bias can
carry. The graph says which pairs may be merged; the model's own ``forward`` is kept.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import cast

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_log = logging.getLogger("mmsurv")
UNTRACEABLE = (
    fx.proxy.TraceError,
    TypeError,
    ValueError,
    RuntimeError,
    AttributeError,
    AssertionError,
    NotImplementedError,
)
"""What tracing raises for a model whose flow depends on its input, TraceError being one of many."""


class _Tracer(fx.Tracer):
    """Looks into no batch normalisation, not even one of another library with an activation of its own."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.BatchNorm2d) or super().is_leaf_module(m, module_qualified_name)


def fold_batchnorm(model: nn.Module) -> int:
    """Merge, in place, each batch normalisation whose input is a convolution that nothing else reads.

    Args:
        model: in eval mode.

    Returns:
        How many were merged. Batch normalisations in another place (as before the convolutions of DenseNet) stay. A
        model that cannot be traced is left as it is.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        return 0
    try:
        graph = _Tracer().trace(model)
    except UNTRACEABLE as error:
        _log.warning("batch normalisation is not folded: the model cannot be traced (%s)", error)
        return 0
    pairs = _pairs(model, graph)
    for convolution, norm in pairs:
        layer = cast(nn.BatchNorm2d, model.get_submodule(norm))
        fused = fuse_conv_bn_eval(cast(nn.Conv2d, model.get_submodule(convolution)), layer)
        model.set_submodule(convolution, fused.requires_grad_(False))
        model.set_submodule(norm, cast(nn.Module, _what_is_left(layer)))
    return len(pairs)


def _what_is_left(layer: nn.Module) -> nn.Module | None:
    """What a batch normalisation does besides normalising; None if it is none, or does something unknown."""
    if type(layer) is nn.BatchNorm2d:
        return nn.Identity()
    if isinstance(layer, nn.BatchNorm2d) and type(layer).__name__ == "BatchNormAct2d":
        # timm's: normalise, drop, activate.
        drop, activate = layer.drop, layer.act
        if isinstance(drop, nn.Module) and isinstance(activate, nn.Module):
            return nn.Sequential(drop, activate)
    return None


def _pairs(model: nn.Module, graph: fx.Graph) -> list[tuple[str, str]]:
    """(convolution, normalisation) by name, for modules that are each used once in the graph."""
    modules = dict(model.named_modules())
    uses = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    pairs = []
    for node in graph.nodes:
        if node.op != "call_module" or _what_is_left(modules[str(node.target)]) is None:
            continue
        source = node.args[0]
        if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) != 1:
            continue
        if not isinstance(modules[str(source.target)], nn.Conv2d):
            continue
        if uses[str(node.target)] == uses[str(source.target)] == 1:
            pairs.append((str(source.target), str(node.target)))
    return pairs
