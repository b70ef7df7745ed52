"""Which of the pieces on a killed worker is blamed."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest

from preimage.batch.store import Arrays, Job, blank
from preimage.batch.workers import Outcome, Piece, Rows, run


class TwoOnOneWorker:
    """Two pieces share a worker. The bad sample kills it, and both pieces go down with it."""

    def __init__(self, bad: set[int]) -> None:
        self.bad = bad
        self.pieces = deque[Piece]()

    @property
    def free(self) -> int:
        return 2 - len(self.pieces)

    def submit(self, piece: Piece, rows: Rows) -> None:
        self.pieces.append(piece)

    def wait(self, seconds: float) -> list[Outcome]:
        pieces, self.pieces = list(self.pieces), deque()
        if any(self.bad & set(range(piece.start, piece.stop)) for piece in pieces):
            return [Outcome(piece, reason="its worker was killed") for piece in pieces]
        return [Outcome(piece, arrays(piece)) for piece in pieces]

    def close(self) -> None:
        pass


def arrays(piece: Piece) -> Arrays:
    return blank(JOB, piece.stop - piece.start)


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
    shards = list(range(JOB.shards))
    read = lambda start, stop: Rows(np.zeros((stop - start, 3)))  # noqa: E731
    finished = list(run(TwoOnOneWorker(bad), JOB, shards, read, lambda: False))
    assert sorted(found.shard for found in finished) == shards
    assert {sample for found in finished for sample in found.left_out} == bad
