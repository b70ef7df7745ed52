"""The batched kernel: Mehrotra's method for all samples of a layer program, in compiled code.

The mathematics is in ``interior`` (the method), ``normal`` (its linear algebra), ``pose`` (the form
it takes programs in) and ``start``. This room hands them arrays and threads, and turns what comes
back into verdicts: none is given that ``duality`` does not prove from the program's own data.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from preimage.activation import Slab
from preimage.layer_program import LayerProgram
from preimage.lp import duality
from preimage.lp.balance import balance
from preimage.lp.outcome import Outcome
from preimage.threads import processors

Array = NDArray[np.float64]
Samples = NDArray[np.intp] | slice

_SLACKS = {"shared": 0, "own": 1, "none": 2}
# Samples that one call of the compiled code takes; a call is also what a thread takes.
_BLOCK = 8
# Entries of the arrays of a batch that exist at the same time beside its answers.
_CHUNK_ENTRIES = 2**20
# Numbers beyond this stand for none.
_DIVERGED = 1e150
# Sparse weights up to this many entries are made dense; beyond, the kernel declines.
_DENSE_ENTRIES = 2**24


@dataclass(frozen=True, eq=False)
class Settled:
    """What the kernel found, and what of it is proven.

    Attributes:
        z: (batch, k); NaN unless optimal.
        dual_lower: (batch, n) multipliers; a Farkas proof where infeasible; NaN where open.
        dual_upper: (batch, n).
        ray: (batch, k), a direction of unboundedness; NaN unless unbounded.
        outcome: (batch,) of ``Outcome``; ``FAILED`` where the kernel proved nothing.
        steps: (batch,) interior-point steps.
    """

    z: Array
    dual_lower: Array
    dual_upper: Array
    ray: Array
    outcome: NDArray[np.object_]
    steps: NDArray[np.int64]


def compile() -> None:
    """Compile the kernel, or load it from disk; the first takes up to a minute."""
    one, half = np.ones((1, 1)), np.full((1, 1), 0.5)
    slab = Slab(-one, half, one, half)
    _run(LayerProgram(one, slab, "shared", half, (0.0, 1.0)), 1)


def accepts(program: LayerProgram) -> bool:
    """Whether the kernel is made for programs of this shape, and no bound is beyond all numbers."""
    rows, columns = program.weight.shape[-2:]
    if (program.slab.lower == np.inf).any() or (program.slab.upper == -np.inf).any():
        return False
    return columns > 0 and (not sparse.issparse(program.weight) or rows * columns <= _DENSE_ENTRIES)


def unsettled(program: LayerProgram) -> Settled:
    """Nothing is known yet."""
    batch, k = program.objective.shape
    n = program.weight.shape[-2]
    return Settled(
        np.full((batch, k), np.nan),
        np.full((batch, n), np.nan),
        np.full((batch, n), np.nan),
        np.full((batch, k), np.nan),
        np.full(batch, Outcome.FAILED, dtype=object),
        np.zeros(batch, dtype=np.int64),
    )


def minimise(program: LayerProgram, threads: int | None = None) -> Settled:
    """Solve every sample; ``accepts(program)`` must hold.

    Args:
        program: The batch.
        threads: Threads to use; None for all that the process may use.
    """
    if sparse.issparse(program.weight):
        program = replace(program, weight=program.weight.toarray())
    balanced = balance(program)
    if balanced:
        program = balanced.program
    batch, n = program.slab.lower.shape
    settled = unsettled(program)
    size = max(_CHUNK_ENTRIES // max(n, 1), _BLOCK)
    for first in range(0, batch, size):
        chunk = slice(first, first + size)
        _settle(take(program, chunk), threads, _view(settled, chunk))
    if balanced:
        for latent in (settled.z, settled.ray):
            latent *= balanced.column
        for dual in (settled.dual_lower, settled.dual_upper):
            dual *= balanced.row
    return settled


def _settle(program: LayerProgram, threads: int | None, settled: Settled) -> None:
    """Solve, and where nothing is proven, ask whether there is no point or no optimum."""
    z, lower, upper, steps, _ = _run(program, threads)
    optimal = duality.is_optimal(program, z, lower, upper)
    settled.outcome[optimal] = Outcome.OPTIMAL
    settled.steps[:] = steps
    settled.z[:] = np.where(optimal[:, None], z, np.nan)
    settled.dual_lower[:] = np.where(optimal[:, None], lower, np.nan)
    settled.dual_upper[:] = np.where(optimal[:, None], upper, np.nan)
    open_ = np.flatnonzero(~optimal)
    if not len(open_):
        return
    part = take(program, open_)
    point, lower, upper, steps, _ = _run(duality.elastic(part), threads)
    proven = duality.proves_infeasible(part, lower, upper)
    settled.outcome[open_[proven]] = Outcome.INFEASIBLE
    settled.dual_lower[open_[proven]] = lower[proven]
    settled.dual_upper[open_[proven]] = upper[proven]
    settled.steps[open_] += steps
    open_ = open_[~proven & duality.is_feasible(part, point)]
    if not len(open_) or not program.objective[open_].any():
        return
    part = take(program, open_)
    ray, _, _, steps, _ = _run(_bounded(duality.recession(part)), threads)
    proven = duality.proves_unbounded(part, ray)
    settled.outcome[open_[proven]] = Outcome.UNBOUNDED
    settled.ray[open_[proven]] = ray[proven]
    settled.steps[open_] += steps


def _bounded(program: LayerProgram) -> LayerProgram:
    """The program with every entry of z, in units of its column's largest weight, in [-1, 1]."""
    peak = np.abs(program.weight).max(axis=-2, initial=0.0)
    unit = 1.0 / np.where(peak > 0, peak, 1.0)
    low, high = program.box()
    return replace(program, domain=(np.maximum(low, -unit), np.minimum(high, unit)))


