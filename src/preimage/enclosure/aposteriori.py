"""How far a code can be from the true one, layer by layer, without any linear program."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from preimage.enclosure.network import UNIT, Array, rounding
from preimage.errors import InputError
from preimage.generator import Generator
from preimage.observation import check_observation


@dataclass(frozen=True, eq=False)
class ErrorBound:
    """Bounds of one observation; first layer first where there is one a layer.

    Attributes:
        latent: (k,) the code that least squares on the active rows gives; NaN where some layer
            has too few.
        bound: ``max |z - latent|`` over every code z that explains the observation; else infinite.
        layers: (d,) the same bound on the input of each layer.
        constants: (d,) ``c`` with ``|W_I v|_inf >= c |v|_inf`` for the rows I that were used, from
            below. The paper's Theorem 3 has the bound ``(2 / c)^d noise``, for all row sets at
            once; this c is that of the set at hand.
    """

    latent: Array
    bound: float
    layers: Array
    constants: Array


def error_bound(generator: Generator, observation: ArrayLike, noise: float) -> ErrorBound:
    """Bound the distance to every code that explains an observation, in a few matrix products.

    Of a layer with outputs x known up to eps, the rows ``I = {x_i > eps}`` are equations up to eps.
    With ``R = pinv(W_I)``, ``z = R (x_I - b_I)``, the residual ``r = |W_I z + b_I - x_I|`` and
    ``a = |I - R W_I|_inf < 1``, every z' with ``|W_I z' + b_I - x_I| <= eps`` obeys

        |z - z'|_inf  <=  max_i sum_j |R_ij| (r_j + eps) / (1 - a)

    plus what rounding may add. The layer below is inverted at z (0 where it is negative) with this
    bound for eps. Slopes below 0 are divided out; a tanh or sigmoid head is not supported.

    Args:
        generator: Dense or sparse layers of ReLU, LeakyReLU, PReLU or identity.
        observation: (n,).
        noise: Bound on the largest noise entry.

    Raises:
        InputError: Wrong shapes, or another activation.
    """
    checked, single = check_observation(generator, observation, noise)
    if not single:
        raise InputError("observation: expected one vector, shape (n,)")
    x, eps = checked.values[0], float(checked.noise[0])
    layers = np.full(len(generator.layers), np.inf)
    constants = np.full(len(generator.layers), np.nan)
    for index in range(len(generator.layers) - 1, -1, -1):
        layer = generator.layers[index]
        bottom, top = layer.activation.range
        if np.isfinite(top):
            raise InputError(f"layer {index}: expected a piecewise-linear one, got {layer!r}")
        used = x > eps if bottom == 0.0 else np.ones(len(x), dtype=bool)
        weight, bias = layer.dense_weight[used], layer.bias[used]
        a = layer.activation.inverse(x)[used]
        # An error of eps in x is one of eps / slope in a; near 0 the steeper side counts.
        unit = np.abs(layer.activation.inverse(x + eps) - layer.activation.inverse(x - eps))
        error = (np.full(used.sum(), eps) if bottom == 0.0 else unit[used]) * (1 + 8 * UNIT)
        k = layer.input_size
        inverse = np.linalg.pinv(weight) if used.sum() >= k else np.zeros((k, int(used.sum())))
        size = np.abs(inverse)
        alpha = np.abs(np.eye(k) - inverse @ weight).sum(axis=1)
        alpha = float((alpha + rounding(len(a) + 2) * (size @ np.abs(weight)).sum(axis=1)).max())
        if not alpha < 1:
            return ErrorBound(np.full(generator.latent_size, np.nan), np.inf, layers, constants)
        z = inverse @ (a - bias)
        residual = np.abs(weight @ z + bias - a)
        residual += rounding(k + 3) * (np.abs(weight) @ np.abs(z) + np.abs(bias) + np.abs(a))
        eps = float((size @ (residual + error)).max() / (1 - alpha) * (1 + rounding(len(a) + 8)))
        layers[index] = eps
        constants[index] = (1 - alpha) / float(size.sum(axis=1).max())
        x = z
    return ErrorBound(x, eps, layers, constants)
