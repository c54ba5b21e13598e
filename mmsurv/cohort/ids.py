"""From what a table writes to the ids that are joined.

Owns the rules for slide names and case ids. Ids are text, compared letter by letter; nothing is joined by position.
"""

from __future__ import annotations

import re

from mmsurv.cohort.options import IdRule

SLIDE_EXTENSIONS = frozenset(
    {".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".svslide", ".vms", ".vmu", ".bif"}
    | {".dcm", ".czi", ".zvi", ".isyntax", ".qptiff", ".h5", ".pt"}
)
"""Endings that a slide file name may carry and its id does not. The id itself may hold dots."""

TCGA_BARCODE = re.compile(r"(TCGA-[A-Z0-9]{2}-[A-Z0-9]{4})(?![A-Za-z0-9])")


def slide_id_of(name: str) -> str:
    """The slide id of a file name: the name without one known slide extension, in any case of letters."""
    stem, dot, extension = name.rpartition(".")
    return stem if stem and f"{dot}{extension}".lower() in SLIDE_EXTENSIONS else name


def case_id_of(name: str, rule: IdRule) -> str | None:
    """The case id of a slide name or longer barcode, or None where the rule does not know such a name.

    ``none``: the name itself. ``tcga``: its first 12 characters, project-site-participant.
    """
    if rule == "none":
        return name
    match = TCGA_BARCODE.match(name)
    return match.group(1) if match else None
