"""The seal of a record: the attributes that are the store's to write, and the checks of them.

Owns what makes a record one of its store's: its recipe, the slide its name says, and both digests.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from mmsurv import provenance
from mmsurv.errors import CorruptRecordError, RecipeMismatchError, StoreError
from mmsurv.store import record as records
from mmsurv.store.commit import PARTIAL
from mmsurv.store.ids import check_slide_id
from mmsurv.store.manifest import Manifest
from mmsurv.store.rank import ROW_ORDER
from mmsurv.store.record import Scalar, SlideRecord


def seal(record: SlideRecord, manifest: Manifest) -> SlideRecord:
    """The record in the store's types, with the store's attributes: recipe, row order, digests.

    Raises:
        StoreError: the record's parts do not fit together, it sets an attribute that is the store's, or one that is no
            string or finite number.
    """
    record = records.checked(record, dim=manifest.dim, dtype=manifest.numpy_dtype)
    taken = sorted(set(record.attributes) & set(records.RESERVED))
    if taken:
        raise StoreError(f"{record.slide_id}: attributes {', '.join(taken)} are set by the store.")
    attributes: dict[str, Scalar] = {
        **record.attributes,
        "slide_id": check_slide_id(record.slide_id),
        "recipe": provenance.canonical_json(manifest.recipe),
        "recipe_sha256": manifest.recipe_sha256,
        "row_order": ROW_ORDER,
        "features_sha256": records.features_digest(record.features),
    }
    try:
        attributes["record_sha256"] = records.record_digest(record, attributes)
    except (TypeError, ValueError) as error:
        raise StoreError(
            f"{record.slide_id}: an attribute cannot be stored ({error}); expected strings and finite numbers."
        ) from error
    return dataclasses.replace(record, attributes=attributes)


def require_own(attributes: Mapping[str, Scalar], path: Path, manifest: Manifest, *, suffix: str) -> None:
    """Check that a record is of this recipe, and of the slide its file's name says.

    Raises:
        RecipeMismatchError: another recipe; the message has the difference field by field.
        CorruptRecordError: another slide.
    """
    if attributes.get("recipe_sha256") != manifest.recipe_sha256:
        try:
            theirs = json.loads(str(attributes.get("recipe", "{}")))
        except ValueError:
            theirs = {}
        raise RecipeMismatchError(
            f"{path} was made by another recipe than its store's (record → store):\n"
            f"{provenance.difference_table(theirs, manifest.recipe)}\n"
            "Move the file away, or import it into a store of its own."
        )
    named = path.name.removesuffix(suffix)
    if not path.name.endswith(PARTIAL) and attributes.get("slide_id") != named:
        raise CorruptRecordError(
            f"{path} holds slide {attributes.get('slide_id')!r}. Give the file its slide's name back."
        )


def require_intact(record: SlideRecord, path: Path) -> None:
    """Check both digests of a record that was read. Raises CorruptRecordError if one is not what was written."""
    remedy = f"Delete {path.name} and encode or import the slide again."
    if records.features_digest(record.features) != record.attributes.get("features_sha256"):
        raise CorruptRecordError(f"{path}: the features are not the bytes that were written. {remedy}")
    try:
        digest = records.record_digest(record, record.attributes)
    except (TypeError, ValueError) as error:
        raise CorruptRecordError(f"{path}: an attribute is damaged ({error}). {remedy}") from error
    if digest != record.attributes.get("record_sha256"):
        raise CorruptRecordError(f"{path}: coordinates, attributes or images are not what was written. {remedy}")
