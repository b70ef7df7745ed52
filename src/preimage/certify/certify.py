"""Prove of each sample what can be proven: witnesses, enclosure, search, verdict."""

from __future__ import annotations

import functools
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from preimage.activation import Identity
from preimage.certify import boxes, checker
from preimage.certify.certificate import Certificate, Claim, Question
from preimage.certify.problem import Problem, separation, spread
from preimage.certify.proof import record
from preimage.certify.search import split_box, split_signs
from preimage.enclosure.descent import enclose
from preimage.enclosure.network import as_network, observed_interval, rounding_error
from preimage.enclosure.splitting import WIDE, Part, can_split
from preimage.enclosure.tighten import Budget, Deduction
from preimage.errors import InputError
from preimage.generator import Generator, Layer
from preimage.matrix import Array, digest_of, is_matrix
from preimage.methods.gauss_newton import GaussNewton
from preimage.methods.parameters import Box, box_ends, check_positive
from preimage.observation import Observation, check_observation

# The share of a sample's time that is left for the checker.
_CHECKING = 0.45


def certify(
    generator: Generator,
    observation: ArrayLike,
    *,
    noise: ArrayLike,
    sensing: Any = None,
    box: Box = None,
    resolution: float | None = None,
    rounds: int = 4,
    nodes: int = 1000,
    time_limit: float = 10.0,
    seed: int = 0,
) -> Certificate:
    """Say what is proven of ``S = { z : max |G(z) - x| <= noise }``, within ``box`` if given.

    With ``sensing`` A, S is ``{ z : max |A G(z) - x| <= noise }``.

    - ``unique``: S is not empty, and no code in it is farther than ``distance`` from the witness.
    - ``ambiguous``: two codes in S are ``distance`` apart, more than ``resolution``.
    - ``infeasible``: S is empty.
    - ``undecided``: anything else; ``reason`` says why.

    A forward pass in floats has rounding errors. Codes are excluded (and boxes computed) only for
    the noise plus a bound on these; witnesses explain the observation to within the noise itself,
    in exact arithmetic. Noise below that bound often is ``undecided``; the reason names it.

    Args:
        generator: Dense or sparse layers with piecewise-linear activations; the last may be tanh
            or sigmoid.
        observation: Shape (m,) or (batch, m); m is the generator's output size n, or the number of
            rows of ``sensing``.
        noise: Bound on the largest absolute noise entry; a number, or shape (batch,).
        sensing: What is seen of an output, if not all of it: a boolean mask, True where observed,
            of shape (n,) or (batch, n); or a matrix of shape (m, n), an array or ``scipy.sparse``.
        box: Only codes with ``|z_i| <= box``, or ``(low, high)``, numbers or one a coordinate.
        resolution: Distance up to which codes count as one; by default 1 % of the box's (least
            positive) half-width, or of max(1, |witness|) without a box.
        rounds: Most rounds of tightening.
        nodes: Most branches that a sample may open.
        time_limit: Seconds that a sample may take, with the check of its proof, not counting the
            search for a first code.
        seed: Of that search.

    Raises:
        InputError: Anything wrong with the arguments.

    >>> import preimage
    >>> generator = preimage.from_arrays([[[2.0], [-1.0]]])
    >>> certificate = preimage.certify(generator, [6.0, 0.0], noise=0.5)
    >>> str(certificate.verdict), certificate.lower.round(3), certificate.upper.round(3)
    ('ambiguous', array([2.75]), array([3.25]))
    """
    if not isinstance(generator, Generator):
        raise InputError(
            "generator: expected a preimage.Generator, whose layers are known, got "
            f"{type(generator).__name__}; nothing can be proven of a network that is only run"
        )
    positive = {"time_limit": time_limit}
    positive |= {} if resolution is None else {"resolution": resolution}
    check_positive(positive, {"rounds": rounds, "nodes": nodes})
    box_ends(box, generator.latent_size)
    checked, single = check_observation(generator, observation, noise, sensing)
    if np.size(noise) > 1 and np.shape(noise) not in ((len(checked),), (len(checked), 1)):
        raise InputError(
            f"noise: certify takes a number or one a sample, shape ({len(checked)},), got shape "
            f"{np.shape(noise)}"
        )
    claims = _claims(generator, checked, box, resolution, rounds, nodes, time_limit, seed)
    return Certificate.of(claims, generator.latent_size, single)


