"""The whole network at once: damped Gauss-Newton steps on the piecewise-linear map."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from preimage import lp
from preimage.errors import InputError
from preimage.generator import Generator, multiply
from preimage.inversion import Estimate, Status
from preimage.methods import dense
from preimage.methods.cells import cell_descend, takes
from preimage.methods.flips import NEAREST, flips
from preimage.methods.levenberg_marquardt import Ends, Misfit, descend
from preimage.methods.parameters import check_positive, is_method
from preimage.methods.region import Box, Region, box_ends, check_box
from preimage.methods.sequential_lp import linear_descend
from preimage.network import Network, chain_of
from preimage.observation import ROUNDING, Observation

if TYPE_CHECKING:
    from preimage.methods import Method

Array = NDArray[np.float64]
JointNorm = Literal["l2", "l1", "linf"]

# Steps on an easier function before those on the true one.
_RELAXED_STEPS = 12
# Starts that are worked on before it is asked which samples need more.
_WAVE = 8
# For l1 fits: rounds of least squares without the worst entries, and the part that is kept.
_TRIMMINGS = 4
_TRIMMED = 0.9
# Steps of an l1 or l-infinity fit that may cross many kinks at once, before it goes cell by cell.
_ROUGH_STEPS = 6


class Race(NamedTuple):
    """How runs from several starts compete: most end early, and only the best goes on to its end.

    Attributes:
        first: Steps of every run.
        kept: Runs of a sample that go on.
        then: Steps of these.
    """

    first: int
    kept: int
    then: int


_ALL = Race(first=25, kept=1, then=0)
_DRAWS = Race(first=6, kept=2, then=15)
# Neighbours start so near to their minimum that four steps tell which of them lead anywhere.
_NEIGHBOURS = Race(first=4, kept=1, then=8)


@dataclass(frozen=True)
class GaussNewton:
    """Minimise ``||y - A G(z)||`` over z, all layers at once, from several starts.

    While no unit changes its sign, G is affine, ``G(z + dz) = G(z) + J dz``, so that one
    undamped step ends at the exact minimiser of its linear piece. In the l2 norm, steps solve

        (J^T J + damping * mean(diag(J^T J)) I) dz = J^T (y - A G(z))

    and are taken only if they lower the loss; the damping follows the ratio of the achieved to
    the predicted decrease (Levenberg and Marquardt; Nielsen's update, IMM-REP-1999-05). So the
    loss never rises, and no start is ever made worse. In the l1 and l-infinity norms, linear
    programs within a trust region go on from the best least-squares answers. No layer needs to
    expand: ``rank J = k`` is enough, and where it is not so at the answer, the sample is
    ``ambiguous`` (``inversion.rank`` tells how many directions of z are seen).

    The first start is the code of ``start``, or where there is none, that of a short PLUGIn run
    (``z <- z + mu W_1^T ... W_d^T (y - G(z))``, which goes through inactive units, too); the others
    are Gaussian draws, the same for every sample. A sample needs no more starts once it is
    explained up to rounding. The best answer often has a better neighbour, a linear piece in which
    one hidden unit has the other sign; ``hops`` go through these, most promising first, until two
    rounds bring an explained sample nothing.

    Args:
        norm: ``"l2"``; ``"linf"`` for noise with a sharp bound; ``"l1"`` for gross errors in a
            few entries.
        restarts: Number of starts.
        hops: Rounds of eight such neighbours of the best answer; 0 for none.
        steps: Most steps from each start.
        damping: Initial damping, positive.
        start: A method whose codes are the first start, such as ``LayerwiseLP()``.
        box: Only codes with ``|z_i| <= box``, or ``(low, high)``, numbers or one a coordinate.
        ball: Only codes with ``||z||_2 <= ball`` (l2 norm only).
        prior: Adds ``0.5 * prior * ||z||_2^2`` to ``0.5 ||y - A G(z)||_2^2``: for noise of
            variance v and codes from N(0, I), ``prior=v`` is the posterior mode (l2 only).
        backend: Of the linear programs.
        seed: Of the draws.

    Raises:
        InputError: A parameter is out of its range.
    """

    norm: JointNorm = "l2"
    restarts: int = 8
    hops: int = 3
    steps: int = 200
    damping: float = 1e-2
    start: Method | None = None
    box: Box = None
    ball: float | None = None
    prior: float = 0.0
    backend: lp.Backend = "kernel"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.norm not in ("l2", "l1", "linf"):
            raise InputError(f"norm: expected l2, l1 or linf, got {self.norm!r}")
        positive, counts = {"damping": self.damping}, {"restarts": self.restarts}
        positive |= {"prior": self.prior} if self.prior else {}
        positive |= {"ball": self.ball} if self.ball is not None else {}
        counts |= {"steps": self.steps} | ({"hops": self.hops} if self.hops else {})
        check_positive(positive, counts)
        check_box(self.box)
        if self.ball is not None and self.box is not None:
            raise InputError("box, ball: expected one of them, got both")
        if self.norm != "l2" and (self.prior or self.ball is not None):
            raise InputError(f"prior, ball: they need norm='l2', got norm={self.norm!r}")
        if self.start is not None and not is_method(self.start):
            raise InputError(f"start: expected a method such as LayerwiseLP(), got {self.start!r}")
        lp.check_backend(self.backend)

    def solve(self, network: Network, observation: Observation) -> Estimate:
        """Invert every sample; see ``methods.Method``."""
        network = chain_of(network) or network
        k = network.latent_size
        low, high = box_ends(self.box, k)
        region = Region(low, high, np.inf if self.ball is None else self.ball)
        misfit = Misfit(network, observation, self.prior, region)
        given = None if self.start is None else self.start.solve(network, observation).latent
        best = _Search(self, misfit).run(given)
        if self.norm == "l1":
            best = best._replace(z=self._trimmed(misfit, best.z))
        if self.norm != "l2":
            best = self._linear_finish(misfit, best.z, given)
        status = Status.STEP_LIMIT.each(len(observation))
        status[best.stationary] = Status.SOLVED
        return Estimate(best.z, status)

    def _trimmed(self, misfit: Misfit, z: Array) -> Array:
        """Least squares without the entries that fit worst, from ``z``, a few times over.

        Gross errors in a few entries pull a least-squares fit far away; left out, they do not.
        (Rousseeuw's least trimmed squares, by concentration steps.)
        """
        everyone = np.arange(len(z))
        for _ in range(_TRIMMINGS):
            error = np.abs(misfit.error(z, everyone))
            if misfit.observation.mask is not None:
                error[~misfit.observation.mask] = np.nan
            kept = error <= np.nanquantile(error, _TRIMMED, axis=1, keepdims=True)
            observation = misfit.observation.also_masked(kept)
            z = _Search(self, replace(misfit, observation=observation)).run(z).z
        return z

    def _linear_finish(self, misfit: Misfit, z: Array, given: Array | None) -> Ends:
        """Linear programs from the answer and from the given codes; the better end of these."""
        everyone = np.arange(len(z))
        starts = [z]
        if given is not None:
            starts.append(np.where(np.isfinite(given).all(axis=1, keepdims=True), given, z))
        ends = [self._linear_descend(misfit, start, everyone) for start in starts]
        first = np.argmin([end.loss for end in ends], axis=0)
        return Ends(*(np.stack(parts)[first, everyone] for parts in zip(*ends, strict=True)))

    def _linear_descend(self, misfit: Misfit, z: Array, samples: NDArray[np.intp]) -> Ends:
        norm, backend = self.norm, self.backend
        if not isinstance(misfit.generator, Generator) or not takes(misfit.generator):
            return linear_descend(misfit, z, samples, norm=norm, steps=self.steps, backend=backend)
        rough = linear_descend(
            misfit, z, samples, norm=norm, steps=min(_ROUGH_STEPS, self.steps), backend=backend
        )
        return cell_descend(misfit, rough.z, samples, norm=norm, steps=self.steps, backend=backend)


class _Search:
    """The runs of one call: keeps the best end of each sample."""

    def __init__(self, method: GaussNewton, misfit: Misfit) -> None:
        self.method, self.misfit = method, misfit
        samples, k = len(misfit.observation), misfit.generator.latent_size
        nothing = np.full(samples, np.inf)
        self.best = Ends(np.zeros((samples, k)), nothing, np.zeros(samples, bool), nothing.copy())
        # A loss that is rounding error: there is nothing left to look for.
        self.enough = 0.5 * (ROUNDING * np.linalg.norm(misfit.observation.values, axis=1)) ** 2
        # A loss that noise accounts for: what is better can only be near.
        self.explained = np.maximum(0.5 * misfit.observation.explained**2, self.enough)

    def run(self, given: Array | None) -> Ends:
        """From all starts, then around the answers."""
        method, k = self.method, self.misfit.generator.latent_size
        open_ = np.flatnonzero(self.best.loss > self.enough)
        first: Array = np.full((len(open_), k), np.nan) if given is None else given[open_]
        without = np.flatnonzero(~np.isfinite(first).all(axis=1))
        first[without] = plug_in(self.misfit, open_[without])
        self._improve(open_, first[:, None], _ALL)
        draws = np.random.default_rng(method.seed).normal(size=(method.restarts - 1, k))
        for i in range(0, len(draws), _WAVE):
            open_ = np.flatnonzero(self.best.loss > self.enough)
            starts = np.tile(draws[i : i + _WAVE], (len(open_), 1, 1))
            self._improve(open_, self._relaxed(open_, starts), _DRAWS)
        self._polish()
        tried = np.zeros(len(self.best.z), dtype=np.int64)
        for _ in range(method.hops):
            settled = (tried > _WAVE) & (self.best.loss <= self.explained)
            open_ = np.flatnonzero((self.best.loss > self.enough) & ~settled)
            before = self.best.loss[open_].copy()
            self._improve(open_, self._flipped(open_, tried[open_]), _NEIGHBOURS)
            better = self.best.loss[open_] < before
            tried[open_] = np.where(better, 0, tried[open_] + _WAVE)
        self._polish()
        return self.best

    def _polish(self) -> None:
        """Go on from the best codes where they are not stationary."""
        going = np.flatnonzero(~self.best.stationary)
        z, damping = self.best.z[going], self.best.damping[going]
        self._keep(going, self._descend(going, z, damping, self.method.steps))

    def _relaxed(self, open_: NDArray[np.intp], starts: Array) -> Array:
        """Every other start moved on the easier function: the two kinds fail on other samples."""
        odd = starts[:, 1::2]
        samples = np.repeat(open_, odd.shape[1])
        z = odd.reshape(len(samples), starts.shape[2])
        ends = descend(
            self.misfit.relaxed, z, samples, steps=_RELAXED_STEPS, damping=self.method.damping
        )
        starts[:, 1::2] = ends.z.reshape(odd.shape)
        return starts

    def _improve(self, open_: NDArray[np.intp], starts: Array, race: Race) -> None:
        """Descend from ``starts``, (samples, runs, k), and keep what is better."""
        runs, k = starts.shape[1:]
        if not len(open_) or not runs:
            return
        most = self.method.steps
        samples, z = np.repeat(open_, runs), starts.reshape(len(open_) * runs, k)
        damping = np.full(len(z), self.method.damping)
        ends = self._descend(samples, z, damping, min(race.first, most))
        if race.then and most > race.first:
            kept = min(race.kept, runs)
            order = np.argsort(ends.loss.reshape(-1, runs), axis=1, kind="stable")[:, :kept]
            best = (order + runs * np.arange(len(open_))[:, None]).ravel()
            samples, runs = samples[best], kept
            z, damping, steps = ends.z[best], ends.damping[best], min(race.then, most - race.first)
            ends = self._descend(samples, z, damping, steps)
        best = np.argmin(ends.loss.reshape(-1, runs), axis=1) + runs * np.arange(len(open_))
        self._keep(open_, Ends(*(part[best] for part in ends)))

    def _descend(self, samples: NDArray[np.intp], z: Array, damping: Array, steps: int) -> Ends:
        return descend(self.misfit, z, samples, steps=steps, damping=damping, enough=self.enough)

    def _keep(self, samples: NDArray[np.intp], ends: Ends) -> None:
        """Take over the ends, one a sample, that are better than what is known."""
        better = ends.loss <= self.best.loss[samples]
        for kept, new in zip(self.best, ends, strict=True):
            kept[samples[better]] = new[better]

    def _flipped(self, open_: NDArray[np.intp], tried: NDArray[np.int64]) -> Array:
        """The next neighbours of each answer, (samples, starts, k); see ``flips``."""
        misfit = self.misfit
        if misfit.network is not None:
            codes = self.best.z[open_]
            return dense.flips(misfit.network, misfit.fit(), open_, codes, tried, NEAREST, _WAVE)
        starts = np.repeat(self.best.z[open_, None], _WAVE, axis=1)
        if not isinstance(misfit.generator, Generator):
            return starts
        for own, sample, first in zip(starts, open_, tried, strict=True):
            one = np.array([sample])
            z = self.best.z[one]
            derivatives = [d[0] for d in self.misfit.derivatives(z, one)]
            found = flips(misfit.generator, z[0], self.misfit.error(z, one)[0], derivatives)
            chosen = found.z[first : first + _WAVE]
            own[: len(chosen)] = chosen
        return starts


def plug_in(misfit: Misfit, samples: NDArray[np.intp], steps: int = 30) -> Array:
    """A rough code by the PLUGIn iteration: the transposed weights, activations left out.

    The step length is the line minimum for a linear network half of whose units are active in
    each layer, so that the network's gain need not be known.

    Args:
        misfit: What to fit.
        samples: (runs,) whose codes are wanted.
        steps: Iterations.

    Returns:
        (runs, k) the best iterate of each.
    """
    generator, observation = misfit.generator, misfit.observation.take(samples)
    z = np.zeros((len(samples), generator.latent_size))
    if not isinstance(generator, Generator):
        return z
    best, lowest = z, np.full(len(z), np.inf)
    for _ in range(steps):
        error = misfit.error(z, samples)
        loss = misfit.loss(z, error)
        best = np.where((loss < lowest)[:, None], z, best)
        lowest = np.minimum(loss, lowest)
        direction = error
        for layer in reversed(generator.layers):
            direction = layer.adjoint(direction)
        image = direction
        for layer in generator.layers:
            image = multiply(layer.weight, image)
        gain = (observation.restrict(image) ** 2).sum(axis=1) / 2.0 ** len(generator.layers)
        length = (direction**2).sum(axis=1) / np.where(gain > 0, gain, np.inf)
        z = z + length[:, None] * direction
    return best
