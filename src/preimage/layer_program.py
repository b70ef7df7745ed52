"""One layer's inversion as a linear program: the only place that builds one.

With the slab ``[lower - lower_rate d, upper + upper_rate d]`` of each row (``slab.Slab``),
the weight W and the domain ``[low, high]`` of the input z, the four programs are

    linf     minimise  d               over z, d >= 0    (paper, Algorithm 1 without d <= eps)
    l1       minimise  sum_j e_j       over z, e >= 0    (paper, Algorithm 2)
    relaxed  maximise  sum_j max(0, x_j) (w_j z + b_j)   (paper, equation 8)
    linear   minimise  c z

    subject to  lower_j - lower_rate_j d  <=  w_j z + b_j  <=  upper_j + upper_rate_j d
                low <= z <= high

where row j has its own ``d = e_j`` under l1, and ``d`` is the constant ``eps`` in the last two.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import scipy

from preimage.generator import Layer
from preimage.matrix import Array, Flags, Indices, Weight, dot, multiply
from preimage.observation import Observation
from preimage.scaling import Scaled, scale
from preimage.slab import Slab

Norm = Literal["linf", "l1", "relaxed"]
Slack = Literal["shared", "own", "none"]
NORMS: tuple[Norm, ...] = ("linf", "l1", "relaxed")


@dataclass(frozen=True, eq=False)
class LayerProgram:
    """A batch of programs, each sample with its own bounds, over one matrix or one a sample.

    Attributes:
        weight: (n, k), shared by the batch, dense or CSR; or (batch, n, k), one a sample.
        slab: Bounds on ``weight @ z`` (the bias is already subtracted), each part (batch, n).
        slack: How ``delta`` enters: ``"shared"`` (one a sample, l-infinity), ``"own"`` (one a
            row, l1) or ``"none"`` (the rates are not used).
        objective: (batch, k), minimised together with the sum of all slacks.
        domain: Ends of the interval of every entry of z: numbers, or arrays that broadcast to
            (batch, k).
        prepared: The units of ``weight`` if they are known already, as a ``Layer`` keeps them.
    """

    weight: Weight
    slab: Slab
    slack: Slack
    objective: Array
    domain: tuple[Array | float, Array | float]
    prepared: Scaled | None = None

    def __len__(self) -> int:
        return len(self.objective)

    def weight_of(self, sample: int) -> Weight:
        """(n, k), the matrix of one sample."""
        return self.weight[sample] if self.weight.ndim == 3 else self.weight

    def box(self) -> tuple[Array, Array]:
        """The domain as two (batch, k) arrays (read-only views)."""
        low, high = (np.broadcast_to(end, self.objective.shape) for end in self.domain)
        return low, high

    def within(self, size: Array) -> LayerProgram:
        """The same with ``|z| <= size``, too, (k,) or (batch, k)."""
        low, high = self.box()
        return replace(self, domain=(np.maximum(low, -size), np.minimum(high, size)))

    @property
    def scaled(self) -> Scaled:
        """The units of the weight, found at the first call."""
        if self.prepared is None or self.prepared.weight is not self.weight:
            object.__setattr__(self, "prepared", scale(self.weight))
        return self.prepared  # type: ignore[return-value]

    @property
    def sizes(self) -> tuple[Array, Array]:
        """Of rows and columns, (n,) and (k,) or one a sample: ``|w_ja| <= row_j column_a``.

        A row of zeros has the size 0 and a column of zeros the size 1.
        """
        column = self.scaled.column_size
        return self.scaled.row_size, np.where(column > 0, column, 1.0)

    def image(self, z: Array) -> Array:
        """``weight @ z`` of each sample, (batch, n)."""
        if self.weight.ndim == 3:
            return dot(self.weight, z)
        return multiply(self.weight, z)

    def adjoint(self, y: Array) -> Array:
        """``weight.T @ y`` of each sample, (batch, k)."""
        if self.weight.ndim == 3:
            return np.matmul(y[:, None, :], self.weight)[:, 0]
        return multiply(self.weight.T, y)

    @property
    def magnitude(self) -> LayerProgram:
        """The same over ``|weight|``: its products are the sizes of sums that may cancel."""
        return replace(self, weight=abs(self.weight))

    def violation(self, z: Array) -> Array:
        """How much slack each row needs at ``z``, (batch, n); recomputed, never the solver's word.

        Rows without a rate (or a program without slacks) count in units of the pre-activation.
        """
        a = self.image(z)
        short, long = self.slab.lower - a, a - self.slab.upper
        if self.slack != "none":
            for need, rate in (short, self.slab.lower_rate), (long, self.slab.upper_rate):
                np.divide(need, rate, out=need, where=rate > 0)
        return np.maximum(np.maximum(short, long), 0.0)

    def slack_at(self, z: Array) -> Array:
        """(batch,) largest (shared, none) or summed (own) slack needed at ``z``."""
        need = self.violation(z)
        return need.sum(axis=1) if self.slack == "own" else need.max(axis=1, initial=0.0)

    def finite_sides(self, sample: int) -> tuple[Indices, Indices]:
        """Rows of one sample that are bounded above, and those that are bounded below."""
        upper, lower = self.slab.upper[sample], self.slab.lower[sample]
        return np.flatnonzero(upper < np.inf), np.flatnonzero(lower > -np.inf)

    def linear_program(self, sample: int) -> LinearProgram:
        """Write one sample in the general form that library solvers take.

        The variables are z, then the slacks; each finite side of each row is one inequality:

            [  W  -U ] [z]     [ upper ]
            [ -W  -L ] [d] <=  [-lower ],    low <= z <= high,   d >= 0

        with U, L the rates in one column (shared), on a diagonal (own), or absent (none).
        """
        weight, (above, below) = self.weight_of(sample), self.finite_sides(sample)
        lower, lower_rate, upper, upper_rate = (part[sample] for part in self.slab)
        rates = -np.concatenate([upper_rate[above], lower_rate[below]])
        slacks = rates[:, None] if self.slack == "shared" else np.empty((len(rates), 0))
        if self.slack == "own":  # the matrix is mostly zeros
            entries = (rates, (np.arange(len(rates)), np.concatenate([above, below])))
            slacks = scipy.sparse.csr_array(entries, shape=(len(rates), len(lower)))
            weight = scipy.sparse.csr_array(weight)
        sides = [weight[above], -weight[below]]
        if scipy.sparse.issparse(weight):
            matrix = scipy.sparse.hstack([scipy.sparse.vstack(sides), slacks], format="csr")
        else:  # which is faster for the small programs that HiGHS is asked for
            matrix = np.hstack([np.vstack(sides), slacks])
        (low, high), count = self.box(), slacks.shape[1]
        return LinearProgram(
            cost=np.concatenate([self.objective[sample], np.ones(count)]),
            matrix=matrix,
            bound=np.concatenate([upper[above], -lower[below]]),
            lower=np.concatenate([low[sample], np.zeros(count)]),
            upper=np.concatenate([high[sample], np.full(count, np.inf)]),
        )


def take(program: LayerProgram, samples: Indices | slice) -> LayerProgram:
    """The programs of some samples."""
    low, high = program.box()
    return replace(
        program,
        weight=program.weight[samples] if program.weight.ndim == 3 else program.weight,
        slab=Slab(*(part[samples] for part in program.slab)),
        objective=program.objective[samples],
        domain=(low[samples], high[samples]),
    )


@dataclass(frozen=True, eq=False)
class LinearProgram:
    """``minimise cost @ v  subject to  least <= matrix @ v <= bound, lower <= v <= upper``.

    Attributes:
        cost: (variables,).
        matrix: (rows, variables), dense or CSR.
        bound: (rows,).
        lower: (variables,).
        upper: (variables,).
        least: (rows,); None for minus infinity.
        integer: (variables,) which variables are whole numbers; None for none.
    """

    cost: Array
    matrix: Weight
    bound: Array
    lower: Array
    upper: Array
    least: Array | None = None
    integer: Flags | None = None


def layer_program(
    layer: Layer,
    observation: Observation,
    tolerance: Array,
    norm: Norm,
    domain: tuple[Array | float, Array | float],
) -> LayerProgram:
    """The program that inverts ``layer`` at its outputs x, possibly noisy, with tolerance eps.

    Args:
        layer: Weight, bias and activation.
        observation: Of the outputs x, (batch, n).
        tolerance: (batch,) eps: rows with ``x_j <= eps`` count as inactive, each eps in units of
            its row's own.
        norm: ``"linf"``, ``"l1"`` or ``"relaxed"``.
        domain: Interval that holds every input of the layer.
    """
    x, eps = observation.values, tolerance[:, None] * observation.spread
    slack: Slack
    if norm == "relaxed":
        # Values outside the range are noise, so they push no further than its ends do; a row
        # at act(0) says nothing about its sign, so it does not push at all.
        activation = layer.activation
        push = observation.seen(np.clip(x, *activation.range) - activation(np.zeros(1)))
        slab, slack = activation.relaxed_slab(x, eps), "none"
        objective = -layer.adjoint(push)
    else:
        slab, slack = layer.activation.slab(x, eps), "own" if norm == "l1" else "shared"
        objective = np.zeros((len(x), layer.input_size))
    slab = slab._replace(lower=slab.lower - layer.bias, upper=slab.upper - layer.bias)
    rows = observation.admit(slab)
    return LayerProgram(layer.weight, rows, slack, objective, domain, layer.scaled)
