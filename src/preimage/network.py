"""What a joint method needs of a network, whether its layers are known or it is only run."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


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
