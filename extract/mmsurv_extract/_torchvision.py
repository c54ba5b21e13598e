"""The one place that imports torchvision.

Where torchvision was built against CUDA and torch was not (the usual outcome of installing both from a package
registry for a machine without a GPU), torchvision's compiled operators cannot be loaded. torchvision carries on
without them, except that it then registers shape functions for operators nobody has declared, and ``import
torchvision`` ends in ``RuntimeError: operator torchvision::nms does not exist`` (pytorch/vision issues 8985 and
9085). These operators belong to detection models; no classification model calls one. So where, and only where, the
compiled operators cannot be loaded, this module declares their schemas first, without an implementation: the import
succeeds, and calling one of them still fails.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import logging
from pathlib import Path

import torch

_log = logging.getLogger("mmsurv")

# Those that torchvision/_meta_registrations.py registers for unconditionally; the second came with 0.28.
_BOXES = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_SCHEMAS = ("nms" + _BOXES, "qnms" + _BOXES)


def extension_file(package: Path) -> Path | None:
    """torchvision's compiled operators in its package folder, by any suffix Python uses; None if there is none."""
    names = (f"_C{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES)
    return next((package / name for name in names if (package / name).is_file()), None)


def _loads(extension: Path | None) -> bool:
    """Whether torch can load the operators; torchvision's own import then loads the same file again, at no cost."""
    if extension is None:
        return False
    try:
        torch.ops.load_library(extension)
    except OSError as error:
        _log.debug("torchvision's compiled operators cannot be loaded: %s", error)
        return False
    return True


def _declare_missing_operators() -> torch.library.Library | None:
    """Declare the operators' schemas if torchvision is installed without loadable ones.

    Returns:
        The declaration, to be kept: it ends when the object does. None where nothing had to be declared.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None or _loads(extension_file(Path(spec.origin).parent)):
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        if not hasattr(torch.ops.torchvision, schema.partition("(")[0]):
            library.define(schema)
    return library


DECLARED = _declare_missing_operators()

from torchvision import __version__ as torchvision_version  # noqa: E402
from torchvision import models  # noqa: E402
from torchvision.ops import SqueezeExcitation  # noqa: E402

__all__ = ["DECLARED", "SqueezeExcitation", "extension_file", "models", "torchvision_version"]
