"""A store: a Zarr group with one array for each result, one chunk of each for every shard.

::

    zarr.json             attributes: the job, and why samples were left out
    latent/c/3/0          (samples, k) codes of shard 3; likewise standard_error
    residual/c/3          (samples,); likewise residual_max, rank, status
    lock                  held by the process that writes

Chunks carry a CRC-32C checksum and appear whole or not at all. The chunk of ``status`` is written
last, so that a shard is finished when it is there, whenever a job was killed. Any program that
reads Zarr reads a store: ``zarr.open(path)``, ``xarray.open_zarr(path)``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preimage.errors import PreimageError, StoreError
from preimage.inversion import Inversion, Status, count_statuses
from preimage.io.limits import LIMITS, parse_json
from preimage.io.zarr_folder import open_array
from preimage.matrix import Indices

Arrays = dict[str, NDArray[Any]]

METADATA = "zarr.json"
STATUSES = tuple(Status)
FORM = "preimage store, version 2"


# The type of every array; status is the last one that is written.
COLUMNS = {
    "latent": "float64",
    "standard_error": "float64",
    "residual": "float64",
    "residual_max": "float64",
    "rank": "int32",
    "status": "int8",
}
_CODES = ("latent", "standard_error")  # with a value for each coordinate


@dataclass(frozen=True)
class Job:
    """What a store holds the results of. Two jobs that differ in anything are two stores.

    Attributes:
        network: SHA-256 of the network.
        source: SHA-256 of the rows.
        method: The method with all its settings, in words.
        method_sha256: Of these words and of the arrays in them.
        noise: The largest noise level.
        sensing: What was observed, in words.
        question_sha256: Of the noise and of what was observed.
        samples: Number of rows.
        observation_size: Entries of a row.
        latent_size: Entries of a code.
        shard_size: Samples of a shard; the last may have fewer.
        version: Of preimage.
    """

    network: str
    source: str
    method: str
    method_sha256: str
    noise: float
    sensing: str
    question_sha256: str
    samples: int
    observation_size: int
    latent_size: int
    shard_size: int
    version: str

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.samples // self.shard_size)

    def span(self, index: int) -> tuple[int, int]:
        """First sample of a shard, and the one after its last."""
        start = index * self.shard_size
        return start, min(start + self.shard_size, self.samples)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of an array of the store."""
        return (self.samples, self.latent_size) if name in _CODES else (self.samples,)

    def attributes(self) -> dict[str, Any]:
        """What a new store says of itself; ``open_store`` reads it."""
        return {"preimage": {"form": FORM, "job": asdict(self)}, "left_out": {}}


def pack(inversion: Inversion) -> Arrays:
    """The arrays of a store, for some samples."""
    found = inversion.columns()
    found["status"] = np.array([STATUSES.index(status) for status in found["status"]])
    return {name: found[name].astype(dtype) for name, dtype in COLUMNS.items()}


def blank(job: Job, count: int) -> Arrays:
    """The arrays of samples that were left out: no numbers, and status ``FAILED``."""
    nothing = np.full((count, job.latent_size), np.nan)
    return pack(Inversion(nothing, np.nan, np.nan, Status.FAILED.each(count), rank=-1))


