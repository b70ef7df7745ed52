"""``invert_dataset``: from a source to a store, through workers, until all is done or stopped."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from preimage.batch.store import Job, Store
from preimage.batch.workers import Read, Rows, Solve, Task, dask_workers, run, solve_here
from preimage.batch.writer import Writer, writing
from preimage.clock import Progress
from preimage.errors import InputError, StoppedError
from preimage.invert import invert
from preimage.io.observations import digest, open_observations
from preimage.matrix import digest_of, weight_parts
from preimage.methods import Method, as_method
from preimage.methods.parameters import check_positive
from preimage.network import Network
from preimage.observation import as_noise, as_sensing, check_observation

SHARD_SIZE = 256


def invert_dataset(
    network: Network,
    source: Any,
    store: str | os.PathLike[str],
    method: Method | str = "auto",
    *,
    noise: ArrayLike = 0.0,
    sensing: Any = None,
    shard_size: int = SHARD_SIZE,
    workers: int | None = None,
    scheduler: str | None = None,
    retries: int = 2,
    shard_timeout: float = 3600.0,
    progress: bool = False,
    stall: float | None = None,
) -> Store:
    """Invert every sample of a source, shard by shard, into a store that survives interruption.

    Run it again after a crash, a kill or a full disk, and it goes on: finished shards are verified
    and skipped. Codes do not depend on that by more than rounding (1e-9, relative). A sample that
    raises is left out, and named in ``store.quarantined``; with more than one process, so is one
    that kills its worker or keeps it too long. ``SIGINT`` and ``SIGTERM`` end the job after the
    shards that are running; a second one ends it at once.

    By default this process does all of it, on all cores as far as the kernel has work for them.
    ``workers`` or ``scheduler`` hand the shards to Dask (extra ``cluster``). A script that uses
    ``workers`` needs the usual ``if __name__ == "__main__":``.

    Args:
        network: A ``Generator`` or any other ``Network``.
        source: A path or an array, never read as a whole, or what
            ``preimage.io.observations.open_observations`` makes of one.
        store: The folder to write, a Zarr group; ``preimage.open_store`` reads it.
        method: As for ``preimage.invert``.
        noise: As for ``preimage.invert``, for all samples.
        sensing: As for ``preimage.invert``, for all samples.
        shard_size: Samples of a shard: what is inverted at once, and what a kill can cost.
        workers: Processes on this machine, of one thread each; None or 1 for this one alone.
        scheduler: Address of a Dask scheduler, such as ``"tcp://10.0.0.1:8786"``, to run there
            instead; preimage has to be installed on its workers.
        retries: How many workers a piece may kill before it is split, or left out.
        shard_timeout: Seconds that a worker may take for a shard, counted from when it begins; it
            then ends itself, which counts as killed.
        progress: Show samples a second and the time left: a bar in a terminal or a notebook, lines
            in a log.
        stall: Deprecated name of ``shard_timeout``.

    Returns:
        The complete store.

    Raises:
        InputError: Wrong arguments, or a store that was made with others.
        FormatError: The source cannot be read, or is not finite.
        StoreError: The store cannot be written, or another job writes to it.
        StoppedError: A signal came; what was finished stays.
        MissingExtraError: The extra ``batch``, or ``cluster``, is not installed.
    """
    found = as_method(method)
    if stall is not None:
        warnings.warn("stall is shard_timeout now", DeprecationWarning, stacklevel=2)
        shard_timeout = stall
    check_positive(
        {} if shard_timeout == math.inf else {"shard_timeout": shard_timeout},
        {
            "shard_size": shard_size,
            "workers": 1 if workers is None else workers,
            "retries + 1": retries + 1,
        },
    )
    job, task, read = _prepare(network, source, found, noise, sensing, shard_size)
    where = scheduler if scheduler is not None else (workers or 1)
    with writing(Path(store), job) as writer, _signals() as stopped:
        if writer.missing:
            with (
                contextlib.nullcontext(partial(solve_here, task, read)) if where == 1
                else dask_workers(task, read, where, retries, shard_timeout)
            ) as solve:  # fmt: skip
                _fill(writer, solve, stopped, progress)
        return writer.store


def _fill(writer: Writer, solve: Solve, stopped: list[int], progress: bool) -> None:
    job = writer.store.job
    with Progress(job.samples, progress, len(writer.store.inverted)) as bar:
        for shard in run(solve, job, writer.missing, lambda: bool(stopped)):
            writer.write(shard)
            bar.finish(len(shard.samples))
    if not writer.store.complete:
        raise StoppedError(
            f"stopped by {signal.Signals(stopped[0]).name}: {len(writer.store.finished)} of "
            f"{job.shards} shards are finished; the same job goes on from there",
            stopped[0],
        )


def _prepare(
    network: Network, source: Any, method: Method, noise: ArrayLike, sensing: Any, shard_size: int
) -> tuple[Job, Task, Read]:
    """Check what is asked, on the first shard as ``invert`` does, and say what it is.

    The last of the results raises ``InputError`` if the rows of a shard have changed meanwhile.
    """
    from preimage import __version__

    if " at 0x" in repr(method):
        raise InputError(
            f"method: {method!r} has no name that stays the same from run to run; make it a "
            "dataclass"
        )
    mask, operator = as_sensing(network, sensing)
    size = None if operator is None else operator.shape[0]
    opened = open_observations(source, network, size=size)
    count = opened.count
    if not count:
        raise InputError(f"source: expected one sample or more, got shape {opened.shape}")
    level = as_noise(noise, count, opened.size)
    if mask is not None and mask.ndim == 2 and len(mask) != count:
        raise InputError(f"sensing: expected {count} masks, got {len(mask)}")
    seen = "everything" if mask is None else f"a mask of shape {mask.shape}"
    if operator is not None:
        seen = f"a linear map of shape {tuple(operator.shape)}"
    question = [repr((level.shape, seen)), level.tobytes(), b"" if mask is None else mask.tobytes()]
    question += () if operator is None else weight_parts(operator)
    sums = opened.digests(shard_size)
    job = Job(
        network=network.digest, source=digest_of(*sums),
        method=repr(method), method_sha256=_settings_digest(method), noise=float(level.max()),
        sensing=seen, question_sha256=digest_of(*question), samples=count,
        observation_size=opened.size, latent_size=network.latent_size, shard_size=shard_size,
        version=__version__,
    )  # fmt: skip
    levels = np.broadcast_to(level, (count, level.shape[1]))
    masks = None if mask is None else np.broadcast_to(mask, (count, mask.shape[-1]))

    def read(samples: range) -> Rows:
        rows, shard = slice(samples.start, samples.stop), samples.start // shard_size
        values = opened.read(rows.start, rows.stop)
        if (rows.start, rows.stop) == job.span(shard) and digest(values) != sums[shard]:
            raise InputError(
                f"{opened.source.name}: samples {rows.start} to {rows.stop - 1} have changed "
                "while the job ran; restore them, or start a job in another folder"
            )
        given = {"observation": values, "noise": levels[rows]}
        return given if masks is None else {**given, "sensing": masks[rows]}

    first = read(range(*job.span(0)))
    check_observation(network, first["observation"], first["noise"], first.get("sensing", operator))
    return job, partial(invert, network, method=method, sensing=operator), read


def _settings_digest(method: Method) -> str:
    """SHA-256 of a method and all its settings; NumPy writes out arrays only in part."""
    with np.printoptions(threshold=sys.maxsize, floatmode="unique"):
        return digest_of(repr(method))


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """The numbers of the signals that came; a second one is as if none were handled."""
    came: list[int] = []

    def handle(number: int, frame: Any) -> None:
        came.append(number)
        if len(came) > 1:
            raise KeyboardInterrupt

    with contextlib.ExitStack() as before:
        if threading.current_thread() is threading.main_thread():  # no other may handle signals
            for number in (signal.SIGINT, signal.SIGTERM):
                before.callback(signal.signal, number, signal.signal(number, handle))
        yield came
