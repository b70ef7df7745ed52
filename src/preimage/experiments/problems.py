"""Problems with known answers, and how an answer is scored.

Here, and nowhere else, is the truth: ``drawn`` makes it, ``inverted`` never sees it, ``scored``
compares.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preimage import Generator, Inversion, from_arrays, invert
from preimage.experiments.table import Row

Array = NDArray[np.float64]

TRAINED = "mnist-20-60-784"
_seen: set[tuple[Any, ...]] = set()


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


def inverted(
    generator: Generator, observation: Array, method: Any, **given: Any
) -> tuple[Inversion, float]:
    """An inversion, and its seconds per sample: those of the call over the number of samples.

    The first call of a method in a process is made twice: it loads compiled code.
    """
    key = (type(method), str(method)[:40], len(generator.layers), tuple(given))
    if key not in _seen:
        _seen.add(key)
        invert(generator, observation[:1], method, **{n: _first(v) for n, v in given.items()})
    start = time.perf_counter()
    inversion = invert(generator, observation, method, **given)
    return inversion, (time.perf_counter() - start) / len(observation)


def _first(value: Any) -> Any:
    """What belongs to the first sample (a mask shared by all and a matrix stay whole)."""
    if isinstance(value, np.ndarray) and (value.ndim == 1 or value.dtype == bool):
        return value[:1] if value.dtype != bool or value.ndim == 2 else value
    return value


def relative_error(latent: Array, truth: Array) -> Array:
    """``||z - z*||_2 / ||z*||_2`` of each sample; infinite without a code."""
    error = np.linalg.norm(latent - truth, axis=1) / np.linalg.norm(truth, axis=1)
    return np.where(np.isfinite(error), error, np.inf)


def oracle(generator: Generator, observation: Array, truth: Array) -> Array:
    """Least squares by one who knows the sign pattern of every layer: no method, but a bound."""
    found = []
    for x, z in zip(observation, truth, strict=True):
        jacobian = generator.jacobian(z)
        step = np.linalg.lstsq(jacobian, x - generator(z), rcond=None)[0]
        found.append(z + step)
    return np.array(found)


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
