"""Who inverts the shards: this process, or the workers of a Dask cluster, local or remote."""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import time
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from preimage.batch.store import Arrays, Job, blank, pack
from preimage.errors import InputError, MissingExtraError, PreimageError, StoreError
from preimage.invert import invert
from preimage.methods import Method
from preimage.network import Network

# Parts of a piece that failed. Few levels of parts cost few workers: each takes a second to start.
_PARTS = 16
_TICK = 0.25  # seconds between two looks at whether to stop
_KILLED = "its worker was killed"
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
    """Observations of some samples, with their noise and mask where these differ by sample."""

    values: Any
    noise: Any = None
    mask: Any = None


@dataclass(frozen=True)
class Task:
    """Everything but the rows; it goes to each worker once."""

    network: Network
    method: Method
    noise: Any
    sensing: Any

    def solve(self, rows: Rows) -> Arrays:
        """Invert rows; see ``preimage.invert``."""
        noise = self.noise if rows.noise is None else rows.noise
        sensing = self.sensing if rows.mask is None else rows.mask
        found = invert(self.network, rows.values, self.method, noise=noise, sensing=sensing)
        return pack(found)


class Piece(NamedTuple):
    """A run of samples of one shard."""

    shard: int
    start: int
    stop: int


class Outcome(NamedTuple):
    """How a piece ended: with arrays, or with a reason why not."""

    piece: Piece
    arrays: Arrays | None = None
    reason: str = ""


class Workers(Protocol):
    """Run pieces. Whatever a piece does, only its own outcome says so.

    A ``PreimageError`` of a piece is raised, as it is about the arguments, and ends the job.
    """

    @property
    def free(self) -> int:
        """How many pieces can be submitted now."""

    def submit(self, piece: Piece, rows: Rows) -> None:
        """Begin a piece."""

    def wait(self, seconds: float) -> list[Outcome]:
        """What has ended, after at most so long."""

    def close(self) -> None:
        """Stop."""


class Finished(NamedTuple):
    """A whole shard."""

    shard: int
    arrays: Arrays
    left_out: dict[int, str]


