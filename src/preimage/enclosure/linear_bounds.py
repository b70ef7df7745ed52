"""Linear bounds on all layers over many boxes of codes at once, valid in spite of rounding.

Over a box ``z = m + r t``, ``|t_j| <= 1``, every pre-activation is written as

    a = c + A t + S s + e,     |s_j| <= 1,  |e| <= E,

with one symbol ``s`` for each unit of undecided sign (an affine form; the set is a zonotope).
A unit with ``low < 0 < high`` and slope c below 0 lies in the band ``p a + o`` of its chord's slope
``p = (high - c low) / (high - low)``, where o runs between 0 and ``(c - p) low``; half the width of
the band is the size of its new symbol. A unit of known sign is affine and adds nothing, so that
the form is exact where no sign is open (Singh et al. 2018, "Fast and effective robustness
certification"). Symbols are followed to the last hidden layer. Rows of the output are then pulled
back through all layers, each open unit by the better of its two lines (Zhang et al. 2018,
"Efficient neural network robustness certification with general activation functions").

Rounding: a matrix product in floats is wrong by at most ``gamma_n |W| |z|`` (Higham, section 3.1),
with n the most nonzeros of a row. ``E`` and ``Pulled.shift`` contain these errors, so that what is
said here holds of the exact network. The forms may be in float32, with a larger E and a weight that
is itself rounded; rows are pulled back in float64.

Arrays within this module have the units first, (n_i, boxes, symbols): one product a layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from preimage.enclosure.grouped import Floats
from preimage.enclosure.network import Network
from preimage.matrix import Array, Flags, dot

# In each precision: sizes that weights may have (or 0), and what is added to the quantities that
# rounding is counted in. A product that underflows is off by at most the smallest normal number,
# which is far below ``_gamma`` times the last.
_RANGE = {"float32": (2.0**-60, 2.0**60, 2.0**-80), "float64": (2.0**-400, 2.0**400, 2.0**-900)}
# The side of an open unit turns from one to the other while the middle of its interval passes
# through 0, over this share of its length.
_TURN = 0.1


def in_range(network: Network, dtype: Any) -> bool:
    """Whether the numbers are of a size for which the bounds hold in this precision."""
    least, most, _ = _RANGE[np.dtype(dtype).name]
    weights = [weight.dense for weight in network.weights[1:]]
    sizes = map(np.abs, (*weights, *network.biases[1:], *network.slopes[1:]))
    return all(bool(((a == 0) | (a >= least) & (a <= most)).all()) for a in sizes)


def _floor(dtype: Any) -> Any:
    """Added to what rounding is counted in, for what underflows."""
    return dtype.type(_RANGE[dtype.name][2])


def _gamma(dtype: Any, terms: int) -> Any:
    """Relative error of a sum of so many products, and of what is done to it afterwards.

    The checker counts the same: bounds in float32 differ as the counts do.
    """
    return dtype.type(1.05 * (terms + 30) * np.finfo(dtype).eps / 2)


@dataclass(frozen=True, eq=False)
class Forms:
    """Bounds over boxes, in float64; lists begin with layer 1, (n_i, boxes) each.

    Attributes:
        middle: (boxes, k) of the boxes.
        radius: (boxes, k), so large that ``middle +- radius`` holds the box.
        lower: Of the pre-activations.
        upper: Of the pre-activations.
        reach: ``|W| |z| + |b|``, in units of which rounding is counted.
        slip: (boxes,) each: what underflow in a row that is pulled back is counted in.
        center: (boxes, n) the output's c.
        linear: (boxes, k, n) the output's A.
        variance: (boxes, n) squares of the output's symbols, summed; a hint, no bound.
        rounding: (boxes,) the share of rounding in the intervals of the last layer that has some.
    """

    middle: Array
    radius: Array
    lower: list[Array]
    upper: list[Array]
    reach: list[Array]
    slip: list[Array]
    center: Array
    linear: Array
    variance: Array
    rounding: Array


def linear_bounds(network: Network, low: Array, high: Array) -> Forms:
    """Bounds on every layer over each box, (boxes, k) finite ends, in the network's precision."""
    dtype, (count, k) = network.biases[0].dtype, low.shape
    gamma, floor, depth = partial(_gamma, dtype), _floor(dtype), network.depth
    # The intervals of an affine output are not asked for.
    bounded = depth - int((network.slopes[-1] == 1).all())
    middle = ((low + high) / 2).T.astype(dtype)
    radius = np.maximum(high.T - middle, middle - low.T).astype(dtype)
    radius = np.nextafter(radius, dtype.type(np.inf))
    # The outputs of a layer: c, A and S, without the symbols of its own units; the sizes of those;
    # E; and at least the magnitude.
    form = np.zeros((k, count, 1 + k), dtype)
    form[:, :, 0], form[range(k), :, range(1, 1 + k)] = middle, radius
    half = error = np.zeros_like(middle)
    size, share = np.abs(middle) + radius, np.zeros(count)
    lower: list[Array] = []
    upper: list[Array] = []
    reach: list[Array] = []
    slip: list[Array] = []
    for i in range(1, depth + 1):
        weight, bias, c = network.weights[i], network.biases[i][:, None], network.slopes[i][:, None]
        squares = np.einsum("nbs,nbs->nb", *2 * [form[:, :, 1 + k :]]) + half**2
        scale = weight.magnitude @ size + np.abs(bias) + floor
        slip.append(_float64(floor * (1 + size.sum(axis=0) + scale.sum(axis=0))))
        if i > bounded:
            form, spread = weight @ form[:, :, : 1 + k], np.full_like(scale, np.inf)
        else:
            form, fresh = weight @ form, np.zeros_like(scale)
            if i < bounded:
                form = np.concatenate([form, _symbols(weight.dense, half)], axis=2)
            else:  # no layer asks for the symbols any more
                fresh = weight.magnitude @ half
            error = dtype.type(1.02) * (weight.magnitude @ error) + gamma(weight.terms + 2) * scale
            spread = np.abs(form[:, :, 1:]) @ np.ones(form.shape[2] - 1, dtype) + fresh
            spread = (spread + error) * (1 + gamma(form.shape[2]))
            share = _float64((error / spread).mean(axis=0))
        form[:, :, 0] += bias
        least, most = form[:, :, 0] - spread, form[:, :, 0] + spread
        lower.append(_float64(least))
        upper.append(_float64(most))
        reach.append(_float64(scale))
        if i < depth:
            slope, shift, open_ = _chord(least, most, c)
            form *= slope[:, :, None]
            form[:, :, 0] += shift / 2
            half = np.abs(shift) / 2
            bent = open_ | ((slope != 0) & (slope != 1))
            far = np.maximum(np.abs(least), np.abs(most)) * np.maximum(c, 1)
            error = slope * error + np.where(bent, gamma(0) * far, 0)
            size = np.abs(form[:, :, 0]) + slope * spread + half + error
    variance = _float64((weight.squares @ squares).T)
    center, linear = _float64(form[:, :, 0].T), _float64(form[:, :, 1 : 1 + k].transpose(1, 2, 0))
    return Forms(_float64(middle.T), _float64(radius.T), lower, upper, reach, slip,
                 center, linear, variance, share)  # fmt: skip


