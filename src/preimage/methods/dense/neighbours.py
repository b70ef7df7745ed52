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
from preimage.lp.room import matrix_size, row_stride
from preimage.lp.tiles import TILE, add_tile, lanes
from preimage.methods.dense.descent import Fit, evaluate, ridged
from preimage.methods.dense.network import (
    KINKED,
    Network,
    Pass,
    Room,
    curvature,
    new_pass,
    new_room,
    push,
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
        gram: (size, row_stride(k)) of J and the error.
        factor: As gram, of M with its ridge.
        diagonal: (size,).
        pivots: (size,).
        sums: (TILE,).
        base: (size,) ``M^-1 J^T e``.
        inverse_v: (size,), ``M^-1 v``.
        inverse_c: (size,), ``M^-1 c``.
        gradient: (units, k), v of every unit.
        column: (widest,), and the next, a column of a gradient.
        image: Of it.
        distance: (units,) to the kink, infinite where there is none.
        chosen: (units,) the nearest units of a layer.
        joined: (outputs, ...) J and the error beside u of the chosen units, by active outputs.
        cross: (most in whole tiles, ...) ``c`` and ``u . e`` of each.
        squares: (most,) ``|u|^2``.
        step: (units, k), minimisers relative to z.
        loss: (units,), infinite where a unit has no flip.
    """

    error: Array
    gram: Array
    factor: Array
    diagonal: Array
    pivots: Array
    sums: Array
    base: Array
    inverse_v: Array
    inverse_c: Array
    gradient: Array
    column: Array
    image: Array
    distance: Array
    chosen: Integers
    joined: Array
    cross: Array
    squares: Array
    step: Array
    loss: Array


@compiled
def _new_work(network: Network, most: int) -> _Work:
    k, units, size = network.sizes[0], len(network.bias), matrix_size(network.sizes[0])
    widest, outputs, stride = 0, network.sizes[-1], row_stride(k)
    for n in network.sizes:
        widest = max(widest, n)
    return _Work(
        np.zeros(outputs),
        np.zeros((size, stride)),
        np.zeros((size, stride)),
        np.zeros(size),
        np.zeros(size),
        np.zeros(TILE),
        np.zeros(size),
        np.zeros(size),
        np.zeros(size),
        np.zeros((units, k)),
        np.zeros(widest),
        np.zeros(widest),
        np.zeros(units),
        np.zeros(units, dtype=np.int64),
        np.zeros((outputs, stride + most + TILE)),
        np.zeros((most + TILE, stride)),
        np.zeros(most),
        np.zeros((units, k)),
        np.zeros(units),
    )


@compiled
def _gradients(network: Network, derivative: Array, room: Room, work: _Work) -> None:
    """V of every unit of the hidden layers: ``W_i D_{i-1} W_{i-1} ... W_1``."""
    k = network.sizes[0]
    column = work.column
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
            out = work.image[:n]
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
        solve_factored(work.factor, work.pivots, v, work.sums)
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
    network: Network, layer: int, derivative: Array, chosen: int, units: Room, product: Array,
    k: int, work: _Work,
) -> None:  # fmt: skip
    """c, ``u . e`` and ``|u|^2`` of the chosen units of ``layer``.

    Args:
        network: The network.
        layer: Whose units.
        derivative: Of all units.
        chosen: How many of ``work.chosen`` count.
        units: Scratch as wide as these may be many.
        product: Active rows of J, and the error in column k.
        k: Latent size.
        work: ``cross`` and ``squares`` are written.
    """
    for b in range(chosen):
        units.rows[b] = work.chosen[b]
        fill(units.product[0, b], 0.0)
        units.product[0, b, b] = 1.0
    which, count = push(network, derivative, chosen, units, layer + 1, chosen)
    u, joined, cross, left = units.product[which], work.joined, work.cross, row_stride(k)
    padded = (chosen + TILE - 1) // TILE * TILE
    for i in range(count):
        for a in range(left):
            joined[i, a] = product[i, a]
        for b in range(padded):
            joined[i, left + b] = u[i, b] if b < chosen else 0.0
    for b in range(padded):
        fill(cross[b], 0.0)
    stride = cross.shape[1]
    for b in range(0, padded, TILE):
        for a in range(0, matrix_size(k), lanes(8)):
            add_tile(joined, joined.shape[1], count, a, left + b, cross, stride, b * stride + a)
    fill(work.squares, 0.0)
    for i in range(count):
        for b in range(chosen):
            work.squares[b] += u[i, b] * u[i, b]


@compiled
def _flip(unit: int, b: int, s: float, a0: float, k: int, error: float, work: _Work) -> None:
    """Minimiser and loss of the piece where ``unit`` has the slope changed by s.

    Args:
        unit: Its number.
        b: Its place among the chosen ones.
        s: The change.
        a0: Its pre-activation.
        k: Latent size.
        error: ``|e|^2``.
        work: ``step`` and ``loss`` are written.
    """
    cross, size = work.cross[b], work.squares[b]
    iv, ic, v, along = work.inverse_v, work.inverse_c, work.gradient[unit], work.cross[b, k]
    fill(iv, 0.0)
    fill(ic, 0.0)
    for a in range(k):
        iv[a], ic[a] = v[a], cross[a]
    solve_factored(work.factor, work.pivots, iv, work.sums)
    solve_factored(work.factor, work.pivots, ic, work.sums)
    vv, vc, cc, vr, cr = 0.0, 0.0, 0.0, 0.0, 0.0
    # r = J'e - s a c + s (u.e - s a |u|^2) v, and y = M^-1 r.
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
        gain += step * (work.gram[a, k] + on_c * cross[a] + on_v * v[a])
    start = error - 2.0 * s * a0 * along + (s * a0) ** 2 * size
    work.loss[unit] = 0.5 * (start - gain)


@compiled
def _factor(k: int, work: _Work) -> None:
    """M with its ridge, factored, and what ``J^T e`` is under its inverse."""
    mean = 0.0
    for a in range(k):
        mean += work.gram[a, a] / k
    ridged(work.gram, k, _RIDGE * max(mean, 1e-300), work.factor)
    cholesky(work.factor, work.diagonal, work.pivots)
    for a in range(len(work.base)):
        work.base[a] = work.gram[a, k] if a < k else 0.0
    solve_factored(work.factor, work.pivots, work.base, work.sums)


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
    k = network.sizes[0]
    room, units, at = new_room(network, k), new_room(network, most), new_pass(network)
    work, unused = _new_work(network, most), np.zeros(matrix_size(k))
    for run in range(len(samples)):
        evaluate(network, fit, samples[run], z[run], at, room, work.error)
        _gradients(network, at.derivative, room, work)
        curvature(network, at.derivative, work.error, room, work.gram, unused)
        _factor(k, work)
        error, unit, product = 0.0, 0, room.product[(len(network.kind) - 1) % 2]
        for e in work.error:
            error += e * e
        fill(work.loss, np.inf)
        for layer in range(len(network.kind) - 1):
            chosen = 0
            if network.kind[layer] == KINKED:
                chosen = _nearest(network, layer, unit, most, at, work)
            if chosen > 0:
                _influences(network, layer, at.derivative, chosen, units, product, k, work)
            for b in range(chosen):
                j = unit + work.chosen[b]
                s = 1.0 + network.slope[j] - 2.0 * at.derivative[j]
                _flip(j, b, s, at.a[j], k, error, work)
            unit += network.sizes[layer + 1]
        order = np.argsort(work.loss, kind="mergesort")
        for i in range(starts.shape[1]):
            place = first[run] + i
            if place < len(order) and work.loss[order[place]] < np.inf:
                for a in range(k):
                    starts[run, i, a] = z[run, a] + work.step[order[place], a]
