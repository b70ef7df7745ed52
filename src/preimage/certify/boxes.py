"""Check a subdivision of the latent's box again: NumPy alone, in outward-rounded floats.

The standard-library checker proves everything else of a certificate in exact arithmetic. A
subdivision of a large network has thousands of parts; this module bounds the layers over them in
float32, and in float64 where that is too coarse. It shares no code with the search that found them
but products with matrices, and the choice of rows, of which any are valid.

A subdivision is a list in preorder: ``["split", i, value]`` is followed by the parts with
``z_i <= value`` and ``z_i >= value``, ``["cut", lower, upper, rows]`` by what the cut leaves,
``["empty", rows]`` ends a part that holds no latent, ``["box"]`` one that may. Of each empty part
and each cut it is shown that no latent in what is left out explains the observation:

Over a part, every pre-activation is ``c + A t + S s`` up to E, with ``|t_j| <= 1`` for the latent
and one ``|s_j| <= 1`` for each unit of open sign. Any row v of the output is then carried back
through the layers to ``v a <= g z + h``, while the observation demands ``v a >= need``. Rows are
those of least squares, and those that the record gives; any rows are valid.

Rounding: a product of n nonzero terms is off by at most ``gamma |W| |z|`` with gamma a little above
n u (Higham, section 3.1); every use of it below adds that much in the direction that proves less.
Underflow: a row that is carried back is off by at most the smallest number in each entry, and so is
its product with z by that times the sum of all ``|z_j|``.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from preimage.certify import checker
from preimage.enclosure.grouped import GroupedMatrix
from preimage.enclosure.rows import least_squares_rows
from preimage.engine import processors
from preimage.matrix import dot

Array = NDArray[Any]
# Parts that are checked at once, by the numbers that their affine forms hold.
_NUMBERS = 16_000_000
# The line on the other side of a band turns from slope c to 1 while the middle of the interval goes
# through 0, over this share of its length.
_SHIFT = 0.1
# In each precision: sizes that weights may have (or 0), and what is added to the quantities that
# rounding is counted in. A product that underflows is off by at most the smallest normal number,
# which is far below gamma times the last.
_RANGE = {"float32": (2.0**-60, 2.0**60, 2.0**-80), "float64": (2.0**-400, 2.0**400, 2.0**-900)}


def remaining(
    layers: list[Any],
    observed: list[Any],
    box: list[Any],
    tokens: list[Any],
    deadline: float = checker.INF,
) -> list[Any]:
    """The parts that may hold latents, each a list of exact intervals.

    Args:
        layers: Flat weight, shape, bias, slopes and smooth head of each layer, as floats.
        observed: Interval of each pre-activation of the last layer, in the checker's integers.
        box: Interval of each latent entry, likewise.
        tokens: The subdivision as the checker has read it.
        deadline: When to give up, a time of ``time.perf_counter``.

    Raises:
        ValueError: A step is not proven, or not in time.
    """
    if any(p[0] > p[1] or p[0] == np.inf or p[1] == -np.inf for p in observed):
        return []  # no output explains the observation
    low, high = (np.array([_float(p[side], side) for p in box]) for side in (0, 1))
    checker.require(np.isfinite([low, high]).all(), "a subdivision needs a finite box")
    ends = np.array([[_float(p[side], side) for p in observed] for side in (0, 1)])
    left, claims = _walk(tokens, low, high, len(observed))
    volumes = [np.prod(claim[1] - claim[0]) for claim in claims]
    order = np.argsort(volumes, kind="stable").tolist()
    exact = _network(layers, np.float64)
    for network in (_network(layers, np.float32), exact):
        if network and exact:
            order = _unproven(network, exact, claims, order, ends, deadline)
    checker.require(not order, f"{len(order)} parts of the subdivision are not proven")
    return [[tuple(map(checker.exact, pair)) for pair in zip(*map(np.ndarray.tolist, part),
                                                             strict=True)]
            for part in left]  # fmt: skip


def _unproven(
    network: list[_Layer], exact: list[_Layer], claims: list[Any], order: list[int], ends: Array,
    deadline: float,
) -> list[int]:  # fmt: skip
    """Those of some claims that do not hold, or not in this precision; all processors are used."""
    widths = [len(layer.bias) for layer in network]
    step = int(np.clip(_NUMBERS / (max(widths) * sum(widths[:-3]) + 1), 2, 64))
    parts = [order[first : first + step] for first in range(0, len(order), step)]

    def prove(part: list[int]) -> NDArray[np.bool_]:
        checker.require(time.perf_counter() < deadline, "there is no time left")
        with np.errstate(all="ignore"):  # what is not finite proves nothing
            return _prove(network, exact, [claims[i] for i in part], ends)

    with ThreadPoolExecutor(processors()) as pool:
        holds = [good for found in pool.map(prove, parts) for good in found.tolist()]
    return [i for i, good in zip(order, holds, strict=True) if not good]


def _float(value: Any, side: int) -> float:
    """An exact end as a float, rounded outward."""
    rational = checker.rational(value)
    near = float(rational)
    same = np.isinf(near) or checker.exact(near) == value
    return near if same else float(np.nextafter(near, np.inf if side else -np.inf))


def _walk(tokens: list[Any], low: Array, high: Array, size: int) -> tuple[list[Any], list[Any]]:
    """The parts that may hold latents, and the claims: box, what is left of it (or NaN), rows."""
    stack, left = [(low, high)], []
    claims: list[Any] = []
    for kind, *rest in tokens:
        low, high = stack.pop()
        if kind == "box":
            left.append((low, high))
        elif kind == "empty":
            nothing = np.full_like(low, np.nan)
            claims.append((low, high, nothing, nothing, _rows(rest[0], size)))
        elif kind == "split":
            i, value = rest[0], _float(rest[1], 0)
            checker.require(low[i] <= value <= high[i], "a split lies outside its part")
            below, above = high.copy(), low.copy()
            below[i] = above[i] = value
            stack += [(above, high), (low, below)]
        else:
            below, above = (np.array([_float(v, 0) for v in side]) for side in rest[:2])
            inside = (low <= below) & (below <= above) & (above <= high)
            checker.require(inside.all(), "a cut leaves its part")
            claims.append((low, high, below, above, _rows(rest[2], size)))
            stack.append((below, above))
    return left, claims


def _rows(sparse: list[Any], size: int) -> Array:
    """The rows that a step brings along, (rows, size)."""
    rows = np.zeros((len(sparse), size))
    for row, (units, values) in zip(rows, sparse, strict=True):
        row[units] = [float(checker.rational(v)) for v in values]
    return rows


class _Layer(NamedTuple):
    """Weight; bias and slopes as columns."""

    weight: GroupedMatrix
    bias: Array
    slopes: Array


def _network(layers: list[Any], dtype: Any) -> list[_Layer]:
    """The layers in a precision; none if some number is not 0 and of a size it cannot work with."""
    (least, most, _), found = _RANGE[np.dtype(dtype).name], []
    for flat, shape, bias, slopes, _ in layers:
        parts = [np.array(part) for part in (flat, bias, slopes)]
        sizes = np.abs(np.concatenate(parts))  # before the cast
        if not ((sizes == 0) | (sizes >= least) & (sizes <= most)).all():
            return []
        w, b, c = (part.astype(dtype) for part in parts)
        found.append(_Layer(GroupedMatrix.of(w.reshape(shape)), b[:, None], c[:, None]))
    return found


def _prove(
    network: list[_Layer], exact: list[_Layer], claims: list[Any], ends: Array
) -> NDArray[np.bool_]:
    """Which claims hold."""
    dtype = network[0].bias.dtype
    low, high, new_low, new_high = (np.stack([claim[end] for claim in claims]) for end in range(4))
    mid = ((low + high) / 2).astype(dtype)
    rad = np.nextafter(np.maximum(high - mid, mid - low).astype(dtype), dtype.type(np.inf))
    layers, *form = _forward(network, mid, rad)
    own = layers[-1]
    least, most = np.maximum(ends[0], own[0].T), np.minimum(ends[1], own[1].T)
    c, a, squares = (part.astype(np.float64) for part in form)
    near, half = (least + most) / 2, np.maximum(most - least, 0) / 2
    rows, *_ = least_squares_rows(c, a, squares, near, half)
    more = np.zeros((len(claims), max(len(claim[4]) for claim in claims), rows.shape[2]))
    for given, claim in zip(more, claims, strict=True):
        given[: len(claim[4])] = claim[4]
    rows = np.concatenate([rows, more], 1)
    center, reach, k = mid.astype(np.float64), rad.astype(np.float64), mid.shape[1]
    slope, shift = _carry(exact, layers, center, reach, rows)
    # need <= v a <= slope z + shift
    low_end, high_end = (np.where(np.isfinite(end), end, 0) for end in (least, most))
    size = dot(np.abs(rows), np.maximum(np.abs(low_end), np.abs(high_end)))
    need = dot(np.maximum(rows, 0), low_end) + dot(np.minimum(rows, 0), high_end)
    # A row that meets an infinite end demands nothing.
    open_ends = ((rows > 0) & ~np.isfinite(least)[:, None]) | (
        (rows < 0) & ~np.isfinite(most)[:, None]
    )
    need = np.where(open_ends.any(2), -np.inf, need)
    need -= 2.0**-52 * (rows.shape[2] + 8) * size
    pull = slope * reach[:, None]
    sizes = np.abs(pull).sum(2) + dot(np.abs(slope), np.abs(center)) + np.abs(shift)
    best = dot(slope, center) + shift - need + 2.0**-52 * (k + 12) * (sizes + np.abs(need))
    best = np.where(np.isnan(best), np.inf, best)
    span = np.abs(pull).sum(2)
    refuted = (best + span < 0).any(1)
    # For a cut: what it leaves out below coordinate j, t_j <= s, is refuted by a row with
    #   best + sum_{i != j} |pull_i| + pull_j s < 0,  pull_j > 0;  and likewise above.
    others = (best + span)[:, :, None] - np.abs(pull) + 2.0**-50 * np.abs(pull)
    proven = np.isfinite(new_low).any(1)
    for new, old, sign in ((new_low, low, 1.0), (new_high, high, -1.0)):
        s = (new - center) / reach
        s += sign * 2.0**-50 * (np.abs(s) + np.abs(center) / reach + 1)
        beyond = (pull * sign > 0) & (others + pull * s[:, None] < 0)
        proven &= (beyond.any(1) | (new == old)).all(1)
    return refuted | proven


def _gamma(terms: int, dtype: Any) -> Any:
    return dtype.type(1.05 * (terms + 30) * np.finfo(dtype).eps / 2)


def _forward(network: list[_Layer], mid: Array, rad: Array) -> tuple[Any, ...]:
    """For each layer: low and high ends, ``|W| |z| + |b|``, what underflow counts in.

    Then center, A and squares of the last layer. Units come first, then parts, then symbols.
    """
    dtype, k = mid.dtype, mid.shape[1]
    every = np.concatenate([mid.T[:, :, None], rad.T[:, :, None] * np.eye(k)[:, None]], 2)
    every = every.astype(dtype)
    half, error, bound = 0 * mid.T, 0 * mid.T, np.abs(mid.T) + rad.T
    floor = dtype.type(_RANGE[dtype.name][2])
    affine = bool((network[-1].slopes == 1).all())
    layers = []
    for number, (weight, bias, c) in enumerate(network):
        left = len(network) - number - affine  # layers whose ends are needed, this one included
        magnitude = weight.magnitude
        scale = magnitude @ bound + np.abs(bias) + floor
        slip = floor * (1 + bound.sum(0) + scale.sum(0))
        squares = np.einsum("nps,nps->np", *2 * [every[:, :, k + 1 :]]) + half**2
        every = weight @ (every if left else every[:, :, : k + 1])
        fresh = np.zeros_like(scale)
        if left > 1:
            every = np.concatenate([every, _fresh(weight.dense, half)], 2)
        elif left:
            fresh = magnitude @ half
        every[:, :, 0] += bias
        error = dtype.type(1.02) * (magnitude @ error)
        error = error + _gamma(weight.terms + 2, dtype) * scale
        width = np.abs(every[:, :, 1:]) @ np.ones(every.shape[2] - 1, dtype) + fresh + error
        width *= 1 + _gamma(every.shape[2], dtype)
        center = every[:, :, 0]
        low, high = center - width, center + width
        if not left:
            low, high = np.full_like(low, -np.inf), np.full_like(high, np.inf)
        layers.append(tuple(part.astype(np.float64) for part in (low, high, scale, slip)))
        if number == len(network) - 1:
            break
        ratio, edge, open_ = _band(low, high, c)
        half = np.abs(edge) / 2
        every *= ratio[:, :, None]
        every[:, :, 0] += edge / 2
        far = np.maximum(np.abs(low), np.abs(high))
        plain = ~open_ & ((ratio == 0) | (ratio == 1))
        gain = np.where(plain, 0, _gamma(0, dtype) * np.maximum(c, 1) * far)
        error = ratio * error + gain
        bound = np.abs(every[:, :, 0]) + ratio * width + half + error
    squares = network[-1].weight.squares @ squares
    return layers, center.T, every[:, :, 1 : k + 1].transpose(1, 2, 0), squares.T


def _fresh(weight: Array, half: Array) -> Array:
    """One symbol for each unit of open sign, of this size; size 0 where a part has fewer."""
    most = int((half > 0).sum(0).max(initial=0))
    order = np.argsort(half <= 0, axis=0, kind="stable")[:most]
    return weight.take(order.T, 1) * np.take_along_axis(half, order, 0).T


def _band(low: Array, high: Array, c: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Each unit between ``ratio a`` and ``ratio a + edge``."""
    open_ = (low < 0) & (high > 0) & (c != 1)
    chord = (high - c * low) / np.where(open_, high - low, 1)
    chord = np.clip(chord, np.minimum(c, 1), np.maximum(c, 1))
    ratio = np.where(open_, chord, np.where(low >= 0, 1, c)).astype(low.dtype)
    at_low, at_high = (c - ratio) * low, (1 - ratio) * high
    edge = np.where(c < 1, np.maximum(at_low, at_high), np.minimum(at_low, at_high))
    return ratio, np.where(open_, edge, 0).astype(low.dtype), open_