def run(
    workers: Workers,
    job: Job,
    shards: list[int],
    read: Callable[[int, int], Rows],
    stopping: Callable[[], bool],
) -> Iterator[Finished]:
    """Yield shards as they are finished; once ``stopping()``, only what is running ends.

    A piece that fails is replaced by parts of it, down to single samples, which are left out. A
    killed worker may have held a second piece that did nothing wrong, so a single sample is blamed
    for it only after it was tried again with no other piece running.
    """
    waiting = deque(Piece(shard, *job.span(shard)) for shard in shards)
    suspects, suspected = deque[Piece](), set[Piece]()
    done: dict[int, dict[int, Arrays]] = {}
    left_out: dict[int, dict[int, str]] = {}
    running: set[Piece] = set()
    while ((waiting or suspects) and not stopping()) or running:
        while not stopping() and workers.free > 0:
            alone = suspects or running & suspected
            if running if alone else not waiting:
                break
            piece = (suspects or waiting).popleft()
            workers.submit(piece, read(piece.start, piece.stop))
            running.add(piece)
        for shard, outcome in ((found.piece.shard, found) for found in workers.wait(_TICK)):
            running.remove(outcome.piece)
            parts, missing = done.setdefault(shard, {}), left_out.setdefault(shard, {})
            _, start, stop = outcome.piece
            if outcome.arrays is not None:
                parts[start] = outcome.arrays
            elif stop - start > 1:
                size = -(-(stop - start) // _PARTS)
                starts = reversed(range(start, stop, size))
                waiting.extendleft(Piece(shard, at, min(at + size, stop)) for at in starts)
            elif outcome.reason == _KILLED and outcome.piece not in suspected:
                suspects.append(outcome.piece)
                suspected.add(outcome.piece)
            else:
                parts[start], missing[start] = blank(job, 1), outcome.reason
            first, last = job.span(shard)
            if sum(len(part["status"]) for part in parts.values()) == last - first:
                ordered = [parts[at] for at in sorted(parts)]
                arrays = {n: np.concatenate([part[n] for part in ordered]) for n in ordered[0]}
                yield Finished(shard, arrays, missing)
                del done[shard], left_out[shard]


class OneProcess:
    """This process, with the threads of the kernel."""

    def __init__(self, task: Task) -> None:
        self._task, self._waiting = task, deque[tuple[Piece, Rows]]()

    @property
    def free(self) -> int:
        """See ``Workers``."""
        return 1 - len(self._waiting)

    def submit(self, piece: Piece, rows: Rows) -> None:
        """See ``Workers``."""
        self._waiting.append((piece, rows))

    def wait(self, seconds: float) -> list[Outcome]:
        """See ``Workers``."""
        piece, rows = self._waiting.popleft()
        try:
            return [Outcome(piece, self._task.solve(rows))]
        except PreimageError:
            raise
        except Exception as error:
            return [Outcome(piece, reason=f"{type(error).__name__}: {error}"[:500])]

    def close(self) -> None:
        """See ``Workers``."""


class DaskWorkers:
    """Pieces as tasks of a Dask cluster, one for each thread of its workers.

    Args:
        task: What they do.
        where: Number of processes on this machine, or the address of a scheduler.
        retries: How many workers a piece may kill before it fails (a local cluster only: of a
            remote one it is the scheduler's setting ``allowed-failures``).
        shard_timeout: Seconds from when a worker begins a piece; the worker is then restarted.

    Raises:
        InputError: The network or the method cannot be sent to another process.
        MissingExtraError: dask or distributed is not installed.
        StoreError: No scheduler at that address, or it has no worker.
    """

    def __init__(self, task: Task, where: int | str, retries: int, shard_timeout: float) -> None:
        try:
            import cloudpickle
            import distributed
        except ImportError as error:
            raise MissingExtraError("dask and distributed", "cluster") from error
        try:
            payload = cloudpickle.dumps(task)
        except Exception as error:  # pickle raises what the objects in it raise
            raise InputError(f"the network or the method cannot be pickled: {error!r}") from error
        self._shard_timeout = shard_timeout
        self._ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._running: dict[Any, tuple[Piece, Rows]] = {}
        self._begun: dict[Piece, float] = {}  # when, as the worker itself reported
        self._topic = f"preimage-{uuid.uuid4().hex}"
        self._cluster: Any = None
        if not isinstance(where, str):
            self._cluster = _local_cluster(where, retries)
            where = str(self._cluster.scheduler_address)
        try:
            self._client = distributed.Client(where, timeout=_SECONDS, set_as_default=False)
            self._client.wait_for_workers(1, timeout=_SECONDS)
        except (OSError, ValueError, TimeoutError) as error:
            raise StoreError(f"scheduler: {where} has no workers to offer: {error}") from error
        self._client.subscribe_topic(self._topic, self._begins)
        # The result of a task without inputs: if the worker that holds it dies, Dask makes it
        # again.
        self._payload = self._client.submit(_itself, payload, pure=False)

    @property
    def free(self) -> int:
        """See ``Workers``."""
        return sum(self._client.nthreads().values()) - len(self._running)

    def submit(self, piece: Piece, rows: Rows) -> None:
        """See ``Workers``."""
        with warnings.catch_warnings():
            # Dask warns of large arguments; rows have to travel one way or another.
            warnings.simplefilter("ignore", UserWarning)
            future = self._client.submit(
                _solve, self._payload, tuple(rows), self._topic, tuple(piece), pure=False
            )
        self._begun.pop(piece, None)
        self._running[future] = piece, rows
        future.add_done_callback(self._ended.put)

    def _begins(self, event: tuple[float, Any]) -> None:
        """A worker has begun a piece; this is called in a thread of Dask."""
        self._begun[Piece(*event[1])] = time.monotonic()

    def wait(self, seconds: float) -> list[Outcome]:
        """See ``Workers``."""
        if self._client.status != "running":
            raise StoreError(
                "the Dask scheduler is gone; what was finished stays, run the job again"
            )
        outcomes = []
        with contextlib.suppress(queue.Empty):
            future = self._ended.get(timeout=seconds)
            if future in self._running:  # else it was too late, and has been cancelled
                piece, rows = self._running.pop(future)
                if future.status in ("cancelled", "lost"):
                    self.submit(piece, rows)  # its input went away, which is no fault of its own
                else:
                    outcomes.append(_outcome(piece, future))
        return outcomes + self._stalled()

    def _stalled(self) -> list[Outcome]:
        """Pieces that take too long, their workers restarted."""
        now = time.monotonic()
        late = [
            future for future, (piece, _) in self._running.items()
            if now - self._begun.get(piece, now) > self._shard_timeout
        ]  # fmt: skip
        if not late:
            return []
        keys = {future.key for future in late}
        workers = [w for w, theirs in self._client.processing().items() if keys & set(theirs)]
        for future in late:
            future.cancel()
        self._client.restart_workers(workers, raise_for_error=False)
        pieces = [self._running.pop(future)[0] for future in late]
        return [Outcome(p, reason="its worker was stopped: it took too long") for p in pieces]

    def close(self) -> None:
        """See ``Workers``."""
        for future in self._running:
            future.cancel()
        self._client.close()
        if self._cluster is not None:
            self._cluster.close(timeout=5)


def _local_cluster(workers: int, retries: int) -> Any:
    import dask
    import distributed

    settings = {
        "distributed.scheduler.allowed-failures": retries,
        "distributed.nanny.pre-spawn-environ": {**os.environ, **ENVIRONMENT},
    }
    with dask.config.set(settings):
        return distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, memory_limit=0,
            dashboard_address="127.0.0.1:0", silence_logs="CRITICAL",
        )  # fmt: skip


def _itself(payload: bytes) -> bytes:
    return payload


@functools.lru_cache(maxsize=2)
def _task(payload: bytes) -> Task:
    import cloudpickle

    task: Task = cloudpickle.loads(payload)
    return task


def _solve(payload: bytes, rows: tuple[Any, ...], topic: str, piece: tuple[int, ...]) -> Arrays:
    import distributed

    task = _task(payload)
    distributed.get_worker().log_event(topic, piece)
    return task.solve(Rows(*rows))


def _outcome(piece: Piece, future: Any) -> Outcome:
    if future.status == "finished":
        return Outcome(piece, future.result())
    error = future.exception()
    if isinstance(error, PreimageError):
        raise error
    if type(error).__name__ == "KilledWorker":
        return Outcome(piece, reason=_KILLED)
    return Outcome(piece, reason=f"{type(error).__name__}: {error}"[:500])
