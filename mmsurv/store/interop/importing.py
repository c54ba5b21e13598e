"""A folder of another tool's feature files becomes a store.

Owns the recipe of such a store and what its records say. One bad file does not stop the others. Rows are put in rank
order; ``source_row`` says where each came from.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np

from mmsurv.errors import CorruptRecordError, ImportLayoutError, MmsurvError, RecordNotFoundError, StoreError
from mmsurv.provenance import difference_table
from mmsurv.store.base import FeatureStore
from mmsurv.store.factory import create_store
from mmsurv.store.ids import check_slide_id
from mmsurv.store.interop import clam, stamp, trident
from mmsurv.store.interop.foreign import ForeignFeatures, ForeignOptions, opened
from mmsurv.store.rank import rank_order
from mmsurv.store.record import Scalar, SlideRecord

logger = logging.getLogger("mmsurv")

Layout = Literal["auto", "clam", "trident", "stamp"]

LAYOUTS: dict[str, ModuleType] = {"stamp": stamp, "trident": trident, "clam": clam}
"""In the order in which a file is tried: CLAM's has nothing that the others lack."""

TILE: dict[str, tuple[str, ...]] = {
    "trident": ("patch_size", "target_magnification", "overlap"),
    "stamp": ("patch_size", "target_magnification", "overlap"),
    "clam": (),
}
"""What must be the same in all files of a store: features of tiles of another size are other features. CLAM's sizes
count pixels of the slide, not of the tile as it was encoded, so they differ with the slides' resolutions."""
NOT_READ = (MmsurvError, OSError, ValueError, TypeError, MemoryError)
"""What a file that is not what it claims may raise."""
SAMPLE_SEED = 0

UNKNOWN = {
    "tissue": "share of tissue of each tile",
    "thumbnail": "picture of the slide",
    "mask": "tissue mask",
    "rejected": "tiles that were drawn and not kept",
    "mpp": "µm per level-0 pixel",
    "level0_width": "size of the slide",
    "patch_size_level0": "size of a tile",
    "encoder": "who encoded it; give --encoder",
    "encoder.weights": "digest of the encoder's weights",
}
"""What a store of our own has, and these files may not say."""


@dataclass(frozen=True)
class Imported:
    """What came of one file: the number of tiles, or why it was not imported."""

    path: Path
    slide_id: str
    n_tiles: int
    problem: str | None = None
    was_there: bool = False
    """Whether a good record of the slide was there already; the file was then not imported."""
    lost: tuple[str, ...] = ()
    """Fields of the file that the store has no place for."""
    unknown: tuple[str, ...] = ()
    """Of ``UNKNOWN``, what the file does not say."""


def feature_files(folder: Path) -> list[Path]:
    """The feature files of a folder in one of the layouts, by name.

    Raises:
        ImportLayoutError: no folder, or no ``.h5`` file in it or in its ``h5_files``.
    """
    if not folder.is_dir():
        raise ImportLayoutError(f"{folder} is not a folder. Name the folder that holds one .h5 file per slide.")
    for place in (folder, folder / clam.FEATURES):
        found = sorted(path for path in place.glob("*.h5") if not path.name.startswith("."))
        if found:
            return found
    raise ImportLayoutError(
        f"{folder} holds no .h5 file. CLAM keeps them in FEATURES/h5_files, TRIDENT in features_<encoder>, STAMP in "
        "<extractor>-<hash>; .pt files carry no coordinates and cannot be imported."
    )


def detect_layout(path: Path) -> str:
    """Whose file it is, by its datasets and attributes."""
    with opened(path) as file:
        found = next((name for name, layout in LAYOUTS.items() if layout.looks_like(file)), None)
        if found is None:
            raise ImportLayoutError(
                f"{path}: no dataset 'features' or 'feats' beside 'coords'; found {', '.join(file) or 'nothing'}."
            )
        return found


def import_features(
    source: Path,
    store_path: Path,
    *,
    layout: Layout = "auto",
    encoder: str | None = None,
    options: ForeignOptions | None = None,
    dtype: str = "float16",
    backend: str = "hdf5",
    on_file: Callable[[Imported], None] | None = None,
) -> tuple[FeatureStore, list[Imported]]:
    """Import a folder of foreign feature files into a store, made if missing.

    Args:
        source: folder of ``.h5`` files.
        store_path: the store; it must be new or of the same import recipe.
        layout: "clam", "trident", "stamp", or "auto" to tell by the first file.
        encoder: name of the encoder; where None, what the files say, else "unknown".
        options: what the files do not say. CLAM's ``patches`` folder is looked for in ``source`` where not given.
        dtype: the store's dtype; float16 halves the size of the float32 that CLAM and TRIDENT write.
        backend: the store's backend.
        on_file: called after each file.

    Returns:
        The store, and one entry per file. A file that cannot be imported has a ``problem`` and a failure record;
        the others are imported.

    Raises:
        ImportLayoutError: no files, or none that can be read.
        RecipeMismatchError: the store there holds other features.
    """
    paths = feature_files(source)
    options = options or ForeignOptions()
    if options.patches is None and (source / clam.PATCHES).is_dir():
        options = ForeignOptions(patches=source / clam.PATCHES, mpp=options.mpp)
    kind, first = _first_readable(paths, layout, options)
    named = encoder or first.encoder or "unknown"
    recipe: dict[str, Any] = {
        "source": "import",
        "layout": kind,
        "encoder": {"name": named, "weights": "unknown"},
        "tile": _tile(first, kind),
        "sample": {"seed": SAMPLE_SEED},
    }
    store = create_store(store_path, recipe=recipe, dim=first.features.shape[1], dtype=dtype, backend=backend)
    results: list[Imported] = []
    for path in paths:
        result = _import_one(path, store, kind, options, expected_encoder=None if encoder else named)
        results.append(result)
        if on_file:
            on_file(result)
    if kind == "clam":
        _warn_of_sizes([result.path for result in results if not result.problem], options)
    return store, results


