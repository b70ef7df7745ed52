"""The method to use by default: the cheapest one that explains the observation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from preimage import lp
from preimage.generator import Generator, Layer
from preimage.inversion import Estimate, Stage, Status, outputs_of
from preimage.layer_program import layer_program
from preimage.matrix import Array, Flags, Indices
from preimage.methods.exact import Exact
from preimage.methods.gauss_newton import GaussNewton, Given
from preimage.methods.layerwise import LayerwiseLP
from preimage.methods.parameters import check_positive, draws_of
from preimage.network import Network, chain_of
from preimage.observation import ROUNDING, Observation

if TYPE_CHECKING:
    from preimage.methods import Method


# Beyond so many times the noise no entry of Gaussian noise is to be expected.
_REACH = 4.0
# With fewer rows for each input, layers of units with an inactive side are hardly ever inverted by
# themselves: Gaussian ones in none of 60 draws, or in a third if their inputs are at least 0.
_EXPANDS = 1.25
# Steps from each start; a good one needs few.
_ROUND_STEPS = 60
# Rounds in a row that improve nothing, after which a sample is given up.
_PATIENCE = 4


@dataclass(frozen=True)
class Auto:
    """Try methods in the order of their cost; a sample stops at the first that explains it.

    The stages, each for the samples that are still open:

    * ``exact``, where there is no noise and every layer expands;
    * ``joint``: ``GaussNewton`` from few starts;
    * ``layerwise``, the same from the code of ``LayerwiseLP``: in reach, if every layer expands;
    * ``restarts``, the same from the best code so far and many others, or few where out of reach;
    * ``perturbed``, the same from codes near the best ones, over and over: in reach, if a layer
      contracts or entries are hidden.

    What no stage explains gets the best code of all. *Explained* means that the residual's root
    mean square is at most the noise (or rounding error), which the true code's always is where
    ``noise`` bounds every entry, and nearly always where it is a Gaussian's standard deviation.
    *In reach* means that the last layer alone, by Algorithm 1's program, can come within four
    times the noise; where it cannot, no code at all can, and the observation is not in the range.
    A layer *expands* if it has as many outputs as inputs, and a quarter more where units have an
    inactive side. ``inversion.stages`` tells which stage answered each sample, and what each stage
    reached.

    A network that is only run, such as a ``TorchNetwork``, has no layers for programs: it takes
    ``joint`` and few ``restarts``, from the best of many draws.

    Args:
        restarts: Starts of the last stage; a quarter of them for what is out of reach, and for a
            network that is only run.
        backend: Of the linear programs.
        seed: Of all draws.

    Raises:
        InputError: A parameter is out of its range.
    """

    restarts: int = 24
    backend: lp.Backend = "kernel"
    seed: int = 0

    def __post_init__(self) -> None:
        check_positive({}, {"restarts": self.restarts})
        lp.check_backend(self.backend)

    def solve(self, network: Network, observation: Observation) -> Estimate:
        """Invert every sample; see ``methods.Method``."""
        chain = chain_of(network)
        network, known = chain or network, chain is not None
        run = _Run(network, observation)
        layers = () if chain is None else chain.layers
        expands = known and all(map(_expands, layers))
        everyone = np.ones(len(observation), dtype=bool)
        noiseless = observation.noise < observation.tolerance
        run.stage("exact", noiseless & expands, lambda own: Exact(self.backend))
        # Where layers are not known each start is dear, and begins at the best of many draws.
        joint = GaussNewton(restarts=6 if known else 4, flip_rounds=5, seed=self.seed)
        run.stage("joint", everyone, lambda own: joint)
        near = self._in_reach(chain, observation, run.open())
        start = LayerwiseLP(growth=2.0, backend=self.backend)
        layerwise = GaussNewton(restarts=1, flip_rounds=0, start=start)
        run.stage("layerwise", near & expands, lambda own: layerwise)
        near &= known
        many = GaussNewton(restarts=self.restarts, flip_rounds=8, seed=self.seed + 1)
        few = replace(many, restarts=max(self.restarts // 4, 1), flip_rounds=2)
        run.stage("restarts", near, lambda own: replace(many, start=Given(run.latent[own])))
        run.stage("restarts", ~near, lambda own: replace(few, start=Given(run.latent[own])))
        # Whole outputs of a network that expands have few local minima that restarts miss.
        partial = observation.count < network.observation_size
        near &= partial | (not expands)
        run.stage("perturbed", near, lambda own: Perturbed(run.latent[own], seed=self.seed + 2))
        return run.estimate()

    def _in_reach(self, chain: Generator | None, observation: Observation, open_: Flags) -> Flags:
        """Whether the last layer has inputs that come within a few times the noise."""
        near, samples = np.ones(len(observation), dtype=bool), np.flatnonzero(open_)
        if chain is None or not len(samples):
            return near
        layer, domain = chain.layers[-1], chain.domain(len(chain.layers) - 1)
        # The program takes values beyond the range for its ends.
        inside = np.clip(observation.values, *layer.activation.range)
        beyond = np.abs(observation.error(inside)).max(axis=1, initial=0.0)
        near[beyond > 2 * _REACH * observation.tolerance] = False
        samples = samples[near[samples]]
        part = observation.take(samples)
        reach = _REACH * part.tolerance
        program = layer_program(layer, part, reach, "linf", domain)
        solution = lp.solve(program, self.backend, clock=observation.clock)
        out = (solution.outcome == lp.Outcome.OPTIMAL) & (solution.slack > reach * (1 + ROUNDING))
        near[samples[out]] = False
        return near


def _expands(layer: Layer) -> bool:
    """Whether its active rows may determine its input."""
    inactive = layer.slopes is not None and not layer.slopes[0].all()
    return layer.output_size >= (_EXPANDS if inactive else 1.0) * layer.input_size


class _Run:
    """The stages of one call: keeps the best code of each sample."""

    def __init__(self, network: Network, observation: Observation) -> None:
        self.network, self.observation = network, observation
        batch = len(observation)
        self.latent = np.full((batch, network.latent_size), np.nan)
        self.status, self.loss = Status.FAILED.each(batch), np.full(batch, np.inf)
        self.rank, self.tried = np.full(batch, -1), False
        self.stages: dict[str, tuple[Array, Flags]] = {}

    def open(self) -> Flags:
        """Samples that nothing explains yet."""
        return self.loss > self.observation.explained

    def stage(self, name: str, wanted: Flags, method: Callable[[Indices], Method]) -> None:
        """Try a method, made for the samples that are wanted and open, on these."""
        nothing = np.full(len(wanted), np.nan), np.zeros(len(wanted), dtype=bool)
        reached, answered = self.stages.setdefault(name, nothing)
        samples = np.flatnonzero(self.open() & wanted)
        clock = self.observation.clock
        if not len(samples) or (self.tried and clock.is_over):
            # A stage that no sample needs may be one that cannot run at all.
            return
        self.tried = True
        clock.report(name, len(samples))
        part = self.observation.take(samples)
        found = method(samples).solve(self.network, part)
        outputs = outputs_of(self.network, found.latent)
        reached[samples] = np.linalg.norm(part.seen(part.values - outputs), axis=1)
        # In units of the noise of each entry, as ``explained`` is.
        loss = np.linalg.norm(part.error(outputs), axis=1)
        better = loss < self.loss[samples]
        improved = samples[better]
        self.latent[improved], self.status[improved] = found.latent[better], found.status[better]
        self.loss[improved] = loss[better]
        self.rank[improved] = -1 if found.rank is None else found.rank[better]
        for _, others in self.stages.values():
            others[improved] = False
        answered[improved] = True

    def estimate(self) -> Estimate:
        """The best of all."""
        if self.observation.clock.is_over:
            self.status[self.open()] = Status.TIME_LIMIT
        stages = tuple(Stage(name, *parts) for name, parts in self.stages.items())
        return Estimate(self.latent, self.status, stages=stages, rank=self.rank)


@dataclass(frozen=True, eq=False)
class Perturbed:
    """Rounds of damped Gauss-Newton steps from codes near the best ones.

    Where a network contracts, as behind the magnitudes of phase retrieval, its misfit has many
    local minima, and good ones lie near each other: a perturbed good code ends at a better one far
    more often than a fresh draw does (Lourenco, Martin and Stuetzle 2003, "Iterated local search").

    Args:
        latent: (batch, k) codes that are known; NaN where there are none.
        starts: Of each round; the first round's are Gaussian draws.
        kept: Codes that are perturbed.
        rounds: Most rounds after the first.
        size: Of the perturbations, relative to the best code's root mean square.
        seed: Of all draws.
    """

    latent: Array
    starts: int = 64
    kept: int = 8
    rounds: int = 12
    size: float = 0.5
    seed: int = 0

    def solve(self, network: Network, observation: Observation) -> Estimate:
        """Invert every sample; see ``methods.Method``."""
        latent = np.array(self.latent)
        for sample in range(len(observation)):
            if observation.clock.is_over:
                break
            many = observation.take(np.full(self.starts, sample))
            latent[sample] = self._search(network, many, latent[sample])
        return GaussNewton(restarts=1, flip_rounds=0, start=Given(latent)).solve(
            network, observation
        )

    def _search(self, network: Network, many: Observation, known: Array) -> Array:
        """The best code of one sample."""
        rng = draws_of(self.seed)
        codes = rng.normal(size=(self.starts, network.latent_size))
        if np.isfinite(known).all():
            codes[0] = known
        best, loss = np.empty((0, codes.shape[1])), np.empty(0)
        lowest, vain = np.inf, 0
        for _ in range(1 + self.rounds):
            joint = GaussNewton(restarts=1, flip_rounds=0, steps=_ROUND_STEPS, start=Given(codes))
            found = joint.solve(network, many).latent
            error = np.linalg.norm(many.error(network(found)), axis=1)
            error = np.where(np.isfinite(error), error, np.inf)
            best, loss = np.concatenate([best, found]), np.concatenate([loss, error])
            # Starts that end at one code count once.
            digits = np.round(loss / max(loss.min(), 1e-300), 6)
            _, different = np.unique(digits, return_index=True)
            best, loss = best[different[: self.kept]], loss[different[: self.kept]]
            vain = 0 if loss[0] < lowest * (1 - 1e-6) else vain + 1
            lowest = loss[0]
            if loss[0] <= many.explained[0] or vain == _PATIENCE or many.clock.is_over:
                break
            scale = self.size * float(np.sqrt(np.mean(best[0] ** 2)))
            pick = np.arange(self.starts) % len(best)
            codes = best[pick] + scale * rng.normal(size=codes.shape)
        return best[0]
