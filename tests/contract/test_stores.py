"""Every backend passes the contract of the feature store."""

from mmsurv.store.testing import StoreContract


class TestHdf5Store(StoreContract):
    backend = "hdf5"


class TestZarrStore(StoreContract):
    backend = "zarr"
