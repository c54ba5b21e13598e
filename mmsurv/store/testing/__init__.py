"""The contract every backend of the store passes, and records to test with.

A backend's test module needs three lines, and pytest:

    class TestHdf5Store(StoreContract):
        backend = "hdf5"
"""

from mmsurv.store.testing.contract import StoreContract
from mmsurv.store.testing.records import RECIPE, make_record

__all__ = ["RECIPE", "StoreContract", "make_record"]
