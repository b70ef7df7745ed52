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

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from preimage.enclosure.network import UNIT, Array, Bounds, Network, Targets, rounding

_TINY = 2.0**-1000
# Stands for 0 where a proof would just fail at 0 itself.
_ALMOST_ZERO = 2.0**-300
# New ends stop this far, relatively, before the place where the proof would just fail.
_MARGIN = 2.0**-40


@dataclass(frozen=True, eq=False)
class BoundProof:
    """``a < value`` is impossible for this unit, or ``a > value`` where ``upper``.

    Attributes:
        layer: 0 for the code itself.
        unit: Its number.
        upper: Which end.
        value: The new end.
        start: The lowest layer whose equations are used is ``start + 1``.
        multipliers: For each layer from start + 1 on, as far as needed: units, and their mu.
    """

    layer: int
    unit: int
    upper: bool
    value: float
    start: int
    multipliers: list[tuple[NDArray[np.intp], Array]]


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
    network: Network,
    bounds: Bounds,
    start: int,
    mu: dict[int, Array],
    targets: Targets,
) -> Array:
    """A new end for each target, proven in spite of rounding; the old end where none is proven.

    Args:
        network: The network.
        bounds: What holds.
        start: See ``BoundProof``.
        mu: For each layer above start, up to some layer, (targets, n_i).
        targets: In layers from start on.

    Returns:
        (targets,) the new ends; a lower end at or above the upper one proves that there is no
        code.
    """
    sums, g, g_error = _backward(network, bounds, start, mu, targets)
    c, error = network.slopes[start], g_error + 4 * UNIT * np.abs(g)
    kinked = _outward(c * g, g, np.where(c > 0, (c + 4 * UNIT) * error, 0.0), error)
    sums.add_terms(kinked, start, bounds, targets)
    rest, own = sums.rest(), sums.own
    ends = np.empty(len(rest))
    for upper in (False, True):
        rows = np.flatnonzero(targets.upper == upper)
        low, high = bounds.of(targets.take(rows))
        line = _Kinked(own.m[rows], own.p[rows])
        if upper:
            ends[rows] = -_reach(_Kinked(-line.p, -line.m), -high, -low, rest[rows])
        else:
            ends[rows] = _reach(line, low, high, rest[rows])
    return ends


