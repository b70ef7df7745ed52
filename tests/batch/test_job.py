"""Jobs in one process and on worker processes: some die, hang or raise, and the job goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from jobs import content, problem
from scipy import sparse
from troublesome import EXITS, KILLS, QUICK, RAISES, REFUSES, STALLS, SlowToLoad, Troublesome

import preimage
from preimage.errors import InputError, StoppedError
from preimage.torch_network import TorchNetwork


def test_troublesome_samples_are_left_out(tmp_path):
    """Claim: a sample that kills, raises or exits is left out with the reason; no other is."""
    generator, x, _ = problem()
    plain = preimage.invert(generator, x, QUICK)
    x[[5, 17, 30], 0] = KILLS, RAISES, EXITS
    store = preimage.invert_dataset(
        generator, x, tmp_path / "store", Troublesome(), shard_size=8, workers=2, retries=0
    )
    store.verify()
    assert store.quarantined == {
        5: "its worker was killed",
        17: "ZeroDivisionError: as told",
        30: "its worker was killed",
    }
    good = np.setdiff1d(np.arange(40), [5, 17, 30])
    np.testing.assert_allclose(store.latent[good], plain.latent[good], rtol=1e-9)
    assert np.isnan(store.latent[[5, 17, 30]]).all()
    assert (store.status[[5, 17, 30]] == preimage.Status.FAILED).all()


def test_a_sample_that_stalls(tmp_path):
    """Claim: a worker that takes too long is stopped, its sample left out, and the job ends."""
    generator, x, _ = problem(6)
    x[2, 0] = STALLS
    store = preimage.invert_dataset(
        generator, x, tmp_path / "store", Troublesome(), shard_size=2, workers=2, retries=0,
        shard_timeout=6.0,
    )  # fmt: skip
    assert store.quarantined == {2: "its worker was stopped: it took too long"}


def test_a_worker_that_takes_long_to_begin(tmp_path):
    """Claim: loading the network and the method is no part of the time that a shard may take."""
    generator, x, _ = problem(4)
    store = preimage.invert_dataset(
        generator, x, tmp_path / "store", SlowToLoad(4.0), shard_size=2, workers=2, retries=0,
        shard_timeout=2.0,
    )  # fmt: skip
    assert store.quarantined == {}


def test_the_old_name_of_the_timeout(tmp_path):
    """Claim: ``stall`` still works, and warns."""
    generator, x, _ = problem(2)
    with pytest.warns(DeprecationWarning, match="shard_timeout"):
        preimage.invert_dataset(generator, x, tmp_path / "store", QUICK, stall=5.0)


@pytest.mark.parametrize("workers", [1])
def test_wrong_arguments_are_no_quarantine(tmp_path, workers):
    """Claim: what the method says of its arguments ends the job."""
    generator, x, _ = problem(6)
    x[2, 0] = REFUSES
    with pytest.raises(InputError, match="expected something else"):
        preimage.invert_dataset(generator, x, tmp_path / "store", Troublesome(), workers=workers)


@pytest.mark.parametrize("marked", [[0], [7], [3, 4, 5, 12], range(16)])
def test_what_raises_in_one_process_is_left_out(tmp_path, marked):
    """Claim: a sample that raises is left out with the reason, and no other is."""
    generator, x, _ = problem(16)
    plain = preimage.invert(generator, x, QUICK)
    x[list(marked), 0] = RAISES
    store = preimage.invert_dataset(generator, x, tmp_path / "s", Troublesome(), shard_size=8)
    store.verify()
    assert store.quarantined == dict.fromkeys(marked, "ZeroDivisionError: as told")
    good = np.setdiff1d(np.arange(16), list(marked))
    np.testing.assert_allclose(store.latent[good], plain.latent[good], rtol=1e-9)
    reopened = preimage.open_store(tmp_path / "s")
    assert reopened.quarantined == store.quarantined
    assert (reopened.status[list(marked)] == preimage.Status.FAILED).all()


SENSING = {
    "noise a sample": lambda x, rng: (x, {"noise": rng.uniform(0.01, 0.1, len(x))}),
    "noise an entry": lambda x, rng: (x, {"noise": rng.uniform(0.01, 0.1, x.shape[1])}),
    "noise of each": lambda x, rng: (x, {"noise": rng.uniform(0.01, 0.1, x.shape)}),
    "mask": lambda x, rng: (x, {"sensing": rng.random(x.shape[1]) < 0.8}),
    "masks": lambda x, rng: (x, {"sensing": rng.random(x.shape) < 0.8, "noise": 0.01}),
    "matrix": lambda x, rng: (x[:, ::2], {"sensing": np.eye(x.shape[1])[::2]}),
    "sparse": lambda x, rng: (x[:, ::2], {"sensing": sparse.csr_array(np.eye(x.shape[1])[::2])}),
}


@pytest.mark.parametrize("kind", SENSING)
def test_noise_and_sensing_as_in_one_call(tmp_path, kind):
    """Claim: a store holds what ``invert`` finds with the same arguments."""
    generator, x, _ = problem(20)
    x, arguments = SENSING[kind](x, np.random.default_rng(0))
    expected = preimage.invert(generator, x, "gauss_newton", **arguments)
    store = preimage.invert_dataset(
        generator, x, tmp_path / "store", "gauss_newton", shard_size=6, **arguments
    )
    # A code that the observation does not determine may be any of those that explain it.
    seen = expected.rank == generator.latent_size
    assert seen.sum() > len(x) / 2
    np.testing.assert_allclose(store.latent[seen], expected.latent[seen], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(store.standard_error[seen], expected.standard_error[seen], rtol=1e-6)
    np.testing.assert_allclose(store.residual, expected.residual, rtol=1e-6, atol=1e-9)
    assert list(store.status) == list(expected.status)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_network_that_torch_runs(tmp_path, workers):
    """Claim: any network can be inverted, and it travels to workers."""
    torch = pytest.importorskip("torch")
    from torch import nn

    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 16), nn.SiLU(), nn.Linear(16, 30))
    network = TorchNetwork(module.double().eval(), 3)
    x = network(np.random.default_rng(0).standard_normal((8, 3)))
    method = preimage.GaussNewton(restarts=2)
    expected = preimage.invert(network, x, method)
    store = preimage.invert_dataset(
        network, x, tmp_path / "store", method, shard_size=4, workers=workers
    )
    np.testing.assert_allclose(store.residual, expected.residual, atol=1e-6)


def test_float32_observations_keep_their_rounding(tmp_path):
    """Claim: a decoder's own float32 output in a file is solved at noise 0."""
    generator, x, _ = problem(8)
    np.save(tmp_path / "x.npy", x.astype(np.float32))
    store = preimage.invert_dataset(generator, tmp_path / "x.npy", tmp_path / "store", shard_size=4)
    expected = preimage.invert(generator, x.astype(np.float32))
    assert list(store.status) == list(expected.status)
    assert preimage.Status.ABOVE_NOISE not in store.status[:]


