"""Features that other tools made: folders in CLAM's and TRIDENT's layout become a store.

Owns the reading of foreign files and what is kept of them. Nothing is trusted: shapes, values and names are checked,
one bad file does not stop the others. Rows are put in rank order; ``source_row`` says where each came from.

Layouts (one HDF5 file per slide):
    clam     ``features`` (N, D), ``coords`` (N, 2) level-0 top-left corner; no attributes. Tile sizes stand, if at
             all, in a second folder of coordinate files (``patches/<slide>.h5``).
    trident  the same datasets, (1, N, D) in some versions, with tile and slide sizes as attributes on ``coords``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from mmsurv.errors import ImportLayoutError, MmsurvError, StoreError
from mmsurv.provenance import difference_table
from mmsurv.store.base import FeatureStore
from mmsurv.store.factory import create_store
from mmsurv.store.hdf5 import reading
from mmsurv.store.ids import check_slide_id
from mmsurv.store.rank import rank_order
from mmsurv.store.record import Scalar, SlideRecord

Layout = Literal["auto", "clam", "trident"]

COORDS_ATTRIBUTES = (
    "patch_size", "patch_size_level0", "level0_magnification", "target_magnification", "overlap", "name",
    "level0_width", "level0_height",
)  # fmt: skip
TILE = ("patch_size", "target_magnification", "overlap")
"""What must be the same in all files of a store: features of tiles of another size are other features."""
SAMPLE_SEED = 0


@dataclass(frozen=True)
class ForeignFeatures:
    """One foreign file, read and checked."""

    slide_id: str
    features: np.ndarray
    """(N, D) in the file's dtype and row order."""
    coords: np.ndarray
    """(N, 2) int64, level-0 pixels (x, y), top-left."""
    coords_attributes: dict[str, Scalar]
    encoder: str | None
    """What the file says encoded it."""


@dataclass(frozen=True)
class Imported:
    """What came of one file: the number of tiles, or why it was not imported."""

    path: Path
    slide_id: str
    n_tiles: int
    problem: str | None = None


def feature_files(folder: Path) -> list[Path]:
    """The feature files of a CLAM or TRIDENT folder, by name.

    Raises:
        ImportLayoutError: no folder, or no ``.h5`` file in it or in its ``h5_files``.
    """
    if not folder.is_dir():
        raise ImportLayoutError(f"{folder} is not a folder. Name the folder that holds one .h5 file per slide.")
    for place in (folder, folder / "h5_files"):
        found = sorted(path for path in place.glob("*.h5") if not path.name.startswith("."))
        if found:
            return found
    raise ImportLayoutError(
        f"{folder} holds no .h5 file. CLAM keeps them in FEATURES/h5_files, TRIDENT in features_<encoder>; "
        ".pt files carry no coordinates and cannot be imported."
    )


def detect_layout(path: Path) -> Literal["clam", "trident"]:
    """TRIDENT's files say on ``coords`` how large a tile is, CLAM's do not."""
    with _foreign(path) as file:
        return "trident" if "patch_size_level0" in _dataset(file, "coords", path).attrs else "clam"


def read_foreign(path: Path, *, layout: Literal["clam", "trident"], patches: Path | None = None) -> ForeignFeatures:
    """Read one feature file.

    Args:
        path: the file; its name without ``.h5`` is the slide id.
        layout: what kind of file it is.
        patches: CLAM's folder of coordinate files, from which tile sizes are taken.

    Raises:
        ImportLayoutError: a missing dataset, shapes that disagree, no tiles, coordinates that are no pixels.
    """
    slide_id = check_slide_id(path.name.removesuffix(".h5"))
    with _foreign(path) as file:
        for name in ("features", "coords"):
            _require_numbers(_dataset(file, name, path), name, path)
        features, coords = file["features"][()], file["coords"][()]
        attributes = _scalars(file["coords"].attrs)
        encoder = _scalars(file["features"].attrs).get("encoder")
    if features.ndim == 3 and features.shape[0] == 1:
        features = features[0]
    _require_shapes(features, coords, path)
    if layout == "clam" and patches is not None:
        attributes = _clam_tile_size(patches / path.name)
    kept = {key: attributes[key] for key in COORDS_ATTRIBUTES if key in attributes}
    return ForeignFeatures(slide_id, features, coords.astype(np.int64), kept, None if encoder is None else str(encoder))


