"""The method to use by default: the cheapest one that explains the observation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preimage import lp
from preimage.generator import Generator
from preimage.inversion import Estimate, Stage, Status
from preimage.methods.assess import assess
from preimage.methods.exact import Exact
from preimage.methods.gauss_newton import GaussNewton
from preimage.methods.layerwise import LayerwiseLP
from preimage.methods.parameters import check_positive
from preimage.observation import Observation


@dataclass(frozen=True)
class Auto:
    """Try methods in the order of their cost; a sample stops at the first that explains it.

    ::

        noise = 0 and every layer expands?
            |---- yes ------> exact ------ explained? --yes--> done
            |                                 | no
            +---------------> joint ----- explained? --yes--> done
                                              | no
                           every layer expands? --no--+
                                              | yes    |
                          layerwise ----- explained? --|--yes--> done
                                              | no     |
                          restarts <-----------+-------+      then the best of all

    ``joint`` is ``GaussNewton`` from few starts, ``layerwise`` the same from the code of
    ``LayerwiseLP``, ``restarts`` the same from many. *Explained* means that the residual's root
    mean square is at most the noise (or rounding error), which the true code's always is where
    ``noise`` bounds every entry, and nearly always where it is a Gaussian's standard deviation.
    ``inversion.stages`` tells which stage answered each sample, and what each stage reached.

    Args:
        restarts: Starts of the last stage.
        backend: For linear programs: ``"highs"`` or ``"piqp"``.
        seed: Of all draws.

    Raises:
        InputError: A parameter is out of its range.
    """

    restarts: int = 24
    backend: lp.Backend = "highs"
    seed: int = 0

    def __post_init__(self) -> None:
        check_positive({}, {"restarts": self.restarts})
        lp.check_backend(self.backend)

    def solve(self, generator: Generator, observation: Observation) -> Estimate:
        """Invert every sample; see ``methods.Method``."""
        batch = len(observation)
        # Three standard deviations above the root mean square, should the noise be Gaussian.
        n = np.maximum(observation.count, 1.0)
        enough = observation.tolerance * np.sqrt(n) * (1 + 3 / np.sqrt(2 * n))
        latent = np.full((batch, generator.latent_size), np.nan)
        status, residual = Status.FAILED.each(batch), np.full(batch, np.inf)
        answered, rank = np.full(batch, -1), np.full(batch, -1)
        stages = []
        for index, (name, method, wanted) in enumerate(self._plan(generator, observation)):
            samples = np.flatnonzero((residual > enough) & wanted)
            if not len(samples):
                # A stage that nobody needs may be one that cannot run at all.
                stages.append((name, np.full(batch, np.nan)))
                continue
            part = observation.take(samples)
            found = assess(generator, part, method.solve(generator, part))
            reached = np.full(batch, np.nan)
            reached[samples] = found.residual
            better = found.residual < residual[samples]
            improved = samples[better]
            latent[improved], status[improved] = found.latent[better], found.status[better]
            residual[improved], answered[improved] = found.residual[better], index
            rank[improved] = found.rank[better]
            stages.append((name, reached))
        reports = (
            Stage(name, reached, answered == index) for index, (name, reached) in enumerate(stages)
        )
        return Estimate(latent, status, stages=tuple(reports), rank=rank)

    def _plan(
        self, generator: Generator, observation: Observation
    ) -> Iterator[tuple[str, Exact | GaussNewton, NDArray[np.bool_]]]:
        """Stages in order, each with the samples that it is meant for."""
        noiseless = observation.noise < observation.tolerance
        layers = observation.measured(generator).layers
        expands = all(layer.output_size >= layer.input_size for layer in layers)
        expands &= all(layer.storage != "operator" for layer in layers)
        layerwise = LayerwiseLP(backend=self.backend)
        yield "exact", Exact(self.backend), noiseless & expands
        yield "joint", GaussNewton(restarts=4, hops=4, seed=self.seed), np.ones_like(noiseless)
        yield (
            "layerwise",
            GaussNewton(restarts=1, hops=4, start=layerwise, seed=self.seed),
            np.full_like(noiseless, expands),
        )
        many = GaussNewton(restarts=self.restarts, hops=8, seed=self.seed + 1)
        yield "restarts", many, np.ones_like(noiseless)
