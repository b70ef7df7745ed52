"""Rows of the output that may refute or cut a box. Any is valid: nothing here has to be right.

Good ones are those of least squares: ``M^-1 A_j`` and ``M^-1 d`` with ``d = near - c`` and
``M = A A' + diag(variance)`` from the affine form ``c + A t`` of the output: the first estimate a
coordinate, the second is the residual. Where noise is all that is left, the least squares are those
of the errors that exceed it.
"""

from __future__ import annotations

import numpy as np

from preimage.matrix import Array, Flags, dot

# A part is noisy where its variance is below so many times the noise squared.
_NOISY = 1.0
# Newton steps towards the least excess.
_STEPS = 3


def least_squares_rows(
    center: Array, linear: Array, variance: Array, near: Array, half: Array
) -> tuple[Array, Array, Flags]:
    """The rows of the residual and of the excess, then two a coordinate, (boxes, 2 + 2 k, n).

    Args:
        center: (boxes, n) c.
        linear: (boxes, k, n) A.
        variance: (boxes, n) of what c + A t leaves open.
        near: (boxes, n) a point among the outputs that are admitted; not finite where any are.
        half: (boxes, n) the half-width around it.

    Returns:
        The rows; what the first two gain; and where the noise outweighs what open units add.
    """
    seen = np.isfinite(near)
    error = np.where(seen, near, center) - center
    half = np.where(np.isfinite(half), half, np.abs(center) + 1.0)
    scale = half**2 + variance
    weight = seen / np.maximum(scale, 1e-15 * scale.max(axis=1, keepdims=True) + 1e-300)
    weighted = linear * weight[:, None]
    inner = np.linalg.inv(_gram(weighted, linear))
    # (A A' + D)^-1 A = D^-1 A (I + A' D^-1 A)^-1, and likewise for the error (Woodbury).
    each = np.matmul(inner, weighted)
    own = np.einsum("bkn,bkn->bk", each, linear)
    each = each / np.where(own > 0, own, 1.0)[:, :, None]
    shift = dot(inner, dot(weighted, error))
    residual = weight * error - np.matmul(shift[:, None], weighted)[:, 0]
    first = np.stack([residual, _excess(linear, error, half, weight, shift)], axis=1)
    length = np.abs(first).max(axis=2, keepdims=True)
    first /= np.where(length > 0, length, 1.0)
    gain = dot(first, error) - dot(np.abs(first), half)
    noisy = (variance * seen).mean(axis=1) < _NOISY * (half**2 * seen).mean(axis=1)
    return np.concatenate([first, each, -each], axis=1), gain, noisy


def _excess(linear: Array, error: Array, half: Array, weight: Array, t: Array) -> Array:
    """The gradient of ``sum weight max(|error - A t| - half, 0)^2 / 2`` near its least value.

    There A maps it to t, so that it gains about as much as the errors exceed the noise.
    """
    for _ in range(_STEPS):
        left = error - np.matmul(t[:, None], linear)[:, 0]
        scaled = linear * (weight * (np.abs(left) > half))[:, None]
        wanted = dot(scaled, error - np.sign(left) * half)
        t = np.asarray(np.linalg.solve(_gram(scaled, linear), wanted[:, :, None])[:, :, 0])
    left = error - np.matmul(t[:, None], linear)[:, 0]
    return np.asarray(weight * np.sign(left) * np.maximum(np.abs(left) - half, 0.0))


def _gram(weighted: Array, linear: Array) -> Array:
    """``A' D A`` with weights D, and the identity that the box adds, (boxes, k, k)."""
    gram = np.matmul(weighted, linear.transpose(0, 2, 1))
    ridge = 1.0 + 1e-12 * np.trace(gram, axis1=1, axis2=2)
    return np.asarray(gram + ridge[:, None, None] * np.eye(gram.shape[1]))
