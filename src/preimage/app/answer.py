"""From an observation to codes, and how well a moved code explains it."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np

import preimage
from preimage.app.question import Question, numbers
from preimage.errors import InputError
from preimage.matrix import Array
from preimage.network import Network, chain_of

# Methods that answer in seconds. Those in _ANY need no known layers.
METHODS = ("auto", "linf", "exact", "l1", "relaxed", "gauss_newton", "gradient")
_ANY = ("auto", "gauss_newton", "gradient")
PATIENCE = 10.0  # seconds for a method


class Answer(NamedTuple):
    """What one method found, and how many seconds it took."""

    method: str
    found: preimage.Inversion
    seconds: float


def methods_for(network: Network) -> tuple[str, ...]:
    """The methods that can invert it, best first."""
    return _ANY if chain_of(network) is None else METHODS


def invert(network: Network, question: Question, method: str) -> Answer:
    """Invert by a method.

    Raises:
        InputError: No such method, or it cannot work on this network.
    """
    if method not in METHODS:
        raise InputError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    start = time.perf_counter()
    found = preimage.invert(
        network, question.observation, method, noise=question.noise, time_limit=PATIENCE,
        sensing=question.sensing,
    )  # fmt: skip
    return Answer(method, found, time.perf_counter() - start)


def move(network: Network, question: Question, parts: Any) -> tuple[Array, float]:
    """The network's output at a code, (n,), and its largest error on what is seen.

    Raises:
        InputError: Not a code of this network.
    """
    output = network(numbers(parts, "code", network.latent_size))
    return output, float(np.abs(question.observation - output)[question.seen].max())
