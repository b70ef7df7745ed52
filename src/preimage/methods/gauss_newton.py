"""The whole network at once: damped Gauss-Newton steps on the piecewise-linear map."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from preimage.errors import InputError
from preimage.generator import Generator
from preimage.inversion import Estimate, Status
from preimage.methods.gradient import check_positive
from preimage.observation import Observation

if TYPE_CHECKING:
    from preimage.methods import Method

Array = NDArray[np.float64]

# Runs (a sample and a start each) that are worked on together: bounds the Jacobians in memory.
_CHUNK = 256
# A run is stationary when no step promises to lower its loss by more than this, relatively, or
# when the damping has grown by this much without a single step that lowers it (a kink).
_STATIONARY = 1e-14
_LARGEST_DAMPING = 1e12
# Relative to the Jacobian's largest singular value: below, a direction of z is not observed.
_RANK = 1e-9


@dataclass(frozen=True)
class GaussNewton:
    """Minimise ``||x - G(z)||_2`` over z, all layers at once, from several starts.

    While no unit changes its sign, G is affine, ``G(z + dz) = G(z) + J dz``, so that one
    undamped step ends at the exact minimiser of its linear piece. Steps solve

        (J^T J + damping * mean(diag(J^T J)) I) dz = J^T (x - G(z))

    and are taken only if they lower the loss; the damping follows the ratio of the achieved to
    the predicted decrease (Levenberg and Marquardt; Nielsen's update, IMM-REP-1999-05). So the
    loss never rises, and no start is ever made worse. No layer needs to expand: ``rank J = k`` is
    enough, and where it is not so at the answer, the sample is ``ambiguous``.

    The starts are the code of ``start`` if one is given, then a short PLUGIn run
    (``z <- z + mu W_1^T ... W_d^T (x - G(z))``, which goes through inactive units, too), then
    Gaussian draws, the same for every sample.

    Args:
        restarts: Number of starts, besides that of ``start``.
        steps: Most steps from each start.
        damping: Initial damping, positive.
        start: A method whose codes are a start as well, such as ``LayerwiseLP()``.
        seed: Of the draws.

    Raises:
        InputError: A parameter is out of its range.
    """

    restarts: int = 8
    steps: int = 200
    damping: float = 1e-2
    start: Method | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_positive({"damping": self.damping}, {"restarts": self.restarts, "steps": self.steps})
        if self.start is not None and not hasattr(self.start, "solve"):
            raise InputError(f"start: expected a method such as LayerwiseLP(), got {self.start!r}")

    def solve(self, generator: Generator, observation: Observation) -> Estimate:
        """Invert every sample; see ``methods.Method``."""
        starts = self._starts(generator, observation)
        batch, runs, k = starts.shape
        z, x = starts.reshape(batch * runs, k), np.repeat(observation.values, runs, axis=0)
        ended = [
            _descend(generator, z[i : i + _CHUNK], x[i : i + _CHUNK], self.damping, self.steps)
            for i in range(0, len(z), _CHUNK)
        ]
        if not ended:
            return Estimate(np.zeros((0, k)), Status.SOLVED.each(0))
        loss = np.concatenate([run.loss for run in ended]).reshape(batch, runs)
        best = np.argmin(loss, axis=1) + runs * np.arange(batch)
        latent = np.concatenate([run.z for run in ended])[best]
        status = Status.STEP_LIMIT.each(batch)
        status[np.concatenate([run.stationary for run in ended])[best]] = Status.SOLVED
        for i in range(0, batch, _CHUNK):
            jacobian = generator.jacobian(latent[i : i + _CHUNK])
            rank = np.linalg.matrix_rank(jacobian, rtol=_RANK) if k else np.zeros(len(jacobian))
            status[i : i + _CHUNK][rank < k] = Status.AMBIGUOUS
        return Estimate(latent, status)

    def _starts(self, generator: Generator, observation: Observation) -> Array:
        """(batch, runs, k) starting codes."""
        batch, k = len(observation), generator.latent_size
        draws = np.random.default_rng(self.seed).normal(size=(self.restarts, k))
        starts = np.broadcast_to(draws, (batch, self.restarts, k)).copy()
        starts[:, 0] = plug_in(generator, observation.values)
        if self.start is not None:
            given = self.start.solve(generator, observation).latent
            # A start without a code is no start: it repeats another.
            found = np.isfinite(given).all(axis=1, keepdims=True)
            starts = np.concatenate([np.where(found, given, starts[:, 0])[:, None], starts], axis=1)
        return starts


def plug_in(generator: Generator, x: Array, steps: int = 30) -> Array:
    """A rough code by the PLUGIn iteration: the transposed weights, activations left out.

    The step length is the exact line minimum for the affine model, which keeps the iteration
    stable without knowing the network's gain.

    Args:
        generator: Any.
        x: (batch, n).
        steps: Iterations.

    Returns:
        (batch, k) the best iterate of each sample.
    """
    z = np.zeros((len(x), generator.latent_size))
    best, lowest = z, np.full(len(x), np.inf)
    for _ in range(steps):
        error = x - generator(z)
        loss = np.einsum("ij,ij->i", error, error)
        best = np.where((loss < lowest)[:, None], z, best)
        lowest = np.minimum(loss, lowest)
        direction = error
        for layer in reversed(generator.layers):
            direction = layer.adjoint(direction)
        image = direction
        for layer in generator.layers:
            image = layer.affine(image) - layer.bias
        # Half of the units are active in each layer of a random network.
        gain = np.einsum("ij,ij->i", image, image) / 2.0 ** len(generator.layers)
        length = np.einsum("ij,ij->i", direction, direction) / np.where(gain > 0, gain, np.inf)
        z = z + length[:, None] * direction
    return best


@dataclass(eq=False)
class _Run:
    """Where each run of a chunk stands."""

    z: Array
    loss: Array
    stationary: NDArray[np.bool_]
    damping: Array
    growth: Array = field(init=False)

    def __post_init__(self) -> None:
        self.growth = np.full(len(self.z), 2.0)


def _descend(generator: Generator, z: Array, x: Array, damping: float, steps: int) -> _Run:
    """Levenberg-Marquardt from each row of ``z`` towards the same row of ``x``."""
    count, k = z.shape
    run = _Run(z.copy(), _half_square(x - generator(z)), np.zeros(count, bool),
               np.full(count, damping))  # fmt: skip
    open_ = np.arange(count)
    gram, slope = np.zeros((count, k, k)), np.zeros((count, k))
    fresh = np.ones(count, dtype=bool)  # whose piece was left: the Gram matrix is out of date
    for _ in range(steps):
        moved = open_[fresh[open_]]
        if len(moved):
            jacobian = generator.jacobian(run.z[moved])
            error = x[moved] - generator(run.z[moved])
            gram[moved] = np.swapaxes(jacobian, 1, 2) @ jacobian
            slope[moved] = np.einsum("bnk,bn->bk", jacobian, error)
            fresh[moved] = False
        step, predicted = _damped_step(gram[open_], slope[open_], run.damping[open_])
        flat = ~(predicted > _STATIONARY * run.loss[open_]) | (run.loss[open_] == 0)
        run.stationary[open_[flat | (run.damping[open_] > _LARGEST_DAMPING)]] = True
        going = ~run.stationary[open_]
        open_, step, predicted = open_[going], step[going], predicted[going]
        if not len(open_):
            break
        trial = run.z[open_] + step
        loss = _half_square(x[open_] - generator(trial))
        ratio = (run.loss[open_] - loss) / predicted
        better = loss < run.loss[open_]
        taken, left = open_[better], open_[~better]
        run.z[taken], run.loss[taken], fresh[taken] = trial[better], loss[better], True
        # A faithful model is trusted at once; a poor one by degrees.
        shrink = np.where(ratio > 0.9, 0.01, np.maximum(1 / 3, 1 - (2 * ratio - 1) ** 3))
        run.damping[taken] *= shrink[better]
        run.growth[taken] = 2.0
        run.damping[left] = np.maximum(run.damping[left], 1e-12) * run.growth[left]
        run.growth[left] *= 2.0
    return run


def _damped_step(gram: Array, slope: Array, damping: Array) -> tuple[Array, Array]:
    """The step of each run, and the decrease of ``0.5 ||x - G||^2`` that the model predicts."""
    k = slope.shape[1]
    if k == 0:
        return np.zeros_like(slope), np.zeros(len(slope))
    mean = np.trace(gram, axis1=1, axis2=2) / k
    # A tiny floor keeps a singular Gram matrix solvable; it acts below rounding elsewhere.
    weight = (np.maximum(damping, 1e-15) * np.where(mean > 0, mean, 1.0))[:, None, None]
    solved = np.linalg.solve(gram + weight * np.eye(k), slope[:, :, None])
    step = solved[:, :, 0].astype(np.float64, copy=False)
    quadratic = np.einsum("bi,bij,bj->b", step, gram, step)
    return step, np.einsum("bi,bi->b", step, slope) - 0.5 * quadratic


def _half_square(error: Array) -> Array:
    return 0.5 * np.einsum("ij,ij->i", error, error)
