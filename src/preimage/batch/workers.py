"""Who inverts the shards: this process, or the workers of a Dask cluster, local or remote."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache, partial
from itertools import islice, takewhile
from typing import Any, NamedTuple

import numpy as np

from preimage.batch.store import COLUMNS, Arrays, Job, blank, pack
from preimage.errors import InputError, PreimageError, StoreError, extra
from preimage.inversion import Inversion

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


# Arguments of ``invert`` for some samples: the observation, its noise, and its mask if it has one.
Rows = dict[str, Any]
Read = Callable[[range], Rows]
# ``invert`` with all other arguments; it goes to each worker once.
Task = Callable[..., Inversion]
# How some samples ended: with arrays, or with a reason why not.
Outcome = tuple[range, Arrays | str]
# How pieces end, in any order; the next is taken when there is a worker for it. A PreimageError
# that a piece raises is raised, as it is about the arguments.
Solve = Callable[[Iterable[range]], Iterator[Outcome]]


def solve_here(task: Task, read: Read, pieces: Iterable[range]) -> Iterator[Outcome]:
    """Solve in this process, with the threads of the kernel."""
    for piece in pieces:
        rows = read(piece)
        try:
            found: Arrays | str = pack(task(**rows))
        except PreimageError:
            raise
        except Exception as error:
            found = _words(error)
        yield piece, found


@contextmanager
def dask_workers(
    task: Task, read: Read, where: int | str, retries: int, shard_timeout: float
) -> Iterator[Solve]:
    """Solve by tasks of a Dask cluster, one at a time for each thread of its workers.

    ``where`` is a number of processes on this machine, or the address of a scheduler, whose setting
    ``allowed-failures`` then replaces ``retries``. See ``invert_dataset``.
    """
    with extra("cluster", "dask and distributed"):
        import cloudpickle
        import distributed
    try:
        payload = cloudpickle.dumps(task)
    except Exception as error:  # pickle raises what the objects in it raise
        raise InputError(f"the network or the method cannot be pickled: {error!r}") from error
    with ExitStack() as opened:
        if not isinstance(where, str):
            cluster = _local_cluster(where, retries)
            opened.callback(cluster.close, timeout=5)
            where = str(cluster.scheduler_address)
        try:
            client = distributed.Client(where, timeout=_SECONDS, set_as_default=False)
            opened.callback(client.close)
            client.wait_for_workers(1, timeout=_SECONDS)
        except (OSError, ValueError, TimeoutError) as error:
            raise StoreError(f"scheduler: {where} has no workers to offer: {error}") from error
        yield partial(_solve_there, client, payload, read, retries, shard_timeout)


def _solve_there(
    client: Any, payload: bytes, read: Read, retries: int, seconds: float, pieces: Iterable[range]
) -> Iterator[Outcome]:
    import distributed

    # A copy as the result of a task: if the worker that holds it dies, Dask makes it again.
    task = client.submit(bytes, payload, pure=False)
    remaining = iter(pieces)
    running: dict[Any, tuple[range, float]] = {}
    ended = distributed.as_completed(loop=client.loop)
    while True:
        free = max(sum(client.nthreads().values()), 1) - len(running)
        for piece in islice(remaining, max(free, 0)):
            rows = read(piece)
            with warnings.catch_warnings():
                # Dask warns of large arguments; rows have to travel one way or another.
                warnings.simplefilter("ignore", UserWarning)
                future = client.submit(_solve, task, rows, seconds, pure=False)
            running[future] = piece, time.monotonic()
            ended.add(future)
        if not running:
            return
        future = next(ended)
        piece, begun = running.pop(future)
        # Every worker that was lost to this piece may have had it for so long.
        late = time.monotonic() - begun >= (retries + 1) * seconds
        yield piece, _found(future, late=late)


def _found(future: Any, *, late: bool) -> Arrays | str:
    if future.status == "finished":
        arrays: Arrays = future.result()
        return arrays
    if future.status != "error":
        raise StoreError("the Dask scheduler is gone; what was finished stays, run the job again")
    error = future.exception()
    if isinstance(error, PreimageError):
        raise error
    if type(error).__name__ != "KilledWorker":
        return _words(error)
    return f"its worker was {'stopped: it took too long' if late else 'killed'}"


class Finished(NamedTuple):
    """A whole shard, and why samples of it were left out."""

    samples: range
    arrays: Arrays
    left_out: dict[int, str]


def run(
    solve: Solve, job: Job, shards: Iterable[int], stopping: Callable[[], bool]
) -> Iterator[Finished]:
    """Yield shards as they are finished; once ``stopping()``, only what is running ends.

    Shards that fail are tried again at the end, when nothing else is running: with a worker that
    is killed, those go down that did nothing wrong.
    """
    failed = []
    pieces = takewhile(lambda _: not stopping(), (range(*job.span(shard)) for shard in shards))
    for samples, found in solve(pieces):
        if isinstance(found, str):
            failed.append(samples)
        else:
            yield Finished(samples, found, {})
    for samples in takewhile(lambda _: not stopping(), failed):
        yield _alone(solve, job, samples)


def _alone(solve: Solve, job: Job, samples: range) -> Finished:
    """Invert samples; if that fails, parts of them, down to single samples, which are left out."""
    ((_, found),) = solve([samples])
    if not isinstance(found, str):
        return Finished(samples, found, {})
    if len(samples) == 1:
        return Finished(samples, blank(job, 1), {samples.start: found})
    size = -(-len(samples) // _PARTS)
    starts = range(0, len(samples), size)
    parts = [_alone(solve, job, samples[at : at + size]) for at in starts]
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


@lru_cache(maxsize=2)
def _task(payload: bytes) -> Task:
    import cloudpickle

    task: Task = cloudpickle.loads(payload)
    return task


def _solve(payload: bytes, rows: Rows, seconds: float) -> Arrays:
    """Invert rows; if that takes more than ``seconds``, end this process."""
    task = _task(payload)
    watchdog = threading.Timer(min(seconds, threading.TIMEOUT_MAX), os._exit, (1,))
    watchdog.daemon = True
    watchdog.start()
    try:
        return pack(task(**rows))
    finally:
        watchdog.cancel()
