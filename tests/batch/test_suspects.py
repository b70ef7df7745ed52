"""Which of the pieces on a killed worker is blamed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import pytest

from preimage.batch.store import Job, blank
from preimage.batch.workers import Outcome, run


def two_on_one_worker(bad: set[int], pieces: Iterable[range]) -> Iterator[Outcome]:
    """Two pieces share a worker. The bad sample kills it, and both pieces go down with it."""
    pieces = list(pieces)
    for shared in (pieces[at : at + 2] for at in range(0, len(pieces), 2)):
        killed = any(bad & set(piece) for piece in shared)
        for piece in shared:
            yield piece, "its worker was killed" if killed else blank(JOB, len(piece))


JOB = Job(
    "",
    "",
    "",
    "",
    0.0,
    "",
    "",
    samples=24,
    observation_size=3,
    latent_size=2,
    shard_size=4,
    version="",
)


@pytest.mark.parametrize("bad", [set(), {5}, {5, 6}, {0, 23}, set(range(24))])
def test_only_the_sample_that_kills_is_left_out(bad: set[int]) -> None:
    """Claim: a piece that shares a worker with a bad one is not blamed for its death."""
    solve = partial(two_on_one_worker, bad)
    finished = list(run(solve, JOB, range(JOB.shards), lambda: False))
    assert sorted(s for found in finished for s in found.samples) == list(range(JOB.samples))
    assert {sample for found in finished for sample in found.left_out} == bad
