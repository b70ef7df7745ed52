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
from preimage.lp.normal import add_gram
from preimage.lp.room import row_stride
from preimage.lp.tiles import TILE, add_tile, lanes

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
    """Scratch for one run, of ``width`` columns: the entries of z, or some units.

    Attributes:
        product: (2, widest + TILE, row_stride(width)), two steps of a Jacobian, by active units.
        joined: (widest, width in whole registers + widest + TILE), one step beside the active part
            of the next weight.
        before: (widest + 1,), active inputs of a layer.
        rows: (widest + 1,), active outputs.
    """

    product: Array
    joined: Array
    before: Integers
    rows: Integers


@compiled
def new_pass(network: Network) -> Pass:
    """Room for a forward pass."""
    units = len(network.bias)
    return Pass(np.zeros(units), np.zeros(units), np.zeros(units))


@compiled
def new_room(network: Network, width: int) -> Room:
    """Scratch for a network."""
    widest = 0
    for size in network.sizes:
        widest = max(widest, size)
    return Room(
        np.zeros((2, widest + TILE, row_stride(width))),
        np.zeros((widest, _registers(width) + widest + TILE)),
        np.zeros(widest + 1, dtype=np.int64),
        np.zeros(widest + 1, dtype=np.int64),
    )


@compiled
def _registers(width: int) -> int:
    """``width`` in whole registers."""
    return (width + lanes(8) - 1) // lanes(8) * lanes(8)


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
def active_rows(scale: Array, rows: Integers) -> int:
    """List the outputs whose derivative is not 0; their number."""
    active = 0
    for j in range(len(scale)):
        rows[active] = j
        active += scale[j] != 0.0
    return active


@compiled
def next_product(
    columns: Array, scale: Array, width: int, room: Room, which: int, count: int, active: int
) -> None:
    """``product[1 - which][i] = scale[i] sum_c columns[before[c], rows[i]] product[which][c]``.

    Args:
        columns: Of the layer.
        scale: Derivatives of its outputs.
        width: Columns of the product that count.
        room: Holds the product, the ``count`` active inputs and the ``active`` active outputs.
        which: Where the product stands.
        count: Of the inputs.
        active: Of the outputs.
    """
    product, out, joined = room.product[which], room.product[1 - which], room.joined
    rows, wide = room.rows, _registers(width)
    padded, stride = (active + TILE - 1) // TILE * TILE, out.shape[1]
    for c in range(count):
        for a in range(wide):
            joined[c, a] = product[c, a]
        source = room.before[c]
        for i in range(active):
            joined[c, wide + i] = columns[source, rows[i]]
        for i in range(active, padded):
            joined[c, wide + i] = 0.0
    for i in range(padded):
        for a in range(stride):
            out[i, a] = 0.0
    for b in range(0, padded, TILE):
        for a in range(0, wide, lanes(8)):
            add_tile(joined, joined.shape[1], count, a, wide + b, out, stride, b * stride + a)
    for i in range(active):
        factor = scale[rows[i]]
        if factor != 1.0:
            for a in range(wide):
                out[i, a] *= factor


@compiled
def jacobian(network: Network, derivative: Array, room: Room) -> tuple[int, int]:
    """The Jacobian's active rows into ``room.product``, their numbers into ``room.rows``.

    Args:
        network: The network.
        derivative: (units,), 0 where a unit is inactive or an output is not observed.
        room: Scratch of width k.

    Returns:
        Which of the two products it is, and how many rows.
    """
    k, n = network.sizes[0], network.sizes[1]
    scale, out = derivative[:n], room.product[0]
    count = active_rows(scale, room.rows)
    for i in range(count):
        j = room.rows[i]
        for a in range(out.shape[1]):
            out[i, a] = 0.0
        for a in range(k):
            out[i, a] = scale[j] * network.columns[a * n + j]
    return push(network, derivative, k, room, 1, count)


@compiled
def push(
    network: Network, derivative: Array, width: int, room: Room, layer: int, count: int
) -> tuple[int, int]:
    """Take ``product[0]`` of the ``count`` units in ``rows`` through the layers from ``layer`` on.

    Returns:
        As ``jacobian``.
    """
    used, first, which = 0, 0, 0
    for before in range(layer):
        used += network.sizes[before] * network.sizes[before + 1]
        first += network.sizes[before + 1]
    for later in range(layer, len(network.kind)):
        m, n = network.sizes[later], network.sizes[later + 1]
        columns = network.columns[used : used + m * n].reshape(m, n)
        scale = derivative[first : first + n]
        for i in range(count):
            room.before[i] = room.rows[i]
        active = active_rows(scale, room.rows)
        next_product(columns, scale, width, room, which, count, active)
        which, count = 1 - which, active
        used, first = used + m * n, first + n
    return which, count


@compiled
def curvature(
    network: Network, derivative: Array, error: Array, room: Room, gram: Array, slope: Array
) -> None:
    """``J^T J`` (upper triangle) and ``J^T error``.

    Args:
        network: The network.
        derivative: As in ``jacobian``.
        error: (outputs,).
        room: Scratch of width k.
        gram: (matrix_size(k), row_stride(k)), written; column k and row k are not part of it.
        slope: (matrix_size(k),), written, padded by 0.
    """
    k = network.sizes[0]
    which, count = jacobian(network, derivative, room)
    product = room.product[which]
    # The error as one more column: its products with the others are the slope.
    for i in range(count):
        product[i, k] = error[room.rows[i]]
    for a in range(gram.shape[0]):
        for b in range(gram.shape[1]):
            gram[a, b] = 0.0
    add_gram(product, count, gram)
    for a in range(len(slope)):
        slope[a] = gram[a, k] if a < k else 0.0
