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

Rounding: a matrix product in floats is wrong by at most ``gamma_n |W| |z|`` (Higham, section 3.1).
``E`` and ``Pulled.top`` contain these errors, so that what is said here holds of the exact network.
In float32 the same holds, with a larger E and a weight that is itself rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from preimage.enclosure.network import Array, Network

# Floats of float32 or float64.
Floats = NDArray[Any]

# In each precision: sizes that weights may have (or 0), and what is added to the quantities that
# rounding is counted in. A product that underflows is off by at most the smallest normal number,
# which is far below ``Chain.gamma`` times the last.
_RANGE = {"float32": (2.0**-60, 2.0**60, 2.0**-80), "float64": (2.0**-400, 2.0**400, 2.0**-900)}


@dataclass(frozen=True, eq=False)
class Chain:
    """A network in one precision; index 0 is layer 1.

    Attributes:
        weights: (n_i, n_{i-1}) each.
        across: Their transposes, in memory order.
        magnitudes: Absolute values of ``across``.
        biases: (n_i,) each.
        slopes: (n_i,) each, below 0.
        unit: The largest relative error of one operation, with a margin for those of second order.
        in_range: Whether the numbers are of a size for which the bounds hold in this precision.
    """

    weights: tuple[Floats, ...]
    across: tuple[Floats, ...]
    magnitudes: tuple[Floats, ...]
    biases: tuple[Floats, ...]
    slopes: tuple[Floats, ...]
    unit: float
    in_range: bool

    @staticmethod
    def of(network: Network, dtype: Any = np.float64) -> Chain:
        """Take the numbers of a network in this precision."""
        least, most, _ = _RANGE[np.dtype(dtype).name]
        parts = network.weights[1:], network.biases[1:], network.slopes[1:]
        sizes = [np.abs(array[array != 0]) for part in parts for array in part]  # before the cast
        in_range = all(bool(((size >= least) & (size <= most)).all()) for size in sizes)
        with np.errstate(over="ignore"):
            weights = tuple(w.astype(dtype) for w in network.weights[1:])
        across = tuple(np.ascontiguousarray(w.T) for w in weights)
        return Chain(
            weights,
            across,
            tuple(map(np.abs, across)),
            tuple(b.astype(dtype) for b in network.biases[1:]),
            tuple(c.astype(dtype) for c in network.slopes[1:]),
            float(np.finfo(dtype).eps) * 0.51,
            in_range,
        )

    @property
    def dtype(self) -> Any:
        """Of all numbers."""
        return self.biases[0].dtype

    @property
    def floor(self) -> Any:
        """Added to what rounding is counted in, for what underflows."""
        return self.dtype.type(_RANGE[self.dtype.name][2])

    def gamma(self, terms: int) -> float:
        """Relative error of a sum of so many products, and of what is done to it afterwards."""
        return 1.02 * (terms + 24) * self.unit


class Lines(NamedTuple):
    """``low_slope a + low_shift <= s(a) <= high_slope a + high_shift``; (boxes, units) each."""

    low_slope: Floats
    low_shift: Floats
    high_slope: Floats
    high_shift: Floats


@dataclass(frozen=True, eq=False)
class Forms:
    """Bounds over boxes; lists have one entry a layer, (boxes, n_i) each.

    Attributes:
        chain: The network.
        middle: (boxes, k) of the boxes.
        radius: (boxes, k), so large that ``middle +- radius`` holds the box.
        lower: Of the pre-activations.
        upper: Of the pre-activations.
        reach: ``|W| |z| + |b|``, in units of which rounding is counted.
        slip: (boxes,) each: what underflow in a row that is pulled back is counted in.
        center: (boxes, n) the output's c.
        linear: (boxes, k, n) the output's A.
        variance: (boxes, n) squares of the output's symbols, summed; a hint, no bound.
    """

    chain: Chain
    middle: Floats
    radius: Floats
    lower: list[Floats]
    upper: list[Floats]
    reach: list[Floats]
    slip: list[Floats]
    center: Floats
    linear: Floats
    variance: Floats

    def lines(self, index: int) -> Lines:
        """The two lines of each unit of layer ``index``: the chord, and the better of the sides."""
        low, high, c = self.lower[index], self.upper[index], self.chain.slopes[index]
        slope, shift, open_ = _chord(low, high, c)
        side = np.where(open_, np.where(high > -low, 1, c), slope)
        zero, convex = np.zeros_like(shift), c <= 1
        return Lines(
            np.where(convex, side, slope), np.where(convex, zero, shift),
            np.where(convex, slope, side), np.where(convex, shift, zero),
        )  # fmt: skip