def _run(
    program: LayerProgram, threads: int | None
) -> tuple[Array, Array, Array, NDArray[np.int64], NDArray[np.int64]]:
    """The compiled code's answers: z, multipliers of both sides, steps; nothing is proven yet."""
    from preimage.lp import block, matrix, pose

    # Numba would compile everything anew for arrays that may not be written.
    data = [
        np.require(part, requirements=["C", "W"])
        for part in (*program.slab, *program.box(), program.objective)
    ]
    batch, k = program.objective.shape
    n = program.weight.shape[-2]
    many = program.weight.ndim == 3
    weight = np.require(program.weight, requirements=["C", "W"])
    if many:
        scaled = matrix.room_for_matrix(0, k, 0)
    else:
        scaled = matrix.room_for_matrix(n, k, matrix.entries_worth_listing(weight))
        matrix.equilibrate(weight, scaled)
        weight = np.empty((1, n, k))  # only its shape is asked for
    z, lower, upper = np.empty((batch, k)), np.empty((batch, n)), np.empty((batch, n))
    verdict, steps = np.empty(batch, dtype=np.int64), np.empty(batch, dtype=np.int64)

    def solve(first: int) -> None:
        part = slice(first, first + size)
        block.solve_block(
            weight[part] if many else weight,
            pose.Bounds(*(array[part] for array in data)),
            scaled,
            _SLACKS[program.slack],
            pose.Answers(z[part], lower[part], upper[part], verdict[part], steps[part]),
        )

    threads = min(threads or processors(), batch)
    size = min(_BLOCK, -(-batch // max(threads, 1))) if batch else 1
    starts = range(0, batch, size)
    if threads <= 1:
        for first in starts:
            solve(first)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(solve, starts))
    # A run that diverged proves nothing; its numbers would only overflow in the checks.
    for answer in (z, lower, upper):
        answer[~(np.abs(answer).max(axis=1, initial=0.0) < _DIVERGED)] = 0.0
    low, high = program.box()
    return np.clip(z, low, high), lower, upper, steps, verdict


def take(program: LayerProgram, samples: Samples) -> LayerProgram:
    """The programs of some samples."""
    low, high = program.box()
    return replace(
        program,
        weight=program.weight[samples] if program.weight.ndim == 3 else program.weight,
        slab=Slab(*(part[samples] for part in program.slab)),
        objective=program.objective[samples],
        domain=(low[samples], high[samples]),
    )


def _view(settled: Settled, samples: slice) -> Settled:
    return Settled(
        settled.z[samples],
        settled.dual_lower[samples],
        settled.dual_upper[samples],
        settled.ray[samples],
        settled.outcome[samples],
        settled.steps[samples],
    )