SCRIPT = """
import sys
import numpy as np
import preimage
from jobs import problem
from troublesome import Troublesome

generator, x, _ = problem(20)
try:
    preimage.invert_dataset(
        generator, x, sys.argv[1], Troublesome(0.2), shard_size=2, workers=int(sys.argv[2])
    )
except preimage.StoppedError as error:
    print(error)
    sys.exit(3)
"""


def start(folder: Path, workers: int = 2) -> subprocess.Popen[str]:
    """The job, in a process of its own."""
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent), *filter(None, sys.path)])
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), str(workers)],
        stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("number", "workers"), [(signal.SIGINT, 1), (signal.SIGTERM, 1), (signal.SIGINT, 2)]
)
def test_signals_end_after_the_running_shards(tmp_path, number, workers):
    """Claim: a signal ends the job cleanly; the store is that of the shards that were begun."""
    with start(tmp_path / "store", workers) as process:
        done, deadline = tmp_path / "store" / "status" / "c", time.monotonic() + 60
        while len(list(done.iterdir()) if done.exists() else "") < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 3
    assert f"stopped by {number.name}" in output
    store = preimage.open_store(tmp_path / "store")
    assert store.faults() == {}
    assert 2 <= len(store.finished) < store.job.shards
    assert not list((tmp_path / "store").rglob("*.partial"))
    generator, x, _ = problem(20)
    again = preimage.invert_dataset(
        generator, x, tmp_path / "store", Troublesome(0.2), shard_size=2
    )
    again.verify()
    whole = preimage.invert_dataset(
        generator, x, tmp_path / "whole", Troublesome(0.2), shard_size=2
    )
    assert content(again.path) == content(whole.path)


def test_workers_end_with_their_job(tmp_path):
    """Claim: a job that is killed leaves no worker behind."""
    psutil = pytest.importorskip("psutil")
    with start(tmp_path / "store") as process:
        deadline = time.monotonic() + 60
        while len(workers := psutil.Process(process.pid).children()) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.kill()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive


def test_bad_arguments(tmp_path):
    """Claim: misuse is found before anything is written."""
    generator, x, _ = problem(6)

    class Local:
        def solve(self, generator, observation):
            raise NotImplementedError

    for arguments, message in [
        ({"method": "magic"}, "method: expected one of"),
        ({"method": Local()}, "no name that stays the same"),
        ({"source": x[:, :5]}, "20 entries"),
        ({"source": x[:0]}, "one sample or more"),
        ({"source": x * np.nan}, "expected finite"),
        ({"noise": [0.1, 0.2]}, "noise: expected"),
        ({"sensing": np.ones((5, 20), bool)}, "expected 6 masks"),
        ({"sensing": np.ones((3, 7))}, "sensing"),
        ({"noise": -1.0}, "noise"),
        ({"shard_size": 0}, "shard_size"),
        ({"workers": 1.5}, "workers"),
        ({"retries": -1}, "retries"),
        ({"shard_timeout": 0}, "shard_timeout"),
    ]:
        given = {"source": x, "method": QUICK, **arguments}
        with pytest.raises(InputError, match=message):
            preimage.invert_dataset(generator, store=tmp_path / "store", **given)
    assert not (tmp_path / "store").exists()
    assert issubclass(StoppedError, preimage.PreimageError)
