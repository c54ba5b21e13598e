"""Where an encoder runs, and the arithmetic it runs in there.

Owns the choice of a device by name and what is said of one that is not there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from mmsurv.errors import ConfigError, EncoderError

EXPECTED = "cpu, cuda, cuda:K (the GPU numbered K, from 0) or auto"


def choose_device(device: str) -> torch.device:
    """A device by name; "cuda" without a number is torch's current one, "auto" that or the CPU.

    Raises:
        ConfigError: not the name of such a device.
        EncoderError: this machine does not have it; the message has how many it has.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        where = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"there is no device {device!r}: expected {EXPECTED}.") from error
    if where.type not in ("cpu", "cuda") or (where.type == "cpu" and where.index):
        raise ConfigError(f"an encoder cannot run on {device!r}: expected {EXPECTED}.")
    if where.type == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise EncoderError("this machine has no CUDA device that torch can use. Use --device cpu.")
    n_devices = torch.cuda.device_count()
    if where.index is not None and where.index >= n_devices:
        there = "cuda:0" if n_devices == 1 else f"cuda:0 to cuda:{n_devices - 1}"
        raise EncoderError(
            f"this process sees {n_devices} CUDA device{'s' * (n_devices > 1)} ({there}), not {device}. Use one of "
            "those; where CUDA_VISIBLE_DEVICES is set, they are numbered from 0 within it."
        )
    # A number, so that a thread whose current device is another one still means this.
    return torch.device("cuda", torch.cuda.current_device() if where.index is None else where.index)


@contextlib.contextmanager
def precision(device: torch.device, autocast: str) -> Iterator[None]:
    """Arithmetic of the forward pass on CUDA: what ``autocast`` says, repeatable, and never TF32 unasked."""
    if device.type != "cuda":
        yield
        return
    dtype = {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(autocast)
    with (
        torch.cuda.device(device),
        torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False),
        torch.autocast("cuda", dtype=dtype, enabled=dtype is not None),
    ):
        yield
