"""The feature store: one recipe, one directory, one self-describing file per slide.

``base`` is the interface and the life of a record, ``hdf5`` and ``zarr_zip`` the backends, ``commit`` the atomic
publication, ``record`` what a slide's record holds, ``rank`` its row order, ``verify`` the checks, ``interop`` other
tools' layouts, ``testing`` the contract every backend passes. The format is written down in docs/format.md.

The names below are loaded when first asked for, so that ``mmsurv store --help`` needs click only.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmsurv.store.base import FeatureStore
    from mmsurv.store.extent import Extent
    from mmsurv.store.factory import create_store, open_store
    from mmsurv.store.failures import Failure
    from mmsurv.store.ids import check_slide_id
    from mmsurv.store.rank import rank_order
    from mmsurv.store.record import SlideRecord

__all__ = [
    "Extent",
    "Failure",
    "FeatureStore",
    "SlideRecord",
    "check_slide_id",
    "create_store",
    "open_store",
    "rank_order",
]

_HOMES = {
    "Extent": "extent",
    "Failure": "failures",
    "FeatureStore": "base",
    "SlideRecord": "record",
    "check_slide_id": "ids",
    "create_store": "factory",
    "open_store": "factory",
    "rank_order": "rank",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
