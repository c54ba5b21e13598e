"""``torch.compile`` for a frozen encoder.

Owns the options it is compiled with and what is said where it cannot be. On the CPU the weights are frozen into the
program (inductor's ``freezing``), which is made for batches of one size: the encoder fills the last block of a batch
up, so that a program is compiled once per tile size, whatever number of tiles comes. On CUDA the number of tiles is
left open instead.
"""

from __future__ import annotations

import warnings

import torch
from torch import nn

from mmsurv.errors import EncoderError


def compile_trunk(trunk: nn.Module, device: torch.device) -> nn.Module:
    """A module that compiles itself when it is first run.

    Raises:
        EncoderError: a program of one line cannot be compiled for this device; the message has the remedy.
    """
    require_compiler(device)
    if device.type == "cpu":
        return torch.compile(trunk, dynamic=False, options={"freezing": True})  # type: ignore[return-value]
    return torch.compile(trunk, dynamic=True)  # type: ignore[return-value]


def require_compiler(device: torch.device) -> None:
    """Compile and run one line, so that a machine that cannot says so before any slide is opened.

    Raises:
        EncoderError: it cannot.
    """
    # Importing what inductor uses warns of a part of torch that torch itself has deprecated.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import torch._inductor.compile_fx
        import torch.utils.mkldnn
    values = torch.arange(4.0, device=device)
    try:
        found = torch.compile(_line, dynamic=False)(values)
    except Exception as error:
        needs = "a C++ compiler and Python's headers" if device.type == "cpu" else "Triton and a C compiler"
        raise EncoderError(
            f"encoder.compile = true needs {needs}, and a program of one line cannot be compiled for {device}: "
            f"{_reason(error)} Install them (the variable CXX names another compiler than g++), or "
            "set encoder.compile = false: the features are the same up to float noise."
        ) from error
    if not torch.equal(found, _line(values)):
        raise EncoderError(
            f"what torch.compile makes for {device} computes wrong numbers. Set encoder.compile = false."
        )


def _line(values: torch.Tensor) -> torch.Tensor:
    return values * 2 + 1


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300].rstrip(".") + "."
