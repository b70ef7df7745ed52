"""Layer programs in batches: solved by the C kernel, and every answer proven.

The kernel (``src/kernel``) follows Mehrotra's interior-point method to a vertex. No verdict is
given that multipliers or a ray do not prove from the program's own data: the kernel proves the
clear cases itself, ``duality`` all others. Without the kernel HiGHS solves one program after
another, and the proofs are the same.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import scipy

from preimage import engine
from preimage.clock import UNLIMITED, Clock
from preimage.layer_program import LayerProgram, take
from preimage.lp import duality, highs
from preimage.lp.solution import Outcome, Solution, unsettled
from preimage.matrix import Array, Integers, slices

_SLACKS = {"shared": 0, "own": 1, "none": 2}
# Products ``n k^2`` of the programs that are solved before a time limit is asked for: some 0.5 s.
_CHUNK_PRODUCTS = 2**29
# Sparse weights up to this many entries are made dense; beyond, the kernel declines.
_DENSE_ENTRIES = 2**24
# Wide ones with fewer products ``n k^2`` only: HiGHS takes a second where the kernel takes minutes.
_WIDE_PRODUCTS = 2**31
# What stands for infinity in the kernel.
_INFINITE = 1e300


class _Answer(NamedTuple):
    """What an engine says of a batch.

    ``proven`` where it has shown optimality already, ``full`` as in ``Solution``.
    """

    z: Array
    lower: Array
    upper: Array
    proven: Integers
    full: Integers
    steps: Integers


def minimise(program: LayerProgram, clock: Clock = UNLIMITED) -> Solution:
    """Solve every sample.

    Args:
        program: The batch. It stays ``FAILED`` without columns, with a side at the wrong infinity,
            or where the weight is too large or its numbers do not compare.
        clock: Samples that are not reached in time stay ``FAILED``.
    """
    settled = unsettled(program)
    batch, (n, k) = len(program), program.weight.shape[-2:]
    if (program.slab.lower == np.inf).any() or (program.slab.upper == -np.inf).any():
        return settled
    large = n * k > _DENSE_ENTRIES or (k > n and n * k * k > _WIDE_PRODUCTS)
    if not k or (large and scipy.sparse.issparse(program.weight)):
        return settled
    if not program.scaled.usable:
        return settled
    chunks = slices(batch, n * k) if program.weight.ndim == 3 else [slice(batch)]
    if np.isfinite(clock.deadline):
        chunks = slices(batch, n * k * k, _CHUNK_PRODUCTS)
    for chunk in chunks:
        if clock.is_over:
            break
        part = program if len(chunks) == 1 else take(program, chunk)
        views = (getattr(settled, name)[chunk] for name in vars(settled))
        _settle(part, clock, Solution(*views))
    return settled


def _settle(program: LayerProgram, clock: Clock, settled: Solution) -> None:
    """Solve, and where nothing is proven, ask whether there is no point or no optimum."""
    found = _run(program, clock)
    optimal = found.proven != 0
    for refines in (False, True) if program.slack != "none" else (False,):
        open_ = np.flatnonzero(~optimal)
        if not len(open_) or clock.is_over:
            break
        part = take(program, open_)
        if refines:
            found.z[open_], found.lower[open_], found.upper[open_] = _refined(
                part, found.z[open_], clock
            )
        answer = found.z[open_], found.lower[open_], found.upper[open_]
        optimal[open_] = duality.is_optimal(part, *answer)
    settled.outcome[optimal] = Outcome.OPTIMAL
    settled.steps[:], settled.full[:] = found.steps, found.full != 0
    settled.z[optimal] = found.z[optimal]
    settled.dual_lower[optimal] = found.lower[optimal]
    settled.dual_upper[optimal] = found.upper[optimal]
    open_ = np.flatnonzero(~optimal)
    if not len(open_) or clock.is_over:
        return
    part = take(program, open_)
    found = _run(duality.elastic(part), clock)
    proven = duality.proves_infeasible(part, found.lower, found.upper)
    settled.outcome[open_[proven]] = Outcome.INFEASIBLE
    settled.dual_lower[open_[proven]] = found.lower[proven]
    settled.dual_upper[open_[proven]] = found.upper[proven]
    settled.steps[open_] += found.steps
    open_ = open_[~proven & duality.is_feasible(part, found.z)]
    if not len(open_) or not program.objective[open_].any():
        return
    part = take(program, open_)
    # Every entry of the ray, in units of its column, is in [-1, 1].
    found = _run(duality.recession(part).within(1.0 / part.sizes[1]), clock)
    proven = duality.proves_unbounded(part, found.z)
    settled.outcome[open_[proven]] = Outcome.UNBOUNDED
    settled.ray[open_[proven]] = found.z[proven]
    settled.steps[open_] += found.steps


def _refined(program: LayerProgram, z: Array, clock: Clock) -> tuple[Array, Array, Array]:
    """Minimisers and multipliers, solved for as steps from ``z`` in units of the slack there.

    Rounding is relative to the bounds, which may be far larger than a program's value (iterative
    refinement: Gleixner, Steffy and Wolter, 2016).
    """
    slab, image, (low, high) = program.slab, program.image(z), program.box()
    need = program.slack_at(z)
    unit = np.where(need > 0, need, 1.0)[:, None]
    lower, upper = (slab.lower - image) / unit, (slab.upper - image) / unit
    near = replace(
        program,
        slab=slab._replace(lower=lower, upper=upper),
        domain=((low - z) / unit, (high - z) / unit),
    )
    found = _run(near, clock)
    return np.clip(z + unit * found.z, low, high), found.lower, found.upper


def _run(program: LayerProgram, clock: Clock) -> _Answer:
    """Minimisers, multipliers of both sides, steps: of the kernel, or of HiGHS without it."""
    batch, k = program.objective.shape
    n = program.weight.shape[-2]
    z, multipliers = np.zeros((batch, k)), np.zeros((batch, 2, n))
    upper, lower = multipliers[:, 0], multipliers[:, 1]
    proven, full, steps = np.zeros((3, batch), dtype=np.int64)
    if engine.library() is None:
        for sample in range(batch):
            if clock.is_over:
                break
            answer = highs.solve(program, sample, clock)
            if all(np.isfinite(part).all() for part in answer[1:]):
                z[sample], lower[sample], upper[sample] = answer[1:]
        low, high = program.box()
        return _Answer(np.clip(z, low, high), lower, upper, proven, full, steps)
    units, slab, (low, high) = program.scaled, program.slab, program.box()
    held = (
        *(units.table, *units.entries, units.row, units.column, units.row_size, units.column_size),
        *(_sides(slab.upper, -slab.lower), _sides(slab.upper_rate, slab.lower_rate)),
        *(_sides(high, -low), np.ascontiguousarray(program.objective, dtype=np.float64)),
    )
    matrices = batch if units.row.ndim == 2 else 1
    numbers = (batch, n, k, units.table.shape[-1], matrices, _SLACKS[program.slack])
    answers = (z, multipliers, proven, full, steps)
    # The fields of ``Batch`` of ``src/kernel/program.h``.
    engine.call("solve_programs", *numbers, engine.processors(), *held, *answers)
    return _Answer(z, lower, upper, proven, full, steps)


def _sides(upper: Array, lower: Array) -> Array:
    """(batch, 2, .) one after the other; in the kernel, compilers may assume no infinity."""
    sides = np.stack([upper, lower], axis=1, dtype=np.float64)
    return np.minimum(sides, _INFINITE, out=sides)
