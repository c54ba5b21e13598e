"""Patients that a run's models know already.

Owns what counts as known: a case id, or a slide's very features, of the training or validation part. In a
cross-validation every patient trained some fold's model, and the mean over folds has seen them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from mmsurv_train.run import Run

PARTS = ("train", "validation")


def seen_cases(run: Run, cases: Sequence[str], slides: pd.DataFrame, records: Mapping[str, str]) -> dict[str, str]:
    """Cases of a new cohort that the run's models know, with how that is known.

    Args:
        run: of one split or a cross-validation.
        cases: ids of the new cohort.
        slides: slide_id and case_id of the new cohort.
        records: digest of each slide's features, where they are read.
    """
    known_cases, known_records = set[str](), dict[str, str]()
    digests: Mapping[str, str] = run.provenance["digests"].get("records") or {}
    for member in run.folds() or [run]:
        found = member.predictions
        known_cases |= set(found.cases["case_id"][found.cases["part"].isin(PARTS)])
        for slide_id in found.slides["slide_id"][found.slides["part"].isin(PARTS)]:
            if slide_id in digests:
                known_records[digests[slide_id]] = slide_id
    seen = {case: "its id is a case of the training or validation part" for case in cases if case in known_cases}
    for slide_id, case in zip(slides["slide_id"], slides["case_id"], strict=True):
        twin = known_records.get(records.get(slide_id, ""))
        if twin is not None:
            seen.setdefault(case, f"its slide {slide_id} has the features of {twin} of the training or validation part")
    return dict(sorted(seen.items()))