def _chord(low: Floats, high: Floats, c: Floats) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Slope of each unit, the farther edge of its band, and whether its sign is open."""
    open_ = (low < 0) & (high > 0) & (c != 1)
    width = np.where(open_, high - low, 1)
    known = np.where(low >= 0, 1, c).astype(low.dtype)
    slope = np.where(open_, np.clip((high - c * low) / width, np.minimum(c, 1), np.maximum(c, 1)),
                     known)  # fmt: skip
    ends = (c - slope) * low, (1 - slope) * high
    shift = np.where(c < 1, np.maximum(*ends), np.minimum(*ends))
    return slope, np.where(open_, shift, 0).astype(low.dtype), open_


def linear_bounds(chain: Chain, low: Array, high: Array) -> Forms:
    """Bounds on every layer over each box.

    Args:
        chain: The network.
        low: (boxes, k) finite.
        high: (boxes, k).
    """
    dtype, unit = chain.dtype, chain.unit
    count, k = low.shape
    middle = ((low + high) / 2).astype(dtype)
    radius = np.nextafter(np.maximum(high - middle, middle - low).astype(dtype), dtype.type(np.inf))
    center, linear = middle, radius[:, :, None] * np.eye(k, dtype=dtype)
    symbols, error = np.zeros((count, 0, k), dtype), np.zeros((count, k), dtype)
    size, fresh = np.abs(middle) + radius, None
    lower: list[Floats] = []
    upper: list[Floats] = []
    reach: list[Floats] = []
    slip: list[Floats] = []
    squares = np.zeros((count, 0))
    for i, (across, magnitude) in enumerate(zip(chain.across, chain.magnitudes, strict=True)):
        last = i == len(chain.across) - 1
        reach.append(size @ magnitude + np.abs(chain.biases[i]) + chain.floor)
        slip.append(chain.floor * (1 + size.sum(axis=1) + reach[-1].sum(axis=1)))
        if last:
            squares = _squares(symbols, fresh) @ across**2
        center, linear = center @ across + chain.biases[i], linear @ across
        if last and (chain.slopes[i] == 1).all():
            # Nothing asks for the interval of an affine output.
            ends = np.broadcast_to(np.asarray(np.inf, dtype), center.shape)
            return Forms(chain, middle, radius, [*lower, -ends], [*upper, ends], reach, slip,
                         center, linear, squares)  # fmt: skip
        symbols = _carried(symbols, fresh, across)
        terms = across.shape[0] + k + symbols.shape[1]
        error = dtype.type(1.01) * (error @ magnitude) + dtype.type(chain.gamma(terms)) * reach[-1]
        spread = np.abs(linear).sum(axis=1) + np.abs(symbols).sum(axis=1) + error
        lower.append(center - spread)
        upper.append(center + spread)
        if last:
            break
        slope, shift, open_ = _chord(lower[-1], upper[-1], chain.slopes[i])
        half = np.abs(shift) / 2
        center, linear = slope * center + shift / 2, slope[:, None] * linear
        symbols *= slope[:, None]
        fresh = _packed(open_, half)
        bent = open_ | ((slope != 0) & (slope != 1))
        ends = np.maximum(np.abs(lower[-1]), np.abs(upper[-1])) * np.maximum(chain.slopes[i], 1)
        error = slope * error + np.where(bent, dtype.type(16 * unit) * ends, 0)
        size = np.abs(center) + slope * spread + half + error
    return Forms(chain, middle, radius, lower, upper, reach, slip, center, linear, squares)


def _packed(open_: NDArray[np.bool_], half: Floats) -> tuple[NDArray[np.intp], Floats]:
    """Numbers and symbol sizes of the open units of each box, side by side; size 0 fills up."""
    most = int(open_.sum(axis=1).max(initial=0))
    units = np.argsort(~open_, axis=1, kind="stable")[:, :most]
    return units, np.where(np.take_along_axis(open_, units, 1), np.take_along_axis(half, units, 1),
                           0).astype(half.dtype)  # fmt: skip


def _carried(
    symbols: Floats, fresh: tuple[NDArray[np.intp], Floats] | None, across: Floats
) -> Floats:
    """All symbols of the next layer's pre-activations, (boxes, symbols, n_i)."""
    if fresh is None:
        return symbols @ across
    count, old, _ = symbols.shape
    found = np.empty((count, old + fresh[0].shape[1], across.shape[1]), symbols.dtype)
    np.matmul(symbols, across, out=found[:, :old])
    np.multiply(across[fresh[0]], fresh[1][:, :, None], out=found[:, old:])
    return found