def proven_radius(
    network: Network,
    bounds: Bounds,
    start: int,
    mu: dict[int, Array],
    targets: Targets,
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
    sums, g, g_error = _backward(network, bounds, start, mu, None)
    low, high = bounds.outputs(network, start)
    loose = np.isinf(low) | np.isinf(high)
    error = g_error + 4 * UNIT * np.abs(g)
    least, most = g - error, g + error  # of the exact g
    bounded = np.minimum(
        _Kinked(least, least).least(low, high), _Kinked(most, most).least(low, high)
    )
    # Where an end is infinite, t stands for it, and the other end for itself.
    reach = np.where(np.isinf(high), np.maximum(-least, 0.0), 0.0)
    reach = reach + np.where(np.isinf(low), np.maximum(most, 0.0), 0.0)
    with np.errstate(invalid="ignore"):
        fixed = np.minimum(least * low, most * low), np.minimum(least * high, most * high)
    fixed_low = np.where((most > 0) & np.isfinite(low), np.minimum(fixed[0], 0.0), 0.0)
    fixed_high = np.where((least < 0) & np.isfinite(high), np.minimum(fixed[1], 0.0), 0.0)
    terms = np.where(loose, fixed_low + fixed_high, bounded)
    every = np.arange(len(g))
    own = np.where(targets.upper, least[every, targets.unit], -most[every, targets.unit])
    terms[every, targets.unit], reach[every, targets.unit] = 0.0, 0.0
    sums.add(terms)
    rate = own - np.where(loose, reach, 0.0).sum(axis=1) * (1 + 1e-9)
    if not (rate > 0).all():
        return float("inf")
    finite = np.concatenate([end[loose & np.isfinite(end)] for end in (low, high)])
    radius = max((-sums.rest() / rate).max(initial=0.0), np.abs(finite).max(initial=0.0))
    return float(radius * (1 + _MARGIN) + _ALMOST_ZERO)


class _Sums:
    """Sums of least values, (targets,), with what rounding may have done to them."""

    def __init__(self, count: int) -> None:
        self.total, self.size, self.terms = np.zeros(count), np.zeros(count), 2
        self.own = _Kinked(np.zeros(count), np.zeros(count))

    def add(self, values: Array) -> None:
        self.total += values.sum(axis=1)
        self.size += np.abs(values).sum(axis=1)
        self.terms += values.shape[1]

    def add_terms(
        self, kinked: _Kinked, layer: int, bounds: Bounds, targets: Targets | None
    ) -> None:
        least = kinked.least(bounds.lower[layer], bounds.upper[layer])
        if targets is not None:
            # The target's own term is kept aside.
            here = np.flatnonzero(targets.layer == layer)
            units = targets.unit[here]
            least[here, units] = 0.0
            self.own.m[here], self.own.p[here] = kinked.m[here, units], kinked.p[here, units]
        self.add(least)

    def rest(self) -> Array:
        with np.errstate(invalid="ignore"):
            lost = 2 * rounding(self.terms) * self.size + np.where(self.size > 0, _TINY, 0.0)
            rest = self.total - lost
        return np.where(np.isnan(rest), -np.inf, rest)


def _backward(
    network: Network,
    bounds: Bounds,
    start: int,
    mu: dict[int, Array],
    targets: Targets | None,
) -> tuple[_Sums, Array, Array]:
    """All terms above layer start; g there, and a bound on its error, (targets, n_start)."""
    top = max(mu)
    count = len(mu[top])
    sums = _Sums(count)
    g, g_error = np.zeros((count, network.sizes[top])), np.zeros((count, 1))
    for i in range(top, start, -1):
        c = network.slopes[i]
        if i == top:
            kinked, rho, rho_error = _Kinked(-mu[i], -mu[i]), mu[i], np.zeros((count, 1))
        else:
            slopes = bounds.decided(network, i)
            known = ~np.isnan(slopes)
            share = np.where(known, slopes, 0.0)
            rho = share * g + mu[i]
            rounded = 4 * UNIT * (np.abs(g) + np.abs(mu[i]))
            rho_error = np.where(known, g_error + rounded, 0.0) * np.maximum(share, UNIT)
            rho_error = rho_error + np.where(known, rounded, 0.0)
            m_error = np.where(c > 0, (c + 4 * UNIT) * g_error + (1 + c) * rounded, 0.0)
            open_ = _outward(c * g - mu[i], g - mu[i], m_error, g_error + rounded)
            # Where the slope is known, it cancels: the term is -mu a.
            kinked = _Kinked(np.where(known, -mu[i], open_.m), np.where(known, -mu[i], open_.p))
        sums.add_terms(kinked, i, bounds, targets)
        weight, magnitude, bias = network.weights[i], network.magnitudes[i], network.biases[i]
        used = np.flatnonzero(rho.any(axis=0))
        weight, magnitude, rho, bias = weight[used], magnitude[used], rho[:, used], bias[used]
        rho_error = rho_error[:, used] if rho_error.shape[1] > 1 else rho_error
        size = np.abs(rho)
        sums.add(rho * bias)
        sums.total -= 2 * ((np.zeros_like(rho) + rho_error) @ np.abs(bias))
        g = rho @ weight
        g_error = 1.001 * ((rounding(len(used) + 2) * size + rho_error) @ magnitude)
        g_error = np.where(g_error > 0, g_error + _TINY, 0.0)
    return sums, g, g_error


def _outward(m: Array, p: Array, m_error: Array, p_error: Array) -> _Kinked:
    return _Kinked(m + m_error, p - p_error)


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
