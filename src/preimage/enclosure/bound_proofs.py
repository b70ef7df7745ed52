"""Proofs that a slice of the bounds holds no code, from the multipliers of a linear program.

Take any multiplier ``rho_i`` for each equation ``a_i = W_i z_{i-1} + b_i``, i > start, and let
``g_{i-1} = W_i' rho_i``. The sum of all ``rho_i (W_i z_{i-1} + b_i - a_i)`` is 0 at every code, so

    0 = sum_i rho_i b_i + sum_ij (g_ij s(a_ij) - rho_ij a_ij) + sum_j g_j z_start,j

(the last layer without its g). Each term has a least value over its interval, taken at an end or
at 0. Where the sum of these least values is above 0, the bounds hold no code at all. A *bound
proof* is such a proof for a part of the bounds: ``a_ij <= t`` (or ``>= t``) is impossible, so that
t becomes the new bound. This is the Lagrangian dual of the relaxation, but it is valid for every
rho, and the least values are those of the graph itself, so that no hull needs to be built to check
it.

Multipliers are kept as ``mu``, with ``rho_ij = pass_ij g_ij + mu_ij``: pass is the slope of units
whose sign is known, and 0 elsewhere.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from preimage.enclosure.network import Bounds, Network, Targets, rounding
from preimage.matrix import Array

# Stands for what underflows; far above 2^-1074 with any rounding factor.
_TINY = 2.0**-900
# Stands for 0 where a proof would just fail at 0 itself.
_ALMOST_ZERO = 2.0**-300
# New ends stop this far, relatively, before the place where the proof would just fail.
_MARGIN = 2.0**-40


class _Kinked(NamedTuple):
    """``m a`` for a <= 0 and ``p a`` for a >= 0, a lower bound on a term; (targets, n) each."""

    m: Array
    p: Array

    def least(self, low: Array, high: Array) -> Array:
        """The least value over [low, high]; NaN where the interval is empty does not occur."""
        ends = np.minimum(self.at(low), self.at(high))
        return np.where((low < 0) & (high > 0), np.minimum(ends, 0.0), ends)

    def at(self, a: Array) -> Array:
        slope = np.where(a >= 0, self.p, self.m)
        with np.errstate(invalid="ignore"):
            return np.where(slope == 0, 0.0, slope * a)


def proven_ends(
    network: Network, bounds: Bounds, start: int, mu: dict[int, Array], targets: Targets
) -> Array:
    """A new end for each target, proven in spite of rounding; the old end where none is proven.

    Args:
        network: The network.
        bounds: What holds.
        start: The lowest layer whose equations are used is ``start + 1``.
        mu: For each layer above start, up to some layer, (targets, n_i).
        targets: In layers from start on.

    Returns:
        (targets,) the new ends; a lower end at or above the upper one proves that there is no
        code.
    """
    sums, g, size = _backward(network, bounds, start, mu, targets)
    sums.add_terms(sums.kinked(network.slopes[start], g, size), start, bounds, targets)
    upper, own, (low, high) = targets.upper, sums.own, bounds.of(targets.layer, targets.unit)
    # An upper end is the lower end of -a.
    line = _Kinked(np.where(upper, -own.p, own.m), np.where(upper, -own.m, own.p))
    ends = _reach(line, np.where(upper, -high, low), np.where(upper, -low, high), sums.rest())
    return np.where(upper, -ends, ends)


def proven_radius(
    network: Network, bounds: Bounds, start: int, mu: dict[int, Array], targets: Targets
) -> float:
    """A bound on the size of all outputs of layer ``start`` that have an infinite end.

    Let t be the largest of these sizes at a code. It is that of one of the targets' ends, and the
    identity of the module's text, with all other such outputs at most t in size, says that
    ``total + rate t <= 0``, where rate is the target's own coefficient less the sizes of the
    others'. With ``R = pinv(W)`` for multipliers this is ``t <= max_i sum_j |R_ij| r_j / (1 - a)``,
    ``a = |I - R W|``.

    Returns:
        The radius; infinite where the multipliers prove none.
    """
    sums, g, size = _backward(network, bounds, start, mu, targets)
    low, high = bounds.outputs(network, start)

    def term(v: Array) -> tuple[Array, Array]:
        """The least value of ``v z``, and how often t is to be taken off it."""
        end = np.where(v > 0, low, high)
        infinite = np.isinf(end)
        return v * np.where(infinite, 0.0, end), np.where(infinite, np.abs(v), 0.0)

    error = sums.error * size
    least, most = g - error, g + error  # of the exact g
    (one, reach), (other, further) = term(least), term(most)
    terms, reach = np.minimum(one, other), np.maximum(reach, further)
    every = np.arange(len(g))
    own = np.where(targets.upper, least[every, targets.unit], -most[every, targets.unit])
    terms[every, targets.unit], reach[every, targets.unit] = 0.0, 0.0
    sums.add(terms, np.abs(terms))
    rate = own - reach.sum(axis=1) * (1 + 1e-9)
    if not (rate > 0).all():
        return float("inf")
    loose = np.isinf(low) | np.isinf(high)
    finite = np.concatenate([end[loose & np.isfinite(end)] for end in (low, high)])
    radius = max((-sums.rest() / rate).max(initial=0.0), np.abs(finite).max(initial=0.0))
    return float(radius * (1 + _MARGIN) + _ALMOST_ZERO)


class _Sums:
    """Sums of least values, (targets,), and what rounding is counted in.

    Every number here is a sum of products. It is wrong by at most ``error`` times its *size*, the
    same sum of absolute values: ``rounding`` of the operations so far (Higham, section 3.1), twice,
    as the size is rounded itself.
    """

    def __init__(self, count: int) -> None:
        self.total, self.size, self.operations = np.zeros(count), np.zeros(count), 4
        self.own = _Kinked(np.zeros(count), np.zeros(count))

    @property
    def error(self) -> float:
        return 2 * rounding(self.operations)

    def kinked(self, c: Array, g: Array, size: Array, mu: Array | float = 0.0) -> _Kinked:
        """``g s(a) - mu a``, whatever rounding did to g."""
        error = self.error
        m_error, p_error = error * (c * size + np.abs(mu)), error * (size + np.abs(mu))
        return _Kinked(c * g - mu + m_error, g - mu - p_error)

    def add(self, values: Array, sizes: Array) -> None:
        self.total += values.sum(axis=1)
        self.size += sizes.sum(axis=1)
        self.operations += values.shape[1]

    def add_terms(self, kinked: _Kinked, layer: int, bounds: Bounds, targets: Targets) -> None:
        """Add the least values of a layer's terms; the target's own term is kept aside."""
        least = kinked.least(bounds.lower[layer], bounds.upper[layer])
        here = np.flatnonzero(targets.layer == layer)
        units = targets.unit[here]
        least[here, units] = 0.0
        self.own.m[here], self.own.p[here] = kinked.m[here, units], kinked.p[here, units]
        self.add(least, np.abs(least))

    def rest(self) -> Array:
        with np.errstate(invalid="ignore"):
            rest = self.total - self.error * (self.size + np.where(self.size > 0, _TINY, 0.0))
        return np.where(np.isnan(rest), -np.inf, rest)


def _backward(
    network: Network, bounds: Bounds, start: int, mu: dict[int, Array], targets: Targets
) -> tuple[_Sums, Array, Array]:
    """All terms above layer start; g there, and its size, (targets, n_start)."""
    top = max(mu)
    sums = _Sums(len(mu[top]))
    g = size = np.zeros_like(mu[top])
    for i in range(top, start, -1):
        slopes = bounds.decided(network, i)
        known = ~np.isnan(slopes)
        share = np.where(known, slopes, 0.0)
        open_ = sums.kinked(network.slopes[i], g, size, mu[i])
        # Where the slope is known, it cancels: the term is -mu a.
        kinked = _Kinked(*(np.where(known | (size == 0), -mu[i], part) for part in open_))
        sums.add_terms(kinked, i, bounds, targets)
        rho, size = share * g + mu[i], share * size + np.abs(mu[i])
        used = np.flatnonzero(size.any(axis=0))
        rho, size, bias = rho[:, used], size[:, used], network.biases[i][used]
        sums.add(rho * bias, size * np.abs(bias))
        sums.operations += 4
        weight = network.weights[i].dense[used]
        g, size = rho @ weight, size @ np.abs(weight)
        size = np.where(size > 0, size + _TINY, 0.0)
    return sums, g, size


def _reach(line: _Kinked, low: Array, high: Array, rest: Array) -> Array:
    """The largest t with ``line + rest > 0`` on all of [low, t]; low where there is none.

    Infinite where t is the whole interval.
    """
    need = np.where(rest == 0, _ALMOST_ZERO, -rest)
    with np.errstate(invalid="ignore", divide="ignore"):
        started = line.at(low) > need
        # Below 0 a falling line meets a positive need at need / m; all others go on to 0.
        stop = np.where(need > 0, np.where(line.m < 0, need / line.m, low), np.inf)
        # From there, or from a positive low, it must fall to fail.
        fall = np.where(line.p < 0, need / line.p, np.inf)
        t = np.where((low < 0) & ((need > 0) | (high <= 0)), stop, fall)
        t = np.where(t < high, t - _MARGIN * np.abs(t), np.inf)
    return np.where(started & ~np.isnan(t), np.maximum(t, low), low)
