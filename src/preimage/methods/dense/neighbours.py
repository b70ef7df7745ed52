"""``methods.flips`` in compiled code, for dense networks.

The neighbouring piece's normal matrix differs from ``M = J^T J`` by two ranks,

    M + s (c v^T + v c^T) + s^2 |u|^2 v v^T,     c = J^T u,

so that one factor of M serves all units (Woodbury's formula, with a 2 x 2 system for each).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from preimage.lp.compiled import compiled, entry
from preimage.lp.normal import cholesky, fill, solve_factored
from preimage.methods.dense.descent import Fit, evaluate
from preimage.methods.dense.network import (
    KINKED,
    Network,
    Pass,
    Room,
    _next_product,
    jacobian,
    matrix_size,
    new_pass,
    new_room,
    weighted_columns,
)

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

# What keeps a singular matrix solvable, relative to its mean diagonal entry.
_RIDGE = 1e-8


class _Work(NamedTuple):
    """Room for the flips of one sample; ``size`` is ``matrix_size(k)``.

    Attributes:
        error: (outputs,).
        gram: (size, size), then its factor.
        diagonal: (size,).
        pivots: (size,).
        slope: (size,) ``J^T e``.
        base: (size,) ``M^-1 J^T e``.
        inverse_v: (size,), ``M^-1 v``.
        inverse_c: (size,), ``M^-1 c``.
        cross: (size,), c.
        gradient: (units, k), v of every unit.
        distance: (units,) to the kink, infinite where there is none.
        chosen: (units,) the nearest units of a layer.
        influence: (2, most, widest + 8), u of the chosen units, active outputs only.
        step: (units, k), minimisers relative to z.
        loss: (units,), infinite where a unit has no flip.
    """

    error: Array
    gram: Array
    diagonal: Array
    pivots: Array
    slope: Array
    base: Array
    inverse_v: Array
    inverse_c: Array
    cross: Array
    gradient: Array
    distance: Array
    chosen: Integers
    influence: Array
    step: Array
    loss: Array


@compiled
def _new_work(network: Network, most: int) -> _Work:
    k, units, size = network.sizes[0], len(network.bias), matrix_size(network.sizes[0])
    widest = 0
    for n in network.sizes:
        widest = max(widest, n)
    return _Work(
        np.zeros(network.sizes[-1]),
        np.zeros((size, size)),
        np.zeros(size),
        np.zeros(size),
        np.zeros(size),
        np.zeros(size),
        np.zeros(size),
        np.zeros(size),
        np.zeros(size),
        np.zeros((units, k)),
        np.zeros(units),
        np.zeros(units, dtype=np.int64),
        np.zeros((2, most, widest + 8)),
        np.zeros((units, k)),
        np.zeros(units),
    )


@compiled
def _gradients(network: Network, derivative: Array, room: Room, work: _Work) -> None:
    """V of every unit of the hidden layers: ``W_i D_{i-1} W_{i-1} ... W_1``."""
    k = network.sizes[0]
    column = np.zeros(len(room.near))
    for a in range(k):
        used, first = 0, 0
        fill(column, 0.0)
        column[a] = 1.0
        for layer in range(len(network.kind) - 1):
            m, n = network.sizes[layer], network.sizes[layer + 1]
            columns = network.columns[used : used + m * n].reshape(m, n)
            count = 0
            for c in range(m):
                room.before[count] = c
                count += column[c] != 0.0
            out = room.near[:n]
            fill(out, 0.0)
            weighted_columns(columns, column, room.before, out, count)
            for j in range(n):
                work.gradient[first + j, a] = out[j]
            for j in range(n):
                column[j] = out[j] * derivative[first + j]
            used, first = used + m * n, first + n


@compiled
def _nearest(network: Network, layer: int, first: int, most: int, at: Pass, work: _Work) -> int:
    """Write the units of a layer that are nearest to their kinks into ``chosen``; how many."""
    n, k = network.sizes[layer + 1], network.sizes[0]
    for j in range(first, first + n):
        work.distance[j] = np.inf
        if network.slope[j] == 1.0:
            continue
        v = work.inverse_v
        fill(v, 0.0)
        for a in range(k):
            v[a] = work.gradient[j, a]
        solve_factored(work.gram, work.pivots, v)
        spread = 0.0
        for a in range(k):
            spread += v[a] * work.gradient[j, a]
        work.distance[j] = abs(at.a[j]) / np.sqrt(max(spread, 1e-300))
    order = np.argsort(work.distance[first : first + n], kind="mergesort")
    count = 0
    for i in range(min(most, n)):
        if work.distance[first + order[i]] < np.inf:
            work.chosen[count] = order[i]
            count += 1
    return count


@compiled
def _influences(
    network: Network, layer: int, derivative: Array, room: Room, chosen: int, work: _Work
) -> tuple[int, int]:
    """U of the chosen units of ``layer`` on the active outputs; which buffer, how many rows."""
    used, first = 0, 0
    for before in range(layer + 1):
        used += network.sizes[before] * network.sizes[before + 1]
        first += network.sizes[before + 1]
    product = work.influence[0]
    for b in range(chosen):
        room.before[b] = work.chosen[b]
        fill(product[b], 0.0)
        product[b, b] = 1.0
    which, count = 0, chosen
    for later in range(layer + 1, len(network.kind)):
        m, n = network.sizes[later], network.sizes[later + 1]
        columns = network.columns[used : used + m * n].reshape(m, n)
        active = 0
        for j in range(n):
            room.rows[active] = j
            active += derivative[first + j] != 0.0
        out = work.influence[1 - which]
        _next_product(columns, work.influence[which], chosen, room, count, active, out)
        for b in range(chosen):
            for i in range(active):
                out[b, i] *= derivative[first + room.rows[i]]
        if later + 1 < len(network.kind):
            for i in range(active):
                room.before[i] = room.rows[i]
        which, count = 1 - which, active
        used, first = used + m * n, first + n
    return which, count


@compiled
def _flip(
    product: Array, count: int, unit: int, u: Array, s: float, a0: float, k: int, near: Array,
    squares: float, work: _Work,
) -> None:  # fmt: skip
    """Minimiser and loss of the piece where ``unit`` has the slope changed by s."""
    size, along = 0.0, 0.0
    for i in range(count):
        size += u[i] * u[i]
        along += u[i] * near[i]
    cross, iv, ic, v = work.cross, work.inverse_v, work.inverse_c, work.gradient[unit]
    fill(cross, 0.0)
    for a in range(k):
        total = 0.0
        for i in range(count):
            total += product[a, i] * u[i]
        cross[a] = total
    fill(iv, 0.0)
    fill(ic, 0.0)
    for a in range(k):
        iv[a], ic[a] = v[a], cross[a]
    solve_factored(work.gram, work.pivots, iv)
    solve_factored(work.gram, work.pivots, ic)
    vv, vc, cc, vr, cr = 0.0, 0.0, 0.0, 0.0, 0.0
    # r = slope - s a c + s (along - s a |u|^2) v, and y = M^-1 r.
    on_c, on_v = -s * a0, s * (along - s * a0 * size)
    for a in range(k):
        y = work.base[a] + on_c * ic[a] + on_v * iv[a]
        vv += v[a] * iv[a]
        vc += v[a] * ic[a]
        cc += cross[a] * ic[a]
        vr += v[a] * y
        cr += cross[a] * y
    # (C^-1 + B' M^-1 B) w = B' y with B = [v c] and C^-1 = [[0, 1/s], [1/s, -|u|^2]].
    m00, m01, m11 = vv, vc + 1.0 / s, cc - size
    determinant = m00 * m11 - m01 * m01
    if determinant == 0.0:
        return
    w0 = (m11 * vr - m01 * cr) / determinant
    w1 = (m00 * cr - m01 * vr) / determinant
    gain = 0.0
    for a in range(k):
        y = work.base[a] + on_c * ic[a] + on_v * iv[a]
        step = y - iv[a] * w0 - ic[a] * w1
        work.step[unit, a] = step
        gain += step * (work.slope[a] + on_c * cross[a] + on_v * v[a])
    start = squares - 2.0 * s * a0 * along + (s * a0) ** 2 * size
    work.loss[unit] = 0.5 * (start - gain)


@entry
def flips(
    network: Network, fit: Fit, samples: Integers, z: Array, first: Integers, most: int,
    starts: Array,
) -> None:  # fmt: skip
    """Write the most promising neighbours of each code into ``starts``.

    Args:
        network: The network.
        fit: What is fitted.
        samples: (runs,) the sample of each code.
        z: (runs, k).
        first: (runs,) how many of the best neighbours are left out.
        most: Units a layer that are worked out.
        starts: (runs, count, k), overwritten as far as there are neighbours.
    """
    k, layers = network.sizes[0], len(network.kind)
    room, at, work = new_room(network), new_pass(network), _new_work(network, most)
    for run in range(len(samples)):
        evaluate(network, fit, samples[run], z[run], at, room, work.error)
        _gradients(network, at.derivative, room, work)
        which, count = jacobian(network, at.derivative, room)
        product = room.product[which]
        near = np.zeros(count)
        squares = 0.0
        for i in range(count):
            near[i] = work.error[room.rows[i]]
        for e in work.error:
            squares += e * e
        _factor(product, count, near, k, work)
        fill(work.loss, np.inf)
        unit = 0
        for layer in range(layers - 1):
            if network.kind[layer] == KINKED:
                chosen = _nearest(network, layer, unit, most, at, work)
                buffer, rows = _influences(network, layer, at.derivative, room, chosen, work)
                for b in range(chosen):
                    j = unit + work.chosen[b]
                    s = 1.0 + network.slope[j] - 2.0 * at.derivative[j]
                    _flip(product, rows, j, work.influence[buffer, b], s, at.a[j], k, near,
                          squares, work)  # fmt: skip
            unit += network.sizes[layer + 1]
        order = np.argsort(work.loss, kind="mergesort")
        for i in range(starts.shape[1]):
            place = first[run] + i
            if place < len(order) and work.loss[order[place]] < np.inf:
                for a in range(k):
                    starts[run, i, a] = z[run, a] + work.step[order[place], a]


@compiled
def _factor(product: Array, count: int, near: Array, k: int, work: _Work) -> None:
    """Gram matrix with its ridge, factored; ``J^T e``, and what it is under the inverse."""
    fill(work.slope, 0.0)
    mean = 0.0
    size = work.gram.shape[0]
    for a in range(size):
        fill(work.gram[a], 0.0)
        work.gram[a, a] = 1.0
    for a in range(k):
        total = 0.0
        for i in range(count):
            total += product[a, i] * near[i]
        work.slope[a] = total
        for b in range(a + 1):
            total = 0.0
            for i in range(count):
                total += product[a, i] * product[b, i]
            work.gram[a, b] = total
        mean += work.gram[a, a] / k
    for a in range(k):
        work.gram[a, a] += _RIDGE * max(mean, 1e-300)
    cholesky(work.gram, work.diagonal, work.pivots)
    for a in range(size):
        work.base[a] = work.slope[a]
    solve_factored(work.gram, work.pivots, work.base)