@dataclass(frozen=True, eq=False)
class Column:
    """One array of all shards together, of which only what is asked for is read.

    Slices, numbers, arrays of numbers and boolean masks give NumPy arrays; ``numpy.asarray`` reads
    all. Checksums are compared whenever a chunk is read, and a sample that is not inverted yet is
    an error.
    """

    store: Store
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        """(samples,) or (samples, k)."""
        return self.store.job.shape(self.name)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        parts = index if isinstance(index, tuple) else (index,)
        if not parts or any(part is Ellipsis for part in parts):
            return self._rows(np.arange(len(self)))[index]
        samples = np.arange(len(self))[parts[0]]  # as NumPy reads it, errors included
        # NumPy pairs the entries of index arrays with each other, but not with a slice.
        places = np.arange(samples.size).reshape(samples.shape)
        first = slice(None) if isinstance(parts[0], slice) else places
        return self._rows(samples.reshape(-1))[(first, *parts[1:])]

    def _rows(self, samples: Indices) -> NDArray[Any]:
        size, order = self.store.job.shard_size, np.argsort(samples, kind="stable")
        dtype = object if self.name == "status" else COLUMNS[self.name]
        rows = np.empty((len(samples), *self.shape[1:]), dtype)
        for shard in np.unique(samples // size):
            ends = np.searchsorted(samples, (shard * size, (shard + 1) * size), sorter=order)
            inside = order[slice(*ends)]
            rows[inside] = self.store.read(int(shard), self.name)[samples[inside] % size]
        return rows

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        whole: NDArray[Any] = self[:]
        return whole if dtype is None else whole.astype(dtype)


@dataclass(frozen=True, eq=False)
class Store:
    """The results of a job: arrays over all samples, read when they are asked for.

    Attributes:
        path: The folder.
        job: What was inverted, and how.
        quarantined: For each sample that was left out, why: it raised, killed its worker, or kept
            it too long.
    """

    path: Path
    job: Job
    quarantined: Mapping[int, str]
    _arrays: dict[str, Any] = field(default_factory=dict)  # opened so far: that takes a while

    def __len__(self) -> int:
        return self.job.samples

    def __reduce__(self) -> tuple[Any, ...]:
        return Store, (self.path, self.job, self.quarantined)  # open arrays do not travel

    def __getattr__(self, name: str) -> Column:
        """``latent``, ``standard_error``, ``residual``, ``residual_max``, ``rank``, ``status``.

        They are as ``Inversion`` describes them, and NaN, -1 and ``FAILED`` of left-out samples.
        """
        if name in COLUMNS:
            return Column(self, name)
        raise AttributeError(f"a store has no {name!r}; it has {', '.join(COLUMNS)}")

    @property
    def finished(self) -> list[int]:
        """The finished shards, in order."""
        names = {entry.name for entry in (self.path / "status" / "c").glob("*")}
        return [shard for shard in range(self.job.shards) if str(shard) in names]

    @property
    def inverted(self) -> Indices:
        """The samples of the finished shards, in order."""
        spans = [np.arange(*self.job.span(shard)) for shard in self.finished]
        return np.concatenate([np.empty(0, dtype=int), *spans])

    @property
    def complete(self) -> bool:
        """Whether every shard is finished."""
        return len(self.finished) == self.job.shards

    def read(self, shard: int, name: str) -> NDArray[Any]:
        """One array of a finished shard; its checksum is compared.

        Raises:
            StoreError: The shard is not finished, or a chunk is missing or damaged.
        """
        start, stop = self.job.span(shard)
        if not chunk_path(self.path, "status", shard).exists():
            raise StoreError(
                f"{self.path}: samples {start} to {stop - 1} are not inverted yet "
                f"({len(self.finished)} of {self.job.shards} shards are); run the job again"
            )
        chunk = chunk_path(self.path, name, shard)
        try:
            if not chunk.exists():
                raise FileNotFoundError("the chunk is missing")
            if name not in self._arrays:
                self._arrays[name] = open_array(self.path / name, LIMITS)
            array = self._arrays[name]
            expected = self.job.shape(name), self.job.shard_size, COLUMNS[name]
            if (array.shape, array.chunks[0], str(array.dtype)) != expected:
                raise ValueError(f"expected shape, chunks and dtype {expected}, got {array.info}")
            values: NDArray[Any] = np.asarray(array[start:stop])
            return np.array(STATUSES, dtype=object)[values] if name == "status" else values
        except Exception as error:  # Zarr raises much on chunks that are cut off or altered
            raise StoreError(
                f"{chunk}: the chunk is damaged; run the job again to redo it: {error}"
            ) from error

    def faults(self) -> dict[int, str]:
        """What is wrong with each finished shard: missing or damaged chunks."""
        found = {}
        for shard in self.finished:
            try:
                for name in COLUMNS:
                    self.read(shard, name)
            except StoreError as error:
                found[shard] = str(error)
        return found

    def verify(self) -> None:
        """Read every chunk, and compare it with its checksum.

        Raises:
            StoreError: A chunk is missing or damaged, or a shard is not finished.
        """
        faults = self.faults()
        if faults or not self.complete:
            raise StoreError(
                f"{self.path}: {len(self.finished)} of {self.job.shards} shards are finished, "
                f"{len(faults)} of them damaged; run the job again to go on"
                + "".join(f"; {fault}" for fault in list(faults.values())[:10])
            )

    def counts(self) -> dict[Status, int]:
        """Number of samples of each status, in the finished shards."""
        return count_statuses(self.status[self.inverted])

    def __repr__(self) -> str:
        done = f"{len(self.finished)} of {self.job.shards} shards"
        return f"Store({str(self.path)!r}, {len(self)} samples, {done})"


def chunk_path(store: Path, name: str, shard: int) -> Path:
    """The file of one chunk."""
    chunk = store / name / "c" / str(shard)
    return chunk / "0" if name in _CODES else chunk


def open_store(path: str | os.PathLike[str]) -> Store:
    """Open the store of a finished or unfinished job, to read it.

    Damaged chunks are found when they are read, or by ``store.verify()``.

    Raises:
        StoreError: No store, or one whose description is damaged.
        MissingExtraError: Zarr is not installed.
    """
    folder = Path(path)
    try:
        text = (folder / METADATA).read_bytes()
    except OSError as error:
        raise StoreError(f"{folder}: not a store: {error}") from error
    try:
        attributes = parse_json(text, METADATA)["attributes"]
        described, left_out = attributes["preimage"], attributes["left_out"]
        if described["form"] != FORM:
            raise ValueError(f"expected the form {FORM!r}, got {described['form']!r:.100}")
        job = _typed_job(described["job"])
        quarantined = {int(sample): str(reason) for sample, reason in left_out.items()}
    except (PreimageError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise StoreError(f"{folder / METADATA}: not a store of this version: {error!r}") from error
    return Store(folder, job, quarantined)


def _typed_job(values: dict[str, Any]) -> Job:
    """A job from JSON: numbers are numbers, counts positive, and nothing is missing."""
    for part in fields(Job):
        value, kind = values[part.name], part.type
        if type(value).__name__ != kind or (kind == "int" and value < 1):
            raise ValueError(f"{part.name}: expected {kind}, counts above 0, got {value!r:.100}")
    return Job(**values)
