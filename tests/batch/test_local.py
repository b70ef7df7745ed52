"""Real worker processes: some die, hang, raise or leave, and the job goes on."""

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
from troublesome import EXITS, KILLS, QUICK, RAISES, REFUSES, STALLS, Troublesome

import preimage
from preimage.errors import InputError, StoppedError


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
        5: "its worker was killed by SIGKILL",
        17: "ZeroDivisionError: as told",
        30: "its worker ended with exit code 7",
    }
    good = np.setdiff1d(np.arange(40), [5, 17, 30])
    np.testing.assert_array_equal(store.latent[good], plain.latent[good])
    assert np.isnan(store.latent[[5, 17, 30]]).all()
    assert (store.status[[5, 17, 30]] == preimage.Status.FAILED).all()


def test_a_sample_that_stalls(tmp_path):
    """Claim: a worker that takes too long is stopped, its sample left out, and the job ends."""
    generator, x, _ = problem(6)
    x[2, 0] = STALLS
    store = preimage.invert_dataset(
        generator, x, tmp_path / "store", Troublesome(), shard_size=2, workers=2, retries=0,
        stall=3.0,
    )  # fmt: skip
    assert store.quarantined == {2: "its worker was stopped: it took too long"}


def test_wrong_arguments_are_no_quarantine(tmp_path):
    """Claim: what the method says of its arguments ends the job."""
    generator, x, _ = problem(6)
    x[2, 0] = REFUSES
    with pytest.raises(InputError, match="expected something else"):
        preimage.invert_dataset(generator, x, tmp_path / "store", Troublesome(), workers=1)


def test_workers_that_do_not_start(tmp_path, monkeypatch):
    """Claim: workers that cannot even start end the job, and do not loop for ever."""
    generator, x, _ = problem(6)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(preimage.PreimageError, match="workers in a row ended before"):
        preimage.invert_dataset(generator, x, tmp_path / "store", QUICK, workers=1)


SCRIPT = """
import sys
import numpy as np
import preimage
from jobs import problem
from troublesome import Troublesome

generator, x, _ = problem(20)
try:
    preimage.invert_dataset(generator, x, sys.argv[1], Troublesome(0.2), shard_size=2, workers=2)
except preimage.StoppedError as error:
    print(error)
    sys.exit(3)
"""


def start(folder: Path) -> subprocess.Popen[str]:
    """The job, in a process of its own, without a main guard."""
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent), *filter(None, sys.path)])
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_after_the_running_shards(tmp_path, number):
    """Claim: a signal ends the job cleanly; the store is that of the shards that were begun."""
    with start(tmp_path / "store") as process:
        manifest = tmp_path / "store" / "manifest.jsonl"
        deadline = time.monotonic() + 60
        while len(manifest.read_text().splitlines() if manifest.exists() else "") < 3:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 3
    assert f"stopped by {number.name}" in output
    store = preimage.open_store(tmp_path / "store")
    assert store.faults() == {}
    assert 2 <= len(store.entries) < store.job.shards
    assert not list((tmp_path / "store").rglob("*.partial"))
    generator, x, _ = problem(20)
    again = preimage.invert_dataset(
        generator, x, tmp_path / "store", Troublesome(0.2), shard_size=2, workers=2
    )
    again.verify()
    whole = preimage.invert_dataset(
        generator, x, tmp_path / "whole", Troublesome(0.2), shard_size=2, workers=2
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
        ({"source": x[:, :5]}, "expected shape"),
        ({"source": x * np.nan}, "expected finite"),
        ({"noise": -1.0}, "noise"),
        ({"shard_size": 0}, "shard_size"),
        ({"workers": 1.5}, "workers"),
        ({"retries": -1}, "retries"),
        ({"stall": 0}, "stall"),
    ]:
        given = {"source": x, "method": QUICK, **arguments}
        with pytest.raises(InputError, match=message):
            preimage.invert_dataset(generator, store=tmp_path / "store", **given)
    assert not (tmp_path / "store").exists()
    assert issubclass(StoppedError, preimage.PreimageError)
