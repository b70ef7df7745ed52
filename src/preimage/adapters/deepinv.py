"""Inversion as a reconstructor of DeepInverse (extra ``deepinv``).

DeepInverse takes any module with ``forward(y, physics)``, so that torch is all that is needed.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator

from preimage.errors import InputError, extra
from preimage.invert import invert
from preimage.matrix import Array
from preimage.methods import Method
from preimage.network import Network

with extra("deepinv", "torch"):
    import torch


# Physics of up to this many entries become a matrix, which every method takes.
_MATRIX_ENTRIES = 2**24


class PreimageReconstructor(torch.nn.Module):
    """Images from measurements: the output of the code that explains them best.

    ``forward(y, physics)`` inverts ``A G``, where A is the physics' linear map. No gradient flows.

    Args:
        generator: The network, such as a ``Generator`` or a ``TorchNetwork``; its outputs are
            images, flattened.
        image_shape: Of one image, such as (1, 28, 28).
        method: As in ``preimage.invert``.
        noise: As in ``preimage.invert``.

    Raises:
        InputError: Images of another size than the generator's outputs.
    """

    def __init__(
        self,
        generator: Network,
        image_shape: tuple[int, ...],
        method: Method | str = "auto",
        noise: float = 0.0,
    ) -> None:
        super().__init__()
        if math.prod(image_shape) != generator.observation_size:
            raise InputError(
                f"image_shape: expected {generator.observation_size} pixels, the generator's "
                f"output size, got {image_shape}"
            )
        self.generator = generator
        self.image_shape = tuple(image_shape)
        self.method = method
        self.noise = noise

    def forward(self, y: torch.Tensor, physics: Any, **_: Any) -> torch.Tensor:
        """Reconstruct.

        Args:
            y: Measurements (batch, ...).
            physics: The same for the whole batch. It computes in the type of ``y``.

        Returns:
            (batch, ...) of ``image_shape``, in the type and on the device of ``y``; NaN where the
            inversion found no code.

        Raises:
            InputError: The physics is not linear (a ``deepinv.physics.LinearPhysics``), or does not
                map such an image to such a measurement.
        """
        operator = _sensing(physics, self.image_shape, y)
        small = math.prod(operator.shape) <= _MATRIX_ENTRIES
        sensing = operator.matmat(np.eye(operator.shape[1])) if small else operator
        values = y.detach().cpu().double().numpy().reshape(len(y), -1)
        found = invert(self.generator, values, self.method, noise=self.noise, sensing=sensing)
        images = found.reconstruct(self.generator).reshape(len(y), *self.image_shape)
        return torch.as_tensor(images).to(y)


def _sensing(physics: Any, image: tuple[int, ...], y: torch.Tensor) -> LinearOperator:
    """Physics as a linear operator on columns of float64, from pixels to measurements."""
    if not hasattr(physics, "A_adjoint"):
        raise InputError(
            f"physics: expected a deepinv.physics.LinearPhysics, got {type(physics).__name__}"
        )

    @torch.no_grad()
    def columns(part: Any, shape: tuple[int, ...], X: Array) -> Array:
        found = part(torch.as_tensor(X.T.copy()).reshape(-1, *shape).to(y))
        return found.cpu().double().numpy().reshape(X.shape[1], -1).T

    measured = tuple(y.shape[1:])
    try:
        with torch.no_grad():
            found = physics.A(torch.zeros(1, *image).to(y))
    except (RuntimeError, ValueError) as error:
        raise InputError(f"physics: it refuses an image of shape {image}: {error}") from error
    if found.shape != (1, *measured):
        raise InputError(
            f"y: expected measurements of shape {tuple(found.shape[1:])}, which the physics "
            f"makes of one image, one a sample, got {measured}"
            + (f"; it makes {len(found)} of one image" if len(found) != 1 else "")
        )
    forward = partial(columns, physics.A, image)
    back = partial(columns, physics.A_adjoint, measured)
    shape = math.prod(measured), math.prod(image)
    return LinearOperator(shape, forward, back, forward, np.float64, back)
