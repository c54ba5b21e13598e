"""What is said of a damaged part of a sweep's folder: the file, what is wrong, and which folder to delete.

Owns the advice. What reads a run alone says to train it again; in a sweep the same command does, once the damaged
folder is gone, and everything else stays.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from mmsurv.errors import MmsurvError, RunError

_ADVICE = re.compile(r"\s*(The file was changed( or cut)?: )?[Tt]rain (it|the run) again\.$")


def repairable(error: MmsurvError, folder: Path, does: Literal["trains", "computes"]) -> RunError:
    """The error with the remedy that is right in a sweep.

    Args:
        error: of reading something in ``folder``.
        folder: what the same command makes again if it is not there.
        does: how.
    """
    return RunError(f"{_ADVICE.sub('', str(error))} Delete {folder}; the same command {does} it again.")
