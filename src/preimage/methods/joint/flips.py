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

from preimage.generator import Generator
from preimage.matrix import multiply_adjoint, multiply_columns, slices
from preimage.methods.joint.least_squares import Indices, LeastSquares
from preimage.network import known_chain

Array = NDArray[np.float64]

# Units a layer whose flips are worked out: those nearest to their kinks.
_NEAREST = 64
# Keeps a singular matrix solvable, relative to its diagonal.
_RIDGE = 1e-8


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
    if problem.chain is None or len(problem.chain.layers) == 1:
        return found
    for part in slices(runs, max(problem.chain.sizes) * (k + _NEAREST)):
        step, loss = _neighbours(problem, problem.chain, z[part], samples[part], count)
        found.loss[part, : loss.shape[1]] = loss
        found.z[part, : loss.shape[1]] += step
    return found


def _neighbours(
    problem: LeastSquares, chain: Generator, z: Array, samples: Indices, count: int
) -> tuple[Array, Array]:
    """Steps and losses of at most ``count``, best first."""
    preactivations = chain.preactivations(z)
    derivatives = chain.derivatives(preactivations)
    derivatives[-1] = problem.observation.take(samples).restrict(derivatives[-1])
    gradient, pulled = kinks(problem, z, samples)
    model = _Model(problem, z, samples)
    first, parts = 0, []
    for index, layer in enumerate(chain.layers[:-1]):
        own = slice(first, first + layer.output_size)
        first = own.stop
        pieces = layer.activation.slopes(layer.output_size)
        if pieces is None:
            continue
        a, v, c = preactivations[index], gradient[:, own], pulled[:, own]
        units = model.nearest(a, v, pieces[0] != pieces[1])
        at = np.arange(len(z))[:, None], units
        s = (pieces[0] + pieces[1])[units] - 2.0 * derivatives[index][at]
        size = _influence_sizes(chain, derivatives, index, units)
        parts.append((v[at], c[at], size, s, a[at]))
    if not parts:
        return np.zeros((len(z), 0, z.shape[1])), np.zeros((len(z), 0))
    v, c, size, s, a = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
    return model.minimise(v, c, size, s, a, count)


def kinks(problem: LeastSquares, z: Array, samples: Indices) -> tuple[Array, Array]:
    """What moves each hidden unit, and what it moves.

    Returns:
        The gradients v of the units' pre-activations, (runs, hidden units, k); and c beside
        ``u . error``, (runs, hidden units, k + 1).
    """
    chain, k = known_chain(problem.network, "neighbouring pieces"), z.shape[1]
    derivatives = chain.derivatives(chain.preactivations(z))
    derivatives[-1] = problem.observation.take(samples).restrict(derivatives[-1])
    below, gradients, influences = np.broadcast_to(np.eye(k), (len(z), k, k)), [], []
    for layer, d in zip(chain.layers, derivatives, strict=True):
        gradients.append(multiply_columns(layer.weight, below))
        below = d[:, :, None] * gradients[-1]
    # J and the error, pulled back from the outputs to the values of each layer.
    pulled = np.concatenate([below, problem.error(z, samples)[:, :, None]], axis=2)
    for layer, d in zip(chain.layers[:0:-1], derivatives[:0:-1], strict=True):
        pulled = _pull(layer.weight, d[:, :, None] * pulled)
        influences.append(pulled)
    return np.concatenate(gradients[:-1], axis=1), np.concatenate(influences[::-1], axis=1)


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
    layer = chain.layers[first]
    if not later:
        square = layer.weight * layer.weight  # entry by entry, of CSR too
        return np.take_along_axis(multiply_adjoint(square, derivatives[first] ** 2), units, axis=1)
    columns = layer.dense_weight.T[units] * derivatives[first][:, None]
    columns = np.swapaxes(columns, 1, 2)
    for i in later:
        columns = derivatives[i][:, :, None] * multiply_columns(chain.layers[i].weight, columns)
    return np.einsum("rmc,rmc->rc", columns, columns)