def _claims(
    generator: Generator, observation: Observation, box: Box, resolution: float | None,
    rounds: int, nodes: int, time_limit: float, seed: int,
) -> list[Claim]:  # fmt: skip
    """What is proven of each sample; the arguments are those of ``certify``."""
    measured, sensing = _measured_chain(generator, observation), None
    network = as_network(measured)
    search = GaussNewton(box=box, seed=seed, backend="kernel")
    starts = search.solve(measured, replace(observation, sensing=None)).latent
    began = time.perf_counter()  # the search for a first code does not count
    if observation.sensing is not None:
        m, n = observation.sensing.shape
        sensing = digest_of(f"{m} {n}", measured.layers[-1].dense_weight)
    layers, digests = exact_layers(measured), (network_digest(generator), sensing)
    fixed, each = checking_times(measured)
    claims: list[Claim] = []
    seen = True if observation.mask is None else observation.mask
    values = np.where(seen, observation.values, np.nan)
    ends = box_ends(box, generator.latent_size)
    for x, level, start in zip(values, observation.noise.tolist(), starts, strict=True):
        lost = rounding_error(network, x, start)
        wide = float(np.nextafter(level + lost, np.inf)) if lost > 0 else level
        problem = Problem(network, layers, digests, x, level, wide, *ends, resolution)
        deadline = (time.perf_counter() if claims else began) + time_limit
        budget = Budget(deadline - fixed, nodes, each)
        # Programs without a box may meet infinities on the way; what they end with is checked.
        with np.errstate(all="ignore"):
            claims.append(_proven(problem, start, budget, rounds, deadline))
    return claims


def _proven(problem: Problem, start: Array, budget: Budget, rounds: int, deadline: float) -> Claim:
    """The claim of one sample: by splitting the latent's box where that is apt, else by programs.

    Where the first way comes to its end undecided, the second has the time that is left.
    """
    wide = sum(problem.network.sizes[1:-1]) > WIDE
    apt = wide and can_split(problem.low, problem.high)
    for split in (True, False) if apt else (False,):
        problem.witnesses.clear()
        last = replace(budget)
        claim = checked(_claim(problem, start, last, rounds, split), problem, deadline)
        if claim.verdict != "undecided" or last.spent:
            break
    return claim


def _measured_chain(generator: Generator, observation: Observation) -> Generator:
    """The network with a sensing matrix as one more layer, unmerged so that nothing is rounded."""
    if observation.sensing is None:
        return generator
    if not is_matrix(observation.sensing):
        raise InputError("sensing: expected a mask or a matrix, got an operator; pass its matrix")
    return Generator((*generator.layers, Layer(observation.sensing, activation=Identity())))


def _claim(problem: Problem, start: Array, budget: Budget, rounds: int, split: bool) -> Claim:
    """What is proven of one sample."""
    known, begin, head = bool(np.isfinite(start).all()), time.perf_counter(), None
    if problem.layers[-1].smooth:
        head = observed_interval(problem.network.head, problem.x, problem.enclosed_noise)
        ends = [[checker.exact(v) for v in end.tolist()] for end in head]
        wide = checker.exact(problem.enclosed_noise)
        with suppress(ValueError):  # refused ends are the checker's affair
            problem.layers[-1].observed(problem.exact_x, wide, ends)
    witness = problem.find_witness(start) if known else None
    # The checker will do the same again.
    budget.deadline -= time.perf_counter() - begin
    apart = witness is not None and problem.find_pair(witness)
    tree: Part | Deduction
    if split:
        tree, stopped = _split(problem, budget, apart)
    else:
        tree, stopped = _enclosed(problem, budget, rounds, apart)
    left, k = tree.leaves(), len(problem.low)
    low = np.min(np.reshape([part.low for part in left], (-1, k)), axis=0, initial=np.inf)
    high = np.max(np.reshape([part.high for part in left], (-1, k)), axis=0, initial=-np.inf)
    verdict, distance, reason = _verdict(problem, low, high, stopped)
    if verdict == "infeasible":
        low, high = np.full_like(low, np.nan), np.full_like(high, np.nan)
    box = (problem.low, problem.high) if np.isfinite([problem.low, problem.high]).any() else None
    question = Question(*problem.digests, problem.x, problem.noise, box, problem.resolution)
    witnesses = problem.witnesses[: checker.VERDICTS[verdict]]
    return Claim(question, verdict, reason, low, high, witnesses, distance, problem.enclosed_noise,
                 head, record(tree))  # fmt: skip


def _enclosed(problem: Problem, budget: Budget, rounds: int, apart: bool) -> tuple[Deduction, str]:
    """A proof by linear programs, and what stopped it."""
    root = enclose(problem.network, problem.bounds(problem.enclosed_noise), budget, rounds)
    if apart or root.empty:
        return root, ""
    if not np.isfinite([root.low, root.high]).all():
        return root, "the codes may be unbounded: pass `box`"
    return root, split_signs(problem, root, budget, rounds)


