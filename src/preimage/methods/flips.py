"""Neighbours of an answer: the linear pieces in which one hidden unit has the other sign.

A local minimum that is not the global one mostly has a few hidden units on the wrong side of their
kink. Let unit j of a hidden layer have pre-activation ``a``, slope ``d``, and slope ``d + s`` on
the other side of the kink; ``v`` is the gradient of ``a`` in z, ``u`` the derivative of the outputs
in the unit's value. The neighbouring piece is affine, too,

    G_j(z + dz) = G(z) + s a u + (J + s u v^T) dz,

so that its least-squares minimiser and the loss there come from what is known at z, in closed form.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from preimage.activation import LeakyReLU, ReLU
from preimage.generator import Generator

Array = NDArray[np.float64]

# Units a layer whose flips are worked out: those nearest to their kinks.
NEAREST = 64


class Flips(NamedTuple):
    """Minimisers of neighbouring pieces (flips, k), and the losses there (flips,), best first."""

    z: Array
    loss: Array


def flips(generator: Generator, z: Array, error: Array, derivatives: list[Array]) -> Flips:
    """All neighbours of one code.

    Args:
        generator: The measured network.
        z: (k,).
        error: (m,) ``y - A G(z)``.
        derivatives: Of each layer's activation at z, (outputs,) each.
    """
    values = [a[0] for a in generator.preactivations(z[None])]
    below, gradients = np.eye(len(z)), []
    for layer, d in zip(generator.layers, derivatives, strict=True):
        gradients.append(layer.weight @ below)
        below = d[:, None] * gradients[-1]
    jacobian, gram = below, below.T @ below
    steps, losses = [np.zeros((0, len(z)))], [np.zeros(0)]
    for index, layer in enumerate(generator.layers[:-1]):
        change = _other_slope(layer.activation, derivatives[index]) - derivatives[index]
        near = _nearest(values[index], gradients[index], gram)
        near = near[change[near] != 0]
        step, loss = _minimise(
            jacobian, gram, error, _influence(generator, derivatives, index, near),
            gradients[index][near], change[near], values[index][near],
        )  # fmt: skip
        steps.append(step)
        losses.append(loss)
    loss = np.concatenate(losses)
    order = np.argsort(loss, kind="stable")
    return Flips(z + np.concatenate(steps)[order], loss[order])


def _other_slope(activation: object, derivative: Array) -> Array:
    """The slope across the kink; that of a unit without a kink stays."""
    if isinstance(activation, ReLU):
        return 1.0 - derivative
    if isinstance(activation, LeakyReLU):
        return 1.0 + activation.slope - derivative
    return derivative


def _influence(
    generator: Generator, derivatives: list[Array], index: int, units: NDArray[np.intp]
) -> Array:
    """(m, units) derivative of the outputs in the values of some units of layer ``index``."""
    columns = np.zeros((generator.layers[index].output_size, len(units)))
    columns[units, np.arange(len(units))] = 1.0
    later = range(index + 1, len(generator.layers))
    for layer, d in ((generator.layers[i], derivatives[i]) for i in later):
        columns = d[:, None] * (layer.weight @ columns)
    return columns


def _nearest(values: Array, gradients: Array, gram: Array) -> NDArray[np.intp]:
    """Units by their distance to the kink in the metric of the Gram matrix, nearest first."""
    k = len(gram)
    metric = gram + _ridge(np.trace(gram) / max(k, 1)) * np.eye(k)
    spread = (gradients * np.linalg.solve(metric, gradients.T).T).sum(axis=1)
    distance = np.abs(values) / np.sqrt(np.maximum(spread, 1e-300))
    return np.argsort(distance, kind="stable")[:NEAREST]


def _ridge(mean: Array | float) -> Any:
    """What keeps a singular matrix solvable, by the mean of its diagonal."""
    return 1e-8 * np.where(np.asarray(mean) > 0, mean, 1.0)


def _minimise(
    jacobian: Array, gram: Array, error: Array, u: Array, v: Array, s: Array, a: Array
) -> tuple[Array, Array]:
    """Minimisers (flips, k) of ``0.5 ||error - s a u - (J + s u v^T) dz||^2``, and the minima."""
    k = len(gram)
    cross, size, along = (jacobian.T @ u).T, (u**2).sum(axis=0), u.T @ error
    outer = s[:, None, None] * cross[:, :, None] * v[:, None, :]
    matrix = gram + outer + np.swapaxes(outer, 1, 2)
    matrix += (s**2 * size)[:, None, None] * v[:, :, None] * v[:, None, :]
    slope = jacobian.T @ error - (s * a)[:, None] * cross
    slope += (s * (along - s * a * size))[:, None] * v
    # A unit that is switched off may leave a direction unseen, along which nothing is done.
    damping = _ridge(np.trace(matrix, axis1=1, axis2=2) / max(k, 1))
    step = np.linalg.solve(matrix + damping[:, None, None] * np.eye(k), slope[:, :, None])[:, :, 0]
    start = (error**2).sum() - 2 * s * a * along + (s * a) ** 2 * size
    return step, 0.5 * (start - (step * slope).sum(axis=1))