def _float64(values: Floats) -> Array:
    return np.ascontiguousarray(values, dtype=np.float64)


def _symbols(weight: Floats, half: Floats) -> Floats:
    """One symbol for each unit of open sign, of this size; size 0 where a box has fewer."""
    open_ = half > 0
    units = np.argsort(~open_, axis=0, kind="stable")[: int(open_.sum(axis=0).max(initial=0))]
    return np.take(weight, units.T, axis=1) * np.take_along_axis(half, units, 0).T


def _lines(low: Floats, high: Floats, c: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Slope and shift of a line below each unit, then of one above, (units, boxes) each.

    They are the chord, and the better of the sides, or a line between.
    """
    slope, shift, open_ = _chord(low, high, c)
    # From slope c to 1 by degrees, so that what rounding does to the ends hardly matters.
    turn = np.clip(0.5 + (high + low) / (_TURN * np.where(open_, high - low, 1)), 0, 1)
    side = np.where(open_, c + (1 - c) * turn, slope)
    zero, convex = np.zeros_like(shift), c <= 1
    return (
        np.where(convex, side, slope), np.where(convex, zero, shift),
        np.where(convex, slope, side), np.where(convex, shift, zero),
    )  # fmt: skip


def _chord(low: Floats, high: Floats, c: Floats) -> tuple[Floats, Floats, Flags]:
    """Slope of each unit, the farther edge of its band, and whether its sign is open."""
    open_ = (low < 0) & (high > 0) & (c != 1)
    width = np.where(open_, high - low, 1)
    known = np.where(low >= 0, 1, c).astype(low.dtype)
    slope = np.where(open_, np.clip((high - c * low) / width, np.minimum(c, 1), np.maximum(c, 1)),
                     known)  # fmt: skip
    ends = (c - slope) * low, (1 - slope) * high
    shift = np.where(c < 1, np.maximum(*ends), np.minimum(*ends))
    return slope, np.where(open_, shift, 0).astype(low.dtype), open_


class Pulled(NamedTuple):
    """``rows @ a <= slope @ z + shift`` over each box, for the pre-activations of the last layer.

    Attributes:
        slope: (boxes, rows, k).
        shift: (boxes, rows), rounding included.
    """

    slope: Array
    shift: Array


def pull_back(network: Network, forms: Forms, rows: Array, values: bool = False) -> Pulled:
    """Bound ``rows`` of the output, (boxes, rows, n), from above, linearly in the code.

    The network is in float64. With ``values``, rows are of the last layer's values instead of its
    pre-activations.
    """
    shift, lost = np.zeros((2, *rows.shape[:2]))
    rows = np.ascontiguousarray(rows.transpose(2, 0, 1))
    for i in range(network.depth, 0, -1):
        gamma, c = _gamma(rows.dtype, len(rows)), network.slopes[i][:, None]
        if (values or i < network.depth) and (c != 1).any():
            low, high = forms.lower[i - 1], forms.upper[i - 1]
            low_slope, low_shift, high_slope, high_shift = _lines(low, high, c)
            far = np.maximum(np.abs(low), np.abs(high)) * np.maximum(c, 1)
            lost += 4 * gamma * _dot(np.abs(rows), far)
            up, down = np.maximum(rows, 0), np.minimum(rows, 0)
            shift += _dot(up, high_shift) + _dot(down, low_shift)
            rows = up * high_slope[:, :, None] + down * low_slope[:, :, None]
        lost += 2 * gamma * (_dot(np.abs(rows), forms.reach[i - 1]) + forms.slip[i - 1][:, None])
        shift += np.tensordot(network.biases[i], rows, 1)
        lost += gamma * np.abs(shift)
        rows = network.weights[i].transpose @ rows
    slope = np.ascontiguousarray(rows.transpose(1, 2, 0))
    magnitude = dot(np.abs(slope), np.abs(forms.middle) + forms.radius) + np.abs(shift)
    lost = 1.05 * (lost + _gamma(rows.dtype, network.depth * 4) * magnitude)
    return Pulled(slope, shift + lost)


def _dot(rows: Array, vector: Array) -> Array:
    """(n, boxes, rows) times (n, boxes)."""
    return np.einsum("nbr,nb->br", rows, vector)