def _squares(symbols: Floats, fresh: tuple[NDArray[np.intp], Floats] | None) -> Floats:
    """Squares of all symbols of the outputs of a layer, (boxes, n_i)."""
    found = (symbols**2).sum(axis=1)
    if fresh is not None:
        rows = np.arange(len(found))[:, None]
        np.add.at(found, (rows, fresh[0]), fresh[1] ** 2)
    return found


class Pulled(NamedTuple):
    """``rows @ a <= slope @ z + shift`` over each box, for the pre-activations of the last layer.

    Attributes:
        slope: (boxes, rows, k).
        shift: (boxes, rows), rounding included.
        rounding: (boxes, rows) the part of it that is due to rounding.
    """

    slope: Array
    shift: Array
    rounding: Array


def pull_back(forms: Forms, rows: Floats, values: bool = False) -> Pulled:
    """Bound rows of the output from above, linearly in the code.

    Args:
        forms: The bounds.
        rows: (boxes, rows, n) in the chain's precision.
        values: Of the last layer's values instead of its pre-activations.
    """
    chain = forms.chain
    shift = np.zeros(rows.shape[:2], rows.dtype)
    lost = np.zeros(rows.shape[:2], rows.dtype)
    for i in range(len(chain.weights) - 1, -1, -1):
        weight = chain.weights[i]
        gamma = chain.gamma(len(weight))
        if (values or i < len(chain.weights) - 1) and (chain.slopes[i] != 1).any():
            lines = forms.lines(i)
            size = np.maximum(np.abs(forms.lower[i]), np.abs(forms.upper[i]))
            size = size * np.maximum(chain.slopes[i], 1)
            lost = lost + 4 * gamma * dot(np.abs(rows), size)
            up, down = np.maximum(rows, 0), np.minimum(rows, 0)
            shift = shift + dot(up, lines.high_shift) + dot(down, lines.low_shift)
            rows = up * lines.high_slope[:, None] + down * lines.low_slope[:, None]
        lost = lost + 2 * gamma * (dot(np.abs(rows), forms.reach[i]) + forms.slip[i][:, None])
        shift = shift + rows @ chain.biases[i]
        lost = lost + gamma * np.abs(shift)
        rows = rows @ weight
    magnitude = dot(np.abs(rows), np.abs(forms.middle) + forms.radius) + np.abs(shift)
    lost = 1.02 * (lost + chain.gamma(len(chain.weights) * 4) * magnitude).astype(np.float64)
    return Pulled(rows.astype(np.float64), shift + lost, lost)


def dot(rows: Floats, vector: Floats) -> Floats:
    """``rows @ vector`` of each box."""
    return np.matmul(rows, vector[:, :, None])[:, :, 0]
