"""Whether weights fit an architecture, and the digest they are known by.

Owns the check of names, shapes and values against a feature trunk, and the digest that stands for the weights in a
recipe's fingerprint. Where the tensors come from is said in ``weights_file.py``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping

import torch

from mmsurv.errors import WeightsError
from mmsurv_extract.architectures import Architecture

_COUNTER = "num_batches_tracked"
_BUFFERS = ("running_mean", "running_var", _COUNTER, "relative_position_index", "relative_coords_table")
_SHOWN = 4


def load_weights(
    architecture: Architecture,
    state: Mapping[str, torch.Tensor],
    *,
    source: str,
    resembles: Callable[[int], list[str]] | None = None,
) -> None:
    """Copy weights into an architecture's trunk, all of them or none.

    Args:
        state: of the full model, of the trunk, or of one child of the model (such as ``mobilenet_v2().features``).
            A classifier may be missing or be another one.
        source: the file, for messages.
        resembles: names of the architectures that have a number of parameters, for the message that refuses a file.

    Raises:
        WeightsError: a parameter or buffer that features depend on is missing, of another shape or type or not
            finite, or the file has parameters the architecture does not have.
    """
    wanted = _used(architecture.trunk.state_dict())
    given = _used(_under_child(state, wanted, architecture))
    _check_fit(given, wanted, architecture, source, resembles)
    for key, parameter in wanted.items():
        _check_values(key, given[key], parameter, source)
    with torch.no_grad():
        for key, parameter in wanted.items():
            parameter.copy_(given[key])


def weights_digest(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 (hex) over name, dtype, shape and bytes of every tensor, in the order of the names.

    The same weights have the same digest whatever file they came from. Counters of training batches, which no
    feature depends on, are left out.
    """
    digest = hashlib.sha256()
    for key, tensor in sorted(_used(state).items()):
        dtype = str(tensor.dtype).removeprefix("torch.")
        digest.update(f"{key}\0{dtype}\0{'x'.join(map(str, tensor.shape))}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _used(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in state.items() if not key.endswith(_COUNTER)}


def _under_child(
    state: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], architecture: Architecture
) -> Mapping[str, torch.Tensor]:
    """Weights of one child, saved alone, under the names they have in the whole model."""
    if any(key in wanted for key in state):
        return state
    for child, _ in architecture.trunk.named_children():
        if any(f"{child}.{key}" in wanted for key in state):
            return {f"{child}.{key}": tensor for key, tensor in state.items()}
    return state


def _check_fit(
    given: Mapping[str, torch.Tensor],
    wanted: Mapping[str, torch.Tensor],
    architecture: Architecture,
    source: str,
    resembles: Callable[[int], list[str]] | None,
) -> None:
    """Refuse weights with a name too few, a name too many, or another shape."""
    missing = sorted(wanted.keys() - given.keys())
    unexpected = sorted(key for key in given.keys() - wanted.keys() if not _within(key, architecture.head))
    shapes = [
        f"{key}: expected {tuple(wanted[key].shape)}, found {tuple(given[key].shape)}"
        for key in sorted(wanted.keys() & given.keys())
        if wanted[key].shape != given[key].shape
    ]
    if missing or unexpected or shapes:
        raise WeightsError(
            f"{source}: these are not the weights of {architecture.name}. Expected {len(wanted)} tensors, found "
            f"{len(given)}.\n"
            f"  missing      {_listed(missing)}\n"
            f"  unexpected   {_listed(unexpected)}\n"
            f"  other shape  {_listed(shapes)}\n"
            f"{_resemblance(given, architecture.name, resembles)}"
            "Name the encoder these weights belong to (--encoder), or other weights (--weights)."
        )


def _check_values(key: str, found: torch.Tensor, expected: torch.Tensor, source: str) -> None:
    if found.is_floating_point() != expected.is_floating_point():
        raise WeightsError(f"{source}: {key} is {found.dtype}, expected {expected.dtype}.")
    if found.is_floating_point() and not bool(torch.isfinite(found).all()):
        raise WeightsError(f"{source}: {key} holds NaN or infinity, so no feature could be believed. Use another file.")


def _within(key: str, parts: tuple[str, ...]) -> bool:
    return any(key.startswith(f"{part}.") for part in parts)


def _resemblance(given: Mapping[str, torch.Tensor], asked: str, resembles: Callable[[int], list[str]] | None) -> str:
    if resembles is None:
        return ""
    n_parameters = sum(tensor.numel() for key, tensor in given.items() if not key.endswith(_BUFFERS))
    names = [name for name in resembles(n_parameters) if name != asked]
    return f"The file has exactly as many parameters as {' or '.join(names)}.\n" if names else ""


def _listed(items: Iterable[str]) -> str:
    items = list(items)
    if not items:
        return "none"
    return f"{len(items)}: {'; '.join(items[:_SHOWN])}{'; …' if len(items) > _SHOWN else ''}"
