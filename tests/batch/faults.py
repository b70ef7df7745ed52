"""Fault injection: ``python tests/batch/faults.py --kills 200`` (``make faults``).

1. A job of 60 shards, again and again, in one process or with workers, in which the job or one of
   its workers is killed (SIGKILL) at random times. After every kill of the job, each shard that is
   finished has to be whole; at the end the store has to be, byte for byte, that of an undisturbed
   run. A log of the shards that were begun tells how many were begun in vain.
2. A disk that is full (a small tmpfs, where mounting is permitted), then larger again.
3. A store that is read-only.
4. Shards that are cut off or have a bit flipped, at random places.

Prints what it did, and ends with 1 if anything was not as it has to be. ``test_faults.py`` runs a
short version.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import psutil  # noqa: E402
from jobs import content, problem  # noqa: E402
from troublesome import Logged  # noqa: E402

import preimage  # noqa: E402
from preimage.batch.store import COLUMNS, METADATA, chunk_path  # noqa: E402

SHARDS, SIZE, WORKERS = 60, 5, 2


class FaultError(Exception):
    """Something is not as it has to be."""


def job(store: Path, log: Path, seconds: float, workers: int = 1) -> preimage.Store:
    """Run or resume the job of 60 shards."""
    generator, x, _ = problem(SHARDS * SIZE)
    method = Logged(str(log), seconds)
    return preimage.invert_dataset(
        generator, x, store, method, shard_size=SIZE, workers=workers, retries=3
    )


def start(store: Path, log: Path, seconds: float, workers: int) -> subprocess.Popen[str]:
    """The same in a process of its own."""
    return subprocess.Popen(
        [sys.executable, __file__, "--job", str(store), str(log), str(seconds), str(workers)],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


# Kills ------------------------------------------------------------------------------------------


class Kills(NamedTuple):
    """What was killed, and what that cost."""

    of_jobs: int
    of_workers: int
    finished_jobs: int
    most_in_vain: int  # shards that were begun and lost in one kill of a job


def kill_at_random(kills: int, folder: Path, seconds: float, draw: random.Random) -> Kills:
    """Kill until there were so many kills, then let the last job finish.

    Raises:
        FaultError: A store is not as it has to be.
    """
    log, reference = folder / "log", folder / "reference"
    job(reference, log, seconds)
    expected = content(reference)
    of_jobs = of_workers = finished = in_vain = 0
    store = folder / "store"
    while of_jobs + of_workers < kills or store.exists():
        log.write_text("")
        before = _listed(store)
        process = start(store, log, seconds, draw.choice((1, WORKERS)))
        killed_workers = 0
        while process.poll() is None and of_jobs + of_workers < kills:
            # Most kills hit the middle of the work, a few its very beginning.
            time.sleep(draw.choice((draw.uniform(0, 1), draw.uniform(1, 8))))
            workers = _workers(process.pid)
            if workers and draw.random() < 0.6:
                with contextlib.suppress(psutil.NoSuchProcess):
                    draw.choice(workers).kill()
                    killed_workers += 1
                    of_workers += 1
            elif process.poll() is None:
                process.kill()
                of_jobs += 1
                break
        _, errors = process.communicate()
        if process.returncode == 0:
            if content(store) != expected:
                raise FaultError("the store differs from that of an undisturbed run")
            shutil.rmtree(store)
            finished += 1
        elif process.returncode == -9:
            after = _listed(store)
            if before - after:
                raise FaultError(f"shards {before - after} were finished, and are not any more")
            begun = len(log.read_text().splitlines())
            lost = begun - len(after - before) - killed_workers
            in_vain = max(in_vain, lost)
            if lost > WORKERS:
                raise FaultError(f"{lost} shards were begun in vain, with {WORKERS} workers")
            _check_whole(store, expected)
        else:
            raise FaultError(f"the job ended with {process.returncode}: {errors}")
    return Kills(of_jobs, of_workers, finished, in_vain)


def _workers(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return [c for c in psutil.Process(pid).children() if "spawn_main" in " ".join(c.cmdline())]
    return []


def _listed(store: Path) -> set[int]:
    return set(preimage.open_store(store).finished) if (store / METADATA).exists() else set()


def _check_whole(store: Path, expected: dict[str, bytes]) -> None:
    """Every shard that is listed is, byte for byte, the one of the undisturbed run."""
    for index in _listed(store):
        for name in COLUMNS:
            path = chunk_path(store, name, index)
            if path.read_bytes() != expected[str(path.relative_to(store))]:
                raise FaultError(f"shard {index} is finished, and {path} is not whole")


# Disks ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[bool]:
    """A tmpfs of this size; False where mounting is not permitted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def _remount(folder: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(folder)], check=True)


