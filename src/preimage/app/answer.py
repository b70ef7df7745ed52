"""From an observation to reconstructions, a certificate, and how far a moved code has left it."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import preimage
from preimage.app.question import Question, numbers
from preimage.errors import InputError
from preimage.network import Network, chain_of
from preimage.report.network import RUN

Array = NDArray[np.float64]

# Methods that answer in seconds. Those in _ANY need no known layers.
METHODS = ("auto", "linf", "exact", "l1", "relaxed", "gauss_newton", "gradient")
_ANY = ("auto", "gauss_newton", "gradient")
BOX = 5.0  # certified are the codes with |z_i| <= BOX
PATIENCE = 5.0  # seconds for a certificate


class Answer(NamedTuple):
    """What one method found.

    Attributes:
        method: Its name.
        latent: (k,); NaN where there is none.
        standard_error: (k,) of it; NaN where unknown.
        reconstruction: (n,) likewise.
        status: How it ended.
        misfit: Largest error on what is seen, to be held against the noise.
        seconds: Time it took.
    """

    method: str
    latent: Array
    standard_error: Array
    reconstruction: Array
    status: preimage.Status
    misfit: float
    seconds: float


class Verdict(NamedTuple):
    """What is proven.

    Attributes:
        name: ``unique``, ``ambiguous``, ``infeasible``, ``undecided``; ``none`` where nothing can
            be proven of such a network.
        sentence: What that means here.
        lower: (k,) every code that explains the observation lies above; NaN where there is none.
        upper: (k,) and below.
        seconds: Time it took.
    """

    name: str
    sentence: str
    lower: Array
    upper: Array
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
        network, question.observation, method, noise=question.noise,
        sensing=None if question.seen.all() else question.seen,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    reconstruction = found.reconstruct(network)
    return Answer(
        method, found.latent, found.standard_error, reconstruction, found.status,
        _misfit(question, reconstruction), seconds,
    )  # fmt: skip


def certify(network: Network, question: Question) -> Verdict:
    """Prove what can be proven of the codes that explain what is seen."""
    start = time.perf_counter()
    nothing = np.full(network.latent_size, np.nan)
    generator = chain_of(network)
    if generator is None:
        return Verdict("none", RUN, nothing, nothing, 0.0)
    try:
        found = preimage.certify(
            generator, question.observation, noise=question.noise, box=BOX, time_limit=PATIENCE,
            sensing=None if question.seen.all() else question.seen,
        )  # fmt: skip
    except InputError as error:
        return Verdict("none", f"Nothing is proven: {error}", nothing, nothing, 0.0)
    distance, box = f"{found.distance:.2g}", f"|zᵢ| ≤ {BOX:g}"
    sentence = {
        "unique": f"Every code that explains it ({box}) is within {distance} of one code.",
        "ambiguous": f"Two codes explain it that are {distance} apart ({box}).",
        "infeasible": f"No code ({box}) explains it: the network cannot make this picture.",
        "undecided": f"{found.reason[:1].upper()}{found.reason[1:]}.",
    }[found.verdict]
    return Verdict(
        str(found.verdict), sentence, found.lower, found.upper, time.perf_counter() - start
    )


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
