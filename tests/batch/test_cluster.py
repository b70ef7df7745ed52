"""A Dask cluster on loopback: the same store, and a worker that is killed mid-run costs nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from jobs import content, problem
from troublesome import KILLS, QUICK, RAISES, REFUSES, STALLS, Troublesome

import preimage
from preimage.errors import InputError, StoreError

distributed = pytest.importorskip("distributed")

pytestmark = pytest.mark.filterwarnings("ignore")  # what Dask warns of as it goes down


@contextlib.contextmanager
def cluster(folder: Path, workers: int = 2, **environment: str):
    """A scheduler, and workers of one thread each: the address and the workers' processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent), *filter(None, sys.path)])
    options = {
        "env": {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment},
        "cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL,
        "start_new_session": True,
    }  # fmt: skip
    dask = [sys.executable, "-m", "dask"]
    port = address.rpartition(":")[2]
    started = [
        subprocess.Popen(
            [*dask, "scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"], **options
        )
    ]
    worker = [*dask, "worker", address, "--nthreads", "1", "--no-dashboard", "--nworkers", "1",
              "--host", "127.0.0.1"]  # fmt: skip
    started += [subprocess.Popen(worker, **options) for _ in range(workers)]
    try:
        yield address, started[1:]
    finally:
        for process in started:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dask")
    # By default Dask itself runs a task again three times whose worker dies.
    with cluster(folder, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0") as (address, _):
        yield address


def test_the_same_store(address, tmp_path):
    """Claim: the store of a cluster is that of one process, to rounding."""
    generator = preimage.zoo.load("mnist-20-60-784")
    digits = preimage.zoo.digits()[0][:12]
    for name, where in {"dask": {"scheduler": address}, "local": {}}.items():
        preimage.invert_dataset(
            generator, digits, tmp_path / name, QUICK, noise=0.1, shard_size=4, **where
        )
    there, here = (preimage.open_store(tmp_path / name) for name in ("dask", "local"))
    np.testing.assert_allclose(there.latent, here.latent, rtol=1e-9)
    assert list(there.status) == list(here.status)


def test_samples_that_fail(address, tmp_path):
    """Claim: what raises, kills or stalls is left out on a cluster as well."""
    generator, x, _ = problem(8)
    x[[1, 4, 6], 0] = RAISES, KILLS, STALLS
    store = preimage.invert_dataset(
        generator, x, tmp_path / "store", Troublesome(), shard_size=1, scheduler=address, retries=0,
        shard_timeout=6.0,
    )  # fmt: skip
    assert set(store.quarantined) == {1, 4, 6}
    assert "ZeroDivisionError" in store.quarantined[1]
    good = [0, 2, 3, 5, 7]
    np.testing.assert_allclose(
        store.latent[good], preimage.invert(generator, x, QUICK).latent[good], rtol=1e-9
    )
    x[0, 0] = REFUSES
    with pytest.raises(InputError, match="expected something else"):
        preimage.invert_dataset(
            generator, x, tmp_path / "refused", Troublesome(), scheduler=address
        )


def test_no_scheduler(tmp_path, monkeypatch):
    """Claim: an address without a scheduler is an error of ours."""
    from preimage.batch import workers

    monkeypatch.setattr(workers, "_SECONDS", 1)
    generator, x, _ = problem(4)
    with pytest.raises(StoreError, match="no workers to offer"):
        preimage.invert_dataset(
            generator, x, tmp_path / "store", QUICK, scheduler="tcp://127.0.0.1:9"
        )


def test_a_worker_is_killed(tmp_path):
    """Claim: with a worker killed mid-run, the store is that of an undisturbed run."""
    generator, x, _ = problem(24)
    method = Troublesome(0.2)
    with cluster(tmp_path) as (address, workers):

        def kill():
            done = tmp_path / "dask" / "status" / "c"
            while not done.exists() or len(list(done.iterdir())) < 2:
                time.sleep(0.05)
            os.killpg(workers[0].pid, signal.SIGKILL)

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        store = preimage.invert_dataset(
            generator, x, tmp_path / "dask", method, shard_size=2, scheduler=address
        )
        killer.join(timeout=1)
        assert not killer.is_alive()
    store.verify()
    assert store.quarantined == {}
    preimage.invert_dataset(generator, x, tmp_path / "local", method, shard_size=2)
    assert content(tmp_path / "dask") == content(tmp_path / "local")
