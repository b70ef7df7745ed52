"""The same pieces on a Dask cluster. dask is imported by the functions, never by this module."""

from __future__ import annotations

import contextlib
import functools
import pickle
import queue
import time
import warnings
from typing import Any

from preimage.batch import shard
from preimage.batch.task import Outcome, Piece, Task, pickled
from preimage.errors import MissingExtraError, PreimageError, StoreError
from preimage.matrix import Array

_SECONDS = 30  # to reach the scheduler, and for a first worker


class DaskPool:
    """Pieces as tasks of a Dask cluster, one for each thread of its workers.

    Dask itself runs a task again whose worker died, a few times. Start its workers with the
    variables of ``preimage.batch.local.ENVIRONMENT``: Dask by itself sets MALLOC_TRIM_THRESHOLD_ so
    low that every array is asked of the kernel anew, which costs a third of the time.

    Args:
        task: What they do.
        address: Of the scheduler.
        stall: Seconds that a piece may take; its worker is then restarted.

    Raises:
        MissingExtraError: dask or distributed is not installed.
        StoreError: No scheduler at that address, or it has no worker.
    """

    def __init__(self, task: Task, address: str, stall: float) -> None:
        try:
            import distributed
        except ImportError as error:
            raise MissingExtraError("distributed", "cluster") from error
        self._stall = stall
        self._ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._running: dict[Any, tuple[Piece, Array, float]] = {}
        try:
            self._client = distributed.Client(address, timeout=_SECONDS, set_as_default=False)
            self._client.wait_for_workers(1, timeout=_SECONDS)
        except (OSError, ValueError, TimeoutError) as error:
            raise StoreError(f"scheduler: {address} has no workers to offer: {error}") from error
        # The result of a task without inputs: if the worker that holds it dies, Dask makes it
        # again. It is bytes, since arrays that Dask itself sends may begin at any address, and
        # NumPy adds up in another order where an array is not aligned.
        self._payload = self._client.submit(_itself, pickled(task), pure=False)

    @property
    def free(self) -> int:
        """See ``Pool``."""
        return sum(self._client.nthreads().values()) - len(self._running)

    def submit(self, piece: Piece, rows: Array) -> None:
        """See ``Pool``."""
        with warnings.catch_warnings():
            # Dask warns of large arguments; rows have to travel one way or another.
            warnings.simplefilter("ignore", UserWarning)
            future = self._client.submit(_solve, self._payload, rows, pure=False)
        self._running[future] = piece, rows, time.monotonic()
        future.add_done_callback(self._ended.put)

    def wait(self, seconds: float) -> list[Outcome]:
        """See ``Pool``."""
        if self._client.status != "running":
            raise StoreError(
                "the Dask scheduler is gone; what was finished stays, run the job again"
            )
        outcomes = []
        with contextlib.suppress(queue.Empty):
            future = self._ended.get(timeout=seconds)
            if future in self._running:  # else it was too late, and has been cancelled
                piece, rows, _ = self._running.pop(future)
                if future.status in ("cancelled", "lost"):
                    self.submit(piece, rows)  # its input went away, not its fault
                else:
                    outcomes.append(_outcome(piece, future))
        return outcomes + self._stalled()

    def _stalled(self) -> list[Outcome]:
        """Pieces that take too long, their workers restarted."""
        now = time.monotonic()
        late = [f for f, (_, _, since) in self._running.items() if now - since > self._stall]
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
        """See ``Pool``."""
        for future in self._running:
            future.cancel()
        self._client.close()


def _itself(payload: bytes) -> bytes:
    return payload


@functools.lru_cache(maxsize=2)
def _task(payload: bytes) -> Task:
    task: Task = pickle.loads(payload)
    return task


def _solve(payload: bytes, rows: Array) -> shard.Arrays:
    return _task(payload).solve(rows)


def _outcome(piece: Piece, future: Any) -> Outcome:
    if future.status == "finished":
        return Outcome(piece, arrays=future.result())
    error = future.exception()
    if isinstance(error, PreimageError):
        return Outcome(piece, error=error)
    return Outcome(piece, reason=f"{type(error).__name__}: {error}"[:500])
