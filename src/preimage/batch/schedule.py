"""From shards to pieces and back: what fails is run again, then halved, down to one sample."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from preimage.batch import shard
from preimage.batch.task import Outcome, Piece, Pool
from preimage.matrix import Array

_TICK = 0.25  # seconds between two looks at whether to stop


class Finished(NamedTuple):
    """A whole shard."""

    shard: int
    arrays: shard.Arrays
    quarantined: dict[int, str]


class Schedule:
    """Runs shards on a pool.

    A piece whose worker dies, hangs or raises is run again; after ``retries`` times its halves
    take its place, and a single sample is left out, with the reason. As a sample's numbers do not
    depend on its company, a shard that was put together from pieces is the same as in one piece.

    Args:
        shards: First sample of each shard, and the one after its last, by index; in order.
        pool: Workers.
        read: Reads rows.
        latent_size: Of the codes.
        retries: How often the same piece is run again.
    """

    def __init__(
        self,
        shards: Iterable[tuple[int, int, int]],
        pool: Pool,
        read: Callable[[int, int], Array],
        latent_size: int,
        retries: int,
    ) -> None:
        self._shards = iter(shards)
        self._pool, self._read = pool, read
        self._latent_size, self._retries = latent_size, retries
        self._again: deque[Piece] = deque()
        self._running, self._exhausted = 0, False
        self._spans: dict[int, tuple[int, int]] = {}
        self._done: dict[int, dict[int, shard.Arrays]] = {}
        self._quarantined: dict[int, dict[int, str]] = {}

    def run(self, stopping: Callable[[], bool]) -> Iterator[Finished]:
        """Yield shards as they are finished; once ``stopping()``, only what is running ends.

        Raises:
            PreimageError: What a worker says of the arguments, which no retry would mend.
        """
        while True:
            while not stopping() and self._pool.free > 0 and (piece := self._next()) is not None:
                self._pool.submit(piece, self._read(piece.start, piece.stop))
                self._running += 1
            if not self._running and (self._exhausted or stopping()):
                return
            for outcome in self._pool.wait(_TICK):
                self._running -= 1
                if outcome.error is not None:
                    raise outcome.error
                finished = self._take(outcome)
                if finished is not None:
                    yield finished

    def _next(self) -> Piece | None:
        if self._again:
            return self._again.popleft()
        for index, start, stop in self._shards:
            self._spans[index] = start, stop
            self._done[index], self._quarantined[index] = {}, {}
            return Piece(index, start, stop)
        self._exhausted = not self._running
        return None

    def _take(self, outcome: Outcome) -> Finished | None:
        piece = outcome.piece
        size = piece.stop - piece.start
        if outcome.arrays is not None:
            self._done[piece.shard][piece.start] = outcome.arrays
        elif piece.failures < self._retries:
            self._again.append(piece._replace(failures=piece.failures + 1))
        elif size > 1:
            middle = piece.start + size // 2
            self._again.append(Piece(piece.shard, piece.start, middle))
            self._again.append(Piece(piece.shard, middle, piece.stop))
        else:
            self._done[piece.shard][piece.start] = shard.blank(1, self._latent_size)
            self._quarantined[piece.shard][piece.start] = outcome.reason
        return self._whole(piece.shard)

    def _whole(self, index: int) -> Finished | None:
        parts = self._done[index]
        start, stop = self._spans[index]
        if sum(len(part["status"]) for part in parts.values()) < stop - start:
            return None
        del self._done[index], self._spans[index]
        arrays = shard.join([parts[at] for at in sorted(parts)])
        return Finished(index, arrays, self._quarantined.pop(index))
