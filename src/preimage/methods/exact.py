"""Exact inversion, layer by layer, by linear equations (paper, Theorem 2 and equation 5)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from preimage import lp
from preimage.generator import Layer
from preimage.inversion import Estimate, Status
from preimage.layer_program import LayerProgram, layer_program, take
from preimage.matrix import Array, Flags, Indices
from preimage.methods.equations import least_squares
from preimage.methods.layers import Domain, LayerAnswer, invert_layers
from preimage.network import Network, known_chain
from preimage.observation import Observation, scale_of
from preimage.scaling import largest

# Relative to the largest entry of a layer's output: backends tell apart what differs by this.
_RESOLVED = 1e-8


@dataclass(frozen=True)
class Exact:
    """Solve the active rows of each layer, last layer first, as linear equations.

    Meant for observations without noise. Under a ReLU the active rows are those above the
    tolerance; a LeakyReLU, an identity and the unsaturated part of a tanh or sigmoid head make
    every row an equation. Where the active rows of a layer have full column rank, they determine
    its input. Where they do not, the inequalities of the inactive rows and the domain of the layer
    below may still do so: a linear program over the layer's polytope (equation 4) finds a point,
    and two more, along a fixed random direction and against it, tell whether it is the only one.
    If not, the sample is ``ambiguous``.

    Args:
        backend: Of those linear programs; see ``lp.solve``.

    Raises:
        InputError: Unknown backend.
    """

    backend: lp.Backend = "kernel"

    def __post_init__(self) -> None:
        lp.check_backend(self.backend)

    def solve(self, network: Network, observation: Observation) -> Estimate:
        """Invert every sample; see ``methods.Method``."""
        generator = known_chain(network, "exact inversion")
        found = invert_layers(generator, observation, self._invert)
        # What the layers determine is unique, whatever the Jacobian at a kink may say.
        rank = np.where(found.status == Status.SOLVED, generator.latent_size, -1)
        return found._replace(rank=rank)

    def _invert(
        self, layer: Layer, domain: Domain, above: Observation, tolerance: Array, samples: Indices
    ) -> LayerAnswer:
        program = layer_program(layer, above, tolerance, "linf", domain)
        equations = np.isfinite(program.slab.lower)
        z, determined = _solve(layer, above, equations)
        # Rounding leaves tiny values of either sign where the layer below gave 0.
        z = np.clip(z, *domain)
        programs, status = np.zeros(len(z), dtype=np.int64), Status.SOLVED.each(len(z))
        rest = samples[~determined[samples]]
        if len(rest):
            part = take(program, rest)
            z[rest], status[rest] = self._polytope(part, above.take(rest), tolerance[rest])
            programs[rest] = 3
        slack = program.slack_at(z)
        return LayerAnswer(z, tolerance, status, slack, programs, equations, determined)

    def _polytope(
        self, program: LayerProgram, above: Observation, tolerance: Array
    ) -> tuple[Array, NDArray[np.object_]]:
        """A point of each polytope (equation 4), and whether it has others."""
        clock = above.clock
        centre = lp.solve(program, self.backend, clock=clock)
        status = Status.SOLVED.each(len(above))
        status[centre.outcome != lp.Outcome.OPTIMAL] = Status.FAILED
        # A polytope thinner than what the backends resolve would seem empty to them.
        reach = np.fmax(np.maximum(tolerance, _RESOLVED * scale_of(above.values)), centre.slack)
        # In units of x: what a column's largest entry makes of it.
        column = largest(abs(program.weight), -2)
        column = np.where(column > 0, column, 1.0)
        direction = column * np.random.default_rng(0).normal(size=len(column))
        objective = np.tile(direction, (len(above), 1))
        near = replace(program, slab=program.slab.at(reach[:, None]), slack="none")
        ends = [
            lp.solve(replace(near, objective=sign * objective), self.backend, clock=clock)
            for sign in (1.0, -1.0)
        ]
        # Along a random direction two different ends have different values; a single point may
        # seem as wide as the tolerance, magnified by the layer's conditioning. An end that is
        # infinite (or that the backend did not find) leaves NaN: not known to be unique.
        width = np.abs((ends[0].z - ends[1].z) @ direction)
        size = np.abs(centre.z) @ np.abs(direction)  # as reach, in units of x
        unique = width <= 1e-4 * size + 1e3 * reach
        status[(status == Status.SOLVED) & ~unique] = Status.AMBIGUOUS
        if clock.is_over:
            status[status != Status.SOLVED] = Status.TIME_LIMIT
        return centre.z, status


def _solve(layer: Layer, above: Observation, equations: Flags) -> tuple[Array, Flags]:
    """Least squares on the active rows of each sample, and whether their rank is full.

    Rows are weighted by the activation's derivative at the observed value, so that an error in x
    counts alike in all of them, relative to the tolerance of its entry.
    """
    target = layer.activation.inverse(above.values)
    active = equations & np.isfinite(target)
    target = np.where(active, target, 0.0)
    trust = np.where(active, layer.activation.derivative(target), 0.0)
    return least_squares(layer.scaled, trust / above.spread, target - layer.bias, above.clock)