def import_features(
    source: Path,
    store_path: Path,
    *,
    layout: Layout = "auto",
    encoder: str | None = None,
    patches: Path | None = None,
    dtype: str = "float16",
    on_file: Callable[[Imported], None] | None = None,
) -> tuple[FeatureStore, list[Imported]]:
    """Import a folder of foreign feature files into a store, made if missing.

    Args:
        source: folder of ``.h5`` files.
        store_path: the store; it must be new or of the same import recipe.
        layout: "clam", "trident", or "auto" to tell by the first file.
        encoder: name of the encoder; where None, what the files say, else "unknown".
        patches: CLAM's ``patches`` folder, for tile sizes.
        dtype: the store's dtype; float16 halves the size of the float32 that both tools write.
        on_file: called after each file.

    Returns:
        The store, and one entry per file. A file that cannot be imported has a ``problem`` and a failure record;
        the others are imported.

    Raises:
        ImportLayoutError: no files, or none that can be read.
        RecipeMismatchError: the store there holds other features.
    """
    paths = feature_files(source)
    first = _first_readable(paths, layout, patches)
    kind = detect_layout(first[0]) if layout == "auto" else layout
    named = encoder or first[1].encoder or "unknown"
    recipe: dict[str, Any] = {
        "source": "import",
        "layout": kind,
        "encoder": {"name": named, "weights": "unknown"},
        "tile": _tile(first[1]),
        "sample": {"seed": SAMPLE_SEED},
    }  # fmt: skip
    store = create_store(store_path, recipe=recipe, dim=first[1].features.shape[1], dtype=dtype)
    results: list[Imported] = []
    for path in paths:
        result = _import_one(path, store, kind, patches, expected_encoder=None if encoder else named)
        results.append(result)
        if on_file:
            on_file(result)
    return store, results


def _import_one(
    path: Path,
    store: FeatureStore,
    layout: Literal["clam", "trident"],
    patches: Path | None,
    expected_encoder: str | None,
) -> Imported:
    slide_id = path.name.removesuffix(".h5")
    try:
        if slide_id in store:
            return Imported(path, slide_id, store.n_tiles(slide_id))
        foreign = read_foreign(path, layout=layout, patches=patches)
        _require_same_kind(foreign, store, path, expected_encoder)
        record = _as_record(foreign, path.name)
    except (MmsurvError, OSError, ValueError, TypeError, MemoryError) as error:
        return _not_imported(path, slide_id, store, error)
    try:
        store.write(record)
    except OSError as error:
        raise StoreError(
            f"{store.path} cannot be written: {error.strerror or error}. What was imported is whole; make room, then "
            "give the same command again: it goes on from here."
        ) from error
    except MmsurvError as error:
        return _not_imported(path, slide_id, store, error)
    return Imported(path, slide_id, len(foreign.features))


def _not_imported(path: Path, slide_id: str, store: FeatureStore, error: Exception) -> Imported:
    store.write_failure(slide_id, error, source=str(path))
    return Imported(path, slide_id, 0, problem=f"{type(error).__name__}: {error}")


def _require_same_kind(foreign: ForeignFeatures, store: FeatureStore, path: Path, encoder: str | None) -> None:
    """A store holds features of one encoder and one kind of tile."""
    if encoder and (foreign.encoder or "unknown") != encoder:
        raise ImportLayoutError(
            f"{path} was encoded by {foreign.encoder or 'unknown'}, the first file by {encoder}. "
            "A store holds features of one encoder."
        )
    if _tile(foreign) != store.recipe["tile"]:
        raise ImportLayoutError(
            f"{path} has other tiles than the store (store → file):\n"
            f"{difference_table(store.recipe['tile'], _tile(foreign))}\n"
            "A store holds tiles of one size and resolution: import the others into a store of their own."
        )


def _tile(foreign: ForeignFeatures) -> dict[str, Scalar]:
    return {key: foreign.coords_attributes[key] for key in TILE if key in foreign.coords_attributes}


def _as_record(foreign: ForeignFeatures, source: str) -> SlideRecord:
    order = rank_order(foreign.slide_id, foreign.coords, SAMPLE_SEED)
    facts: dict[str, Scalar] = {"source": source, "sample_seed": SAMPLE_SEED, "n_tissue_tiles": len(order)}
    for key in ("level0_width", "level0_height"):
        if isinstance(foreign.coords_attributes.get(key), int | float):
            facts[key] = foreign.coords_attributes[key]
    return SlideRecord(
        slide_id=foreign.slide_id,
        features=foreign.features[order],
        coords=foreign.coords[order].astype(np.int32),
        tissue=np.full(len(order), np.nan, np.float32),
        attributes=facts,
        coords_attributes=foreign.coords_attributes,
        source_row=order,
    )


