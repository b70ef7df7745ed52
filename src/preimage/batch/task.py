"""What a worker does, wherever it runs: invert rows, and hand back arrays."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from preimage.batch import shard
from preimage.errors import InputError, PreimageError
from preimage.generator import Generator
from preimage.invert import invert
from preimage.matrix import Array
from preimage.methods import Method


@dataclass(frozen=True)
class Task:
    """Everything but the rows. It goes to each worker once."""

    generator: Generator
    method: Method
    noise: float

    def solve(self, rows: Array) -> shard.Arrays:
        """Invert rows; see ``preimage.invert``."""
        return shard.pack(invert(self.generator, rows, self.method, noise=self.noise))


def pickled(task: Task) -> bytes:
    """A task as it is sent to a worker.

    Raises:
        InputError: It cannot be sent.
    """
    try:
        return pickle.dumps(task)
    except Exception as error:  # pickle raises what the objects in it raise
        raise InputError(f"the generator or the method cannot be pickled: {error!r}") from error


class Piece(NamedTuple):
    """A run of samples of one shard, and how often it has failed."""

    shard: int
    start: int
    stop: int
    failures: int = 0


class Outcome(NamedTuple):
    """How a piece ended: with arrays, with a reason why not, or with an error that ends the job."""

    piece: Piece
    arrays: shard.Arrays | None = None
    reason: str = ""
    error: PreimageError | None = None


class Pool(Protocol):
    """Workers that survive each other."""

    @property
    def free(self) -> int:
        """How many pieces more can run now."""

    def submit(self, piece: Piece, rows: Array) -> None:
        """Run a piece."""

    def wait(self, seconds: float) -> list[Outcome]:
        """Pieces that have ended; none if that takes longer."""

    def close(self) -> None:
        """End all workers, whatever they are doing."""
