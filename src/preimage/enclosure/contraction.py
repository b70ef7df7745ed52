"""Boxes of codes cut down to what an observation allows, many at once.

A row v of the output, pulled back through the network, gives ``v @ G(z) <= g @ z + h`` over a box.
Codes that explain an observation have ``v @ G(z) >= need``, so that ``g @ z >= need - h``: a
half-space, which cuts the box or misses it. Any v is valid; see ``rows``.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from preimage import lp
from preimage.enclosure.linear_bounds import Forms, in_range, linear_bounds, pull_back
from preimage.enclosure.network import UNIT, Network, rounding
from preimage.enclosure.rows import least_squares_rows
from preimage.engine import processors
from preimage.errors import InputError
from preimage.layer_program import LayerProgram
from preimage.matrix import Array, Flags, dot
from preimage.slab import Slab

# Multipliers below this part of a row's largest are left out.
_TINY = 1e-10
# Linear programs are asked where least squares leave more than this of every side.
_LITTLE = 0.7
# Where rounding makes up more than this part of the intervals, float32 is not enough.
_COARSE = 0.02
# A box is refuted with so much to spare, in parts of the range of the row that refutes it: another
# program, with other rounding and slightly other rows, has to prove it again.
_SPARE = 1e-4


@dataclass(frozen=True, eq=False)
class Interval:
    """``low <= a <= high`` for the last layer's pre-activations: l-infinity, any head.

    Attributes:
        low: (n,) maybe infinite.
        high: (n,).
    """

    low: Array
    high: Array
    values: bool = False  # rows are of pre-activations

    def near(self, forms: Forms) -> tuple[Array, Array]:
        """A point among the admitted outputs of each box, and the half-width around it."""
        low, high = self.ends(forms)
        return (low + high) / 2, np.maximum(high - low, 0.0) / 2

    def least(self, forms: Forms, rows: Array) -> Array:
        """The least value of ``rows`` (boxes, rows, n) over them, rounded down, (boxes, rows)."""
        low, high = self.ends(forms)
        known_low, known_high = np.isfinite(low)[:, None], np.isfinite(high)[:, None]
        nothing = (((rows > 0) & ~known_low) | ((rows < 0) & ~known_high)).any(axis=2)
        low, high = (np.where(np.isfinite(end), end, 0.0) for end in (low, high))
        up, down = np.maximum(rows, 0.0), np.minimum(rows, 0.0)
        total = dot(up, low) + dot(down, high)
        size = dot(np.abs(rows), np.maximum(np.abs(low), np.abs(high)))
        return np.where(nothing, -np.inf, total - rounding(rows.shape[2] + 8) * size)

    def ends(self, forms: Forms) -> tuple[Array, Array]:
        """Both ends for each box, (boxes, n); one that is open is that of the box."""
        return np.maximum(self.low, forms.lower[-1].T), np.minimum(self.high, forms.upper[-1].T)


@dataclass(frozen=True, eq=False)
class Ball:
    """``||y - x||_2 <= radius`` for the last layer's values.

    Attributes:
        x: (n,).
        radius: At least 0.
    """

    x: Array
    radius: float
    values: bool = True  # rows are of values

    def near(self, forms: Forms) -> tuple[Array, Array]:
        """As of ``Interval``."""
        shape = (len(forms.center), len(self.x))
        half = self.radius / len(self.x) ** 0.5
        return np.broadcast_to(self.x, shape), np.full(shape, half)

    def least(self, _forms: Forms, rows: Array) -> Array:
        """As of ``Interval``."""
        return self.distance(rows) - self.radius * self.length(rows)

    def distance(self, rows: Array) -> Array:
        """``rows @ x``, rounded down."""
        size = np.abs(rows) @ np.abs(self.x)
        return rows @ self.x - rounding(rows.shape[2] + 4) * size

    def length(self, rows: Array) -> Array:
        """The norm of each row, rounded up."""
        return np.linalg.norm(rows, axis=2) * (1 + rounding(rows.shape[2] + 8))


# The outputs that explain an observation.
Admitted = Interval | Ball


class Contraction(NamedTuple):
    """What is left of each box.

    Attributes:
        empty: (boxes,) whether nothing is.
        low: (boxes, k) of what is left.
        high: (boxes, k).
        excess: (boxes,) by how much the better of the first two rows fails to refute the box, in
            units of what it gains: 0 and below refutes.
        influence: (boxes, k) how far each coordinate moves the outputs over what is left.
        misfit: (boxes,) for a ball, a lower bound on the misfit of all codes of the box.
        noisy: (boxes,) whether the noise outweighs what open units add.
        rows: (boxes, 2 k, n) multipliers of linear programs; 0 where none were asked for.
    """

    empty: Flags
    low: Array
    high: Array
    excess: Array
    influence: Array
    misfit: Array
    noisy: Flags
    rows: Array

    def replace(self, some: Flags, better: Contraction) -> None:
        """Put what was found for some of the boxes in place."""
        for part, other in zip(self, better, strict=True):
            part[some] = other


@dataclass(frozen=True, eq=False)
class Contractor:
    """Cuts boxes for one network, by forms in float32 where that is enough, else in float64.

    Attributes:
        coarse: The network in float32, or again in float64 if float32 cannot hold it.
        fine: In float64.
    """

    coarse: Network
    fine: Network

    @staticmethod
    def of(network: Network) -> Contractor:
        """Prepare a network once.

        Raises:
            InputError: Its weights are too large or too small to bound what rounding does.
        """
        if not in_range(network, np.float64):
            raise InputError("weights: expected sizes from 1e-120 to 1e120, or 0")
        coarse = network.cast(np.float32) if in_range(network, np.float32) else network
        return Contractor(coarse, network)

    @property
    def batch(self) -> int:
        """Boxes that are worth taking at once."""
        widths = [len(b) for b in self.fine.biases[1:]]
        each = int(np.clip(16e6 / (max(widths) * sum(widths[:-3]) + 1), 2, 64))
        return each * processors()

    def contract(self, low: Array, high: Array, admitted: Admitted) -> Contraction:
        """Cut each box to what the admitted outputs leave of it.

        Args:
            low: (boxes, k).
            high: (boxes, k).
            admitted: The outputs that explain the observation.
        """
        shares = np.array_split(np.arange(len(low)), min(processors(), len(low)))
        with ThreadPoolExecutor(len(shares)) as pool:
            parts = list(pool.map(lambda i: self._both(low[i], high[i], admitted), shares))
        found = Contraction(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
        left = ((found.high - found.low) > _LITTLE * (high - low)).all(axis=1)
        some = found.noisy & ~found.empty & left
        if isinstance(admitted, Interval) and some.any():
            low, high = low[some], high[some]
            with np.errstate(all="ignore"):
                forms = linear_bounds(self.fine, low, high)
                rows = _program_rows(forms, admitted)
                found.replace(some, _contract(self.fine, forms, low, high, admitted, rows))
        return found

    def _both(self, low: Array, high: Array, admitted: Admitted) -> Contraction:
        """By forms in float32, and again in float64 where those were too coarse."""
        with np.errstate(all="ignore"):  # what is not finite proves nothing
            forms = linear_bounds(self.coarse, low, high)
            found = _contract(self.fine, forms, low, high, admitted)
            again = ~found.empty & (forms.rounding > _COARSE)
            if again.any() and self.coarse is not self.fine:
                low, high = low[again], high[again]
                forms = linear_bounds(self.fine, low, high)
                found.replace(again, _contract(self.fine, forms, low, high, admitted))
        return found


def _contract(
    network: Network, forms: Forms, low: Array, high: Array, admitted: Admitted,
    extra: Array | None = None,
) -> Contraction:  # fmt: skip
    """What is left of boxes; the network is in float64, ``extra`` are more rows to use."""
    rows, gain, noisy = _rows(forms, admitted, network.slopes[-1])
    programs = np.zeros((len(low), 2 * low.shape[1], rows.shape[2])) if extra is None else extra
    if extra is not None:
        rows = np.concatenate([rows, extra], axis=1)
    middle, radius = forms.middle, forms.radius
    pulled = pull_back(network, forms, rows, admitted.values)
    scaled = pulled.slope * radius[:, None]
    need = admitted.least(forms, rows)
    span = np.abs(scaled).sum(axis=2)
    size = dot(np.abs(pulled.slope), np.abs(middle)) + span
    top = dot(pulled.slope, middle) + span + pulled.shift
    top = top + rounding(middle.shape[1] + 12) * (size + np.abs(pulled.shift) + np.abs(need))
    slack = np.where(np.isfinite(top - need), top - need, np.inf)
    new_low, new_high = _cut(low, high, middle, radius, scaled, slack)
    empty = np.asarray((slack < -_SPARE * span).any(axis=1))
    # Cuts that cross refute a box, too, but by two rows together, which ``certify.boxes`` does not
    # know: such a box is split.
    crossed = np.asarray((new_low > new_high).any(axis=1))[:, None]
    new_low, new_high = np.where(crossed, low, new_low), np.where(crossed, high, new_high)
    misfit = np.zeros(len(low))
    if isinstance(admitted, Ball):
        bound = (admitted.distance(rows) - top) / admitted.length(rows)
        misfit = np.maximum(np.nan_to_num(bound, nan=0.0).max(axis=1) * (1 - 8 * UNIT), 0.0)
    left = np.where(empty[:, None], 0.0, (new_high - new_low) / 2)
    unit = np.sqrt((forms.linear**2).sum(axis=2)) / radius
    excess = np.where(gain > 0, slack[:, :2] / np.where(gain > 0, gain, 1.0), np.inf).min(axis=1)
    return Contraction(empty, new_low, new_high, excess, unit * left, misfit, noisy, programs)


def _cut(
    low: Array, high: Array, middle: Array, radius: Array, scaled: Array, slack: Array
) -> tuple[Array, Array]:
    """What half-spaces leave of each box.

    A row prefers the end ``t_j = sign(scaled_j)`` and can be ``slack`` worse than its best, so that
    ``t_j`` is no farther from that end than ``slack / |scaled_j|``.
    """
    reach = np.where(scaled != 0, 1.0 - slack[:, :, None] / np.abs(scaled), -np.inf)
    reach = reach - 16 * UNIT * (1 + np.abs(reach))
    least = np.where(scaled > 0, reach, -np.inf).max(axis=1)
    most = -np.where(scaled < 0, reach, -np.inf).max(axis=1)
    small = 8 * UNIT * (np.abs(middle) + radius)
    new_low = np.maximum(low, np.where(least > -1, middle + radius * least - small, low))
    new_high = np.minimum(high, np.where(most < 1, middle + radius * most + small, high))
    return new_low, new_high


def _program_rows(forms: Forms, admitted: Interval) -> Array:
    """Multipliers of the linear programs that bound each coordinate of t, (boxes, 2 k, n).

    minimise +-t_j  subject to  low <= c + A t <= high, each widened by two deviations,  |t| <= 1
    """
    count, k, n = forms.linear.shape
    low, high = (end - forms.center for end in admitted.ends(forms))
    slack = 2 * np.sqrt(forms.variance)
    zero = np.zeros((2 * k * count, n))
    slab = Slab(np.repeat(low - slack, 2 * k, 0), zero, np.repeat(high + slack, 2 * k, 0), zero)
    objective = np.tile(np.concatenate([np.eye(k), -np.eye(k)]), (count, 1))
    weight = np.repeat(forms.linear.transpose(0, 2, 1), 2 * k, 0)
    found = lp.kernel.minimise(LayerProgram(weight, slab, "none", objective, (-1.0, 1.0)))
    rows = np.nan_to_num(found.dual_lower - found.dual_upper).reshape(count, 2 * k, n)
    largest = np.abs(rows).max(axis=2, keepdims=True)
    rows = np.where(np.abs(rows) > _TINY * largest, rows, 0.0)
    return rows / np.where(largest > 0, largest, 1.0)


def _rows(forms: Forms, admitted: Admitted, c: Array) -> tuple[Array, Array, Flags]:
    """Rows of least squares; see there."""
    center, linear = forms.center, forms.linear
    if admitted.values and (c != 1).any():
        on = np.where(center >= 0, 1.0, c)
        center, linear = on * center, on[:, None] * linear
    return least_squares_rows(center, linear, forms.variance, *admitted.near(forms))
