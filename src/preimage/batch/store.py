"""A store: a folder of shards, and a manifest that says what they are and whether they are whole.

::

    manifest.jsonl     its SHA-256; the job; one line a finished shard: SHA-256, samples left out
    lock               held by the job that writes
    shards/0000000.safetensors ...

Every file appears whole or not at all, and the manifest lists a shard only when it is on the disk:
whatever is cut off, and whenever, the store is that of a job with fewer shards.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preimage.batch import shard
from preimage.errors import FormatError, StoreError
from preimage.inversion import Status
from preimage.io.guard import Limits, parse_json

MANIFEST = "manifest.jsonl"
_FORM = "preimage store, version 1"
# A line of a manifest: a shard that lists many samples left out is longer than any other.
_LINE = Limits(header_bytes=2**24)


@dataclass(frozen=True)
class Job:
    """What a store holds the results of. Two jobs that differ in anything are two stores.

    Attributes:
        network: SHA-256 of the generator.
        source: SHA-256 of the rows.
        method: The method with all its settings, in words.
        method_sha256: Of these words.
        noise: As ``preimage.invert`` takes it.
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


@dataclass(frozen=True)
class Entry:
    """One finished shard.

    Attributes:
        shard: Its index.
        sha256: Of its file.
        size: Of its file, in bytes.
        quarantined: For each sample that was left out, by its index in the source, why.
    """

    shard: int
    sha256: str
    size: int
    quarantined: Mapping[str, str] = field(default_factory=dict)


def to_text(job: Job, entries: Iterable[Entry]) -> bytes:
    """A manifest; the order in which shards were finished does not show."""
    lines = [asdict(job)]
    lines += [asdict(entry) for entry in sorted(entries, key=lambda entry: entry.shard)]
    return sealed("".join(json.dumps(line) + "\n" for line in lines).encode())


def sealed(body: bytes) -> bytes:
    """The lines of a manifest, with their SHA-256 in front."""
    return json.dumps({"form": _FORM, "sha256": shard.sha256(body)}).encode() + b"\n" + body


def from_text(data: bytes, path: Path) -> tuple[Job, dict[int, Entry]]:
    """The job and the finished shards of a manifest.

    Raises:
        StoreError: No manifest of this version, or a damaged one.
    """
    try:
        seal, _, body = data.partition(b"\n")
        if parse_json(seal, "first line", _LINE).get("form") != _FORM:
            raise FormatError(f"expected the form {_FORM!r}")
        if data != sealed(body):
            raise FormatError("it is altered: it does not have the SHA-256 of its first line")
        first, *lines = body.decode().splitlines()
        job = _typed(Job, parse_json(first, "job", _LINE))
        entries = [_typed(Entry, parse_json(line, "shard", _LINE)) for line in lines]
    except (ValueError, TypeError) as error:
        raise StoreError(f"{path}: not a manifest of a store: {error}") from error
    found = {entry.shard: entry for entry in entries}
    if len(found) != len(entries) or not set(found) <= set(range(job.shards)):
        raise StoreError(f"{path}: a shard is listed twice, or there is no such shard")
    return job, found


def _typed(kind: type, values: dict[str, Any]) -> Any:
    """A dataclass from JSON: numbers are numbers, counts positive, and nothing is missing."""
    made = kind(**values)
    for part in fields(kind):
        value, wanted = getattr(made, part.name), str(part.type)
        types: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,)}
        if isinstance(value, bool) or not isinstance(value, types.get(wanted, (dict,))):
            raise TypeError(f"{part.name}: expected {wanted}, got {value!r:.100}")
        if isinstance(value, int) and value < (0 if part.name == "shard" else 1):
            raise ValueError(f"{part.name}: expected a positive number, got {value}")
    return made


def shard_path(store: Path, index: int) -> Path:
    """The file of a shard."""
    return store / "shards" / f"{index:07d}.safetensors"


def read_shard(store: Path, job: Job, entry: Entry) -> shard.Arrays:
    """The arrays of a finished shard; what is not as it was written is never returned.

    Raises:
        StoreError: Its file is missing, shorter or longer, or altered.
    """
    path = shard_path(store, entry.shard)
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size == entry.size else b""
    except OSError as error:
        raise StoreError(f"{path}: the shard is missing: {error.strerror}") from error
    if size != entry.size:
        word = "truncated" if size < entry.size else "longer than it was"
        raise StoreError(f"{path}: the shard is {word}: expected {entry.size} bytes, got {size}")
    found = shard.sha256(data)
    if found != entry.sha256:
        raise StoreError(
            f"{path}: the shard is altered: expected SHA-256 {entry.sha256}, got {found}"
        )
    start, stop = job.span(entry.shard)
    return shard.decode(data, stop - start, job.latent_size)


@dataclass(frozen=True, eq=False)
class Column:
    """One array of all shards together, of which only what is asked for is read.

    Slices, numbers, arrays of numbers and boolean masks give NumPy arrays; ``numpy.asarray`` reads
    all. A shard is compared with its SHA-256 whenever it is read.
    """

    store: Store
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    convert: Callable[[NDArray[Any]], NDArray[Any]] = np.asarray

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def __getitem__(self, index: Any) -> Any:
        if index is Ellipsis or (isinstance(index, tuple) and any(i is ... for i in index)):
            return self[:][index]
        if isinstance(index, tuple):
            first, rest = index[:1] or (slice(None),), index[1:]
            found = self[first[0]]
            one = isinstance(first[0], (int, np.integer))
            return found[rest] if one else found[(slice(None), *rest)]
        wanted = np.arange(len(self))[index]  # as NumPy reads it, errors included
        found = self._rows(np.atleast_1d(wanted))
        return found[0] if wanted.ndim == 0 else found.reshape(*wanted.shape, *self.shape[1:])

    def _rows(self, samples: NDArray[np.intp]) -> NDArray[Any]:
        flat = samples.reshape(-1)
        shards = flat // self.store.job.shard_size
        found = np.empty((len(flat), *self.shape[1:]), self.dtype)
        for index in np.unique(shards):
            arrays = self.store.arrays(int(index))
            inside = shards == index
            rows = flat[inside] - int(index) * self.store.job.shard_size
            found[inside] = self.convert(arrays[self.name][rows])
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        whole: NDArray[Any] = self[:]
        return whole if dtype is None else whole.astype(dtype)

    def __repr__(self) -> str:
        return f"Column({self.name}, shape {self.shape}, {self.dtype})"