def _split(problem: Problem, budget: Budget, apart: bool) -> tuple[Part, str]:
    """The same by splitting the latent's box."""
    if apart:
        return Part(problem.low, problem.high), ""
    # The checker goes through the same parts afterwards.
    deadline = budget.deadline - _CHECKING * (budget.deadline - time.perf_counter())
    tree, stopped = split_box(problem, deadline)
    if stopped:
        budget.nodes = 0  # nor is there time for programs, or anything that they could add
    return tree, stopped


@functools.lru_cache(maxsize=4)
def checking_times(generator: Generator) -> tuple[float, float]:
    """Seconds that the checker takes before its first proof and for each, as a trial shows.

    Multipliers are those of a vertex: at most one row for each latent coordinate and hidden unit.
    """
    layers = exact_layers(generator)
    rho = [[3**40 + j for j in range(layer.count)] for layer in layers[1:]]
    rows = sum(layer.count for layer in layers[:-1])
    rho[-1] = [v if j < rows else 0 for j, v in enumerate(rho[-1])]
    seconds = []
    for _ in range(4):  # from the second time on, the rows are packed
        start = time.perf_counter()
        for layer, values in zip(layers[1:], rho, strict=True):
            layer.adjoint(values)
        seconds.append(time.perf_counter() - start)
    return 2 * seconds[0], 2 * min(seconds[1:])  # any of them may be interrupted


def checked(claim: Claim, problem: Problem, deadline: float) -> Claim:
    """The claim if the checker proves it in time; else an undecided one that claims nothing."""
    alone = replace(claim, lower=problem.low, upper=problem.high, proof={"steps": [], "end": "box"})
    tries = [claim, alone] if claim.verdict == "ambiguous" else [claim]  # needs no intervals
    reason = ""
    for found in tries:
        try:
            sample = checker.read_sample(found.record(), problem.layers)
            remaining = functools.partial(boxes.remaining, deadline=deadline)
            checker.prove(problem.layers, sample, remaining, deadline)
        except Exception as error:  # whatever goes wrong, nothing is proven
            reason = f"the checker does not accept the proof ({error}): please report this"
            if time.perf_counter() > deadline:
                reason = "the time limit was reached before the proof was checked"
        else:
            return found
    return replace(alone, verdict="undecided", reason=reason, witnesses=[], distance=np.nan)


def _verdict(problem: Problem, low: Array, high: Array, stopped: str) -> tuple[str, float, str]:
    if len(problem.witnesses) > 1:
        return "ambiguous", separation(*problem.witnesses[:2]), ""
    if (low > high).any():
        if problem.witnesses:  # cannot be; if it is, neither is to be trusted
            return "undecided", np.nan, "a witness contradicts the bounds: please report this"
        return "infeasible", np.nan, ""
    if problem.witnesses and not stopped:
        far = spread(problem.witnesses[0], low, high)
        if far <= problem.resolution:
            return "unique", far, ""
    rounding = problem.enclosed_noise - problem.noise
    if problem.noise < rounding:
        return "undecided", np.nan, (
            f"noise {problem.noise:g} is below the forward pass's own rounding error, "
            f"{rounding:.3g}: pass at least that"
        )  # fmt: skip
    if not stopped and not problem.witnesses:
        stopped = "no code was found that explains the observation in exact arithmetic"
    return "undecided", np.nan, stopped or "the margin is below rounding error"


@functools.lru_cache(maxsize=4)
def exact_layers(generator: Generator) -> list[checker.Layer]:
    """The generator for the checker's arithmetic; layer 0 is the latent."""
    network, layers = as_network(generator), [checker.latent_layer(generator.latent_size)]
    for i, layer in enumerate(generator.layers, 1):
        smooth = layer.activation.name if layer.activation.name in ("sigmoid", "tanh") else None
        flat, slopes = layer.dense_weight.ravel().tolist(), network.slopes[i].tolist()
        layers.append(checker.Layer(flat, layer.weight.shape, layer.bias.tolist(), slopes, smooth))
    return layers


@functools.lru_cache(maxsize=4)
def network_digest(generator: Generator) -> str:
    """The digest that the checker computes of a network's content."""
    parts: list[Any] = []
    for layer in generator.layers:
        n, k = layer.weight.shape
        parts += [f"{n} {k} {layer.activation.name}", layer.dense_weight, layer.bias]
    return digest_of(*parts)
