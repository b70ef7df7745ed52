"""Writing a store: locked, resumed, one shard after the other."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

from preimage.batch import shard
from preimage.batch.store import MANIFEST, Entry, Job, Store, from_text, shard_path, to_text
from preimage.errors import InputError, StoreError
from preimage.io.guard import flush_folder, write_bytes

_WHAT = {
    "network": "another network",
    "source": "other observations",
    "method_sha256": "another method",
    "noise": "another noise",
    "shard_size": "another shard size",
    "version": "another version of preimage",
}


class Writer:
    """The only job that may write to a store, as long as it is open; a context manager.

    A store that is there is resumed: finished shards are compared with their SHA-256, and what is
    damaged is taken from the list, to be done again.

    Args:
        path: The folder, made if it is not there.
        job: Must be the one that the store was made for.

    Raises:
        InputError: The store holds another job, or the folder something else.
        StoreError: Another job is writing to it, or it cannot be written.
    """

    def __init__(self, path: Path, job: Job) -> None:
        self.path, self.job = path, job
        self.redone: dict[int, str] = {}
        self._entries: dict[int, Entry] = {}
        try:
            (path / "shards").mkdir(parents=True, exist_ok=True)
            flush_folder(path.parent)
            self._lock = _locked(path / "lock")
        except OSError as error:
            raise _unwritable(path, error) from error
        try:
            self._resume()
        except OSError as error:
            self.close()
            raise _unwritable(path, error) from error
        except BaseException:
            self.close()
            raise

    def _resume(self) -> None:
        manifest = self.path / MANIFEST
        if manifest.exists():
            found, entries = from_text(manifest.read_bytes(), manifest)
            _check_same(self.path, found, self.job)
            self.redone = Store(self.path, self.job, entries).faults()
            self._entries = {i: entry for i, entry in entries.items() if i not in self.redone}
        elif any(self.path.glob("shards/*")):
            raise InputError(f"{self.path}: the folder has shards, but no {MANIFEST}")
        # What was being written when a job was killed, and what no manifest lists.
        kept = {shard_path(self.path, index).name for index in self._entries}
        for leftover in [*self.path.glob(".*.partial"), *(self.path / "shards").iterdir()]:
            if leftover.name not in kept:
                leftover.unlink()
        write_bytes(manifest, to_text(self.job, self._entries.values()))

    @property
    def missing(self) -> list[int]:
        """Shards that are not finished, in order."""
        return [index for index in range(self.job.shards) if index not in self._entries]

    @property
    def samples(self) -> int:
        """Number of samples in finished shards."""
        spans = (self.job.span(index) for index in self._entries)
        return sum(stop - start for start, stop in spans)

    def write(self, index: int, arrays: shard.Arrays, quarantined: dict[int, str]) -> None:
        """Write a finished shard, and list it once it is on the disk.

        Raises:
            StoreError: The disk is full, or the folder cannot be written.
        """
        data = shard.encode(arrays)
        reasons = {str(sample): reason for sample, reason in sorted(quarantined.items())}
        entry = Entry(index, shard.sha256(data), len(data), reasons)
        try:
            write_bytes(shard_path(self.path, index), data)
            entries = {**self._entries, index: entry}
            write_bytes(self.path / MANIFEST, to_text(self.job, entries.values()))
        except OSError as error:
            raise _unwritable(self.path, error) from error
        self._entries = entries

    def store(self) -> Store:
        """What was written up to now."""
        return Store(self.path, self.job, dict(self._entries))

    def close(self) -> None:
        """Let other jobs write."""
        os.close(self._lock)

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _locked(path: Path) -> int:
    """A file with a lock that the kernel gives up when the process ends, however it ends."""
    try:
        import fcntl
    except ImportError as error:
        raise StoreError("writing a store needs fcntl.flock, which this system lacks") from error
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise StoreError(
            f"{path.parent}: another job is writing to this store; wait until it has ended"
        ) from error
    except OSError:
        os.close(handle)
        raise
    return handle


def _check_same(path: Path, found: Job, job: Job) -> None:
    theirs, ours = asdict(found), asdict(job)
    different = [word for name, word in _WHAT.items() if theirs[name] != ours[name]]
    if theirs != ours:
        raise InputError(
            f"store: {path} was made with {', '.join(different) or 'other sizes'} (it holds "
            f"{found.method}, noise={found.noise}, shards of {found.shard_size}); name another "
            "folder, or run the job that it was made for"
        )


def _unwritable(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{path}: it cannot be written: {error.strerror or error}; every shard that was finished "
        "is whole, and the same job goes on from there"
    )
