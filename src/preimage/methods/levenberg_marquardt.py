"""Damped Gauss-Newton descents, many at once: ``0.5 ||y - A G(z)||^2 + 0.5 prior ||z||^2``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from preimage.activation import Activation, LeakyReLU, ReLU
from preimage.generator import Generator
from preimage.methods import dense
from preimage.methods.region import Region
from preimage.network import Network, chain_of, known_chain
from preimage.observation import Observation

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

# Entries of the Jacobians that are held at a time: about what a core's cache takes.
_JACOBIAN_ENTRIES = 2**18
# A run is stationary when no step promises to lower its loss by more than this, relatively; when
# the damping has grown to this without a step that lowers it; or when so many that do, together,
# have lowered it by no more than that (the last two at a kink).
_STATIONARY = 1e-14
_LARGEST_DAMPING = 1e12
_IDLE_STEPS = 4
_IDLE = 1e-8
# Relative to the Jacobian's largest singular value: below, a direction of z is not observed. Its
# Gram matrix squares the ratio, so that it can vouch for full rank only well above its rounding.
_RANK = 1e-9
_SURE_RANK = 1e-10
# Slope of the negative side of hidden units while a search starts.
_LEAK = 0.1


@dataclass(frozen=True, eq=False)
class Misfit:
    """The function of z that is minimised, and its linearisation.

    Several runs may belong to one sample; ``samples`` names the sample of each row of ``z``.

    Attributes:
        generator: The measured network ``A G``, known or run.
        observation: Of all samples.
        prior: Weight of ``0.5 ||z||^2``.
        region: Where z may lie.
        linear: (samples, m), outputs whose activation is left out; None for none.
    """

    generator: Network
    observation: Observation
    prior: float
    region: Region
    linear: NDArray[np.bool_] | None = None

    @cached_property
    def relaxed(self) -> Misfit:
        """An easier function with the same zeros, for a search to start on.

        An output above the tolerance has an active unit, so that its ReLU can be left out: a code
        on the wrong side of it then feels its slope. What hidden units would do is not known, so
        theirs is leaky (which moves the zeros, and is only a start).
        """
        chain = chain_of(self.generator)
        if chain is None:
            return self
        *hidden, last = chain.layers
        layers = [replace(layer, activation=_leaky(layer.activation)) for layer in hidden]
        linear = None
        if isinstance(last.activation, ReLU):
            linear = self.observation.values > self.observation.tolerance[:, None]
        return replace(self, generator=Generator((*layers, last)), linear=linear)

    @cached_property
    def network(self) -> Any:
        """The network for compiled code, if all its layers are dense; else None."""
        return dense.as_network(self.generator) if isinstance(self.generator, Generator) else None

    def fit(self, enough: Array | None = None) -> Any:
        """What is fitted, for compiled code."""
        return dense.as_fit(self.observation, self.linear, self.prior, self.rounding, enough)

    @cached_property
    def rounding(self) -> Array:
        """(samples,) losses that are nothing but the rounding of G."""
        return 0.5 * (4 * np.finfo(float).eps) ** 2 * _squares(self.observation.values)

    def error(self, z: Array, samples: Indices) -> Array:
        """``y - A G(z)``, (runs, m)."""
        if self.linear is None:
            return self.observation.take(samples).error(self.generator(z))
        a = self.chain.preactivations(z)[-1]
        outputs = np.where(self.linear[samples], a, self.chain.layers[-1].activation(a))
        return self.observation.take(samples).error(outputs)

    def loss(self, z: Array, error: Array) -> Array:
        """(runs,)."""
        return 0.5 * (_squares(error) + self.prior * _squares(z))

    @property
    def chain(self) -> Generator:
        """The layers, where something asks for them."""
        return known_chain(self.generator, "this step of the joint method")

    def parts(self, runs: int) -> list[slice]:
        """Slices of runs whose Jacobians fit into the cache together."""
        chain = self.generator if isinstance(self.generator, Generator) else None
        widest = max(chain.sizes[1:]) if chain else self.generator.observation_size
        size = max(_JACOBIAN_ENTRIES // max(widest * self.generator.latent_size, 1), 1)
        return [slice(i, i + size) for i in range(0, runs, size)]

    def derivatives(self, z: Array, samples: Indices) -> list[Array]:
        """Of each layer's activation, (runs, outputs); 0 where nothing was observed."""
        derivatives = self.chain.derivatives(self.chain.preactivations(z))
        if self.linear is not None:
            derivatives[-1] = np.where(self.linear[samples], 1.0, derivatives[-1])
        derivatives[-1] = self.observation.take(samples).restrict(derivatives[-1])
        return derivatives

    def jacobian(self, z: Array, samples: Indices) -> Array:
        """(runs, m, k), with 0 where nothing was observed."""
        if self.linear is None:
            return self.observation.take(samples).restrict(self.generator.linearize(z)[1])
        return self.chain.push_forward(self.derivatives(z, samples))

    def normal_equations(self, z: Array, samples: Indices, error: Array) -> tuple[Array, Array]:
        """``J^T J + prior I`` and ``J^T error - prior z``: curvature and negative gradient."""
        gram, slope = self._curvature(z, samples, error)
        if self.prior:
            gram += self.prior * np.eye(z.shape[1])
            slope -= self.prior * z
        return gram, slope

    def _curvature(self, z: Array, samples: Indices, error: Array) -> tuple[Array, Array]:
        """``J^T J`` and ``J^T error``."""
        runs, k = z.shape
        if self.network is not None:
            derivatives = np.concatenate(self.derivatives(z, samples), axis=1)
            return dense.normal_equations(self.network, derivatives, error)
        gram, slope = np.empty((runs, k, k)), np.empty((runs, k))
        for part in self.parts(runs):
            jacobian = self.jacobian(z[part], samples[part])
            np.matmul(np.swapaxes(jacobian, 1, 2), jacobian, out=gram[part])
            slope[part] = np.matmul(error[part, None], jacobian)[:, 0]
        return gram, slope

    def rank(self, z: Array, samples: Indices) -> NDArray[np.int64]:
        """Numerical rank of the observed Jacobian at each row of ``z``."""
        runs, k = z.shape
        rank = np.full(runs, k)
        for part in self.parts(runs) if k else []:
            nothing = np.zeros((len(z[part]), self.generator.observation_size))
            gram = self._curvature(z[part], samples[part], nothing)[0]
            values = np.linalg.eigvalsh(gram)
            unsure = part.start + np.flatnonzero(~(values[:, 0] > _SURE_RANK * values[:, -1]))
            jacobian = self.jacobian(z[unsure], samples[unsure])
            rank[unsure] = np.linalg.matrix_rank(jacobian, rtol=_RANK)
        return rank