def _import_one(
    path: Path, store: FeatureStore, kind: str, options: ForeignOptions, expected_encoder: str | None
) -> Imported:
    slide_id = path.name.removesuffix(".h5")
    try:
        if _is_there(slide_id, store):
            return Imported(path, slide_id, store.n_tiles(slide_id), was_there=True)
        foreign = LAYOUTS[kind].read(path, check_slide_id(slide_id), options)
        _require_same_kind(foreign, store, path, kind, expected_encoder)
        record = _as_record(foreign, path.name)
    except NOT_READ as error:
        return _not_imported(path, slide_id, store, error)
    try:
        if not store.write(record):
            # Another process was faster. Its record, and whether it is good, is what there is to tell of.
            store.extent(slide_id)
            return Imported(path, slide_id, store.n_tiles(slide_id), was_there=True)
    except OSError as error:
        raise StoreError(
            f"{store.path} cannot be written: {error.strerror or error}. What was imported is whole; make room, then "
            "give the same command again: it goes on from here."
        ) from error
    except MmsurvError as error:
        return _not_imported(path, slide_id, store, error)
    return Imported(path, slide_id, len(foreign.features), lost=foreign.lost, unknown=_unknown(record, store))


def _is_there(slide_id: str, store: FeatureStore) -> bool:
    """Whether the slide has a good record; a damaged one is written again."""
    try:
        store.extent(slide_id)  # hashes it, unless that was done before
    except (RecordNotFoundError, CorruptRecordError):
        return False
    return True


def _warn_of_sizes(paths: list[Path], options: ForeignOptions) -> None:
    """Say so where tiles are of several sizes in pixels of the slide: CLAM does not say the slides' resolutions."""
    sides = Counter(side for side in (clam.tile_side(path, options) for path in paths) if side is not None)
    if len(sides) > 1:
        found = ", ".join(f"{side} in {count} slides" for side, count in sorted(sides.items()))
        logger.warning(
            "Tiles are of different sides in level-0 pixels: %s. They show the same field of view only if the slides' "
            "resolutions differ likewise, which CLAM's files do not say. If not, import them into stores of their own.",
            found,
        )


def _not_imported(path: Path, slide_id: str, store: FeatureStore, error: Exception) -> Imported:
    store.write_failure(slide_id, error, source=str(path))
    return Imported(path, slide_id, 0, problem=f"{type(error).__name__}: {error}")


def _require_same_kind(
    foreign: ForeignFeatures, store: FeatureStore, path: Path, kind: str, encoder: str | None
) -> None:
    """A store holds features of one encoder and one kind of tile."""
    if encoder and (foreign.encoder or "unknown") != encoder:
        raise ImportLayoutError(
            f"{path} was encoded by {foreign.encoder or 'unknown'}, the first file by {encoder}. "
            "A store holds features of one encoder."
        )
    if _tile(foreign, kind) != store.recipe["tile"]:
        raise ImportLayoutError(
            f"{path} has other tiles than the store (store → file):\n"
            f"{difference_table(store.recipe['tile'], _tile(foreign, kind))}\n"
            "A store holds tiles of one size and resolution: import the others into a store of their own."
        )


def _tile(foreign: ForeignFeatures, kind: str) -> dict[str, Scalar]:
    found = {key: foreign.coords_attributes[key] for key in TILE[kind] if key in foreign.coords_attributes}
    # Only where a file says it in µm: from rounded magnifications it would be a guess.
    return found | ({"mpp": foreign.facts["tile_mpp"]} if "tile_mpp" in foreign.facts else {})


def _as_record(foreign: ForeignFeatures, source: str) -> SlideRecord:
    order = rank_order(foreign.slide_id, foreign.coords, SAMPLE_SEED)
    own: dict[str, Scalar] = {"source": source, "sample_seed": SAMPLE_SEED, "n_tissue_tiles": len(order)}
    return SlideRecord(
        slide_id=foreign.slide_id,
        features=foreign.features[order],
        coords=foreign.coords[order].astype(np.int32),
        tissue=np.full(len(order), np.nan, np.float32),
        attributes={**own, **foreign.facts},
        coords_attributes=foreign.coords_attributes,
        source_row=order,
    )


def _unknown(record: SlideRecord, store: FeatureStore) -> tuple[str, ...]:
    known = {*record.attributes, *record.coords_attributes}
    known |= {name for name in ("thumbnail", "mask", "rejected") if getattr(record, name) is not None}
    known |= {"encoder"} if store.recipe["encoder"]["name"] != "unknown" else set()
    return tuple(name for name in UNKNOWN if name not in known)


def _first_readable(paths: list[Path], layout: Layout, options: ForeignOptions) -> tuple[str, ForeignFeatures]:
    """The first file that can be read says layout, dimension and encoder."""
    problems = []
    for path in paths:
        try:
            kind = detect_layout(path) if layout == "auto" else layout
            return kind, LAYOUTS[kind].read(path, check_slide_id(path.name.removesuffix(".h5")), options)
        except NOT_READ as error:
            problems.append(str(error) if isinstance(error, MmsurvError) else f"{path}: {error!r}")
    raise ImportLayoutError(f"None of the {len(paths)} files in {paths[0].parent} can be imported. {problems[0]}")
