"""Opening and making stores: from a path to the backend its manifest names.

Owns the list of backends.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmsurv.errors import StoreError
from mmsurv.store import manifest as manifests
from mmsurv.store.base import FeatureStore
from mmsurv.store.manifest import Manifest

BACKENDS = ("hdf5", "zarr")


def open_store(path: str | Path) -> FeatureStore:
    """Open an existing store.

    Raises:
        StoreError: there is no store at ``path``, or one this version cannot read.
    """
    path = Path(path)
    manifest = manifests.read_manifest(path)
    return _backend(manifest.backend)(path, manifest)


def create_store(
    path: str | Path, *, recipe: Mapping[str, Any], dim: int, dtype: str = "float16", backend: str = "hdf5"
) -> FeatureStore:
    """Make a store, or open the one of the same recipe that is there.

    Args:
        path: a folder; made if missing, otherwise empty or a store.
        recipe: everything that changes a feature, JSON-able.
        dim: length of a feature vector.
        dtype: "float16", "bfloat16" or "float32".
        backend: "hdf5" or "zarr".

    Raises:
        RecipeMismatchError: the store there is of another recipe; the message has the difference field by field.
        StoreError: the folder holds something else.
    """
    return open_or_make(Path(path), manifests.new_manifest(backend=backend, recipe=recipe, dim=dim, dtype=dtype))


def open_or_make(path: Path, wanted: Manifest) -> FeatureStore:
    """The store at ``path``, made if missing with the manifest given. Raises as :func:`create_store`."""
    kind = _backend(wanted.backend)
    manifest_file = path / manifests.FILE_NAME
    if not manifest_file.exists():
        if path.exists() and not path.is_dir():
            raise StoreError(f"{path} is a file; a store is a folder.")
        occupied = path.is_dir() and any(not entry.name.startswith(".") for entry in path.iterdir())
        # Looked for again: another process may have made the store since. It writes the manifest before all else.
        if occupied and not manifest_file.exists():
            raise StoreError(f"{path} is not empty and holds no {manifests.FILE_NAME}. Name a new folder.")
        _make(path, wanted)
    found = manifests.read_manifest(path)
    manifests.require_same(found, wanted, path)
    return kind(path, found)


def _make(path: Path, manifest: Manifest) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        manifests.write_manifest(path, manifest)
        (path / "slides").mkdir(exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: a store cannot be made there ({error.strerror}). Name another place.") from error


def _backend(name: str) -> type[FeatureStore]:
    if name == "hdf5":
        from mmsurv.store.hdf5 import Hdf5Store

        return Hdf5Store
    if name == "zarr":
        from mmsurv.store.zarr_zip import ZarrStore

        return ZarrStore
    raise StoreError(f"Unknown store backend {name!r}; known: {', '.join(BACKENDS)}.")
