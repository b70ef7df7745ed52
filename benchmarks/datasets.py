"""Whole datasets: ``python benchmarks/datasets.py FOLDER [--samples N]``; FOLDER has MNIST in IDX.

Inverts MNIST digits through the zoo's 20-60-784 in one process by one thread and by two, by two
worker processes, and by a loopback Dask cluster of two. Checks that the stores are the same to
rounding, then prints

- the throughput of two workers over that of one and of two threads over that of one (goal: 1.7),
  and of a cluster over local workers (goal: 0.9), in samples a second from the first shards that
  are finished to the last;
- for each process the least and the most resident memory from shard 5 to the end, over its median
  (goal: within 10 %).

Ends with 1 if a goal is missed. All 70,000 digits take half an hour with one worker: ``--samples``
takes the first ones, and ``--skip-one --skip-dask`` leaves the memory of a long job.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

import preimage
from preimage.batch.workers import ENVIRONMENT
from preimage.io.observations import read_idx

NETWORK = "mnist-20-60-784"
FILES = ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte")
FIRST = 5  # shard from which memory has to be flat


class Run(NamedTuple):
    """What a job took.

    Attributes:
        rate: Samples a second.
        memory: For each process its resident bytes, a number a shard, from shard ``FIRST``.
    """

    rate: float
    memory: dict[str, list[int]]


class Watch(threading.Thread):
    """Looks at the finished shards and at the processes while a job runs."""

    def __init__(self, store: Path, watched: dict[str, int]) -> None:
        super().__init__(daemon=True)
        self.store, self.watched = store, watched
        self.times: list[float] = []  # when each shard was finished
        self.memory: dict[str, list[int]] = {}
        self.done = threading.Event()

    def run(self) -> None:
        """Until it is told that the job is done."""
        finished = self.store / "status" / "c"
        while not self.done.wait(0.02):
            shards = sum(p.name.isdecimal() for p in finished.iterdir()) if finished.exists() else 0
            new = shards - len(self.times)
            if new <= 0:
                continue
            self.times += [time.perf_counter()] * new
            if shards >= FIRST:
                with contextlib.suppress(psutil.NoSuchProcess):  # zombies are such
                    sizes = {n: p.memory_info().rss for n, p in self._processes().items()}
                    for name, size in sizes.items():
                        self.memory.setdefault(name, []).append(size)

    def _processes(self) -> dict[str, psutil.Process]:
        found = {name: psutil.Process(pid) for name, pid in self.watched.items()}
        children = psutil.Process(self.watched["main"]).children()
        workers = [c for c in children if "spawn_main" in " ".join(c.cmdline())]
        return found | {f"worker {i}": c for i, c in enumerate(workers)}


def run(
    source: Path, store: Path, options: argparse.Namespace, watched: dict[str, int], *more: str,
    threads: int = 1,
) -> Run:  # fmt: skip
    """Run a job in a process of its own, as ``preimage batch`` does."""
    command = [
        sys.executable, "-m", "preimage", "batch", NETWORK, str(source), str(store),
        "--method", options.method, "--noise", str(options.noise),
        "--shard-size", str(options.shard_size), *more,
    ]  # fmt: skip
    environment = {**os.environ, "PREIMAGE_NUM_THREADS": str(threads)}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment) as process:
        watch = Watch(store, {"main": process.pid, **watched})
        watch.start()
        process.wait()
    watch.done.set()
    watch.join()
    if process.returncode not in (0, 1):
        raise SystemExit(f"the job ended with {process.returncode}")
    store_read = preimage.open_store(store)
    store_read.verify()
    missing = store_read.job.shards - len(watch.times)
    times = watch.times + [time.perf_counter()] * missing
    # One worker's first shard has its start in it, two workers' first two have.
    first = 2
    rate = (len(times) - first) * options.shard_size / (times[-1] - times[first - 1])
    return Run(rate, watch.memory)


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[tuple[str, dict[str, int]]]:
    """A Dask scheduler and two workers of one thread on loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    dask, port = [sys.executable, "-m", "dask"], address.rpartition(":")[2]
    worker = [*dask, "worker", address, "--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1"]
    scheduler = [*dask, "scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"]
    environment = {**os.environ, **ENVIRONMENT}
    processes = [
        subprocess.Popen(command, env=environment, **quiet)  # type: ignore[call-overload]
        for command in (scheduler, worker, worker)
    ]
    try:
        yield address, {f"dask {i}": p.pid for i, p in enumerate(processes)}
    finally:
        for process in processes:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
            process.wait()


