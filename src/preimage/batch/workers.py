"""Who inverts the shards: this process, or the workers of a Dask cluster, local or remote."""

from __future__ import annotations

import functools
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np

from preimage.batch.store import COLUMNS, Arrays, Job, blank, pack
from preimage.errors import InputError, PreimageError, StoreError, extra
from preimage.invert import invert
from preimage.methods import Method
from preimage.network import Network

# Parts of a piece that failed. Few levels of parts cost few workers: each takes a second to start.
_PARTS = 16
_STARTS = 3  # attempts to start a local cluster
_SECONDS = 30  # to reach a scheduler, and for a first worker
# One thread a worker. Memory that is free is kept for the next array: giving it back and asking
# again, as Dask tells glibc to, costs a tenth of the time.
ENVIRONMENT = {
    "PREIMAGE_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
}


class Rows(NamedTuple):
    """Some samples: observations (rows, m), noise (rows, 1 or m), and a mask (rows, m) or None."""

    values: Any
    noise: Any
    mask: Any


@dataclass(frozen=True)
class Task:
    """Everything but the rows; it goes to each worker once."""

    network: Network
    method: Method
    operator: Any

    def solve(self, rows: Rows) -> Arrays:
        """Invert rows; see ``preimage.invert``."""
        sensing = self.operator if rows.mask is None else rows.mask
        found = invert(self.network, rows.values, self.method, noise=rows.noise, sensing=sensing)
        return pack(found)


# How some samples ended: with arrays, or with a reason why not.
Outcome = tuple[range, Arrays | str]
Read = Callable[[range], Rows]


