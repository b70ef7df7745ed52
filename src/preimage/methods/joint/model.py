"""The local model of the loss, ``loss - slope . step + 0.5 step . J^T J step``, and its steps.

``NormalEquations`` holds ``J^T J``. ``Products`` only multiplies by J and its transpose, for
networks that are run and have many latent coordinates: a Jacobian costs more than a step needs.
"""

from __future__ import annotations

import numpy as np

from preimage.matrix import Array, Flags, Indices, dot
from preimage.methods.joint import compiled
from preimage.methods.joint.least_squares import LeastSquares, squares
from preimage.methods.parameters import Region

# From so many latent coordinates on, the Jacobian of a network that is run is not computed. (That
# of DCGAN, with 100, takes 0.22 s in float32, as much as 11 products with J^T J.)
FEWEST_FOR_PRODUCTS = 256
# Keeps a singular matrix solvable; acts below rounding elsewhere.
_LEAST_DAMPING = 1e-15
# Conjugate gradients end when the residual is this part of the slope, or after so many steps: what
# a step far from the solution needs is its direction.
_FORCING = 0.03
_MOST_PRODUCTS = 24


class NormalEquations:
    """``J^T J`` and ``J^T error`` of each run."""

    def __init__(self, problem: LeastSquares, samples: Indices) -> None:
        count, k = len(samples), problem.network.latent_size
        self.problem, self.samples = problem, samples
        self.gram, self.slope = np.zeros((count, k, k)), np.zeros((count, k))
        # The kernel gives losses and models in one pass. (With a prior it knows a part of a loss.)
        self.at_once = None if problem.prior else problem.compiled

    def loss(self, runs: Indices, z: Array, below: Array) -> Array:
        """Losses at ``z``; where they are lower than ``below``, models may be of there already."""
        samples = self.samples[runs]
        if self.at_once is None:
            return self.problem.loss(z, samples)
        return self.at_once.loss(z, samples, self.gram, self.slope, runs, below)

    def update(self, runs: Indices, z: Array) -> None:
        """Linearise ``runs`` at ``z``, whose loss was asked for and is below what was given."""
        if self.at_once is None and len(runs):
            self.gram[runs], self.slope[runs] = self.problem.linearize(z, self.samples[runs])

    def step(self, runs: Indices, z: Array, damping: Array) -> tuple[Array, Array]:
        """Damped steps from ``z``, (runs, k), and the decreases that the model predicts."""
        return damped_step(self.problem.region, z, self.gram, self.slope, runs, damping)

    def decrease(self, runs: Indices, step: Array) -> Array:
        """(runs,) the decrease that the model predicts for some other step."""
        return _decrease(step, dot(self.gram[runs], step), self.slope[runs])


class Products:
    """``J^T error`` of each run, and products with J; methods are as in ``NormalEquations``.

    Steps are damped by the curvature along the slope, and found by conjugate gradients on
    ``(J^T J + damping) step = slope``, only as accurately as they are worth (Dembo, Eisenstat and
    Steihaug, 1982). In a ball, a step is cut short by the caller.
    """

    def __init__(self, problem: LeastSquares, samples: Indices) -> None:
        self.problem, self.samples = problem, samples
        self.network = problem.network.draft or problem.network
        self.z = np.zeros((len(samples), problem.network.latent_size))
        self.slope = np.zeros_like(self.z)

    def loss(self, runs: Indices, z: Array, below: Array) -> Array:  # noqa: D102
        return self.problem.loss(z, self.samples[runs])

    def update(self, runs: Indices, z: Array) -> None:  # noqa: D102
        if not len(runs):
            return
        problem, samples = self.problem, self.samples[runs]
        error = problem.observation.take(samples).restrict(problem.error(z, samples))
        self.z[runs] = z
        self.slope[runs] = self.network.vjp(z, error) - problem.prior * z

    def step(self, runs: Indices, z: Array, damping: Array) -> tuple[Array, Array]:  # noqa: D102
        region, slope = self.problem.region, self.slope[runs].copy()
        if region.has_box:
            held = region.held(z, slope)
            slope[held] = 0.0
        step, bent = np.zeros_like(slope), np.zeros_like(slope)
        residual, direction, ridge = slope.copy(), slope.copy(), np.zeros(len(runs))
        first = size = squares(residual)
        open_ = np.flatnonzero(size > 0)
        for count in range(_MOST_PRODUCTS):
            if not len(open_):
                break
            d = direction[open_]
            image = self._curve(runs[open_], d)
            if region.has_box:
                image[held[open_]] = 0.0
            if count == 0:
                ridge[open_] = damping[open_] * (d * image).sum(axis=1) / squares(d)
            curvature = (d * image).sum(axis=1) + ridge[open_] * squares(d)
            length = (size[open_] / np.maximum(curvature, 1e-300))[:, None]
            step[open_] += length * d
            bent[open_] += length * image
            residual[open_] -= length * (image + ridge[open_, None] * d)
            after = squares(residual)
            growth = after[open_] / size[open_]
            direction[open_] = residual[open_] + growth[:, None] * d
            size = after
            open_ = open_[after[open_] > _FORCING**2 * first[open_]]
        return step, _decrease(step, bent, slope)

    def decrease(self, runs: Indices, step: Array) -> Array:  # noqa: D102
        return _decrease(step, self._curve(runs, step), self.slope[runs])

    def _curve(self, runs: Indices, direction: Array) -> Array:
        """``(J^T J + prior I) direction``."""
        observation, z = self.problem.observation.take(self.samples[runs]), self.z[runs]
        image = observation.restrict(observation.restrict(self.network.jvp(z, direction)))
        return self.network.vjp(z, image) + self.problem.prior * direction


