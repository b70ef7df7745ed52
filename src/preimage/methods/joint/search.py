"""Descents from several starts, then from the neighbours of the best answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from preimage.generator import Generator
from preimage.matrix import Array, Indices, multiply, slices
from preimage.methods.joint.descent import DescentResult, levenberg_marquardt
from preimage.methods.joint.flips import neighbours
from preimage.methods.joint.least_squares import LeastSquares, squares
from preimage.methods.joint.model import damped_step
from preimage.methods.parameters import draws_of
from preimage.observation import Observation, scale_of

if TYPE_CHECKING:
    from preimage.methods.gauss_newton import GaussNewton

# Starts that are worked on before it is asked which samples need more.
_WAVE = 8
# Codes that are drawn where the layers are not known: so many a latent coordinate, but no fewer
# than that, and of no more output entries.
_DRAWS_A_LATENT = 10
_FEWEST_DRAWS = 64
_DRAWN_ENTRIES = 2**21
# Of the regression on them, relative to the mean square of an output's distance from their mean.
_RIDGE = 0.1
# Relative rounding of a loss; damping that keeps rounding out of directions that are not seen.
_LOSS_ROUNDING, _LAST_DAMPING = 1e-13, 1e-9
# Steps of the PLUGIn iteration.
_PLUG_IN_STEPS = 30


class Search:
    """The runs of one call: keeps the best end of each sample.

    Args:
        problem: What is minimised.
        method: How many starts, flips and steps, and the initial damping.
    """

    def __init__(self, problem: LeastSquares, method: GaussNewton) -> None:
        self.problem, self.method, observation = problem, method, problem.observation
        self.clock, count = observation.clock, len(observation)
        self.best = DescentResult(
            np.zeros((count, problem.network.latent_size)),
            np.full(count, np.inf),
            np.zeros(count, dtype=bool),
            np.full(count, np.inf),
        )
        # A loss that needs no other start: rounding error, or where starts are dear what noise
        # accounts for.
        size = squares(observation.restrict(observation.values))
        self.target_loss = 0.5 * observation.unit**2 * size
        # A loss that noise accounts for: what is better can only be near.
        self.explained = np.maximum(0.5 * observation.explained**2, self.target_loss)
        if problem.chain is None:
            self.target_loss = self.explained

    def run(self, given: Array | None) -> DescentResult:
        """From all starts, then around the answers.

        Args:
            given: (samples, k) codes that are the first starts; NaN or None for none.
        """
        starts, count = self._starts(), self.method.restarts
        if given is not None:
            known = np.isfinite(given).all(axis=1)
            starts[known, 0] = given[known]
        self.clock.report("start 1", len(starts))
        self._race(np.arange(len(starts)), starts[:, 0], 25)
        for i in range(1, count, _WAVE):
            if self.clock.is_over:
                break
            open_ = np.flatnonzero(self.best.loss > self.target_loss)
            self.clock.report(f"start {i + 1} of {count}", len(open_))
            wave = starts[open_, i : i + _WAVE]
            own = np.repeat(open_, wave.shape[1])
            self._race(own, wave.reshape(len(own), wave.shape[2]), 6, kept=2, then=15)
        self._polish()
        if self.problem.chain is not None:
            self._flip()
            self._polish()
            self._finish()
        return self.best

    def _starts(self) -> Array:
        """(samples, restarts, k), the most promising first."""
        problem, count = self.problem, self.method.restarts
        random = draws_of(self.method.seed)
        if problem.chain is None:
            return drawn_starts(problem, count, random)
        first = plug_in(problem.chain, problem.observation, problem.prior)[:, None]
        others = random.normal(size=(1, count - 1, first.shape[2]))
        return np.concatenate([first, others.repeat(len(first), axis=0)], axis=1)

    def _flip(self) -> None:
        """From promising neighbours, until two waves bring an explained sample nothing.

        A sample's neighbours are worked out again when it has a better answer.
        """
        (count, k), rounds = self.best.z.shape, self.method.flip_rounds
        width = rounds * _WAVE
        known = np.full((count, width, k), np.nan)
        tried, fresh = np.zeros(count, dtype=np.int64), np.ones(count, dtype=bool)
        for turn in range(rounds):
            if self.clock.is_over:
                break
            settled = (tried > _WAVE) & (self.best.loss <= self.explained)
            open_ = np.flatnonzero((self.best.loss > self.target_loss) & ~settled)
            self.clock.report(f"neighbours, round {turn + 1} of {rounds}", len(open_))
            new = open_[fresh[open_]]
            known[new] = neighbours(self.problem, self.best.z[new], new, width)
            rank = np.arange(width) - tried[open_, None]
            promising = np.isfinite(known[open_]).any(axis=2) & (rank >= 0) & (rank < _WAVE)
            own, place = np.nonzero(promising)
            if not len(own):
                break
            before = self.best.loss.copy()
            # They start so near to their minimum that four steps tell which lead anywhere.
            self._race(open_[own], known[open_[own], place], 4, then=8)
            fresh = self.best.loss < before
            tried = np.where(fresh, 0, tried + _WAVE)

    def _polish(self) -> None:
        """Go on from the best codes where they are not stationary."""
        going = np.flatnonzero(~self.best.stationary)
        z, damping = self.best.z[going], self.best.damping[going]
        self._keep(going, self._descend(going, z, damping, self.method.steps))

    def _finish(self) -> None:
        """A step that is hardly damped, to the minimiser of the linear region of each code.

        Where steps lower the loss by no more than its rounding, descents end, while the code is by
        the square root of that from the minimiser.
        """
        problem, (z, loss, _, _) = self.problem, self.best
        for part in slices(len(z), z.shape[1] ** 2):
            if self.clock.is_over:
                break
            samples = np.arange(len(z))[part]
            runs, damping = np.arange(len(samples)), np.full(len(samples), _LAST_DAMPING)
            model = problem.linearize(z[part], samples)
            step, _ = damped_step(problem.region, z[part], *model, runs, damping)
            trial = problem.region.project(z[part] + step)
            kept = problem.loss(trial, samples) <= loss[part] * (1 + _LOSS_ROUNDING)
            z[samples[kept]] = trial[kept]

    def _race(self, samples: Indices, z: Array, first: int, kept: int = 1, then: int = 0) -> None:
        """Descend from ``z``, (runs, k), where ``samples`` ascend; keep what is better.

        Most runs end early: after ``first`` steps the best ``kept`` ones of each sample take
        ``then`` more.
        """
        if not len(samples):
            return
        most, damping = self.method.steps, np.full(len(z), self.method.damping)
        ends = self._descend(samples, z, damping, min(first, most))
        if then and most > first:
            best = best_runs(samples, ends.loss, kept)
            samples, z, damping = samples[best], ends.z[best], ends.damping[best]
            ends = self._descend(samples, z, damping, min(then, most - first))
        best = best_runs(samples, ends.loss, 1)
        self._keep(samples[best], ends.take(best))

    def _descend(self, samples: Indices, z: Array, damping: Array, steps: int) -> DescentResult:
        return levenberg_marquardt(self.problem, z, samples, steps, damping, self.target_loss)

    def _keep(self, samples: Indices, ends: DescentResult) -> None:
        """Take over the ends, one a sample, that are better than what is known."""
        better = ends.loss <= self.best.loss[samples]
        for kept, new in zip(self.best, ends, strict=True):
            kept[samples[better]] = new[better]


def best_runs(samples: Indices, loss: Array, count: int) -> Indices:
    """Which are the ``count`` best runs of each sample, samples in ascending order."""
    order = np.lexsort((loss, samples))
    own = samples[order]
    first = np.searchsorted(own, own)
    return order[np.arange(len(own)) - first < count]


def drawn_starts(problem: LeastSquares, count: int, random: np.random.Generator) -> Array:
    """(samples, count, k) starts from many codes from N(0, I), which are run once for all samples.

    The first is what a ridge regression of these codes on their outputs makes of the observation.
    It lies nearer than the best of the draws, which are the others.
    """
    network, observation = problem.network, problem.observation
    k, m = network.latent_size, network.observation_size
    most = max(_DRAWN_ENTRIES // max(m, 1), count)
    draws = max(min(_DRAWS_A_LATENT * k, most), min(_FEWEST_DRAWS, most), count)
    codes = random.normal(size=(draws, k))
    outputs = (network.draft or network)(codes)
    starts = np.empty((len(observation), count, k))
    distance = np.empty((len(observation), draws))
    for place, output in enumerate(outputs):
        distance[:, place] = np.linalg.norm(observation.error(output), axis=1)
    starts[:, 1:] = codes[np.argsort(distance, axis=1, kind="stable")[:, : count - 1]]
    # Samples with the same weights share a regression.
    weights = observation.restrict(np.ones_like(observation.values))
    rows, group = np.unique(weights, axis=0, return_inverse=True)
    center = outputs.mean(axis=0)
    for own, weight in enumerate(rows):
        members = np.flatnonzero(group.reshape(-1) == own)
        features = weight * (outputs - center)
        products = features @ features.T
        ridge = _RIDGE * max(np.trace(products) / draws, np.finfo(float).tiny)
        combined = np.linalg.solve(products + ridge * np.eye(draws), codes)
        starts[members, 0] = (weight * (observation.values[members] - center)) @ (
            features.T @ combined
        )
    starts[:] = problem.region.project(starts.reshape(-1, k)).reshape(starts.shape)
    return starts


def plug_in(chain: Generator, observation: Observation, prior: float = 0.0) -> Array:
    """(samples, k) rough codes by PLUGIn: the transposed weights, activations left out.

    The step length is the line minimum for a linear network half of whose units are active in
    each layer, so that the network's gain need not be known. The best iterate is returned.
    """
    z = np.zeros((len(observation), chain.latent_size))
    best, lowest = z, np.full(len(z), np.inf)
    for step in range(_PLUG_IN_STEPS):
        if step > 1 and observation.clock.is_over:
            break
        error = observation.error(chain(z))
        loss = squares(error) + prior * squares(z)
        best = np.where((loss < lowest)[:, None], z, best)
        lowest = np.minimum(loss, lowest)
        direction = observation.restrict(error)
        for layer in reversed(chain.layers):
            direction = layer.adjoint(direction)
        # Largest entries are 1, so that no square leaves the range where weights are extreme.
        size = scale_of(direction)[:, None]
        image = direction = direction / size
        for layer in chain.layers:
            image = multiply(layer.weight, image)
        image = observation.restrict(image)
        least = scale_of(image)[:, None]
        gain = ((image / least) ** 2).sum(axis=1) / 2.0 ** len(chain.layers)
        length = (direction**2).sum(axis=1) / np.where(gain > 0, gain, np.inf)
        z = z + length[:, None] * (size / least) * direction / least
    return best
