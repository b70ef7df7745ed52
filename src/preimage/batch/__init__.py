"""Whole datasets: from a source of rows to a store of shards, on one machine or a cluster."""

from preimage.batch.job import invert_dataset
from preimage.batch.store import Store, open_store

__all__ = ["Store", "invert_dataset", "open_store"]