def _leaky(activation: Activation) -> Activation:
    if isinstance(activation, ReLU):
        return LeakyReLU(_LEAK)
    if isinstance(activation, LeakyReLU):
        return LeakyReLU(max(activation.slope, _LEAK))
    return activation


class Ends(NamedTuple):
    """Where runs ended: codes (runs, k), losses, whether stationary, damping (runs,) each."""

    z: Array
    loss: Array
    stationary: NDArray[np.bool_]
    damping: Array


def descend(
    misfit: Misfit,
    z: Array,
    samples: Indices,
    *,
    steps: int,
    damping: Array | float,
    enough: Array | None = None,
) -> Ends:
    """Levenberg-Marquardt from each row of ``z``; no loss ever rises.

    Dense networks without a region go to compiled code, which does the same.

    Args:
        misfit: What to minimise.
        z: (runs, k) starts.
        samples: (runs,) the sample of each.
        steps: Most steps of a run.
        damping: Initial; a number, or one a run.
        enough: (samples,) once a run's loss is at most this, the sample's other runs end (or are
            not begun: their loss is then infinite).
    """
    count, k = z.shape
    if misfit.network is not None and not misfit.region.is_bounded:
        found = dense.descend(
            misfit.network, misfit.fit(enough), samples, z, np.zeros(count) + damping,
            (steps, _STATIONARY, _LARGEST_DAMPING, _IDLE_STEPS, _IDLE),
        )  # fmt: skip
        return Ends(*found)
    z = misfit.region.project(z).copy()
    error = misfit.error(z, samples)
    weight, growth = np.zeros(count) + damping, np.full(count, 2.0)
    run = Ends(z, misfit.loss(z, error), np.zeros(count, dtype=bool), weight)
    rounding = misfit.rounding[samples]
    gram, slope = np.zeros((count, k, k)), np.zeros((count, k))
    open_ = moved = np.arange(count)
    before, taken = run.loss.copy(), np.zeros(count, dtype=np.int64)
    for _ in range(steps):
        gram[moved], slope[moved] = misfit.normal_equations(
            run.z[moved], samples[moved], error[moved]
        )
        step, predicted = _step(misfit.region, run.z[open_], gram[open_], slope[open_],
                                weight[open_])  # fmt: skip
        flat = ~(predicted > _STATIONARY * run.loss[open_])
        flat |= (weight[open_] > _LARGEST_DAMPING) | (run.loss[open_] <= rounding[open_])
        due = taken[open_] == _IDLE_STEPS
        flat |= due & (run.loss[open_] >= (1 - _IDLE) * before[open_])
        before[open_[due]], taken[open_[due]] = run.loss[open_[due]], 0
        run.stationary[open_[flat]] = True
        going = ~flat if enough is None else ~flat & ~_surpassed(run, samples, enough)[open_]
        open_, step = open_[going], step[going]
        if not len(open_):
            break
        trial = misfit.region.project(run.z[open_] + step)
        missed = misfit.error(trial, samples[open_])
        loss = misfit.loss(trial, missed)
        # The region may have cut the step short, so the model is asked about what was taken.
        predicted = _decrease(trial - run.z[open_], gram[open_], slope[open_])
        better = (loss < run.loss[open_]) & (predicted > 0)
        ratio = (run.loss[open_] - loss)[better] / predicted[better]
        moved, left = open_[better], open_[~better]
        run.z[moved], run.loss[moved], error[moved] = trial[better], loss[better], missed[better]
        # A faithful model is trusted at once; a poor one by degrees (Nielsen, IMM-REP-1999-05).
        weight[moved] *= np.where(ratio > 0.9, 0.01, np.maximum(1 / 3, 1 - (2 * ratio - 1) ** 3))
        weight[left] = np.maximum(weight[left], 1e-12) * growth[left]
        growth[moved], growth[left] = 2.0, 2.0 * growth[left]
        taken[moved] += 1
    return run


