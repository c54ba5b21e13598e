"""The types features are stored in, and what they are in memory.

Owns the list. NumPy has no bfloat16; ml_dtypes adds it, and is imported only where a store uses it.
"""

from __future__ import annotations

import numpy as np

DTYPES = ("float16", "bfloat16", "float32")


def numpy_dtype(name: str) -> np.dtype:
    """The little-endian NumPy type of one of ``DTYPES``."""
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name).newbyteorder("<")


def is_bfloat16(dtype: np.dtype) -> bool:
    return dtype.name == "bfloat16"
