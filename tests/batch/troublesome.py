"""Methods for worker processes that have to be imported there: one misbehaves when told to."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import Any

import preimage
from preimage.generator import Generator
from preimage.inversion import Estimate
from preimage.methods import GradientDescent
from preimage.observation import Observation

# A sample with one of these as its first entry does to its worker what the name says.
KILLS, STALLS, RAISES, EXITS, REFUSES = 1001.0, 1002.0, 1003.0, 1004.0, 1005.0

# Nothing has to be compiled for it, so that workers start at once.
QUICK = GradientDescent(rate=0.01, steps=40)


@dataclass(frozen=True)
class Troublesome:
    """``QUICK``, but for samples that are marked."""

    seconds: float = 0.0

    def solve(self, generator: Generator, observation: Observation) -> Estimate:
        """Invert, or not."""
        time.sleep(self.seconds)
        marks = set(observation.values[:, 0].tolist())
        if KILLS in marks:
            os.kill(os.getpid(), signal.SIGKILL)
        if STALLS in marks:
            time.sleep(3600)
        if RAISES in marks:
            raise ZeroDivisionError("as told")
        if EXITS in marks:
            os._exit(7)
        if REFUSES in marks:
            raise preimage.InputError("expected something else")
        return QUICK.solve(generator, observation)


@dataclass(frozen=True)
class Logged:
    """``QUICK``, slowly, with a line in a file for each batch that is begun."""

    log: str
    seconds: float

    def solve(self, generator: Generator, observation: Observation) -> Estimate:
        """Invert."""
        with open(self.log, "a") as file:
            file.write(f"{observation.values[0, -1]!r}\n")
        time.sleep(self.seconds)
        return QUICK.solve(generator, observation)


def _slow_to_load(seconds: float) -> SlowToLoad:
    time.sleep(seconds)
    return SlowToLoad(seconds)


@dataclass(frozen=True)
class SlowToLoad:
    """``QUICK``, in a worker that takes long to begin."""

    seconds: float

    def __reduce__(self) -> tuple[Any, ...]:
        return _slow_to_load, (self.seconds,)

    def solve(self, generator: Generator, observation: Observation) -> Estimate:
        """Invert."""
        return QUICK.solve(generator, observation)
