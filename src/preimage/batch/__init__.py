"""Whole datasets: from observations to a Zarr store of codes, in one process or on Dask."""

from preimage.batch.job import invert_dataset
from preimage.batch.store import Job, Store, open_store

__all__ = ["Job", "Store", "invert_dataset", "open_store"]
