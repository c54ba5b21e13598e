"""``store.json``: what a store is, and the recipe all its records were made by.

Owns the manifest's fields and its check. A store belongs to one recipe; another recipe is refused with the difference.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmsurv import provenance
from mmsurv.errors import ConfigError, CorruptRecordError, RecipeMismatchError, StoreError
from mmsurv.store.commit import publish_bytes
from mmsurv.store.dtypes import DTYPES, numpy_dtype

FORMAT = 1
FILE_NAME = "store.json"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of ``store.json``."""

    backend: str
    recipe: Mapping[str, Any]
    recipe_sha256: str
    manifest_sha256: str
    """Fingerprint of format, backend, recipe, dim and dtype, so that an edit of any of them is noticed."""
    dim: int
    """Length of a feature vector."""
    dtype: str
    """Type the features are stored in."""
    format: int = FORMAT
    created: str = ""
    """UTC, ISO 8601."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Libraries the store was created with; recorded, not part of the fingerprint."""

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ConfigError(f"A store's dtype is one of {', '.join(DTYPES)}, not {self.dtype!r}.")
        if self.dim < 1:
            raise ConfigError(f"A store's dim must be at least 1, not {self.dim}.")

    @property
    def numpy_dtype(self) -> np.dtype:
        return numpy_dtype(self.dtype)


def new_manifest(*, backend: str, recipe: Mapping[str, Any], dim: int, dtype: str) -> Manifest:
    """A manifest for a store that is made now."""
    # Through JSON and back, so that what is compared later is what can be written.
    plain = json.loads(provenance.canonical_json(recipe))
    return Manifest(
        backend=backend,
        recipe=plain,
        recipe_sha256=provenance.fingerprint(plain),
        manifest_sha256=_digest(backend, plain, dim, dtype),
        dim=dim,
        dtype=dtype,
        created=provenance.now(),
        versions=provenance.versions(),
    )


def with_backend(manifest: Manifest, backend: str) -> Manifest:
    """The manifest of the same store in another backend."""
    digest = _digest(backend, manifest.recipe, manifest.dim, manifest.dtype)
    return dataclasses.replace(manifest, backend=backend, manifest_sha256=digest)


def read_manifest(path: Path) -> Manifest:
    """Read and check ``store.json`` of the store at ``path``.

    Raises:
        StoreError: there is no store, or one of a format this version does not read.
        CorruptRecordError: the manifest is damaged or its recipe was edited.
    """
    file = path / FILE_NAME
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        what = f"its {FILE_NAME} cannot be read ({error.strerror})"
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            what = f"it holds no {FILE_NAME}" if path.exists() else "it does not exist"
        raise StoreError(
            f"{path} is no feature store: {what}. Make one with `mmsurv extract` or `mmsurv store import`."
        ) from None
    except (ValueError, RecursionError) as error:
        raise CorruptRecordError(f"{file} is damaged: {error}. Restore it from a backup.") from error
    if not isinstance(table, dict) or table.get("format") != FORMAT:
        found = table.get("format") if isinstance(table, dict) else type(table).__name__
        raise StoreError(f"{file}: format {found!r}; this version of mmsurv reads format {FORMAT}.")
    try:
        manifest = Manifest(**table)
        recipe_sha256 = provenance.fingerprint(manifest.recipe)
        digest = _digest(manifest.backend, manifest.recipe, manifest.dim, manifest.dtype)
    except (TypeError, ValueError, RecursionError) as error:
        raise CorruptRecordError(f"{file} is damaged: {error}. Restore it from a backup.") from error
    if (recipe_sha256, digest) != (manifest.recipe_sha256, manifest.manifest_sha256):
        raise CorruptRecordError(
            f"{file} does not have the fingerprints written in it, so it was edited after the store was made. "
            "Restore it: the records were made by what was there first, and are not touched by this."
        )
    return manifest


def _digest(backend: str, recipe: Mapping[str, Any], dim: int, dtype: str) -> str:
    return provenance.fingerprint([FORMAT, backend, recipe, dim, dtype])


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Publish ``store.json``; if another process was first, its manifest stays."""
    text = json.dumps(dataclasses.asdict(manifest), indent=1, sort_keys=True, ensure_ascii=False)
    publish_bytes(path / FILE_NAME, text.encode("utf-8"))


def require_same(found: Manifest, wanted: Manifest, path: Path) -> None:
    """Raise RecipeMismatchError, field by field, unless both manifests describe the same features."""
    left = {**found.recipe, "store": {"dim": found.dim, "dtype": found.dtype, "backend": found.backend}}
    right = {**wanted.recipe, "store": {"dim": wanted.dim, "dtype": wanted.dtype, "backend": wanted.backend}}
    if provenance.differences(left, right):
        raise RecipeMismatchError(
            f"{path} was written by another recipe than the one asked for (store → asked):\n"
            f"{provenance.difference_table(left, right)}\n"
            f"Use the store's recipe (mmsurv store info {path}), or write to a new store."
        )