def _carry(
    network: list[_Layer], layers: list[Any], mid: Array, rad: Array, rows: Array
) -> tuple[Array, Array]:
    """``g`` and ``h`` with ``rows a <= g z + h`` over each part, rounding included in h."""
    total, lost = np.zeros(rows.shape[:2]), np.zeros(rows.shape[:2])
    rows = np.ascontiguousarray(rows.transpose(2, 0, 1))
    for number in range(len(network) - 1, -1, -1):
        weight, bias, c = network[number]
        low, high, scale, slip = layers[number]
        gamma = _gamma(len(bias), rows.dtype)
        if number < len(network) - 1 and (c != 1).any():
            ratio, edge, open_ = _band(low, high, c)
            share = np.clip(0.5 + (high + low) / (_SHIFT * np.where(open_, high - low, 1)), 0, 1)
            steep = np.where(open_, c + (1 - c) * share, ratio)
            up, down = np.maximum(rows, 0), np.minimum(rows, 0)
            far = np.maximum(np.abs(low), np.abs(high)) * np.maximum(c, 1)
            lost = lost + 4 * gamma * _over(np.abs(rows), far)
            # A chord bounds a convex unit from above, a concave one (c > 1) from below.
            above = np.where(c <= 1, ratio, steep), np.where(c <= 1, edge, 0)
            below = np.where(c <= 1, steep, ratio), np.where(c <= 1, 0, edge)
            total = total + _over(up, above[1]) + _over(down, below[1])
            rows = up * above[0][:, :, None] + down * below[0][:, :, None]
        lost = lost + 2 * gamma * (_over(np.abs(rows), scale) + slip[:, None])
        total = total + np.tensordot(bias[:, 0], rows, 1)
        lost = lost + gamma * np.abs(total)
        rows = weight.transpose @ rows
    slope = rows.transpose(1, 2, 0)
    size = dot(np.abs(slope), np.abs(mid) + rad) + np.abs(total)
    lost = lost + _gamma(4 * len(network), rows.dtype) * size
    return slope, total + 1.05 * lost


def _over(rows: Array, vector: Array) -> Array:
    """Rows (units, parts, rows) with a vector (units, parts) for each part."""
    return (rows * vector[:, :, None]).sum(0)
