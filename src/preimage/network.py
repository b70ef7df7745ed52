"""What a joint method needs of a network, whether its layers are known or it is only run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from preimage.activation import Identity
from preimage.errors import InputError
from preimage.generator import Generator, Layer
from preimage.matrix import (
    Array,
    Weight,
    digest_of,
    is_matrix,
    multiply,
    multiply_adjoint,
    multiply_columns,
    weight_parts,
)


@runtime_checkable
class Network(Protocol):
    """A differentiable map from latent codes to observations, ``G: R^k -> R^n``.

    ``Generator`` is one whose layers are known: a chain of matrices and activations, as linear
    programs and proofs need it. ``TorchNetwork`` is one that torch evaluates: joint methods and
    gradient methods take it, too. All arrays are float64; a batch dimension leads.
    """

    @property
    def latent_size(self) -> int:
        """k, the number of latent coordinates."""

    @property
    def observation_size(self) -> int:
        """n, the number of output entries."""

    @property
    def digest(self) -> str:
        """SHA-256 of what the network computes: structure and weights."""

    @property
    def draft(self) -> Network | None:
        """The same network in lower precision, for the first steps of a descent; None if none.

        A descent that runs on the draft ends with steps on the network itself.
        """

    def __call__(self, z: ArrayLike) -> Array:
        """``G(z)``, (k,) to (n,) or (batch, k) to (batch, n)."""

    def linearize(self, z: Array) -> tuple[Array, Array]:
        """``G(z)``, (batch, n), and the Jacobians, (batch, n, k), of ``z``, (batch, k).

        The caller cuts the batch: all Jacobians are held at once.
        """

    def jvp(self, z: Array, tangent: Array) -> Array:
        """``J(z) t``, (batch, n), for one tangent a sample, (batch, k)."""

    def vjp(self, z: ArrayLike, v: ArrayLike) -> Array:
        """``v^T J(z)``, the gradient of ``v . G`` at z, in the shape of z; v is as ``G(z)``."""


@dataclass(frozen=True, eq=False)
class Measured:
    """``A G``: a network behind a linear map of its outputs; itself a ``Network``.

    ``invert`` hands it to the methods where there is a ``sensing`` map, so that none of them has to
    know about A. Methods that need the layers ask ``chain_of`` or ``known_chain`` for them.

    Args:
        network: G, from k to n.
        sensing: A, of shape (m, n): an array, CSR, or an ``Operator``.
    """

    network: Network
    sensing: Weight

    @property
    def latent_size(self) -> int:
        """k, the number of latent coordinates."""
        return self.network.latent_size

    @property
    def observation_size(self) -> int:
        """m, the number of measurements."""
        return int(self.sensing.shape[0])

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the network's and the map's."""
        return digest_of(self.network.digest, *weight_parts(self.sensing))

    @cached_property
    def draft(self) -> Measured | None:
        """The network's draft behind the same map."""
        draft = self.network.draft
        return None if draft is None else Measured(draft, self.sensing)

    @cached_property
    def chain(self) -> Generator | None:
        """The same map as a chain of layers, if both G and A are matrices; else None.

        A is one more layer, merged with the last one where that is affine, too.
        """
        if not isinstance(self.network, Generator) or not is_matrix(self.sensing):
            return None
        *below, last = self.network.layers
        if last.slopes_below is not None and (last.slopes_below == 1).all():
            weight, bias = self.sensing @ last.weight, self.sensing @ last.bias
            return Generator((*below, Layer(weight, bias, Identity())))
        return Generator((*below, last, Layer(self.sensing, activation=Identity())))

    def __call__(self, z: ArrayLike) -> Array:
        """``A G(z)``, (k,) to (m,) or (batch, k) to (batch, m)."""
        outputs = self.network(z)
        measured = multiply(self.sensing, np.atleast_2d(outputs))
        return measured[0] if outputs.ndim == 1 else measured

    def linearize(self, z: Array) -> tuple[Array, Array]:
        """``A G(z)``, (batch, m), and ``A J``, (batch, m, k)."""
        value, jacobian = self.network.linearize(z)
        return multiply(self.sensing, value), multiply_columns(self.sensing, jacobian)

    def jvp(self, z: Array, tangent: Array) -> Array:
        """``A J(z) t``, (batch, m), for one tangent a sample, (batch, k)."""
        return multiply(self.sensing, self.network.jvp(z, tangent))

    def vjp(self, z: ArrayLike, v: ArrayLike) -> Array:
        """``v^T A J(z)``, in the shape of z; v is as ``A G(z)``."""
        cotangent = np.asarray(v, dtype=np.float64)
        below = multiply_adjoint(self.sensing, np.atleast_2d(cotangent))
        return self.network.vjp(z, below[0] if cotangent.ndim == 1 else below)


def chain_of(network: Network) -> Generator | None:
    """The network as a chain of layers, if its layers are known; None if it is only run."""
    if isinstance(network, Measured):
        return network.chain
    return network if isinstance(network, Generator) else None


def numbers_of(network: Network) -> int:
    """Numbers that a forward pass of one sample computes, as far as is known."""
    chain = chain_of(network)
    return network.latent_size + network.observation_size if chain is None else sum(chain.sizes)


def known_chain(network: Network, method: str) -> Generator:
    """The network as a chain of layers with matrices, for a method that needs to know them.

    Args:
        network: As ``invert`` hands it to a method.
        method: What needs the layers, for the error.

    Raises:
        InputError: The network is only run, or measured by an operator without a matrix.
    """
    chain = chain_of(network)
    if chain is not None:
        return chain
    if isinstance(network, Measured) and isinstance(network.network, Generator):
        kind = type(network.sensing).__name__
        raise InputError(
            f"{method}: expected sensing by a mask or a matrix, got a {kind}, which has no matrix; "
            "use method='gauss_newton', or pass its matrix"
        )
    inner = network.network if isinstance(network, Measured) else network
    raise InputError(
        f"{method}: expected a preimage.Generator, whose layers are known matrices, got "
        f"{type(inner).__name__}, which can only be run; use method='auto' or 'gauss_newton'"
    )
