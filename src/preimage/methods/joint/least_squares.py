"""What the joint method minimises, ``0.5 ||y - A G(z)||^2 + 0.5 prior ||z||^2``, linearised."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from preimage.generator import Generator
from preimage.matrix import Array, Indices, Integers, slices
from preimage.methods.equations import inverse_diagonals
from preimage.methods.joint.compiled import CompiledChain, compile_chain
from preimage.methods.parameters import Region
from preimage.network import Network, chain_of, numbers_of
from preimage.observation import Observation, scale_of

# Relative to the largest singular value of the Jacobian with columns of norm 1: below, a direction
# of z is not observed. The Gram matrix squares the ratio: it vouches for full rank far above it.
_RANK = 1e-9
_SURE_RANK = 1e-10
# Relative decrease of the loss that is not worth a step.
_STATIONARY = 1e-14
_STATIONARY_RUN = 1e-7
# The same for some steps together, which end a descent at a kink.
_IDLE = 1e-8
_IDLE_RUN = 1e-4
# Entries of the Jacobians that are held at a time.
_JACOBIANS = 2**20
# Relative to the observation: an error above this is known well enough in single precision.
_DRAFT_ERROR = 1e-2


@dataclass(frozen=True, eq=False)
class LeastSquares:
    """The function of z that is minimised, and its linearisation.

    Several runs may belong to one sample; ``samples`` names the sample of each row of ``z``.

    Attributes:
        network: The measured network ``A G``, known or run.
        observation: Of all samples.
        prior: Weight of ``0.5 ||z||^2``.
        region: Where z may lie.
    """

    network: Network
    observation: Observation
    prior: float = 0.0
    region: Region = field(default_factory=Region)

    @cached_property
    def chain(self) -> Generator | None:
        """The network's layers, if they are known."""
        return chain_of(self.network)

    @cached_property
    def compiled(self) -> CompiledChain | None:
        """The same in the C kernel, if it is there and the layers are dense."""
        if self.chain is None:
            return None
        return compile_chain(self.chain, self.observation)

    @cached_property
    def rounding(self) -> Array:
        """(samples,) losses that are nothing but rounding, after which a descent ends.

        That of float64 where the layers are known. Where they are not, each step is dear: a quarter
        of that of what was observed, as single entries are off by more than their mean square.
        """
        observation = self.observation
        relative = observation.unit / 4 if self.chain is None else 4 * np.finfo(float).eps
        return 0.5 * relative**2 * squares(observation.restrict(observation.values))

    def negligible(self, loss: Array, samples: Indices) -> Array:
        """(runs,) decreases of the losses that are not worth a step.

        On a network that is run, those that move the code by less than a tenth of its standard
        error, which are a hundredth of what moves it by a whole one: half of the noise's variance.
        """
        if self.chain is not None:
            return _STATIONARY * loss
        observation = self.observation
        noisy = observation.noise > observation.unit * scale_of(observation.values)
        variance = np.where(noisy, observation.explained**2, 0.0) / np.maximum(observation.count, 1)
        return np.maximum(_STATIONARY_RUN * loss, 0.005 * variance[samples])

    @property
    def idle(self) -> float:
        """Relative decrease of the loss that is not worth some steps."""
        return _IDLE if self.chain is not None else _IDLE_RUN

    def error(self, z: Array, samples: Indices) -> Array:
        """``y - A G(z)``, (runs, m); 0 where nothing was observed."""
        return self.observation.take(samples).error(self.network(z))

    def loss(self, z: Array, samples: Indices) -> Array:
        """(runs,)."""
        if self.compiled is not None:
            loss = self.compiled.loss(z, samples)
        else:
            loss = np.empty(len(z))
            for part in slices(len(z), numbers_of(self.network)):
                loss[part] = 0.5 * squares(self.error(z[part], samples[part]))
        return loss + 0.5 * self.prior * squares(z) if self.prior else loss

    def linearize(self, z: Array, samples: Indices) -> tuple[Array, Array]:
        """``J^T J + prior I``, (runs, k, k), and ``J^T error - prior z``, (runs, k).

        The curvature and the negative gradient of the loss. Where the network has a draft, the
        Jacobian is the draft's, and the error, too, where it is large beside its rounding.
        """
        runs, k = z.shape
        gram, slope = np.empty((runs, k, k)), np.empty((runs, k))
        if self.compiled is not None:
            self.compiled.loss(z, samples, gram, slope)
        else:
            network = self.network.draft or self.network
            for part, value, jacobian in self._jacobians(network, z, samples):
                error = self._error_of(value, z[part], samples[part])
                np.matmul(np.swapaxes(jacobian, 1, 2), jacobian, out=gram[part])
                slope[part] = np.matmul(error[:, None], jacobian)[:, 0]
        if self.prior:
            gram += self.prior * np.eye(k)
            slope -= self.prior * z
        return gram, slope

    def _error_of(self, value: Array, z: Array, samples: Indices) -> Array:
        """``error`` where outputs of the network, or of its draft, are known already."""
        observation = self.observation.take(samples)
        error = observation.error(value)
        if self.network.draft is None:
            return error
        size = squares(observation.restrict(observation.values))
        small = np.flatnonzero(squares(error) < _DRAFT_ERROR**2 * size)
        if len(small):
            error[small] = self.error(z[small], samples[small])
        return error

    def jacobian(self, z: Array, samples: Indices) -> Array:
        """(runs, m, k), with 0 where nothing was observed."""
        parts = [jacobian for _, _, jacobian in self._jacobians(self.network, z, samples)]
        none = np.zeros((0, self.network.observation_size, z.shape[1]))
        return np.concatenate([none, *parts])

    def identify(self, z: Array, samples: Indices) -> tuple[Integers, Array, Array]:
        """How far the observation determines each row of ``z``, in any units of z.

        Returns:
            (runs,) the numerical rank of the observed Jacobian J there; (runs, k) the diagonal of
            ``(J^T J)^-1``, NaN where the rank is not full; and (runs,) ``Inversion.condition``.
        """
        runs, k = z.shape
        if not k:
            return np.zeros(runs, dtype=np.int64), np.zeros((runs, 0)), np.ones(runs)
        gram, _ = replace(self, prior=0.0).linearize(z, samples)
        variance, positive = inverse_diagonals(gram)
        variance /= np.where(positive[:, None], np.einsum("raa->ra", gram), 1.0)
        # Of a matrix with unit diagonal the largest eigenvalue is at most k, and the smallest is
        # at least one over the trace of the inverse.
        trace = np.einsum("ra,raa->r", variance, gram)
        unsure = np.flatnonzero(~(positive & (trace * k < 1.0 / _SURE_RANK)))
        rank, condition = np.full(runs, k), np.sqrt(trace * k)
        for part, _, jacobian in self._jacobians(self.network, z[unsure], samples[unsure]):
            norm = np.linalg.norm(jacobian, axis=1)
            scaled = jacobian / np.where(norm > 0, norm, 1.0)[:, None]
            _, values, rows = np.linalg.svd(scaled, full_matrices=False)
            some = unsure[part]
            rank[some] = (values > _RANK * values[:, :1]).sum(axis=1)
            full = rank[some] == k
            inverse = np.einsum("rba,rb->ra", rows[full] ** 2, values[full] ** -2.0)
            variance[some] = np.nan
            variance[some[full]] = inverse / norm[full] ** 2
            condition[some] = np.inf
            condition[some[full]] = values[full, 0] / values[full, -1]
        return rank, variance, condition

    def _jacobians(
        self, network: Network, z: Array, samples: Indices
    ) -> Iterator[tuple[slice, Array, Array]]:
        """Which runs, their outputs and observed Jacobians; some runs at a time."""
        widest = max(self.chain.sizes) if self.chain else network.observation_size
        for part in slices(len(z), widest * z.shape[1], _JACOBIANS):
            observation = self.observation.take(samples[part])
            value, jacobian = network.linearize(z[part])
            yield part, value, observation.restrict(jacobian)


def squares(rows: Array) -> Array:
    """(runs,) ``||row||^2``."""
    return np.einsum("ij,ij->i", rows, rows)
