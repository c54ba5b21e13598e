"""Names of configurations are folders, each its own, for whatever a recipe calls its rows."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from mmsurv_train.sweep.names import LONGEST, configuration_names

ROWS = st.lists(st.text(min_size=1, max_size=150), min_size=1, max_size=6, unique=True)
VALUES = st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=4, unique=True)


@given(rows=ROWS, values=VALUES)
def test_names_are_unique_and_safe_for_a_folder(rows, values):
    combinations = [(row, {"model.dropout": value}) for row in rows for value in values]
    found = configuration_names(combinations, default="default")
    assert len({name.lower() for name in found}) == len(combinations)
    for name in found:
        assert re.fullmatch(r"[A-Za-z0-9_=,+][A-Za-z0-9._=,+-]*", name)
        assert len(name) <= LONGEST
        assert not name.endswith(".")
