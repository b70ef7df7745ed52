"""Neighbouring linear pieces: hidden units switched over, one at a time.

Where a descent ends, the code is the least-squares minimiser of its own linear piece (or lies on a
kink). Let a unit of a hidden layer have pre-activation ``a``, slope ``d``, and slope ``d + s`` on
the other side of the kink; ``v`` is the gradient of ``a`` in z, ``u`` the derivative of the outputs
in the unit's value. The neighbouring piece is affine, too,

    G_j(z + dz) = G(z) + s a u + (J + s u v^T) dz,

and its normal matrix differs from ``M = J^T J`` by two ranks,

    M + s (c v^T + v c^T) + s^2 |u|^2 v v^T,     c = J^T u,

so that M serves all units (Woodbury's formula, with a 2 x 2 system for each).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from preimage.generator import Generator, multiply, multiply_adjoint, multiply_columns
from preimage.methods.joint.compiled import negative_slopes
from preimage.methods.joint.least_squares import Indices, LeastSquares
from preimage.methods.joint.step import squares

Array = NDArray[np.float64]

# Units a layer whose flips are worked out: those nearest to their kinks.
_NEAREST = 64
# Keeps a singular matrix solvable, relative to its diagonal.
_RIDGE = 1e-8
# Entries of derivatives that are held at a time.
_ENTRIES = 2**22


class Neighbours(NamedTuple):
    """Minimisers of neighbouring pieces, (runs, count, k), and the losses there, best first."""

    z: Array
    loss: Array


def neighbours(problem: LeastSquares, z: Array, samples: Indices, count: int) -> Neighbours:
    """The ``count`` most promising neighbours of each code; losses are infinite beyond the last.

    Args:
        problem: What is minimised.
        z: (runs, k).
        samples: (runs,).
        count: Of neighbours.
    """
    runs, k = z.shape
    found = Neighbours(np.repeat(z[:, None], count, axis=1), np.full((runs, count), np.inf))
    if problem.chain is None:
        return found
    each = max(problem.chain.sizes) * (k + _NEAREST)
    size = max(_ENTRIES // max(each, 1), 1)
    for first in range(0, runs, size):
        part = slice(first, first + size)
        own = _neighbours(problem, problem.chain, z[part], samples[part])
        order = np.argsort(own.loss, axis=1, kind="stable")[:, :count]
        kept = order.shape[1]
        found.loss[part, :kept] = np.take_along_axis(own.loss, order, axis=1)
        found.z[part, :kept] = np.take_along_axis(own.z, order[:, :, None], axis=1)
    return found


def _neighbours(problem: LeastSquares, chain: Generator, z: Array, samples: Indices) -> Neighbours:
    """All of them, in no order."""
    k = z.shape[1]
    preactivations = chain.preactivations(z)
    derivatives = chain.derivatives(preactivations)
    observation = problem.observation.take(samples)
    derivatives[-1] = observation.restrict(derivatives[-1])
    error = observation.error(chain.layers[-1].activation(preactivations[-1]))
    below, gradients = np.broadcast_to(np.eye(k), (len(z), k, k)), []
    for layer, d in zip(chain.layers, derivatives, strict=True):
        gradients.append(multiply_columns(layer.weight, below))
        below = d[:, :, None] * gradients[-1]
    model = _Model(problem, below, error, z)
    steps, losses = [np.zeros((len(z), 0, k))], [np.zeros((len(z), 0))]
    # Derivatives of the outputs, pulled back to the values of each layer: J and the error.
    pulled = np.concatenate([below, error[:, :, None]], axis=2)
    for index in reversed(range(len(chain.layers) - 1)):
        above = chain.layers[index + 1]
        pulled = _pull(above.weight, derivatives[index + 1][:, :, None] * pulled)
        slopes = negative_slopes(chain.layers[index].activation, chain.layers[index].output_size)
        if slopes is None:
            continue
        units = model.nearest(preactivations[index], gradients[index], slopes)
        size = _influence_sizes(chain, derivatives, index, units)
        at = np.arange(len(z))[:, None], units
        s = 1.0 + slopes[units] - 2.0 * derivatives[index][at]
        step, loss = model.minimise(
            gradients[index][at], pulled[at], size, s, preactivations[index][at]
        )
        steps.append(step)
        losses.append(loss)
    return Neighbours(z[:, None] + np.concatenate(steps, axis=1), np.concatenate(losses, axis=1))


def _pull(weight: object, columns: Array) -> Array:
    """``weight.T @ columns``, (runs, outputs, width) to (runs, inputs, width)."""
    runs, outputs, width = columns.shape
    if isinstance(weight, np.ndarray):
        return np.matmul(weight.T, columns)
    rows = np.swapaxes(columns, 1, 2).reshape(runs * width, outputs)
    return np.swapaxes(multiply_adjoint(weight, rows).reshape(runs, width, -1), 1, 2)


def _influence_sizes(
    chain: Generator, derivatives: list[Array], index: int, units: Indices
) -> Array:
    """(runs, count) ``|u|^2`` of some units of layer ``index``."""
    first, *later = range(index + 1, len(chain.layers))
    weight = chain.layers[first].weight
    if not later:
        return np.take_along_axis(
            multiply(_squared(weight).T, derivatives[first] ** 2), units, axis=1
        )
    dense = chain.layers[first].dense_weight.T[units]
    columns = np.swapaxes(dense * derivatives[first][:, None], 1, 2)
    for i in later:
        columns = derivatives[i][:, :, None] * multiply_columns(chain.layers[i].weight, columns)
    return np.einsum("rmc,rmc->rc", columns, columns)


def _squared(weight: Array) -> Array:
    """Entry by entry."""
    return weight * weight if isinstance(weight, np.ndarray) else weight.multiply(weight).tocsr()


class _Model:
    """The linear piece of each code, its normal matrix factored once for all neighbours."""

    def __init__(self, problem: LeastSquares, jacobian: Array, error: Array, z: Array) -> None:
        k, prior = z.shape[1], problem.prior
        self.matrix = np.matmul(np.swapaxes(jacobian, 1, 2), jacobian) + prior * np.eye(k)
        diagonal = np.einsum("raa->ra", self.matrix)
        diagonal += _RIDGE * np.where(diagonal > 0, diagonal, 1.0)
        self.slope = np.matmul(error[:, None], jacobian)[:, 0] - prior * z
        self.loss = 0.5 * (squares(error) + prior * squares(z))

    def solve(self, rows: Array) -> Array:
        """``M^-1 row`` of each, (runs, count, k)."""
        found = np.linalg.solve(self.matrix, np.swapaxes(rows, 1, 2))
        return np.swapaxes(found, 1, 2)

    def nearest(self, a: Array, gradient: Array, slopes: Array) -> Indices:
        """(runs, count) units by their distance to the kink in the metric of M, nearest first."""
        spread = np.einsum("ruk,ruk->ru", gradient, self.solve(gradient))
        distance = np.abs(a) / np.sqrt(np.maximum(spread, 1e-300))
        distance[:, slopes == 1.0] = np.inf
        return np.argsort(distance, axis=1, kind="stable")[:, :_NEAREST]

    def minimise(
        self, v: Array, pulled: Array, size: Array, s: Array, a: Array
    ) -> tuple[Array, Array]:
        """Steps to the neighbours' minimisers, (runs, count, k), and the losses there.

        Args:
            v: (runs, count, k) gradients of the units' pre-activations.
            pulled: (runs, count, k + 1) c, and ``u . error``.
            size: (runs, count) ``|u|^2``.
            s: (runs, count) changes of the slope; 0 for none.
            a: (runs, count) pre-activations.
        """
        c, along = pulled[:, :, :-1], pulled[:, :, -1]
        safe = np.where(s == 0, 1.0, s)
        iv, ic = self.solve(v), self.solve(c)
        # The slope of the neighbour at z is slope + on_c c + on_v v; y is what M makes of it.
        on_c, on_v = -safe * a, safe * (along - safe * a * size)
        slope = self.slope[:, None] + on_c[:, :, None] * c + on_v[:, :, None] * v
        y = self.solve(self.slope[:, None]) + on_c[:, :, None] * ic + on_v[:, :, None] * iv
        vv, vc, cc, vr, cr = (
            np.einsum("ruk,ruk->ru", *pair) for pair in ((v, iv), (v, ic), (c, ic), (v, y), (c, y))
        )
        # (C^-1 + B' M^-1 B) w = B' y with B = [v c] and C^-1 = [[0, 1/s], [1/s, -|u|^2]].
        m01, m11 = vc + 1.0 / safe, cc - size
        determinant = vv * m11 - m01 * m01
        good = (determinant != 0) & (s != 0)
        determinant = np.where(good, determinant, 1.0)
        w0, w1 = (m11 * vr - m01 * cr) / determinant, (vv * cr - m01 * vr) / determinant
        step = y - w0[:, :, None] * iv - w1[:, :, None] * ic
        start = self.loss[:, None] - safe * a * along + 0.5 * (safe * a) ** 2 * size
        loss = start - 0.5 * np.einsum("ruk,ruk->ru", step, slope)
        return step, np.where(good, loss, np.inf)