def _as_status(codes: NDArray[Any]) -> NDArray[np.object_]:
    return np.array([*shard.STATUSES, None], dtype=object)[:-1][codes]


@dataclass(frozen=True, eq=False)
class Store:
    """The results of a job: arrays over all samples, read when they are asked for.

    Attributes:
        path: The folder.
        job: What was inverted, and how.
        entries: The finished shards.
    """

    path: Path
    job: Job
    entries: Mapping[int, Entry]

    def __len__(self) -> int:
        return self.job.samples

    @property
    def complete(self) -> bool:
        """Whether every shard is finished."""
        return len(self.entries) == self.job.shards

    @property
    def latent(self) -> Column:
        """(samples, k) codes; NaN where there is none."""
        return Column(self, "latent", (len(self), self.job.latent_size), np.dtype(np.float64))

    @property
    def residual(self) -> Column:
        """(samples,) ``||x - G(latent)||_2``."""
        return Column(self, "residual", (len(self),), np.dtype(np.float64))

    @property
    def residual_max(self) -> Column:
        """(samples,) ``||x - G(latent)||_inf``."""
        return Column(self, "residual_max", (len(self),), np.dtype(np.float64))

    @property
    def status(self) -> Column:
        """(samples,) of ``Status``; ``FAILED`` for a sample that was left out."""
        return Column(self, "status", (len(self),), np.dtype(object), _as_status)

    @property
    def rank(self) -> Column:
        """(samples,) rank of the Jacobian at the code; -1 where it is unknown."""
        return Column(self, "rank", (len(self),), np.dtype(np.int64))

    @property
    def quarantined(self) -> dict[int, str]:
        """For each sample that was left out, why: it killed its worker, or kept it too long."""
        return {
            int(sample): reason
            for index in sorted(self.entries)
            for sample, reason in self.entries[index].quarantined.items()
        }

    def arrays(self, index: int) -> shard.Arrays:
        """The arrays of one shard, verified.

        Raises:
            StoreError: The shard is not finished, or its file is not as it was written.
        """
        if index not in self.entries:
            start, stop = self.job.span(index)
            raise StoreError(
                f"{self.path}: samples {start} to {stop - 1} are not inverted yet "
                f"({len(self.entries)} of {self.job.shards} shards are); run the job again"
            )
        return self._read(index)

    @cached_property
    def _read(self) -> Callable[[int], shard.Arrays]:
        # Neighbouring rows are often asked for one after the other.
        @lru_cache(maxsize=2)
        def read(index: int) -> shard.Arrays:
            return read_shard(self.path, self.job, self.entries[index])

        return read

    def faults(self) -> dict[int, str]:
        """What is wrong with each finished shard: missing, truncated or altered."""
        found = {}
        for index, entry in sorted(self.entries.items()):
            try:
                read_shard(self.path, self.job, entry)
            except (StoreError, FormatError) as error:
                found[index] = str(error)
        return found

    def verify(self) -> None:
        """Read every shard, and compare it with its SHA-256.

        Raises:
            StoreError: A shard is missing, truncated or altered, or not finished.
        """
        faults = self.faults()
        if faults:
            raise StoreError(
                f"{self.path}: {len(faults)} of {self.job.shards} shards are damaged; run the "
                f"job again to redo them: {'; '.join(list(faults.values())[:10])}"
            )
        if not self.complete:
            raise StoreError(
                f"{self.path}: {len(self.entries)} of {self.job.shards} shards are finished; run "
                "the job again to go on"
            )

    def counts(self) -> dict[Status, int]:
        """Number of samples of each status, in the finished shards."""
        codes = np.zeros(len(shard.STATUSES), dtype=np.int64)
        for index in self.entries:
            codes += np.bincount(self.arrays(index)["status"], minlength=len(codes))
        return {s: int(n) for s, n in zip(shard.STATUSES, codes, strict=True) if n}

    def __repr__(self) -> str:
        done = f"{len(self.entries)} of {self.job.shards} shards"
        return f"Store({str(self.path)!r}, {len(self)} samples, {done})"


def open_store(path: str | os.PathLike[str]) -> Store:
    """Open the store of a finished or unfinished job, to read it.

    Shards whose files are missing or of another length are found at once, altered ones when they
    are read, or by ``store.verify()``.

    Raises:
        StoreError: No store, a broken manifest, or a damaged shard.
    """
    folder = Path(path)
    manifest = folder / MANIFEST
    try:
        job, entries = from_text(manifest.read_bytes(), manifest)
        sizes = {index: shard_path(folder, index).stat().st_size for index in entries}
    except OSError as error:
        raise StoreError(f"{folder}: not a whole store: {error}") from error
    for index, entry in entries.items():
        if sizes[index] != entry.size:
            raise StoreError(
                f"{shard_path(folder, index)}: expected {entry.size} bytes, got {sizes[index]}: "
                "the shard is damaged; run the job again to redo it"
            )
    return Store(folder, job, entries)
