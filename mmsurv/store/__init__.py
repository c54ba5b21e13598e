"""The feature store: one recipe, one directory, one self-describing file per slide.

``base`` is the interface and the life of a record, ``hdf5`` the backend, ``commit`` the atomic publication, ``record``
what a slide's record holds, ``rank`` its row order, ``verify`` the checks, ``interop`` other tools' layouts,
``testing`` the contract every backend passes. The format itself is written down in docs/format.md.
"""

from mmsurv.store.base import Extent, FeatureStore
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
