"""Problems with known answers, and how an answer is scored.

A ``Question`` is all that a method is told; ``inverted`` and ``certified`` take one, and nowhere
else is a method called. A ``Problem`` is a question with the truth beside it, which only its
``errors`` and ``oracle`` read.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.table import Row
from preimage import (
    Adam,
    Certificate,
    Generator,
    GradientDescent,
    Inversion,
    certify,
    from_arrays,
    invert,
)

Array = NDArray[np.float64]

TRAINED = "mnist-20-60-784"
_warm: set[tuple[Any, ...]] = set()


@dataclass(frozen=True, eq=False)
class Question:
    """What a method is given.

    Attributes:
        generator: Whose outputs are observed.
        observation: (batch, m).
        noise: Bound on its entries, a number or (batch,).
        sensing: As ``preimage.invert`` takes it.
    """

    generator: Generator
    observation: Array
    noise: Any = 0.0
    sensing: Any = None

    def first(self) -> Question:
        """The first sample alone."""
        noise, sensing = self.noise, self.sensing
        if np.ndim(noise):
            noise = noise[:1]
        if sensing is not None and sensing.dtype == bool and sensing.ndim == 2:
            sensing = sensing[:1]
        return Question(self.generator, self.observation[:1], noise, sensing)


@dataclass(frozen=True, eq=False)
class Problem:
    """A question, and its answer: codes (batch, k), or images (batch, n)."""

    question: Question
    truth: Array

    def errors(self, found: Array) -> Array:
        """``||z - z*||_2 / ||z*||_2`` of each sample; infinite without an answer."""
        error = np.linalg.norm(found - self.truth, axis=1) / np.linalg.norm(self.truth, axis=1)
        return np.where(np.isfinite(error), error, np.inf)

    def oracle(self) -> Array:
        """Least squares by one who knows the sign pattern of every layer: no method, a bound."""
        generator, found = self.question.generator, []
        for x, z in zip(self.question.observation, self.truth, strict=True):
            step = np.linalg.lstsq(generator.jacobian(z), x - generator(z), rcond=None)[0]
            found.append(z + step)
        return np.array(found)


def inverted(question: Question, method: Any) -> tuple[Inversion, float]:
    """An inversion, and its seconds per sample: those of the call over the number of samples.

    The first call of a method in a process is made twice, because it loads compiled code (which
    the descents have none of).
    """
    sensing = getattr(question.sensing, "dtype", None)
    key = (repr(method), len(question.generator.layers), sensing)
    if key not in _warm and not isinstance(method, (GradientDescent, Adam)):
        _warm.add(key)
        one = question.first()
        invert(one.generator, one.observation, method, noise=one.noise, sensing=one.sensing)
    start = time.perf_counter()
    inversion = invert(question.generator, question.observation, method,
                       noise=question.noise, sensing=question.sensing)  # fmt: skip
    return inversion, (time.perf_counter() - start) / len(question.observation)


def certified(question: Question, box: float, time_limit: float) -> tuple[Certificate, float]:
    """A certificate, and its seconds."""
    start = time.perf_counter()
    proof = certify(question.generator, question.observation, noise=question.noise, box=box,
                    time_limit=time_limit)  # fmt: skip
    return proof, time.perf_counter() - start


def random_generator(
    sizes: Sequence[int], rng: np.random.Generator, activation: str = "relu"
) -> Generator:
    """Weights from N(0, 1/n_i) without biases, as in the paper's section 5.1."""
    weights = [
        rng.normal(size=(rows, columns)) / np.sqrt(rows) for columns, rows in pairwise(sizes)
    ]
    return from_arrays(weights, activation=activation)


def drawn(generator: Generator, seed: Sequence[int]) -> Array:
    """One code from N(0, I) that the generator can give away, (k,).

    Codes that leave fewer hidden units active than they have entries are drawn anew: no method
    could know them.
    """
    rng = np.random.default_rng(seed)
    for _ in range(1000):
        code: Array = rng.standard_normal(generator.latent_size)
        hidden = generator.preactivations(code[None])[:-1]
        if all((a > 0).sum() >= generator.latent_size for a in hidden):
            return code
    return code


def noise_of(kind: str, level: float, size: int, seed: Sequence[int]) -> Array:
    """U(-level, level) or N(0, level**2), (size,)."""
    rng = np.random.default_rng(seed)
    return rng.uniform(-level, level, size) if kind == "uniform" else rng.normal(0, level, size)


def row(
    method: str, draw: int, seed: int, success: bool, error: float, seconds: float, **more: Any
) -> Row:
    """One row with numbers that CSV and JSON can hold."""
    first: Row = {
        "method": method,
        "draw": int(draw),
        "seed": int(seed),
        "success": int(success),
        "error": _short(error),
        "seconds": _short(seconds),
    }
    return first | {n: _short(v) if isinstance(v, float) else v for n, v in more.items()}


def _short(value: float) -> float:
    return float(f"{value:.7g}")
