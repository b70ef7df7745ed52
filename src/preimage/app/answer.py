"""From an observation to reconstructions, a certificate, and how far a moved code has left it."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import preimage
from preimage.app.question import Question, numbers
from preimage.doctor import prove
from preimage.errors import InputError
from preimage.network import Network, chain_of

Array = NDArray[np.float64]

# Methods that answer in seconds. Those in _ANY need no known layers.
METHODS = ("auto", "linf", "exact", "l1", "relaxed", "gauss_newton", "gradient")
_ANY = ("auto", "gauss_newton", "gradient")
PATIENCE = 10.0  # seconds for a method


class Answer(NamedTuple):
    """What one method found.

    Attributes:
        method: Its name.
        found: Its code, with standard errors and a status.
        reconstruction: (n,); NaN where there is no code.
        misfit: Largest error on what is seen, to be held against the noise.
        seconds: Time it took.
    """

    method: str
    found: preimage.Inversion
    reconstruction: Array
    misfit: float
    seconds: float


class Move(NamedTuple):
    """The output at the sliders' code, compared with the observation.

    Attributes:
        reconstruction: (n,).
        misfit: Largest error on what is seen.
        explains: Whether that is at most the noise.
    """

    reconstruction: Array
    misfit: float
    explains: bool


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
        sensing=None if question.seen.all() else question.seen,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    reconstruction = found.reconstruct(network)
    return Answer(method, found, reconstruction, _misfit(question, reconstruction), seconds)


def certify(network: Network, question: Question) -> tuple[preimage.Certificate | None, str]:
    """Prove what can be proven of the codes that explain what is seen; see ``doctor.prove``."""
    sensing = None if question.seen.all() else question.seen
    return prove(network, question.observation, question.noise, sensing)


def move(network: Network, question: Question, parts: Any) -> Move:
    """What the network makes of a code, beside what is seen.

    Raises:
        InputError: Not a code of this network.
    """
    code = numbers(parts, "code", network.latent_size)
    reconstruction = network(code)
    misfit = _misfit(question, reconstruction)
    return Move(reconstruction, misfit, misfit <= question.noise)


def _misfit(question: Question, reconstruction: Array) -> float:
    return float(np.abs(question.observation - reconstruction)[question.seen].max())