def model_of(problem: LeastSquares, samples: Indices) -> NormalEquations | Products:
    """The cheaper model of a problem, for runs of these samples."""
    many = problem.network.latent_size >= FEWEST_FOR_PRODUCTS
    kind = Products if problem.chain is None and many else NormalEquations
    return kind(problem, samples)


def damped_step(
    region: Region, z: Array, gram: Array, slope: Array, runs: Indices, damping: Array
) -> tuple[Array, Array]:
    """The damped step of each run, and the decrease of the loss that the model predicts for it.

    ::

        (gram + damping * diag(gram)) step = slope

    (Marquardt's scaling, so that steps do not depend on the units of a latent coordinate.) At a
    face of the box that the slope pushes against, the coordinate is left out. In a ball, the step
    is the minimiser of the damped model over the ball.

    ``gram``, (all runs, k, k), and ``slope``, the negative gradient, (all runs, k), have rows for
    all runs; ``z`` and ``damping`` for ``runs``.
    """
    damping, held = np.maximum(damping, _LEAST_DAMPING), None
    if region.has_box:
        held = region.held(z, slope[runs])
    found = compiled.damped_steps(gram, slope, runs, damping, held)
    step, predicted = _solve(gram[runs], slope[runs], damping, held) if found is None else found
    if np.isfinite(region.radius):
        out = np.flatnonzero(squares(z + step) > region.radius**2)
        matrix, rise = gram[runs[out]], slope[runs[out]]
        scale = np.einsum("raa->ra", matrix)
        added = damping[out, None] * np.where(scale > 0, scale, 1.0)
        damped = matrix + added[:, :, None] * np.eye(added.shape[1])
        target = rise + dot(damped, z[out])
        step[out] = _on_sphere(damped, target, region.radius) - z[out]
        predicted[out] = _decrease(step[out], dot(matrix, step[out]), rise)
    return step, predicted


def _decrease(step: Array, bent: Array, slope: Array) -> Array:
    """``slope . step - 0.5 step . bent``, where ``bent`` is the curvature times the step."""
    return ((slope - 0.5 * bent) * step).sum(axis=1)


def _solve(gram: Array, slope: Array, damping: Array, held: Flags | None) -> tuple[Array, Array]:
    """What the kernel does, by NumPy."""
    diagonal = np.einsum("raa->ra", gram)
    free = diagonal > 0 if held is None else (diagonal > 0) & ~held
    scale = np.where(free, 1.0 / np.sqrt(np.where(free, diagonal, 1.0)), 0.0)
    scaled = gram * scale[:, :, None] * scale[:, None, :]
    np.einsum("raa->ra", scaled)[:] = 1.0 + damping[:, None]
    step = scale * np.linalg.solve(scaled, (scale * slope)[:, :, None])[:, :, 0]
    return step, _decrease(step, dot(gram, step), slope)


def _on_sphere(matrix: Array, target: Array, radius: float) -> Array:
    """Minimise ``0.5 w . matrix w - target . w`` over ``||w|| <= radius``, where that binds.

    ``(matrix + mu I) w = target`` with the ``mu >= 0`` at which ``||w|| = radius``: Newton's
    iteration on ``1 / ||w|| - 1 / radius``, which is concave and increasing in mu (More and
    Sorensen, 1983), so that it rises monotonically from 0.
    """
    values, vectors = np.linalg.eigh(matrix)
    coefficients = dot(np.swapaxes(vectors, 1, 2), target)
    mu = np.zeros(len(target))
    for _ in range(50):
        scaled = coefficients / (values + mu[:, None])
        norm = np.sqrt(squares(scaled))
        slope = (scaled**2 / (values + mu[:, None])).sum(axis=1)
        mu = np.maximum(mu + (norm / radius - 1.0) * norm**2 / np.where(slope > 0, slope, 1.0), 0.0)
    scaled = coefficients / (values + mu[:, None])
    return dot(vectors, scaled)
