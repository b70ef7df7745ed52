"""``levenberg_marquardt.descend`` in compiled code, for dense networks and codes without bounds.

The two follow the same rules; where they differ by more than rounding, one of them is wrong.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from preimage.lp.compiled import compiled, entry
from preimage.lp.normal import cholesky, solve_factored
from preimage.lp.room import matrix_size, row_stride
from preimage.lp.tiles import TILE
from preimage.methods.dense.network import (
    Network,
    Pass,
    Room,
    curvature,
    forward,
    new_pass,
    new_room,
)

Array = NDArray[np.float64]


class Fit(NamedTuple):
    """What to fit, a row a sample.

    Attributes:
        values: (samples, outputs) y.
        seen: (samples, outputs), or (0, outputs) if all outputs are observed.
        linear: (samples, outputs), outputs whose activation is left out; or (0, outputs) for none.
        prior: Weight of ``0.5 ||z||^2``.
        rounding: (samples,) losses that are nothing but rounding.
        enough: (samples,) once a run's loss is at most this, the sample's later runs are left out.
    """

    values: Array
    seen: NDArray[np.bool_]
    linear: NDArray[np.bool_]
    prior: float
    rounding: Array
    enough: Array


class Limits(NamedTuple):
    """When a run ends; as in ``levenberg_marquardt``."""

    steps: int
    stationary: float
    damping: float
    idle_steps: int
    idle: float


class Ends(NamedTuple):
    """Where runs stand, (runs, ...): codes, losses, whether stationary, damping; overwritten."""

    z: Array
    loss: Array
    stationary: NDArray[np.bool_]
    damping: Array


class _Work(NamedTuple):
    error: Array
    trial: Array
    gram: Array
    slope: Array
    factor: Array
    diagonal: Array
    pivots: Array
    step: Array
    sums: Array


@compiled
def _new_work(network: Network) -> _Work:
    k, m = network.sizes[0], network.sizes[-1]
    size, stride = matrix_size(k), row_stride(k)
    return _Work(
        np.zeros(m),
        np.zeros(k),
        np.zeros((size, stride)),
        np.zeros(size),
        np.zeros((size, stride)),
        np.zeros(size),
        np.zeros(size),
        np.zeros(size),
        np.zeros(TILE),
    )


@compiled
def evaluate(
    network: Network, fit: Fit, sample: int, z: Array, at: Pass, room: Room, error: Array
) -> float:
    """Forward pass, ``error = y - A G(z)``, and the loss; derivatives 0 where nothing is seen."""
    forward(network, z, at, room)
    m = len(error)
    first = len(at.a) - m
    y = fit.values[sample]
    if len(fit.linear):
        linear = fit.linear[sample]
        for j in range(m):
            if linear[j]:
                at.value[first + j], at.derivative[first + j] = at.a[first + j], 1.0
    for j in range(m):
        error[j] = y[j] - at.value[first + j]
    if len(fit.seen):
        seen = fit.seen[sample]
        for j in range(m):
            if not seen[j]:
                error[j], at.derivative[first + j] = 0.0, 0.0
    loss = 0.0
    for j in range(m):
        loss += error[j] * error[j]
    size = 0.0
    for a in range(len(z)):
        size += z[a] * z[a]
    return 0.5 * (loss + fit.prior * size)


@compiled
def _decrease(gram: Array, slope: Array, step: Array, k: int) -> float:
    """``slope . step - 0.5 step . gram step``; gram by its upper triangle."""
    total = 0.0
    for a in range(k):
        bent = 0.5 * gram[a, a] * step[a]
        for b in range(a + 1, k):
            bent += gram[a, b] * step[b]
        total += (slope[a] - bent) * step[a]
    return total


@compiled
def ridged(gram: Array, k: int, ridge: float, out: Array) -> None:
    """``gram + ridge I`` (upper triangle), padded by an identity."""
    for a in range(out.shape[0]):
        for b in range(a // TILE * TILE, out.shape[1]):
            out[a, b] = gram[a, b] if a < k and b < k else 0.0
        out[a, a] = gram[a, a] + ridge if a < k else 1.0


@compiled
def _step(work: _Work, k: int, damping: float) -> float:
    """Solve for the damped step; the decrease that the model predicts for it."""
    gram, factor, step = work.gram, work.factor, work.step
    mean = 0.0
    for a in range(k):
        mean += gram[a, a]
    mean = mean / k if mean > 0.0 else 1.0
    # A tiny floor keeps a singular matrix solvable; it acts below rounding elsewhere.
    ridge = max(damping, 1e-15) * mean
    ridged(gram, k, ridge, factor)
    cholesky(factor, work.diagonal, work.pivots)
    for a in range(len(step)):
        step[a] = work.slope[a]
    solve_factored(factor, work.pivots, step, work.sums)
    return _decrease(gram, work.slope, step, k)


@compiled
def _curve(network: Network, fit: Fit, z: Array, at: Pass, room: Room, work: _Work) -> None:
    curvature(network, at.derivative, work.error, room, work.gram, work.slope)
    if fit.prior > 0.0:
        for a in range(len(z)):
            work.gram[a, a] += fit.prior
            work.slope[a] -= fit.prior * z[a]


@compiled
def _descend_one(
    network: Network,
    fit: Fit,
    sample: int,
    limits: Limits,
    here: Pass,
    there: Pass,
    room: Room,
    work: _Work,
    z: Array,
    damping: float,
) -> tuple[float, bool, float]:
    """One run from z, which is overwritten by its end; loss, whether stationary, damping."""
    k = len(z)
    loss = evaluate(network, fit, sample, z, here, room, work.error)
    growth, moved, before, taken = 2.0, True, loss, 0
    for _ in range(limits.steps):
        if moved:
            _curve(network, fit, z, here, room, work)
        predicted = _step(work, k, damping)
        flat = not predicted > limits.stationary * loss
        if taken == limits.idle_steps:
            flat = flat or loss >= (1.0 - limits.idle) * before
            before, taken = loss, 0
        if flat or damping > limits.damping or loss <= fit.rounding[sample]:
            return loss, True, damping
        for a in range(k):
            work.trial[a] = z[a] + work.step[a]
        reached = evaluate(network, fit, sample, work.trial, there, room, work.error)
        moved = reached < loss and predicted > 0.0
        if moved:
            ratio = (loss - reached) / predicted
            # A faithful model is trusted at once; a poor one by degrees (Nielsen).
            damping *= 0.01 if ratio > 0.9 else max(1.0 / 3.0, 1.0 - (2.0 * ratio - 1.0) ** 3)
            growth, loss, taken = 2.0, reached, taken + 1
            here, there = there, here
            for a in range(k):
                z[a] = work.trial[a]
        else:
            damping = max(damping, 1e-12) * growth
            growth *= 2.0
    return loss, False, damping


@entry
def descend(
    network: Network, fit: Fit, samples: NDArray[np.int64], limits: Limits, ends: Ends
) -> None:
    """Descend from ``ends.z``, one run after the other; runs of a sample stand side by side."""
    room, work = new_room(network, network.sizes[0]), _new_work(network)
    here, there = new_pass(network), new_pass(network)
    explained = -1
    for run in range(len(samples)):
        sample = samples[run]
        if sample == explained:
            ends.loss[run], ends.stationary[run] = np.inf, False
            continue
        ends.loss[run], ends.stationary[run], ends.damping[run] = _descend_one(
            network, fit, sample, limits, here, there, room, work, ends.z[run], ends.damping[run]
        )
        if ends.loss[run] <= fit.enough[sample]:
            explained = sample


@entry
def normal_equations(
    network: Network, derivatives: Array, error: Array, gram: Array, slope: Array
) -> None:
    """``J^T J`` (runs, k, k) and ``J^T error`` (runs, k), for derivatives (runs, units)."""
    room, work = new_room(network, network.sizes[0]), _new_work(network)
    k = network.sizes[0]
    for run in range(len(error)):
        curvature(network, derivatives[run], error[run], room, work.gram, work.slope)
        for a in range(k):
            slope[run, a] = work.slope[a]
            for b in range(a, k):
                gram[run, a, b] = gram[run, b, a] = work.gram[a, b]
