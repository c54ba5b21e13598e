"""Files of weights: finding them, and reading them safely.

Owns the files that libraries name by URL, in torch's hub cache, and reading a local file. No file is ever unpickled
into anything but tensors, and nothing is downloaded unless the caller allows it.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from urllib.parse import urlparse

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from mmsurv.errors import WeightsError
from mmsurv.provenance import file_digest

# Keys under which training programs put the weights beside an epoch, an optimiser and the like.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
# A pickle may hold a mapping that holds itself.
_MOST_WRAPPERS = 3
# What wrapping a model (DataParallel, torch.compile, a Lightning module) puts before every key.
_PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "net.")
# Names in files that torchvision itself still serves, and what the parameters are called today.
_OLD_NAMES = (
    (re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)"), r"\1\2"),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_1\."), r"\1.0."),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_2\."), r"\1.3."),
)


def cached_file(url: str, *, what: str, allow_download: bool) -> Path:
    """The local file of a URL, from torch's hub cache.

    Args:
        url: where it is served; a name that ends in ``-`` and hexadecimal digits promises its SHA-256.
        what: which weights these are, for messages.

    Raises:
        WeightsError: the file is not in the cache and may not be downloaded, the download failed, or the file's
            bytes are not those its name promises.
    """
    name = Path(urlparse(url).path).name
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    stated = re.search(r"-([0-9a-f]{8,})\.", name)
    prefix = stated.group(1) if stated else ""
    if not path.is_file():
        if not allow_download:
            raise WeightsError(
                f"{what} are not on this machine: expected {path}. Allow the download "
                f"(--download), put {url} there by hand, or name a local file (--weights FILE)."
            )
        _download(url, path, prefix)
    elif not file_digest(path).startswith(prefix):
        raise WeightsError(
            f"{path}: the SHA-256 of this file does not begin with {prefix}, as its name says, so it is damaged or "
            "another file. Delete it and fetch it again."
        )
    return path


def local_file(path: str, *, of: str, names: list[str]) -> Path:
    """The path of a local file of weights.

    Args:
        of: the encoder, and ``names`` the weights its library names, for the message.

    Raises:
        WeightsError: there is no such file.
    """
    if not Path(path).is_file():
        known = ", ".join(names) or "it has none"
        raise WeightsError(
            f"{path!r} is neither a file nor the name of weights of {of}. Names: {known}; "
            'or the path of a .pth, .pt or .safetensors file, or "random".'
        )
    return Path(path)


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Read a file of weights and take off what training programs wrap around them.

    Args:
        path: a ``.safetensors`` file, or any other as written by ``torch.save`` of tensors.

    Raises:
        WeightsError: missing, damaged, not a file of weights, or a pickle that asks for anything but tensors (which
            is refused before it runs).
    """
    if not path.is_file():
        raise WeightsError(f"{path}: there is no such file of weights.")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for _ in range(_MOST_WRAPPERS):
        content = _unwrapped(content)
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(
            f"{path}: expected a state dict (parameter name to tensor), found {type(content).__name__}."
            f"{' It is empty.' if isinstance(content, Mapping) else ''} Save the model with "
            "torch.save(model.state_dict(), FILE)."
        )
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise WeightsError(
                f"{path}: {key!r} is {type(value).__name__}, expected the name of a parameter and a tensor. Save the "
                "state dict alone, with torch.save(model.state_dict(), FILE)."
            )
    return {_modern(key): value for key, value in _without_prefix(content).items()}


def _read_safetensors(path: Path) -> Any:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: cannot be read as safetensors ({error}).") from error


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            # torch warns of an unusual pickle protocol, then reads it or raises.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise WeightsError(
            f"{path}: refused. Expected tensors and nothing else; found a pickle of other objects, which could run "
            "code if it were read, or no file of weights at all. Nothing of it was run. If you trust its origin, load "
            "it there and write the tensors alone: torch.save(model.state_dict(), FILE). torch says: "
            f"{_first_line(error)}"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise WeightsError(
            f"{path}: cannot be read as weights; the file is damaged or of another kind ({_first_line(error)}). "
            "Fetch it again."
        ) from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _download(url: str, path: Path, prefix: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(path), hash_prefix=prefix or None, progress=False)
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"{url}: the download failed ({_first_line(error)}). Try again, or put the file at {path}."
        ) from error


def _unwrapped(content: Any) -> Any:
    if not isinstance(content, Mapping):
        return content
    return next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), content)


def _without_prefix(state: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    while prefix := next((p for p in _PREFIXES if all(key.startswith(p) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _modern(key: str) -> str:
    for pattern, replacement in _OLD_NAMES:
        key = pattern.sub(replacement, key)
    return key