def _first_readable(paths: list[Path], layout: Layout, patches: Path | None) -> tuple[Path, ForeignFeatures]:
    """The first file that can be read says layout, dimension and encoder."""
    problems = []
    for path in paths:
        try:
            kind = detect_layout(path) if layout == "auto" else layout
            return path, read_foreign(path, layout=kind, patches=patches)
        except MmsurvError as error:
            problems.append(str(error))
    raise ImportLayoutError(f"None of the {len(paths)} files in {paths[0].parent} can be imported. {problems[0]}")


def _require_shapes(features: np.ndarray, coords: np.ndarray, path: Path) -> None:
    if features.ndim != 2 or features.dtype.kind != "f":
        raise ImportLayoutError(f"{path}: features are {features.dtype} {features.shape}, expected floats (N, D).")
    if coords.shape != (len(features), 2):
        raise ImportLayoutError(f"{path}: coords are {coords.shape}, expected ({len(features)}, 2) as for features.")
    if len(features) == 0:
        raise ImportLayoutError(f"{path}: the slide has no tiles.")
    limits = np.iinfo(np.int32)
    if coords.dtype.kind == "f" and not (np.isfinite(coords).all() and (coords == np.round(coords)).all()):
        raise ImportLayoutError(
            f"{path}: coords are fractions of a pixel or not numbers, expected level-0 pixels. STAMP keeps µm."
        )
    if coords.min() < 0 or coords.max() > limits.max:
        raise ImportLayoutError(f"{path}: coords from {coords.min()} to {coords.max()}, expected level-0 pixels.")
    doubles = len(coords) - len(np.unique(coords, axis=0))
    if doubles:
        raise ImportLayoutError(f"{path}: {doubles} tiles have the coordinates of another tile, expected each once.")


def _require_numbers(dataset: h5py.Dataset, name: str, path: Path) -> None:
    """Before anything is read: the type, and that the file is as large as it says its numbers are."""
    if dataset.dtype.kind not in "fiu":
        raise ImportLayoutError(f"{path}: {name} are {dataset.dtype}, expected numbers.")
    size = path.stat().st_size
    if dataset.compression is None and dataset.nbytes > size:
        raise ImportLayoutError(
            f"{path}: {name} claim {dataset.nbytes} bytes, the file has {size}. It was cut or never filled."
        )


def _clam_tile_size(path: Path) -> dict[str, Scalar]:
    """Tile size from a CLAM coordinate file, where ``patch_size`` is in pixels of ``patch_level``."""
    if not path.is_file():
        return {}
    with _foreign(path) as file:
        attributes = file["coords"].attrs
        if "patch_size" not in attributes:
            return {}
        try:
            size = int(attributes["patch_size"])
            downsample = float(np.ravel(attributes.get("downsample", 1.0))[0])
        except (ValueError, TypeError) as error:
            raise ImportLayoutError(f"{path}: patch_size and downsample must be numbers ({error}).") from error
    return {"patch_size": size, "patch_size_level0": round(size * downsample)}


def _dataset(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    if not isinstance(file.get(name), h5py.Dataset):
        raise ImportLayoutError(f"{path}: no dataset {name!r}; found {', '.join(file) or 'nothing'}.")
    return file[name]


def _scalars(attributes: h5py.AttributeManager) -> dict[str, Scalar]:
    """Scalar attributes as plain values; TRIDENT writes the text "None" where it has none."""
    found: dict[str, Scalar] = {}
    for key, value in attributes.items():
        plain = value.item() if isinstance(value, np.generic) else value
        if isinstance(plain, bytes):
            plain = plain.decode("utf-8", "replace")
        if isinstance(plain, float) and not math.isfinite(plain):
            continue
        if isinstance(plain, str | int | float | bool) and plain != "None":
            found[key] = plain
    return found


def _foreign(path: Path) -> AbstractContextManager[h5py.File]:
    return reading(path, lambda reason: ImportLayoutError(f"{path} is not a readable HDF5 file: {reason}."))