def same(first: Path, second: Path) -> bool:
    """Whether two stores hold the same codes, to rounding."""
    one, other = (preimage.open_store(path) for path in (first, second))
    equal = np.allclose(one.residual, other.residual, rtol=1e-6, atol=1e-9, equal_nan=True)
    return equal and bool((one.status[:] == other.status[:]).all())


def write_source(folder: Path, samples: int | None, path: Path) -> int:
    """All digits, training first, in one IDX file; their number."""
    images = np.concatenate([read_idx(folder / name) for name in FILES])[:samples]
    path.write_bytes(
        b"\0\0\x08\3" + np.array(images.shape, ">u4").tobytes() + images.tobytes()
    )  # fmt: skip
    return len(images)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path, help="folder with MNIST's IDX files")
    parser.add_argument("--samples", type=int)
    parser.add_argument("--shard-size", type=int, default=256)
    parser.add_argument("--method", default="auto")
    parser.add_argument("--noise", type=float, default=0.1)
    parser.add_argument("--skip-one", action="store_true", help="not with one worker")
    parser.add_argument("--skip-dask", action="store_true", help="not on a cluster")
    options = parser.parse_args()
    missed = False

    def check(label: str, value: float, good: bool, goal: str) -> None:
        nonlocal missed
        missed |= not good
        print(f"{label:<44}{value:>8.2f}   {goal:<14}{'' if good else 'MISSED'}", flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "digits-idx3-ubyte"
        count = write_source(options.data, options.samples, source)
        if count < (FIRST + 3) * options.shard_size:
            parser.error(f"expected at least {FIRST + 3} shards; lower --shard-size")
        print(f"{count} digits, {NETWORK}, {options.method}, shards of {options.shard_size}")
        runs = {}
        for workers in (2,) if options.skip_one else (1, 2):
            runs[workers] = run(
                source, folder / f"local-{workers}", options, {}, "--workers", str(workers)
            )
            print(f"{workers} local worker(s): {runs[workers].rate:.2f} samples a second")
        if not options.skip_dask:
            with cluster(folder) as (address, watched):
                runs[0] = run(source, folder / "dask", options, watched, "--scheduler", address)
            print(f"Dask, 2 workers: {runs[0].rate:.2f} samples a second")
        if not options.skip_one:
            runs[3] = run(source, folder / "threads", options, {}, threads=2)
            print(f"two threads: {runs[3].rate:.2f} samples a second")
        stores = [path for path in folder.iterdir() if path.is_dir() and path != folder / "local-2"]
        if not all(same(folder / "local-2", store) for store in stores):
            print("the stores differ")
            return 1
        if not options.skip_one:
            ratio = runs[2].rate / runs[1].rate
            check("two workers over one", ratio, ratio >= 1.7, ">= 1.7")
            ratio = runs[3].rate / runs[1].rate
            check("two threads over one", ratio, ratio >= 1.7, ">= 1.7")
        if not options.skip_dask:
            ratio = runs[0].rate / runs[2].rate
            check("Dask over local, two workers each", ratio, ratio >= 0.9, ">= 0.9")
        for process, sizes in sorted(runs[2].memory.items()):
            low, high = (np.array([min(sizes), max(sizes)]) / np.median(sizes)).tolist()
            label = f"memory of {process}, {np.median(sizes) / 2**20:.0f} MB"
            check(f"{label}: least", low, low >= 0.9, ">= 0.9")
            check(f"{label}: most", high, high <= 1.1, "<= 1.1")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