def _surpassed(run: Ends, samples: Indices, enough: Array) -> NDArray[np.bool_]:
    """Runs that are not good enough, while another of the same sample is."""
    good = run.loss <= enough[samples]
    explained = np.zeros(len(enough), dtype=bool)
    explained[samples[good]] = True
    return explained[samples] & ~good


def _step(
    region: Region, z: Array, gram: Array, slope: Array, weight: Array
) -> tuple[Array, Array]:
    """The damped step of each run, and the decrease of the loss that the model predicts for it.

    ::

        (gram + weight * mean(diag(gram)) I) step = slope

    At a face of the box that the slope pushes against, the coordinate is left out. In a ball, the
    step is the minimiser of the damped model over the ball.
    """
    # A tiny floor keeps a singular Gram matrix solvable; it acts below rounding elsewhere.
    damped = gram + np.maximum(weight, 1e-15)[:, None, None] * _ridge(gram)
    if region.has_box:
        held = ((z <= region.low) & (slope < 0)) | ((z >= region.high) & (slope > 0))
        free = ~held
        damped = np.where(free[:, :, None] & free[:, None, :], damped, np.eye(z.shape[1]))
        slope = np.where(free, slope, 0.0)
    step: Array = np.linalg.solve(damped, slope[:, :, None])[:, :, 0].astype(float, copy=False)
    if np.isfinite(region.radius):
        out = np.flatnonzero(_squares(z + step) > region.radius**2)
        target = slope[out] + np.matmul(damped[out], z[out, :, None])[:, :, 0]
        step[out] = _on_sphere(damped[out], target, region.radius) - z[out]
    return step, _decrease(step, gram, slope)


def _decrease(step: Array, gram: Array, slope: Array) -> Array:
    """``slope . step - 0.5 step . gram step``."""
    bent = np.matmul(gram, step[:, :, None])[:, :, 0]
    return ((slope - 0.5 * bent) * step).sum(axis=1)


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
        norm = np.sqrt(_squares(scaled))
        slope = (scaled**2 / (values + mu[:, None])).sum(axis=1)
        mu = np.maximum(mu + (norm / radius - 1.0) * norm**2 / np.where(slope > 0, slope, 1.0), 0.0)
    scaled = coefficients / (values + mu[:, None])
    return np.matmul(vectors, scaled[:, :, None])[:, :, 0]


def _ridge(gram: Array) -> Array:
    """The identity, scaled to the mean of each matrix's diagonal (to 1 where that is 0)."""
    k = gram.shape[1]
    mean = np.trace(gram, axis1=1, axis2=2) / max(k, 1)
    return np.where(mean > 0, mean, 1.0)[:, None, None] * np.eye(k)


def _squares(rows: Array) -> Array:
    return np.einsum("ij,ij->i", rows, rows)