class OneProcess:
    """This process, with the threads of the kernel."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def solve(self, pieces: Iterable[range], read: Read) -> Iterator[Outcome]:
        """How pieces end, in any order; the next is taken when there is a worker for it.

        Raises:
            PreimageError: What a piece raised, as it is about the arguments.
        """
        for piece in pieces:
            rows = read(piece)
            try:
                found: Arrays | str = self._task.solve(rows)
            except PreimageError:
                raise
            except Exception as error:
                found = _words(error)
            yield piece, found

    def close(self) -> None:
        """Nothing is to be done."""


class DaskWorkers:
    """Pieces as tasks of a Dask cluster, one for each thread of its workers.

    Args:
        task: What they do.
        where: Number of processes on this machine, or the address of a scheduler.
        retries: How many workers a piece may kill before it fails (a local cluster only: of a
            remote one it is the scheduler's setting ``allowed-failures``).
        shard_timeout: Seconds from when a worker begins a piece, after which it ends itself.

    Raises:
        InputError: The network or the method cannot be sent to another process.
        MissingExtraError: dask or distributed is not installed.
        StoreError: No scheduler at that address, or it has no worker.
    """

    def __init__(self, task: Task, where: int | str, retries: int, shard_timeout: float) -> None:
        with extra("cluster", "dask and distributed"):
            import cloudpickle
            import distributed
        try:
            self._task = cloudpickle.dumps(task)
        except Exception as error:  # pickle raises what the objects in it raise
            raise InputError(f"the network or the method cannot be pickled: {error!r}") from error
        self._retries, self._shard_timeout = retries, shard_timeout
        self._cluster: Any = None
        if not isinstance(where, str):
            self._cluster = _local_cluster(where, retries)
            where = str(self._cluster.scheduler_address)
        try:
            self._client = distributed.Client(where, timeout=_SECONDS, set_as_default=False)
            self._client.wait_for_workers(1, timeout=_SECONDS)
        except (OSError, ValueError, TimeoutError) as error:
            raise StoreError(f"scheduler: {where} has no workers to offer: {error}") from error

    def solve(self, pieces: Iterable[range], read: Read) -> Iterator[Outcome]:
        """As ``OneProcess.solve``."""
        import distributed

        # A copy as the result of a task: if the worker that holds it dies, Dask makes it again.
        task = self._client.submit(bytes, self._task, pure=False)
        remaining = iter(pieces)
        running: dict[Any, tuple[range, float]] = {}
        ended = distributed.as_completed(loop=self._client.loop)
        while True:
            while len(running) < max(sum(self._client.nthreads().values()), 1):
                piece = next(remaining, None)
                if piece is None:
                    break
                future = self._submit(task, read(piece))
                running[future] = piece, time.monotonic()
                ended.add(future)
            if not running:
                return
            future = next(ended)
            piece, begun = running.pop(future)
            yield piece, self._found(future, begun)

    def _submit(self, task: Any, rows: Rows) -> Any:
        with warnings.catch_warnings():
            # Dask warns of large arguments; rows have to travel one way or another.
            warnings.simplefilter("ignore", UserWarning)
            return self._client.submit(_solve, task, tuple(rows), self._shard_timeout, pure=False)

    def _found(self, future: Any, begun: float) -> Arrays | str:
        if future.status == "finished":
            arrays: Arrays = future.result()
            return arrays
        if future.status != "error":
            raise StoreError(
                "the Dask scheduler is gone; what was finished stays, run the job again"
            )
        error = future.exception()
        if isinstance(error, PreimageError):
            raise error
        if type(error).__name__ != "KilledWorker":
            return _words(error)
        # Every worker that was lost to this piece may have had it for so long.
        late = time.monotonic() - begun >= (self._retries + 1) * self._shard_timeout
        return f"its worker was {'stopped: it took too long' if late else 'killed'}"

    def close(self) -> None:
        """Stop the workers of this machine."""
        self._client.close()
        if self._cluster is not None:
            self._cluster.close(timeout=5)


Workers = OneProcess | DaskWorkers


class Finished(NamedTuple):
    """A whole shard, and why samples of it were left out."""

    samples: range
    arrays: Arrays
    left_out: dict[int, str]


def run(
    workers: Workers, job: Job, shards: Iterable[int], read: Read, stopping: Callable[[], bool]
) -> Iterator[Finished]:
    """Yield shards as they are finished; once ``stopping()``, only what is running ends.

    Shards that fail are tried again at the end, when nothing else is running: with a worker that
    is killed, those go down that did nothing wrong.
    """
    failed = []
    pieces = takewhile(lambda _: not stopping(), (range(*job.span(shard)) for shard in shards))
    for samples, found in workers.solve(pieces, read):
        if isinstance(found, str):
            failed.append(samples)
        else:
            yield Finished(samples, found, {})
    for samples in takewhile(lambda _: not stopping(), failed):
        yield _alone(workers, job, samples, read)


def _alone(workers: Workers, job: Job, samples: range, read: Read) -> Finished:
    """Invert samples; if that fails, parts of them, down to single samples, which are left out."""
    ((_, found),) = workers.solve([samples], read)
    if not isinstance(found, str):
        return Finished(samples, found, {})
    if len(samples) == 1:
        return Finished(samples, blank(job, 1), {samples.start: found})
    size = -(-len(samples) // _PARTS)
    starts = range(0, len(samples), size)
    parts = [_alone(workers, job, samples[at : at + size], read) for at in starts]
    arrays = {name: np.concatenate([part.arrays[name] for part in parts]) for name in COLUMNS}
    return Finished(samples, arrays, {s: why for part in parts for s, why in part.left_out.items()})


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:500]


def _local_cluster(workers: int, retries: int) -> Any:
    import dask
    import distributed

    settings = {
        "distributed.scheduler.allowed-failures": retries,
        "distributed.nanny.pre-spawn-environ": {**os.environ, **ENVIRONMENT},
    }
    with dask.config.set(settings):
        for left in reversed(range(_STARTS)):
            try:
                return distributed.LocalCluster(
                    n_workers=workers, threads_per_worker=1, processes=True, memory_limit=0,
                    dashboard_address="127.0.0.1:0", silence_logs="CRITICAL",
                )  # fmt: skip
            except RuntimeError as error:  # a worker was killed before it was ready
                if not left:
                    raise StoreError(
                        f"workers: {workers} processes do not start ({error}); a script needs "
                        "'if __name__ == \"__main__\":' around its job"
                    ) from error


@functools.lru_cache(maxsize=2)
def _task(payload: bytes) -> Task:
    import cloudpickle

    task: Task = cloudpickle.loads(payload)
    return task


def _solve(payload: bytes, rows: tuple[Any, ...], seconds: float) -> Arrays:
    """Invert rows; if that takes more than ``seconds``, end this process."""
    task = _task(payload)
    watchdog = threading.Timer(min(seconds, threading.TIMEOUT_MAX), os._exit, (1,))
    watchdog.daemon = True
    watchdog.start()
    try:
        return task.solve(Rows(*rows))
    finally:
        watchdog.cancel()
