"""The method to use by default: the cheapest one that explains the observation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from preimage import lp
from preimage.generator import Generator
from preimage.inversion import Estimate, Stage, Status
from preimage.layer_program import layer_program
from preimage.methods.assess import assess
from preimage.methods.exact import Exact
from preimage.methods.gauss_newton import GaussNewton
from preimage.methods.layerwise import LayerwiseLP
from preimage.methods.parameters import check_positive
from preimage.methods.perturbed import Perturbed
from preimage.network import Network, chain_of
from preimage.observation import ROUNDING, Observation

if TYPE_CHECKING:
    from preimage.methods import Method

Array = NDArray[np.float64]


# Beyond so many times the noise no entry of Gaussian noise is to be expected.
_REACH = 4.0


@dataclass(frozen=True)
class Auto:
    """Try methods in the order of their cost; a sample stops at the first that explains it.

    ::

        noise = 0 and every layer expands?
            |---- yes ------> exact ------ explained? --yes--> done
            |                                 | no
            +---------------> joint ----- explained? --yes--> done
                                              | no
                         last layer in reach? --no----+
                                              | yes   |
                          every layer expands? --no-+ |
                                              | yes | |
                          layerwise ----- explained? ---yes--> done
                                              | no  | |
                          restarts <----------+-----+ |
                          few restarts <--------------+
                              | not explained, in reach
                          perturbed                            then the best of all

    ``joint`` is ``GaussNewton`` from few starts, ``layerwise`` the same from the code of
    ``LayerwiseLP``, ``restarts`` the same from the best code so far and many others, ``perturbed``
    the same from codes near the best ones, over and over. *Explained*
    means that the residual's root mean square is at most the noise (or rounding error), which the
    true code's always is where ``noise`` bounds every entry, and nearly always where it is a
    Gaussian's standard deviation. *In reach* means that the last layer alone, by Algorithm 1's
    program, can come within four times the noise; where it cannot, no code at all can, and the
    observation is not in the range. ``inversion.stages`` tells which stage answered each sample,
    and what each stage reached.

    A network that is only run, such as a ``TorchNetwork``, has no layers for programs: it takes
    ``joint`` and ``few restarts``, each from 0 or the best code so far, and from the best of many
    draws.

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
        network = chain_of(network) or network
        run = _Run(network, observation)
        expands = isinstance(network, Generator) and all(
            layer.output_size >= layer.input_size for layer in network.layers
        )
        everyone = np.ones(len(observation), dtype=bool)
        noiseless = observation.noise < observation.tolerance
        run.stage("exact", Exact(self.backend), noiseless & expands)
        # Where layers are not known each start is dear, and begins at the best of many draws.
        known = isinstance(network, Generator)
        joint = GaussNewton(restarts=6 if known else 4, flip_rounds=5, seed=self.seed)
        run.stage("joint", joint, everyone)
        near = self._in_reach(network, observation, run.open())
        start: Method = LayerwiseLP(growth=2.0, backend=self.backend)
        run.stage("layerwise", GaussNewton(restarts=1, flip_rounds=0, start=start), near & expands)
        near &= known
        for restarts, flip_rounds, wanted in (
            (self.restarts, 8, near),
            (self.restarts // 4, 2, ~near),
        ):
            start = _Known(run.latent)
            many = GaussNewton(
                restarts=max(restarts, 1), flip_rounds=flip_rounds, start=start, seed=self.seed + 1
            )
            run.stage("restarts", many, wanted)
        run.stage("perturbed", Perturbed(run.latent, seed=self.seed + 2), near)
        return run.estimate()

    def _in_reach(
        self, network: Network, observation: Observation, open_: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Whether the last layer has inputs that come within a few times the noise."""
        near, samples = np.ones(len(observation), dtype=bool), np.flatnonzero(open_)
        if not isinstance(network, Generator) or not len(samples):
            return near
        layer, domain = network.layers[-1], network.domain(len(network.layers) - 1)
        part = observation.take(samples)
        reach = _REACH * part.tolerance
        program = layer_program(layer, part.values, reach, "linf", domain, part.mask, part.spread)
        solution = lp.solve(program, self.backend)
        out = (solution.outcome == lp.Outcome.OPTIMAL) & (solution.slack > reach * (1 + ROUNDING))
        near[samples[out]] = False
        return near


@dataclass(frozen=True, eq=False)
class _Known:
    """Codes that are known already, as a start."""

    latent: Array

    def solve(self, network: Network, observation: Observation) -> Estimate:
        """Hand them out."""
        return Estimate(self.latent, Status.SOLVED.each(len(observation)))


class _Run:
    """The stages of one call: keeps the best code of each sample."""

    def __init__(self, network: Network, observation: Observation) -> None:
        self.network, self.observation = network, observation
        batch = len(observation)
        self.latent = np.full((batch, network.latent_size), np.nan)
        self.status, self.residual = Status.FAILED.each(batch), np.full(batch, np.inf)
        self.rank, self.tried = np.full(batch, -1), False
        self.stages: dict[str, tuple[Array, NDArray[np.bool_]]] = {}

    def open(self) -> NDArray[np.bool_]:
        """Samples that nothing explains yet."""
        return self.residual > self.observation.explained

    def stage(self, name: str, method: Method, wanted: NDArray[np.bool_]) -> None:
        """Try a method on those samples that are wanted and open."""
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
        if isinstance(method, Perturbed):
            method = replace(method, latent=method.latent[samples])
        if isinstance(method, GaussNewton) and isinstance(method.start, _Known):
            method = replace(method, start=_Known(method.start.latent[samples]))
        found = assess(self.network, part, method.solve(self.network, part))
        reached[samples] = found.residual
        better = found.residual < self.residual[samples]
        improved = samples[better]
        self.latent[improved], self.status[improved] = found.latent[better], found.status[better]
        self.residual[improved], self.rank[improved] = found.residual[better], found.rank[better]
        for _, others in self.stages.values():
            others[improved] = False
        answered[improved] = True

    def estimate(self) -> Estimate:
        """The best of all."""
        if self.observation.clock.is_over:
            self.status[self.open()] = Status.TIME_LIMIT
        stages = tuple(Stage(name, *parts) for name, parts in self.stages.items())
        return Estimate(self.latent, self.status, stages=stages, rank=self.rank)
