"""Layer programs solved by the kernel and by every peer: answers first, then times, in turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from peers import PEERS
from scipy import sparse

from preimage import lp
from preimage.generator import Layer
from preimage.layer_program import LayerProgram, Norm, layer_program
from preimage.observation import Observation

NOISE = 0.01
AGREE = 1e-7


@dataclass(frozen=True)
class Effort:
    """How much is run.

    Attributes:
        shapes: (n, k) of the weights.
        batch: Programs of one call of the kernel.
        repeats: Turns of everybody.
        budget: Seconds that a peer may take a turn, unless the least number of programs needs more.
        singles: Programs that the kernel solves one call each, for batch 1.
        norms: Norms of the slack.
        points: Most points of a curve.
    """

    shapes: tuple[tuple[int, int], ...] = ((100, 20), (784, 60), (500, 100), (600, 250))
    batch: int = 256
    repeats: int = 5
    budget: float = 1.0
    singles: int = 32
    norms: tuple[Norm, ...] = ("linf", "l1")
    points: int = 11


FULL = Effort()
QUICK = Effort(repeats=3, batch=64, budget=0.2, singles=8, points=7)
TINY = Effort(shapes=((30, 5),), batch=4, repeats=2, budget=0.01, singles=2, points=2)
LEAST_PROGRAMS = 2


@dataclass(frozen=True)
class Times:
    """One solver on one set of programs.

    Attributes:
        name: The solver.
        each: (repeats,) seconds a program.
        ratio: (repeats,) ``each`` by that of the kernel at the full batch.
        single: (repeats,) ``each`` by that of the kernel at batch 1.
        pair: Seconds a program with two processes.
        count: Programs that it was given.
        failed: How many of them it did not call solved.
        error: Largest relative difference of an objective from that of HiGHS.
        far: Programs where that is above 1e-7.
    """

    name: str
    each: np.ndarray
    ratio: np.ndarray
    single: np.ndarray
    pair: float
    count: int
    failed: int
    error: float
    far: int


@dataclass(frozen=True)
class Case:
    """What was measured on one shape under one norm; ``batch`` and ``one`` are the kernel's."""

    shape: tuple[int, int]
    norm: Norm
    batch: np.ndarray
    one: np.ndarray
    error: float
    peers: list[Times]


def draw(n: int, k: int, norm: Norm, batch: int, seed: int = 0) -> LayerProgram:
    """ReLU layers as in the paper: weights N(0, 1/n), codes max(N(0, 1), 0), uniform noise."""
    rng = np.random.default_rng(seed)
    layer = Layer(rng.normal(size=(n, k)) / np.sqrt(n))
    z = np.maximum(rng.normal(size=(batch, k)), 0)
    x = layer(z) + rng.uniform(-NOISE, NOISE, size=(batch, n))
    noise = np.full(batch, NOISE)
    return layer_program(layer, Observation(x, noise), noise, norm, (0.0, np.inf))


def seconds(work: Callable[[], object]) -> float:
    """How long one run takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def mean_seconds(work: Callable[[], object], least: float) -> float:
    """The mean of as many runs as take ``least`` seconds."""
    count, start = 0, time.perf_counter()
    while count == 0 or time.perf_counter() - start < least:
        work()
        count += 1
    return (time.perf_counter() - start) / count


def solve_with(name: str, program: LayerProgram) -> tuple[np.ndarray, float]:
    """Objectives of a peer, and its seconds for all programs; what it takes in is made before."""
    linear = [program.linear_program(sample) for sample in range(len(program))]
    calls = [PEERS[name](replace(each, matrix=sparse.csr_array(each.matrix))) for each in linear]
    calls[0]()
    found: list[float] = []
    spent = seconds(lambda: found.extend(call() for call in calls))
    return np.array(found), spent


def in_two(pool: ProcessPoolExecutor, name: str, program: LayerProgram) -> tuple[np.ndarray, float]:
    """The same, half of the programs in each of two processes at the same time."""
    half = -(-len(program) // 2)
    parts = [slice(half), slice(half, None)] if half < len(program) else [slice(None)]
    jobs = [pool.submit(solve_with, name, lp.kernel.take(program, part)) for part in parts]
    found, spent = zip(*(job.result() for job in jobs), strict=True)
    return np.concatenate(found), max(spent)


def measure(shape: tuple[int, int], norm: Norm, effort: Effort, pool: ProcessPoolExecutor) -> Case:
    """Check the answers on one kind of programs, then time everybody."""
    program = draw(*shape, norm, effort.batch)
    right, _ = in_two(pool, "HiGHS", program)
    solution = lp.solve(program)
    if solution.fallback.any() or (solution.outcome != "optimal").any():
        raise SystemExit(f"{shape} {norm}: the kernel left {solution.fallback.sum()} open")
    error = float(np.abs(solution.value / right - 1).max())
    if error > AGREE:
        raise SystemExit(f"{shape} {norm}: the kernel's objective is wrong by {error:.1e}")
    singles = [
        lp.kernel.take(program, [sample]) for sample in range(min(effort.singles, len(program)))
    ]
    counts, pairs, answers = {}, {}, {}
    for name in PEERS:
        _, once = solve_with(name, lp.kernel.take(program, slice(1)))
        counts[name] = int(np.clip(effort.budget / once, LEAST_PROGRAMS, effort.batch))
        few = lp.kernel.take(program, slice(counts[name]))
        answers[name], spent = in_two(pool, name, few)
        pairs[name] = spent / counts[name]
    batch, one = np.empty(effort.repeats), np.empty(effort.repeats)
    each = {name: np.empty(effort.repeats) for name in PEERS}
    for turn in range(effort.repeats):
        batch[turn] = mean_seconds(lambda: lp.solve(program), 0.2 * effort.budget) / len(program)
        one[turn] = seconds(lambda: [lp.solve(single) for single in singles]) / len(singles)
        for name in PEERS:
            few = lp.kernel.take(program, slice(counts[name]))
            each[name][turn] = solve_with(name, few)[1] / counts[name]
    peers = []
    for name in PEERS:
        off = np.abs(answers[name] / right[: counts[name]] - 1)
        failed, far = int(np.isnan(off).sum()), int((off > AGREE).sum())
        worst = float(np.nanmax(off, initial=0.0))
        ratio, single = each[name] / batch, each[name] / one
        peers.append(
            Times(name, each[name], ratio, single, pairs[name], counts[name], failed, worst, far)
        )
    return Case(shape, norm, batch, one, error, peers)