class _Model:
    """The linear piece of each code, its normal matrix inverted once for all neighbours."""

    def __init__(self, problem: LeastSquares, z: Array, samples: Indices) -> None:
        matrix, self.slope = problem.linearize(z, samples)
        diagonal = np.einsum("raa->ra", matrix)
        diagonal += _RIDGE * np.where(diagonal > 0, diagonal, 1.0)
        scale = 1.0 / np.sqrt(diagonal)
        inverse = np.linalg.inv(matrix * scale[:, :, None] * scale[:, None, :])
        self.inverse = inverse * scale[:, :, None] * scale[:, None, :]
        self.loss = problem.loss(z, samples)

    def nearest(self, a: Array, gradient: Array, kinked: NDArray[np.bool_]) -> Indices:
        """(runs, count) units by their distance to the kink in the metric of M, nearest first."""
        spread = _dot(gradient, np.matmul(gradient, self.inverse))
        distance = np.abs(a) / np.sqrt(np.maximum(spread, 1e-300))
        distance[:, ~kinked] = np.inf
        return np.argsort(distance, axis=1, kind="stable")[:, :_NEAREST]

    def minimise(
        self, v: Array, pulled: Array, size: Array, s: Array, a: Array, count: int
    ) -> tuple[Array, Array]:
        """Steps to the neighbours' minimisers, (runs, count, k), and the losses there, best first.

        Args:
            v: (runs, units, k) gradients of the units' pre-activations.
            pulled: (runs, units, k + 1) c, and ``u . error``.
            size: (runs, units) ``|u|^2``.
            s: (runs, units) changes of the slope; 0 for none.
            a: (runs, units) pre-activations.
            count: At most so many.
        """
        c, along = pulled[:, :, :-1], pulled[:, :, -1]
        iv, ic = np.matmul(v, self.inverse), np.matmul(c, self.inverse)
        base = np.matmul(self.slope[:, None], self.inverse)[:, 0]
        vv, vc, cc = _dot(v, iv), _dot(v, ic), _dot(c, ic)
        v_base, c_base = _dot(v, base[:, None]), _dot(c, base[:, None])
        # The neighbour's slope at z is r = slope + on_c c + on_v v; vr = v . M^-1 r, cr likewise.
        safe = np.where(s == 0, 1.0, s)
        on_c, on_v = -safe * a, safe * (along - safe * a * size)
        vr, cr = v_base + on_c * vc + on_v * vv, c_base + on_c * cc + on_v * vc
        # (C^-1 + B' M^-1 B) w = B' M^-1 r with B = [v c] and C^-1 = [[0, 1/s], [1/s, -|u|^2]].
        m01, m11 = vc + 1.0 / safe, cc - size
        determinant = vv * m11 - m01 * m01
        good = (determinant != 0) & (s != 0)
        determinant = np.where(good, determinant, 1.0)
        w0, w1 = (m11 * vr - m01 * cr) / determinant, (vv * cr - m01 * vr) / determinant
        gain = _dot(base, self.slope)[:, None] + on_c * (c_base + cr) + on_v * (v_base + vr)
        gain -= w0 * vr + w1 * cr
        loss = self.loss[:, None] - safe * a * along + 0.5 * (safe * a) ** 2 * size - 0.5 * gain
        loss = np.where(good, loss, np.inf)
        chosen = np.argsort(loss, axis=1, kind="stable")[:, :count]
        at = np.arange(len(loss))[:, None], chosen
        step = base[:, None] + (on_c - w1)[at][:, :, None] * ic[at]
        return step + (on_v - w0)[at][:, :, None] * iv[at], loss[at]


def _dot(left: Array, right: Array) -> Array:
    """Scalar products along the last axis."""
    return np.einsum("...k,...k->...", left, right)
