"""Writing a store: locked, created or resumed, one shard after the other."""

from __future__ import annotations

import math
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from preimage.batch.store import COLUMNS, METADATA, STATUSES, Job, Store, chunk_path, open_store
from preimage.batch.workers import Finished
from preimage.errors import InputError, StoreError, extra
from preimage.io.limits import write_bytes


class Writer:
    """What one job writes to its store; made by ``writing``."""

    def __init__(self, store: Store) -> None:
        import zarr

        self.store = store
        # A chunk of nothing but blanks is written, too: one that is not there is damage.
        with zarr.config.set({"array.write_empty_chunks": True}):
            self._group: Any = zarr.open_group(str(store.path), mode="r+")
            self._arrays: dict[str, Any] = {name: self._group[name] for name in COLUMNS}

    @property
    def missing(self) -> list[int]:
        """Shards that are not finished, in order."""
        return sorted(set(range(self.store.job.shards)) - set(self.store.finished))

    def write(self, shard: Finished) -> None:
        """Write a finished shard."""
        samples, before = shard.samples, self.store.quarantined
        reasons = {s: why for s, why in before.items() if s not in samples} | shard.left_out
        with unwritable(self.store.path):
            if reasons != before:
                texts = {str(sample): reasons[sample] for sample in sorted(reasons)}
                self._group.update_attributes({"left_out": texts})
                self.store = replace(self.store, quarantined=reasons)
            for name, array in self._arrays.items():
                array[samples.start : samples.stop] = shard.arrays[name]


@contextmanager
def writing(path: Path, job: Job) -> Iterator[Writer]:
    """Create or resume a store; no other job may write to it meanwhile.

    Finished shards of a store that is resumed are verified, and what is damaged is deleted, to be
    done again.
    """
    with extra("batch", "zarr and filelock"):
        import filelock
        import zarr  # noqa: F401
    with unwritable(path):
        path.mkdir(parents=True, exist_ok=True)
        try:
            lock = filelock.FileLock(path / "lock").acquire(blocking=False)
        except filelock.Timeout as error:
            raise StoreError(
                f"{path}: another job is writing to this store; wait until it has ended"
            ) from error
    with lock:
        with unwritable(path):
            if not (path / METADATA).exists():
                _create(path, job)
            store = open_store(path)
            _check_same(store, job)
            for leftover in path.rglob("*.partial"):
                leftover.unlink()
            for shard in store.faults():
                chunk_path(path, "status", shard).unlink(missing_ok=True)
            writer = Writer(store)
        yield writer


def _create(path: Path, job: Job) -> None:
    """An empty store. Its group is written last and at once, and tells that all else is there."""
    import zarr
    from zarr.codecs import Crc32cCodec

    others = [
        entry.name for entry in path.iterdir()
        if entry.name not in ("lock", *COLUMNS)
        and not entry.match(f".{METADATA}.*.partial")  # of a creation that was cut off
    ]  # fmt: skip
    if others:
        raise InputError(f"store: {path} is not empty and holds no store: {', '.join(others[:5])}")
    for entry in [entry for entry in path.iterdir() if entry.name in COLUMNS]:
        shutil.rmtree(entry)
    files: dict[str, Any] = {}
    memory = zarr.storage.MemoryStore(files)
    group = zarr.create_group(memory, zarr_format=3, attributes=job.attributes())
    for name, dtype in COLUMNS.items():
        chunks = (job.shard_size, *job.shape(name)[1:])
        group.create_array(
            name, shape=job.shape(name), chunks=chunks, dtype=dtype,
            compressors=[Crc32cCodec()], fill_value=math.nan if dtype == "float64" else -1,
            dimension_names=("sample", "coordinate")[: len(chunks)],
        )  # fmt: skip
    # The convention of climate data (CF) for values with names.
    group["status"].attrs["flag_values"] = [*range(len(STATUSES))]
    group["status"].attrs["flag_meanings"] = " ".join(STATUSES)
    with warnings.catch_warnings():
        # Metadata of all arrays in one file are read at once; format 3 calls that an extension.
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(memory)
    for name in sorted(files, key=METADATA.__eq__):
        (path / name).parent.mkdir(exist_ok=True)
        write_bytes(path / name, files[name].to_bytes())


_WHAT = {
    "network": "another network",
    "source": "other observations",
    "method_sha256": "another method",
    "question_sha256": "another noise or sensing",
    "shard_size": "another shard size",
    "version": "another version of preimage",
}


def _check_same(store: Store, job: Job) -> None:
    theirs, ours = asdict(store.job), asdict(job)
    different = [word for name, word in _WHAT.items() if theirs[name] != ours[name]]
    if theirs != ours:
        raise InputError(
            f"store: {store.path} was made with {', '.join(different) or 'other sizes'} (it holds "
            f"{store.job.method}, noise={store.job.noise}, shards of {store.job.shard_size}); name "
            "another folder, or run the job that it was made for"
        )


@contextmanager
def unwritable(path: Path) -> Iterator[None]:
    """Turn what the system says of a file into an error of ours that names it."""
    try:
        yield
    except OSError as error:
        where = error.filename or path
        raise StoreError(
            f"{path}: cannot be written: {error.strerror or error} ({where}); what was finished "
            "stays, and the same job goes on from there"
        ) from error
