"""A dense network in compiled code: values, ``J^T J`` and ``J^T e`` from active units only.

A ReLU network's Jacobian at z is a product of the weights' active rows and columns,

    J = D_d W_d[R_d, R_{d-1}] ... D_2 W_2[R_2, R_1] D_1 W_1[R_1, :]

with R_i the active rows of layer i, a small part of the weights: of 784 outputs of a digit
decoder, some 190. The rows of J that are missing are 0 and add nothing to ``J^T J``.

Weights are stored by columns, so that every inner loop runs along a layer's outputs. Sums have an
order that the shapes and the pattern alone decide, so a run's bits do not depend on its company.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from preimage.lp.compiled import compiled
from preimage.lp.normal import _add_dots, fill
from preimage.lp.room import matrix_size

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

KINKED, TANH, SIGMOID = 0, 1, 2


class Network(NamedTuple):
    """All layers of a network, one after the other.

    Attributes:
        columns: The transposed weights, each (inputs, outputs) row by row.
        bias: (units,).
        slope: (units,), of the negative side where the layer is KINKED: 0 for a ReLU, 1 for an
            identity.
        kind: (layers,) KINKED, TANH or SIGMOID.
        sizes: Latent size, then the outputs of each layer.
    """

    columns: Array
    bias: Array
    slope: Array
    kind: Integers
    sizes: Integers


class Pass(NamedTuple):
    """A forward pass, (units,) each: pre-activations, values, derivatives."""

    a: Array
    value: Array
    derivative: Array


class Room(NamedTuple):
    """Scratch for one run.

    Attributes:
        product: (2, k padded to 3, widest + 8), two steps of the Jacobian, transposed: by columns
            of z, active rows only. (Rows a power of two apart would share places in the cache.)
        part: (8, widest + 8), active entries of eight columns of a weight.
        before: (widest,), active inputs of a layer.
        rows: (widest,), active outputs.
        near: (widest,), anything.
    """

    product: Array
    part: Array
    before: Integers
    rows: Integers
    near: Array


@compiled
def new_pass(network: Network) -> Pass:
    """Room for a forward pass."""
    units = len(network.bias)
    return Pass(np.zeros(units), np.zeros(units), np.zeros(units))


@compiled
def new_room(network: Network) -> Room:
    """Scratch for a network."""
    widest = 0
    for size in network.sizes:
        widest = max(widest, size)
    padded = (network.sizes[0] + 2) // 3 * 3
    return Room(
        np.zeros((2, padded, widest + 8)),
        np.zeros((8, widest + 8)),
        np.zeros(widest + 1, dtype=np.int64),
        np.zeros(widest + 1, dtype=np.int64),
        np.zeros(widest + 1),
    )


@compiled
def weighted_columns(
    columns: Array, inputs: Array, picked: Integers, out: Array, count: int
) -> None:
    """``out += sum_c inputs[c] columns[c]`` over the first ``count`` of ``picked``."""
    n = len(out)
    i = 0
    while i + 4 <= count:
        c0, c1, c2, c3 = picked[i], picked[i + 1], picked[i + 2], picked[i + 3]
        v0, v1, v2, v3 = inputs[c0], inputs[c1], inputs[c2], inputs[c3]
        r0, r1, r2, r3 = columns[c0], columns[c1], columns[c2], columns[c3]
        for j in range(n):
            out[j] += r0[j] * v0 + r1[j] * v1 + r2[j] * v2 + r3[j] * v3
        i += 4
    while i < count:
        v0, r0 = inputs[picked[i]], columns[picked[i]]
        for j in range(n):
            out[j] += r0[j] * v0
        i += 1


@compiled
def _activate(network: Network, layer: int, first: int, n: int, at: Pass) -> None:
    """Values and derivatives of a layer from its pre-activations."""
    a, value, derivative = at.a, at.value, at.derivative
    if network.kind[layer] == KINKED:
        slope = network.slope
        for i in range(first, first + n):
            value[i] = a[i] if a[i] >= 0.0 else slope[i] * a[i]
        for i in range(first, first + n):
            derivative[i] = 1.0 if a[i] > 0.0 else slope[i]
        return
    for i in range(first, first + n):
        # As in ``activation``: written so that large |a| keep their relative accuracy.
        if network.kind[layer] == TANH:
            value[i] = np.tanh(a[i])
            t = np.exp(-2.0 * abs(a[i]))
            derivative[i] = 4.0 * t / (1.0 + t) ** 2
        else:
            t = np.exp(-abs(a[i]))
            value[i] = (1.0 if a[i] >= 0.0 else t) / (1.0 + t)
            derivative[i] = t / (1.0 + t) ** 2


@compiled
def forward(network: Network, z: Array, at: Pass, room: Room) -> None:
    """Fill ``at`` for the code z."""
    inputs, used, first = z, 0, 0
    for layer in range(len(network.kind)):
        m, n = network.sizes[layer], network.sizes[layer + 1]
        columns = network.columns[used : used + m * n].reshape(m, n)
        count = 0
        for c in range(m):
            room.before[count] = c
            count += inputs[c] != 0.0
        out, bias = at.a[first : first + n], network.bias[first : first + n]
        for j in range(n):
            out[j] = bias[j]
        weighted_columns(columns, inputs, room.before, out, count)
        _activate(network, layer, first, n, at)
        inputs = at.value[first : first + n]
        used, first = used + m * n, first + n


@compiled
def _next_product(
    columns: Array, product: Array, k: int, room: Room, count: int, active: int, out: Array
) -> None:
    """``out[a, i] = sum_c product[a, c] columns[before[c], rows[i]]``, eight c at a time."""
    for a in range(k):
        for i in range(active):
            out[a, i] = 0.0
    part, rows = room.part, room.rows
    for first in range(0, count, 8):
        some = min(8, count - first)
        for c in range(8):
            if c < some:
                source = columns[room.before[first + c]]
                for i in range(active):
                    part[c, i] = source[rows[i]]
            else:
                for i in range(active):
                    part[c, i] = 0.0
                for a in range(k):
                    product[a, first + c] = 0.0
        g0, g1, g2, g3 = part[0], part[1], part[2], part[3]
        g4, g5, g6, g7 = part[4], part[5], part[6], part[7]
        for a in range(k):
            p = product[a, first : first + 8]
            p0, p1, p2, p3, p4, p5, p6, p7 = p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]
            o = out[a]
            for i in range(active):
                o[i] += (
                    p0 * g0[i] + p1 * g1[i] + p2 * g2[i] + p3 * g3[i]
                    + p4 * g4[i] + p5 * g5[i] + p6 * g6[i] + p7 * g7[i]
                )  # fmt: skip


@compiled
def jacobian(network: Network, derivative: Array, room: Room) -> tuple[int, int]:
    """The Jacobian's active rows, transposed, into ``room.product``; their numbers in ``rows``.

    Args:
        network: The network.
        derivative: (units,), 0 where a unit is inactive or an output is not observed.
        room: Scratch.

    Returns:
        Which of the two products it is, and how many rows.
    """
    k = network.sizes[0]
    used, first, count = 0, 0, k
    for layer in range(len(network.kind)):
        m, n = network.sizes[layer], network.sizes[layer + 1]
        columns = network.columns[used : used + m * n].reshape(m, n)
        scale = derivative[first : first + n]
        active, plain = 0, True
        for j in range(n):
            room.rows[active] = j
            active += scale[j] != 0.0
            plain = plain and (scale[j] == 0.0 or scale[j] == 1.0)
        out = room.product[layer % 2]
        if layer == 0:
            for a in range(k):
                source = columns[a]
                for i in range(active):
                    out[a, i] = source[room.rows[i]]
        else:
            _next_product(columns, room.product[1 - layer % 2], k, room, count, active, out)
        if not plain:
            for i in range(active):
                room.near[i] = scale[room.rows[i]]
            for a in range(k):
                for i in range(active):
                    out[a, i] *= room.near[i]
        if layer + 1 < len(network.kind):
            for i in range(active):
                room.before[i] = room.rows[i]
        used, first, count = used + m * n, first + n, active
    return (len(network.kind) - 1) % 2, count


@compiled
def curvature(
    network: Network, derivative: Array, error: Array, room: Room, gram: Array, slope: Array
) -> None:
    """``J^T J`` (lower triangle, padded by 0) and ``J^T error``.

    Args:
        network: The network.
        derivative: As in ``jacobian``.
        error: (outputs,).
        room: Scratch.
        gram: (K, K) with ``K = matrix_size(k)``, written.
        slope: (K,), written.
    """
    k = network.sizes[0]
    which, count = jacobian(network, derivative, room)
    product = room.product[which]
    for i in range(count):
        room.near[i] = error[room.rows[i]]
    for a in range(gram.shape[0]):
        fill(gram[a], 0.0)
    for a in range(k, product.shape[0]):
        for i in range(count):
            product[a, i] = 0.0
    for a in range(0, k, 3):
        for b in range(0, a + 1, 3):
            _add_dots(product, a, b, count, gram)
    fill(slope, 0.0)
    for a in range(k):
        total = 0.0
        for i in range(count):
            total += product[a, i] * room.near[i]
        slope[a] = total


__all__ = [
    "KINKED",
    "SIGMOID",
    "TANH",
    "Network",
    "Pass",
    "Room",
    "curvature",
    "forward",
    "jacobian",
    "matrix_size",
    "new_pass",
    "new_room",
]
