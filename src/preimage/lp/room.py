"""The arrays of one solve: the inequalities, a point, and scratch room that the next one reuses."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable
from numpy.typing import NDArray

from preimage.lp.compiled import compiled
from preimage.lp.normal import PANEL
from preimage.lp.tiles import TILE, lanes

Array = NDArray[np.float64]


class Sides(NamedTuple):
    """The N inequalities of one program, beside their matrix.

    Attributes:
        bound: h; 0 where the side is absent.
        on: 1 where the side exists, else 0.
        soft: 1 where it may be violated, else 0.
        cap: Price of a violation where soft, else 0.
        cost: (k + 1,), c.
        equation: (m,), 1 where a row has both a lower and an upper side, else 0.
    """

    bound: Array
    on: Array
    soft: Array
    cap: Array
    cost: Array
    equation: Array


class Point(NamedTuple):
    """A point or a direction: v, and s, y, p, t = cap - y of each side.

    Absent sides hold s = 1, y = 0; sides that are not soft hold p = 0, t = 1.
    """

    v: Array
    s: Array
    y: Array
    p: Array
    t: Array


class Scratch(NamedTuple):
    """Room for one solve.

    Attributes:
        product: (N,) ``G v`` of the point.
        step_product: (N,) ``G dv``.
        weight: (N,) D.
        inverse_s: (N,) 1/s, as the next two.
        inverse_y: 1/y, 0 where absent.
        inverse_t: 1/t, 0 where not soft.
        ratio_y: (N,) dy/y of the affine direction.
        ratio_t: (N,) dt/t of the affine direction.
        push_s: (N,) centrality corrections of e, over y; see ``interior``.
        push_p: (N,) centrality corrections of f, over t.
        kind: (N,) whether a side binds, see ``landing``.
        rho: (N,) see ``interior``.
        x: (N,) anything.
        image: (m,) anything.
        sums: (TILE,) anything.
        picked: (m,) numbers of the rows in ``root`` or ``face``.
        histogram: (2048,) of exponents.
        root: (PANEL, stride) scaled rows.
        rough_root: The same in float32.
        face: (k, m) rows that bind, transposed.
        matrix: (K, stride) upper triangle of the normal matrix, then its factor.
        gram: (K, stride) of the least-squares start.
        diagonal: (K,) of the matrix before it was factored.
        pivots: (K,) inverse pivots.
        gradient: (K,) ``c + G' y``.
        affine: (K,) dv of the affine direction.
        constant: (K,) see ``landing``, as the next three.
        pull: (K,).
        rate: (m,).
        no_rate: (m,) zeros.
    """

    product: Array
    step_product: Array
    weight: Array
    inverse_s: Array
    inverse_y: Array
    inverse_t: Array
    ratio_y: Array
    ratio_t: Array
    push_s: Array
    push_p: Array
    kind: Array
    rho: Array
    x: Array
    image: Array
    sums: Array
    picked: NDArray[np.int64]
    histogram: NDArray[np.int64]
    root: Array
    rough_root: NDArray[np.float32]
    face: Array
    matrix: Array
    gram: Array
    diagonal: Array
    pivots: Array
    gradient: Array
    affine: Array
    constant: Array
    pull: Array
    rate: Array
    no_rate: Array


@compiled
def matrix_size(k: int) -> int:
    """Size of the normal matrix: z, the slack, and padding to whole tiles."""
    return (k + TILE) // TILE * TILE


@register_jitable
def row_stride(k: int) -> int:
    """Length of a row of the normal matrix and of what it is made from.

    It holds whole registers of float32, and an odd number of cache lines: rows that are a power
    of two apart would share few places in the first-level cache.
    """
    wide = lanes(4)
    return (k + wide) // wide * wide + lanes(8)


@compiled
def new_scratch(m: int, k: int) -> Scratch:
    """Room for programs of ``m`` (padded) rows and ``k`` variables."""
    n, size, stride = 2 * m + 2 * k + 1, matrix_size(k), row_stride(k)
    return Scratch(
        np.zeros(n),
        np.zeros(n),
        np.zeros(n),
        np.zeros(n),
        np.zeros(n),
        np.zeros(n),
        np.zeros(n),
        np.zeros(n),
        np.zeros(n),
        np.zeros(n),
        np.zeros(n),
        np.zeros(n),
        np.zeros(n),
        np.zeros(m + 4),
        np.zeros(TILE),
        np.zeros(m + 4, dtype=np.int64),
        np.zeros(2048, dtype=np.int64),
        np.zeros((PANEL, stride)),
        np.zeros((PANEL, stride), dtype=np.float32),
        np.zeros((k, m)),
        np.zeros((size, stride)),
        np.zeros((size, stride)),
        np.zeros(size),
        np.zeros(size),
        np.zeros(size),
        np.zeros(size),
        np.zeros(size),
        np.zeros(size),
        np.zeros(m + 4),
        np.zeros(m + 4),
    )


@compiled
def new_sides(m: int, k: int) -> Sides:
    """Room for the sides of ``m`` (padded) rows and ``k`` variables."""
    n = 2 * m + 2 * k + 1
    return Sides(np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(k + 1), np.zeros(m))


@compiled
def new_point(m: int, k: int) -> Point:
    """A point with no side on."""
    n = 2 * m + 2 * k + 1
    return Point(np.zeros(matrix_size(k)), np.ones(n), np.zeros(n), np.zeros(n), np.ones(n))