def fill_the_disk(folder: Path) -> str:
    """A full disk is a clean error; what was finished is whole, and with room the job goes on.

    Raises:
        FaultError: It is not so.
    """
    log, disk = folder / "disk-log", folder / "disk"
    expected = content(job(folder / "disk-reference", log, 0.0).path)
    with small_disk(disk, "1m") as mounted:
        if not mounted:
            return "full disk: not tried, mounting is not permitted"
        try:
            job(disk / "store", log, 0.0)
        except preimage.StoreError as error:
            message = str(error)
        else:
            raise FaultError("the disk was not full")
        if "No space left" not in message:
            raise FaultError(f"the error does not say that the disk is full: {message}")
        kept = _listed(disk / "store")
        if not 0 < len(kept) < SHARDS:
            raise FaultError(f"{len(kept)} shards were finished on a small disk")
        _check_whole(disk / "store", expected)
        _remount(disk, "ro")
        try:
            job(disk / "store", log, 0.0)
        except preimage.StoreError as error:
            if "Read-only" not in str(error):
                raise FaultError(f"the error does not say that it is read-only: {error}") from error
        else:
            raise FaultError("a store was written that is read-only")
        if preimage.open_store(disk / "store").latent[0].shape != (3,):
            raise FaultError("a read-only store cannot be read")
        _remount(disk, "rw,size=16m")
        job(disk / "store", log, 0.0)
        if content(disk / "store") != expected:
            raise FaultError("after the disk was full, the store differs from an undisturbed one")
    return f"full disk: {len(kept)} of {SHARDS} shards whole, read-only refused, then finished"


# Damage -----------------------------------------------------------------------------------------


def damage(times: int, folder: Path, draw: random.Random) -> str:
    """Whatever is cut off or flipped in a store is found, and mended by the same job.

    Raises:
        FaultError: It is not so.
    """
    log, store = folder / "damage-log", folder / "damaged"
    expected = content(job(store, log, 0.0).path)
    for _ in range(times):
        path = chunk_path(store, draw.choice(list(COLUMNS)), draw.randrange(SHARDS))
        data = bytearray(path.read_bytes())
        if draw.random() < 0.5:
            data = data[: draw.randrange(len(data))]
        else:
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        try:
            preimage.open_store(store).verify()
        except preimage.StoreError as error:
            if str(path) not in str(error):
                raise FaultError(f"the error does not name {path}: {error}") from error
        else:
            raise FaultError(f"damage in {path} was not found")
        job(store, log, 0.0)
        if content(store) != expected:
            raise FaultError("a damaged shard was not mended")
    return f"damage: {times} shards cut off or with a bit flipped, all found and mended"


def main() -> int:
    """Run everything, or be the job that is killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--damages", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=0.15, help="that a shard takes, at least")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--job", nargs=4)
    options = parser.parse_args()
    if options.job:
        store, log, seconds, workers = options.job
        job(Path(store), Path(log), float(seconds), int(workers)).verify()
        return 0
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            kills = kill_at_random(options.kills, folder, options.seconds, draw)
            print(
                f"kills: {kills.of_jobs} of jobs, {kills.of_workers} of workers, over "
                f"{kills.finished_jobs} jobs of {SHARDS} shards: every store to the bit; at most "
                f"{kills.most_in_vain} shards in vain a kill, with {WORKERS} workers"
            )
            print(fill_the_disk(folder))
            print(damage(options.damages, folder, draw))
        except FaultError as fault:
            print(f"FAULT: {fault}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
