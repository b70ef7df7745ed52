"""The whole network at once: damped Gauss-Newton steps on the piecewise-linear map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from preimage.errors import InputError
from preimage.generator import Generator
from preimage.inversion import Estimate, Status
from preimage.methods.parameters import check_positive
from preimage.observation import ROUNDING, Observation

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
# Of the restarts around an answer: how many a round, and how many standard deviations wide.
_HOP_DRAWS = 8
_HOP_WIDTH = 4.0


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
    Gaussian draws, the same for every sample. Under noise, the best answer often has a slightly
    better neighbour with another pattern; ``hops`` look for it, by restarts drawn from the
    distribution of the least-squares estimate, ``N(z, s^2 (J^T J)^-1)``, widened.

    Args:
        restarts: Number of starts, besides that of ``start``.
        hops: Rounds of eight restarts around the best answer; 0 for none.
        steps: Most steps from each start.
        damping: Initial damping, positive.
        start: A method whose codes are a start as well, such as ``LayerwiseLP()``.
        seed: Of the draws.

    Raises:
        InputError: A parameter is out of its range.
    """

    restarts: int = 8
    hops: int = 3
    steps: int = 200
    damping: float = 1e-2
    start: Method | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_positive({"damping": self.damping}, {"restarts": self.restarts, "steps": self.steps})
        if self.hops:
            check_positive({}, {"hops": self.hops})
        if self.start is not None and not hasattr(self.start, "solve"):
            raise InputError(f"start: expected a method such as LayerwiseLP(), got {self.start!r}")

    def solve(self, generator: Generator, observation: Observation) -> Estimate:
        """Invert every sample; see ``methods.Method``."""
        x = observation.values
        best = self._search(generator, x, self._starts(generator, observation))
        random = np.random.default_rng((self.seed, 1))
        negligible = ROUNDING * np.linalg.norm(x, axis=1)
        for _ in range(self.hops):
            draws = _HOP_WIDTH * random.normal(size=(_HOP_DRAWS, generator.latent_size))
            open_ = np.flatnonzero(np.sqrt(2 * best.loss) > negligible)
            starts = _neighbours(generator, best.z[open_], best.loss[open_], draws)
            found = self._search(generator, x[open_], starts)
            better = found.loss < best.loss[open_]
            for kept, new in zip(best, found, strict=True):
                kept[open_[better]] = new[better]
        status = Status.STEP_LIMIT.each(len(x))
        status[best.stationary] = Status.SOLVED
        status[_rank(generator, best.z) < generator.latent_size] = Status.AMBIGUOUS
        return Estimate(best.z, status)

    def _search(self, generator: Generator, x: Array, starts: Array) -> _Ends:
        """The best end of each sample's runs; ``starts`` is (batch, runs, k)."""
        batch, runs, k = starts.shape
        size = max(_CHUNK // runs, 1)
        parts = []
        for i in range(0, max(batch, 1), size):
            z, targets = starts[i : i + size], np.repeat(x[i : i + size], runs, axis=0)
            ends = _descend(generator, z.reshape(len(z) * runs, k), targets, self)
            best = np.argmin(ends.loss.reshape(len(z), runs), axis=1) + runs * np.arange(len(z))
            parts.append([part[best] for part in ends])
        return _Ends(*map(np.concatenate, zip(*parts, strict=True)))

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

    The step length is the line minimum for a linear network half of whose units are active in
    each layer, so that the network's gain need not be known.

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
        gain = np.einsum("ij,ij->i", image, image) / 2.0 ** len(generator.layers)
        length = np.einsum("ij,ij->i", direction, direction) / np.where(gain > 0, gain, np.inf)
        z = z + length[:, None] * direction
    return best


class _Ends(NamedTuple):
    """Where runs ended: codes (runs, k), losses ``0.5 ||x - G(z)||^2``, whether stationary."""

    z: Array
    loss: Array
    stationary: NDArray[np.bool_]


def _descend(generator: Generator, z: Array, x: Array, method: GaussNewton) -> _Ends:
    """Levenberg-Marquardt from each row of ``z`` towards the same row of ``x``."""
    count, k = z.shape
    error = x - generator(z)
    run = _Ends(z.copy(), _half_square(error), np.zeros(count, dtype=bool))
    damping, growth = np.full(count, method.damping), np.full(count, 2.0)
    gram, slope = np.zeros((count, k, k)), np.zeros((count, k))
    open_ = moved = np.arange(count)
    for _ in range(method.steps):
        if len(moved):
            jacobian = generator.jacobian(run.z[moved])
            gram[moved] = np.swapaxes(jacobian, 1, 2) @ jacobian
            slope[moved] = np.einsum("bnk,bn->bk", jacobian, error[moved])
        step, predicted = _damped_step(gram[open_], slope[open_], damping[open_])
        flat = ~(predicted > _STATIONARY * run.loss[open_])
        run.stationary[open_[flat | (damping[open_] > _LARGEST_DAMPING)]] = True
        going = ~run.stationary[open_]
        open_, step, predicted = open_[going], step[going], predicted[going]
        if not len(open_):
            break
        trial = run.z[open_] + step
        missed = x[open_] - generator(trial)
        loss = _half_square(missed)
        better = loss < run.loss[open_]
        ratio = (run.loss[open_] - loss)[better] / predicted[better]
        moved, left = open_[better], open_[~better]
        run.z[moved], run.loss[moved], error[moved] = trial[better], loss[better], missed[better]
        # A faithful model is trusted at once; a poor one by degrees.
        damping[moved] *= np.where(ratio > 0.9, 0.01, np.maximum(1 / 3, 1 - (2 * ratio - 1) ** 3))
        damping[left] = np.maximum(damping[left], 1e-12) * growth[left]
        growth[moved], growth[left] = 2.0, 2.0 * growth[left]
    return run


def _neighbours(generator: Generator, z: Array, loss: Array, draws: Array) -> Array:
    """``z + s L^-T draw`` with ``L L^T = J^T J``, s the residual's deviation; (batch, draws, k)."""
    batch, k = z.shape
    starts = np.empty((batch, len(draws), k))
    freedom = max(generator.observation_size - k, 1)
    for i in range(0, batch, _CHUNK):
        part = slice(i, i + _CHUNK)
        jacobian = generator.jacobian(z[part])
        gram = np.swapaxes(jacobian, 1, 2) @ jacobian
        # Directions that are hardly observed are tried, but not to infinity.
        factor = np.linalg.cholesky(gram + 1e-8 * _ridge(gram))
        columns = np.broadcast_to(draws.T, (len(factor), k, len(draws)))
        steps = np.linalg.solve(np.swapaxes(factor, 1, 2), columns)
        deviation = np.sqrt(2 * loss[part] / freedom)
        starts[part] = z[part, None] + deviation[:, None, None] * np.swapaxes(steps, 1, 2)
    return starts


def _rank(generator: Generator, z: Array) -> NDArray[np.int64]:
    """Numerical rank of the Jacobian at each code."""
    rank = np.zeros(len(z), dtype=np.int64)
    for i in range(0, len(z) if z.shape[1] else 0, _CHUNK):
        jacobian = generator.jacobian(z[i : i + _CHUNK])
        rank[i : i + _CHUNK] = np.linalg.matrix_rank(jacobian, rtol=_RANK)
    return rank


def _damped_step(gram: Array, slope: Array, damping: Array) -> tuple[Array, Array]:
    """The step of each run, and the decrease of ``0.5 ||x - G||^2`` that the model predicts."""
    # A tiny floor keeps a singular Gram matrix solvable; it acts below rounding elsewhere.
    weight = np.maximum(damping, 1e-15)[:, None, None]
    solved = np.linalg.solve(gram + weight * _ridge(gram), slope[:, :, None])
    step = solved[:, :, 0].astype(np.float64, copy=False)
    quadratic = np.einsum("bi,bij,bj->b", step, gram, step)
    return step, np.einsum("bi,bi->b", step, slope) - 0.5 * quadratic


def _ridge(gram: Array) -> Array:
    """The identity, scaled to the mean of each matrix's diagonal (to 1 where that is 0)."""
    k = gram.shape[1]
    mean = np.trace(gram, axis1=1, axis2=2) / max(k, 1)
    return np.where(mean > 0, mean, 1.0)[:, None, None] * np.eye(k)


def _half_square(error: Array) -> Array:
    return 0.5 * np.einsum("ij,ij->i", error, error)
