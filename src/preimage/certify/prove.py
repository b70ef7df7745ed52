"""One sample after another: witnesses, enclosure, search, verdict."""

from __future__ import annotations

import functools
import hashlib
import time
from fractions import Fraction

import numpy as np

from preimage.activation import Sigmoid, Tanh, activation_name
from preimage.certify import checker
from preimage.certify.certificate import Claim, box_record
from preimage.certify.equations import exact_solutions, find_free_pair
from preimage.certify.problem import Problem
from preimage.certify.proof import Node, hexed
from preimage.certify.search import settle, spread
from preimage.enclosure.descent import Budget, enclose
from preimage.enclosure.network import Array, as_network
from preimage.enclosure.observed import observed_interval, rounding_error
from preimage.generator import Generator
from preimage.observation import Observation


def prove(
    generator: Generator,
    observation: Observation,
    starts: Array,
    box: tuple[Array, Array],
    resolution: float | None,
    rounds: int,
    nodes: int,
    time_limit: float,
) -> list[Claim]:
    """What is proven of each sample; see ``certify``.

    Args:
        generator: The network.
        observation: Of all samples.
        starts: (batch, k) codes to look for witnesses from; NaN where there is none.
        box: Both ends, (k,), maybe infinite.
        resolution: As ``certify``, and so are the others.
        rounds: Of tightening.
        nodes: Branches a sample.
        time_limit: Seconds a sample.
    """
    network, activation = as_network(generator), generator.layers[-1].activation
    layers, digest = exact_layers(generator)
    claims = []
    for x, level, start in zip(observation.values, observation.noise.tolist(), starts, strict=True):
        rounding = rounding_error(network, x, start)
        problem = Problem(network, layers, activation, x, level, rounding, *box, resolution)
        budget = Budget(time.perf_counter() + time_limit, nodes)
        # Programs without a box may meet infinities on the way; what they end with is checked.
        with np.errstate(all="ignore"):
            claims.append(_claim(problem, start, budget, rounds, digest))
    return claims


def _claim(problem: Problem, start: Array, budget: Budget, rounds: int, digest: str) -> Claim:
    """What is proven of one sample."""
    witness = problem.find_witness(start) if np.isfinite(start).all() else None
    exact = problem.noise <= problem.rounding and not problem.bounds(problem.noise).empty
    if witness is None and exact and np.isfinite(start).all():
        witness = problem.first(exact_solutions(problem, problem.middle(start)))
    apart = witness is not None and problem.find_pair(witness)
    if (
        witness is not None
        and not apart
        and (problem.noise <= problem.rounding or not problem.has_box)
    ):
        apart = find_free_pair(problem, witness)
    bounds = problem.bounds(problem.noise + problem.rounding)
    root = enclose(problem.network, bounds, budget, rounds)
    tree, stopped = Node.of(root), ""
    if not apart and not root.empty:
        if np.isfinite(root.bounds.lower[0]).all() and np.isfinite(root.bounds.upper[0]).all():
            tree, stopped = settle(problem, root, budget, rounds)
        else:
            stopped = "the codes may be unbounded: pass `box`"
    elif root.empty:
        tree.end = "empty"
    low, high = tree.hull(problem.witnesses[0] if problem.witnesses else None)
    verdict, distance, reason = _verdict(problem, low, high, stopped)
    box = (problem.low, problem.high) if np.isfinite([problem.low, problem.high]).any() else None
    bound_to = binding(digest, problem.x, hexed(problem.noise), box_record(box))
    smooth = isinstance(problem.activation, (Tanh, Sigmoid))
    wide = problem.noise + problem.rounding
    head = observed_interval(problem.activation, problem.x, wide) if smooth else None
    if verdict == "infeasible":
        low, high = np.full_like(low, np.nan), np.full_like(high, np.nan)
    return Claim(
        verdict, reason, low, high, problem.witnesses[:2] if verdict == "ambiguous" else
        problem.witnesses[:1], distance, problem.resolution, problem.ray, problem.noise,
        problem.rounding, box, head, tree, bound_to,
    )  # fmt: skip


def binding(digest: str, x: Array, noise: str, box: list[list[str]] | None) -> str:
    """What ties a claim to its question, as the checker computes it.

    Args:
        digest: Of the network, from ``exact_layers``.
        x: (n,) the observation.
        noise: As it stands in the certificate, and so is ``box``.
        box: Both ends; None for none.
    """
    seen = hashlib.sha256(checker.pack(x.tolist())).hexdigest()
    return str(checker.seal([digest, seen, noise, box]))


def _verdict(problem: Problem, low: Array, high: Array, stopped: str) -> tuple[str, float, str]:
    if problem.ray is not None:
        return "ambiguous", np.inf, ""
    if len(problem.witnesses) > 1:
        apart = float(np.abs(problem.witnesses[0] - problem.witnesses[1]).max())
        return "ambiguous", float(np.nextafter(apart * (1 - 2.0**-50), 0.0)), ""
    if (low > high).any():
        if problem.witnesses:  # cannot be; if it is, neither is to be trusted
            return "undecided", np.nan, "a witness contradicts the bounds: please report this"
        return "infeasible", np.nan, ""
    if problem.witnesses and not stopped:
        distance = spread(problem.witnesses[0], low, high)
        if distance <= problem.resolution:
            return "unique", distance, ""
    if problem.noise < problem.rounding:
        return "undecided", np.nan, (
            f"noise {problem.noise:g} is below the forward pass's own rounding error, "
            f"{problem.rounding:.3g}: pass at least that"
        )  # fmt: skip
    if not stopped and not problem.witnesses:
        stopped = "no code was found that explains the observation in exact arithmetic"
    return "undecided", np.nan, stopped or "the margin is below rounding error"


@functools.lru_cache(maxsize=4)
def exact_layers(generator: Generator) -> tuple[list[checker.Layer], str]:
    """The generator for the checker's arithmetic, and the digest that the checker will compute."""
    sha, layers = hashlib.sha256(), []
    network = as_network(generator)
    for i, layer in enumerate(generator.layers, 1):
        flat, bias = layer.dense_weight.ravel().tolist(), layer.bias.tolist()
        name = activation_name(layer.activation)
        n, k = layer.weight.shape
        sha.update(f"{n} {k} {name}".encode() + checker.pack(flat) + checker.pack(bias))
        smooth = name if name in ("sigmoid", "tanh") else None
        slopes = list(map(Fraction, network.slopes[i].tolist()))
        layers.append(checker.Layer(flat, (n, k), bias, slopes, smooth))
    return layers, sha.hexdigest()
