"""Shards in pieces: whatever fails and whenever, every sample is there once, in its place."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preimage.batch import shard
from preimage.batch.schedule import Schedule
from preimage.batch.task import Outcome
from preimage.errors import InputError


class Pool:
    """Workers that answer in any order, fail at will, and always fail on poisoned samples."""

    def __init__(self, size, poisoned, choose, chance=0):
        self.size, self.poisoned, self.choose, self.chance = size, poisoned, choose, chance
        self.running, self.submitted = [], []

    @property
    def free(self):
        return self.size - len(self.running)

    def submit(self, piece, rows):
        assert self.free > 0
        assert len(rows) == piece.stop - piece.start
        self.running.append((piece, rows))
        self.submitted.append(piece)

    def wait(self, seconds):
        piece, rows = self.running.pop(self.choose(len(self.running)))
        if self.poisoned & set(range(piece.start, piece.stop)) or self.choose(100) < self.chance:
            return [Outcome(piece, reason="as told")]
        arrays = shard.blank(len(rows), 1)
        arrays["latent"] = rows.copy()
        return [Outcome(piece, arrays)]

    def close(self):
        pass


def run(pool, samples, size, retries, stopping=lambda: False):
    values = np.arange(float(samples))[:, None]
    spans = [
        (i, start, min(start + size, samples)) for i, start in enumerate(range(0, samples, size))
    ]
    schedule = Schedule(spans, pool, lambda start, stop: values[start:stop], 1, retries)
    return list(schedule.run(stopping)), spans


@given(
    samples=st.integers(1, 60),
    size=st.integers(1, 20),
    workers=st.integers(1, 4),
    retries=st.integers(0, 3),
    poison=st.sets(st.integers(0, 59), max_size=6),
    random=st.randoms(use_true_random=False),
)
def test_only_what_fails_by_itself_is_left_out(samples, size, workers, retries, poison, random):
    """Claim: poisoned samples are left out, exactly these, and all others are there once."""
    pool = Pool(workers, poison, random.randrange)
    finished, spans = run(pool, samples, size, retries)
    assert sorted(f.shard for f in finished) == list(range(len(spans)))
    left_out = {}
    for index, arrays, quarantined in finished:
        _, start, stop = spans[index]
        left_out |= quarantined
        codes = arrays["latent"][:, 0]
        wanted = np.arange(start, stop, dtype=float)
        wanted[[at - start for at in quarantined]] = np.nan
        np.testing.assert_array_equal(codes, wanted)
    assert set(left_out) == {sample for sample in poison if sample < samples}
    assert not pool.running


@pytest.mark.parametrize("seed", range(10))
def test_failures_by_chance_leave_nothing_out(seed):
    """Claim: with three retries, kills that hit 30 % of all pieces cost time and no sample.

    A sample is left out only if each of the pieces that held it failed four times in a row: at
    0.3, with five sizes of piece, that is one draw in 10^10.
    """
    finished, spans = run(Pool(2, set(), Random(seed).randrange, 30), 48, 16, 3)
    assert len(finished) == len(spans)
    assert not any(f.quarantined for f in finished)


def test_the_number_of_tries():
    """Claim: a sample that always fails is tried ``retries + 1`` times at each size of piece."""
    pool = Pool(1, {5}, lambda n: 0)
    run(pool, 8, 8, 2)
    with_sample = [p.stop - p.start for p in pool.submitted if p.start <= 5 < p.stop]
    assert with_sample == [8] * 3 + [4] * 3 + [2] * 3 + [1] * 3


def test_stopping_finishes_what_runs():
    """Claim: after the word, no piece is begun, and those that run are not lost."""
    pool = Pool(2, set(), lambda n: 0)
    stop = []
    finished, _ = run(pool, 40, 4, 0, lambda: bool(stop) or (len(pool.submitted) > 4 and not
                                                              stop.append(1)))  # fmt: skip
    assert len(finished) == len(pool.submitted) == 5


def test_wrong_arguments_end_the_job():
    """Claim: an error of ours is the caller's fault, and is not tried again."""

    class Refusing(Pool):
        def wait(self, seconds):
            piece, _ = self.running.pop()
            return [Outcome(piece, error=InputError("no such thing"))]

    pool = Refusing(1, set(), lambda n: 0)
    with pytest.raises(InputError, match="no such thing"):
        run(pool, 8, 4, 2)
    assert len(pool.submitted) == 1
