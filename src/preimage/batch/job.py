"""``invert_dataset``: from a source to a store, through workers, until all is done or stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from preimage.batch.local import LocalPool
from preimage.batch.schedule import Schedule
from preimage.batch.store import Job, Store
from preimage.batch.task import Pool, Task
from preimage.batch.writer import Writer
from preimage.errors import InputError, StoppedError
from preimage.generator import Generator
from preimage.io.observations import Observations, digest, open_observations
from preimage.matrix import Array
from preimage.methods import Method, as_method
from preimage.observation import check_observation
from preimage.threads import processors

SHARD_SIZE = 256
_LOG_SECONDS = 30.0


def invert_dataset(
    generator: Generator,
    source: Any,
    store: str | os.PathLike[str],
    method: Method | str = "auto",
    *,
    noise: float = 0.0,
    shard_size: int = SHARD_SIZE,
    workers: int | None = None,
    scheduler: str | None = None,
    retries: int = 2,
    stall: float = 3600.0,
    progress: bool = False,
) -> Store:
    """Invert every sample of a source, shard by shard, into a store that survives interruption.

    Run it again after a crash, a kill or a full disk, and it goes on: finished shards are verified
    and skipped, and the store ends up bit by bit as if nothing had happened. A sample that kills
    its worker, raises in it or keeps it too long is left out after some tries, and named in
    ``store.quarantined``. ``SIGINT`` and ``SIGTERM`` end the job after the shards that are running;
    a second one ends it at once.

    Args:
        generator: The network.
        source: A path or an array, never read as a whole; see
            ``preimage.io.observations.open_observations``.
        store: The folder to write; ``preimage.open_store`` reads it.
        method: As for ``preimage.invert``; an object has to be of a class that can be imported.
        noise: Bound on the largest absolute noise entry, for all samples.
        shard_size: Samples of a shard: what a worker does at once, and what a kill can cost.
        workers: Processes on this machine; None for one a core.
        scheduler: Address of a Dask scheduler, such as ``"tcp://10.0.0.1:8786"``, to run there
            instead (extra ``cluster``); preimage has to be installed on its workers.
        retries: How often what failed is run again before it is halved, or left out.
        stall: Seconds that a worker may take for a shard.
        progress: Show samples a second and the time left: a bar in a terminal or a notebook, lines
            in a log.

    Returns:
        The complete store.

    Raises:
        InputError: Wrong arguments, or a store that was made with others.
        FormatError: The source cannot be read, or holds what is not finite.
        StoreError: The store cannot be written, or another job writes to it.
        StoppedError: A signal came; what was finished stays.
        MissingExtraError: ``scheduler`` needs dask and distributed.
    """
    task = Task(generator, _importable(method), float(noise))
    workers = processors() if workers is None else workers
    _check_counts(shard_size=shard_size, workers=workers, retries=retries + 1)
    if not stall > 0:
        raise InputError(f"stall: expected a positive number of seconds, got {stall}")
    opened = open_observations(source, generator)
    check_observation(generator, np.empty((0, opened.size)), noise)
    sums = opened.digests(shard_size)
    job = _job(task, opened, sums, shard_size)
    with Writer(Path(store), job) as writer, _signals() as stopped:
        if writer.missing:
            pool = _pool(task, min(workers, len(writer.missing)), scheduler, stall)
            try:
                _run(writer, pool, opened, sums, retries, stopped, progress)
            finally:
                pool.close()
        result = writer.store()
    if not result.complete:
        raise StoppedError(
            f"stopped by {signal.Signals(stopped[0]).name}: {len(result.entries)} of {job.shards} "
            "shards are finished; the same job goes on from there",
            stopped[0],
        )
    return result


def _run(
    writer: Writer,
    pool: Pool,
    source: Observations,
    sums: list[str],
    retries: int,
    stopped: list[int],
    progress: bool,
) -> None:
    job = writer.job

    def read(start: int, stop: int) -> Array:
        values = source.read(start, stop)
        if (
            job.span(start // job.shard_size) == (start, stop)
            and digest(values) != sums[start // job.shard_size]
        ):
            raise InputError(
                f"{source.source.name}: samples {start} to {stop - 1} have changed meanwhile"
            )
        return values

    shards = ((index, *job.span(index)) for index in writer.missing)
    schedule = Schedule(shards, pool, read, job.latent_size, retries)
    with _progress(progress, job.samples, writer.samples) as bar:
        for finished in schedule.run(lambda: bool(stopped)):
            writer.write(*finished)
            bar.update(len(finished.arrays["status"]))


def _importable(method: Method | str) -> Method:
    found = as_method(method)
    if type(found).__module__ == "__main__":
        raise InputError(
            f"method: {type(found).__name__} is defined in the script or notebook itself, where "
            "workers cannot find it; put it into a module of its own"
        )
    return found


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise InputError(f"{name}: expected a whole number, large enough, got {count!r}")


def _job(task: Task, source: Observations, sums: list[str], shard_size: int) -> Job:
    from preimage import __version__

    words = repr(task.method)
    if " at 0x" in words:
        raise InputError(
            f"method: {words} has no name that stays the same from run to run; make it a dataclass"
        )
    return Job(
        network=task.generator.digest,
        source=hashlib.sha256("".join(sums).encode()).hexdigest(),
        method=words,
        method_sha256=_settings_digest(task.method),
        noise=task.noise,
        samples=source.count,
        observation_size=task.generator.observation_size,
        latent_size=task.generator.latent_size,
        shard_size=shard_size,
        version=__version__,
    )


def _settings_digest(method: Any) -> str:
    """SHA-256 of a method and all its settings; NumPy writes out arrays only in part."""
    sha = hashlib.sha256(repr(method).encode())
    if dataclasses.is_dataclass(method):
        for field in dataclasses.fields(method):
            value = getattr(method, field.name)
            if isinstance(value, np.ndarray):
                sha.update(repr((value.shape, value.dtype.str)).encode() + value.tobytes())
            elif dataclasses.is_dataclass(value):
                sha.update(_settings_digest(value).encode())
    return sha.hexdigest()


def _pool(task: Task, workers: int, scheduler: str | None, stall: float) -> Pool:
    if scheduler is None:
        return LocalPool(task, workers, stall)
    from preimage.batch.cluster import DaskPool

    return DaskPool(task, scheduler, stall)


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """The numbers of the signals that came; a second one is as if none were handled."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came  # only the main thread may handle signals
        return

    def handle(number: int, frame: Any) -> None:
        came.append(number)
        if len(came) > 1:
            raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, handle) for number in numbers]
    try:
        yield came
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


# Progress ---------------------------------------------------------------------------------------


class _Lines:
    """A log has no bar that is drawn again and again, but a line now and then."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        line = text.strip()
        if line:
            self._stream.write(f"{line}\n")

    def flush(self) -> None:
        self._stream.flush()


def _progress(wanted: bool, total: int, done: int) -> Any:
    from tqdm.auto import tqdm

    log = not sys.stderr.isatty() and "ipykernel" not in sys.modules
    return tqdm(
        total=total,
        initial=done,
        desc="inverting",
        unit=" samples",
        disable=not wanted,
        file=_Lines(sys.stderr) if log else sys.stderr,
        mininterval=_LOG_SECONDS if log else 0.5,
        ncols=100 if log else None,
    )
