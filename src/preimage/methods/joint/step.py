"""Damped steps of many runs: free, in a box, or in a ball."""

from __future__ import annotations

import numpy as np

from preimage.matrix import Array, Flags, Indices
from preimage.methods.joint import compiled
from preimage.methods.region import Region

# Keeps a singular matrix solvable; acts below rounding elsewhere.
_LEAST_DAMPING = 1e-15


def damped_step(
    region: Region, z: Array, gram: Array, slope: Array, runs: Indices, damping: Array
) -> tuple[Array, Array]:
    """The damped step of each run, and the decrease of the loss that the model predicts for it.

    ::

        (gram + damping * diag(gram)) step = slope

    (Marquardt's scaling, so that steps do not depend on the units of a latent coordinate.) At a
    face of the box that the slope pushes against, the coordinate is left out. In a ball, the step
    is the minimiser of the damped model over the ball.

    Args:
        region: Where z may lie.
        z: (runs, k).
        gram: (all runs, k, k) ``J^T J``, prior included.
        slope: (all runs, k) negative gradient.
        runs: (runs,) which of them.
        damping: (runs,).
    """
    damping, held = np.maximum(damping, _LEAST_DAMPING), None
    if region.has_box:
        rise = slope[runs]
        held = ((z <= region.low) & (rise < 0)) | ((z >= region.high) & (rise > 0))
    found = compiled.damped_steps(gram, slope, runs, damping, held)
    step, predicted = _solve(gram[runs], slope[runs], damping, held) if found is None else found
    if np.isfinite(region.radius):
        out = np.flatnonzero(squares(z + step) > region.radius**2)
        matrix, rise = gram[runs[out]], slope[runs[out]]
        scale = np.einsum("raa->ra", matrix)
        damped = matrix + _diagonal(damping[out, None] * np.where(scale > 0, scale, 1.0))
        target = rise + np.matmul(damped, z[out, :, None])[:, :, 0]
        step[out] = _on_sphere(damped, target, region.radius) - z[out]
        predicted[out] = decrease(step[out], matrix, rise)
    return step, predicted


def decrease(step: Array, gram: Array, slope: Array) -> Array:
    """``slope . step - 0.5 step . gram step``."""
    bent = np.matmul(gram, step[:, :, None])[:, :, 0]
    return ((slope - 0.5 * bent) * step).sum(axis=1)


def squares(rows: Array) -> Array:
    """(runs,) ``||row||^2``."""
    return np.einsum("ij,ij->i", rows, rows)


def _solve(gram: Array, slope: Array, damping: Array, held: Flags | None) -> tuple[Array, Array]:
    """What the kernel does, by NumPy."""
    diagonal = np.einsum("raa->ra", gram)
    free = diagonal > 0 if held is None else (diagonal > 0) & ~held
    scale = np.where(free, 1.0 / np.sqrt(np.where(free, diagonal, 1.0)), 0.0)
    scaled = gram * scale[:, :, None] * scale[:, None, :]
    np.einsum("raa->ra", scaled)[:] = 1.0 + damping[:, None]
    step = scale * np.linalg.solve(scaled, (scale * slope)[:, :, None])[:, :, 0]
    return step, decrease(step, gram, slope)


def _diagonal(entries: Array) -> Array:
    return entries[:, :, None] * np.eye(entries.shape[1])


def _on_sphere(matrix: Array, target: Array, radius: float) -> Array:
    """Minimise ``0.5 w . matrix w - target . w`` over ``||w|| <= radius``, where that binds.

    ``(matrix + mu I) w = target`` with the ``mu >= 0`` at which ``||w|| = radius``: Newton's
    iteration on ``1 / ||w|| - 1 / radius``, which is concave and increasing in mu (More and
    Sorensen, 1983), so that it rises monotonically from 0.
    """
    values, vectors = np.linalg.eigh(matrix)
    coefficients = np.matmul(np.swapaxes(vectors, 1, 2), target[:, :, None])[:, :, 0]
    mu = np.zeros(len(target))
    for _ in range(50):
        scaled = coefficients / (values + mu[:, None])
        norm = np.sqrt(squares(scaled))
        slope = (scaled**2 / (values + mu[:, None])).sum(axis=1)
        mu = np.maximum(mu + (norm / radius - 1.0) * norm**2 / np.where(slope > 0, slope, 1.0), 0.0)
    scaled = coefficients / (values + mu[:, None])
    return np.matmul(vectors, scaled[:, :, None])[:, :, 0]
