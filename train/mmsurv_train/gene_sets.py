"""Gene sets from GMT files (MSigDB's form), and which of a model's genes are in them.

Owns the file's form and the matching by name.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmsurv.errors import CohortError, RunError

logger = logging.getLogger("mmsurv")

OTHERS = "genes in no set"


@dataclass(frozen=True, kw_only=True)
class GeneSets:
    """Sets of a model's genes, and one more of those that are in none."""

    names: tuple[str, ...]
    places: tuple[tuple[int, ...], ...]
    """Of each set: the places of its genes among the model's."""

    def to_table(self) -> dict[str, Any]:
        """JSON-able."""
        return {"names": list(self.names), "places": [list(places) for places in self.places]}

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> GeneSets:
        """Raises RunError if the table is not one that ``to_table`` made."""
        try:
            return cls(names=tuple(table["names"]), places=tuple(tuple(map(int, one)) for one in table["places"]))
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"preprocess.json: its gene sets are not as this version writes them ({error}).") from error


@dataclass(frozen=True)
class GeneSetFile:
    """What a GMT file says: set → genes, in the order of the file."""

    path: Path
    sets: Mapping[str, tuple[str, ...]]

    def matched(self, genes: Sequence[str], *, least: int) -> GeneSets:
        """The sets as places among ``genes``.

        Args:
            genes: a model's, in its order.
            least: sets of which fewer are among them are left out, with a warning.

        Raises:
            CohortError: no set is left.
        """
        place = {gene: index for index, gene in enumerate(genes)}
        found = {name: tuple(sorted(place[gene] for gene in sets if gene in place)) for name, sets in self.sets.items()}
        kept = {name: places for name, places in found.items() if len(places) >= least}
        if not kept:
            example = next(iter(self.sets.values()))[0]
            raise CohortError(
                f"{self.path}: no gene set has {least} of the model's {len(genes)} genes. Its genes are named such as "
                f"{example!r}, the model's {genes[0]!r}. Use one naming, or lower model.least_genes."
            )
        if len(kept) < len(found):
            logger.warning(
                "%s: %d of %d gene sets have fewer than %d of the model's genes and are left out: %s",
                self.path, len(found) - len(kept), len(found), least,
                ", ".join([name for name in found if name not in kept][:5]),
            )  # fmt: skip
        inside = {index for places in kept.values() for index in places}
        outside = tuple(index for index in range(len(genes)) if index not in inside)
        others = {OTHERS: outside} if outside else {}
        return GeneSets(names=(*kept, *others), places=(*kept.values(), *others.values()))


def read_gene_sets(path: Path) -> GeneSetFile:
    """Read a GMT file: a line for each set with its name, a description and its genes, separated by tabs.

    Raises:
        CohortError: it cannot be read, or is no such file; names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise CohortError(f"{path}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise CohortError(f"{path}: not a GMT file: not UTF-8 text ({error}).") from error
    sets: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, *rest = [cell.strip() for cell in line.split("\t")]
        genes = tuple(dict.fromkeys(gene for gene in rest[1:] if gene))
        if not name or not genes:
            raise CohortError(
                f"{path}, line {number}: expected a set's name, a description and its genes, separated by tabs, found "
                f"{line[:60]!r}. Is it a GMT file?"
            )
        if name in sets:
            raise CohortError(f"{path}, line {number}: the set {name!r} stands there twice. Keep one.")
        sets[name] = genes
    if not sets:
        raise CohortError(f"{path}: holds no gene set.")
    return GeneSetFile(path=path, sets=sets)
