"""What every test may ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real slides, weights and cohorts; its tests are skipped where it is absent."""
    folder = os.environ.get("MMSURV_TEST_DATA")
    if not folder:
        pytest.skip("MMSURV_TEST_DATA is not set: it names the folder of real slides, weights and cohorts")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"MMSURV_TEST_DATA={folder} is not a folder")
    return path
