"""Where codes may lie: a box or a ball around 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from preimage.errors import InputError
from preimage.matrix import Array, as_array, as_float64
from preimage.methods.parameters import check_positive

# A number c for |z_i| <= c, or two ends, each a number or an array of shape (k,); may be infinite.
Box = Any


def check_box(box: Box) -> None:
    """Raise ``InputError`` unless ``box`` is None, a number above 0, or two ends in order."""
    if box is None:
        return
    if np.ndim(box) == 0:
        check_positive({"box": box}, {})
        return
    try:
        low, high = box
    except (TypeError, ValueError) as error:
        raise InputError(f"box: expected a number or a pair (low, high), got {box!r}") from error
    low, high = (_as_end(end, name) for end, name in ((low, "box, low"), (high, "box, high")))
    if low.ndim > 1 or high.ndim > 1 or not np.all(low <= high):
        raise InputError(
            "box: expected low <= high, each a number or an array of shape (latent_size,), got "
            f"{box!r}"
        )


def _as_end(end: Any, argument: str) -> Array:
    """As ``as_float64``, but an end may be infinite."""
    array = as_array(end, argument)
    if array.dtype.kind == "f":
        as_float64(np.where(np.isinf(array), 0.0, array), argument)
        return array.astype(np.float64)
    return as_float64(array, argument)


def box_ends(box: Box, latent_size: int) -> tuple[Array, Array]:
    """Both ends, (k,) each; infinite without a box.

    Raises:
        InputError: The box has another number of coordinates.
    """
    if box is None:
        return np.full(latent_size, -np.inf), np.full(latent_size, np.inf)
    ends = (-box, box) if np.ndim(box) == 0 else box
    try:
        low, high = (np.broadcast_to(np.asarray(end, dtype=float), latent_size) for end in ends)
    except ValueError as error:
        raise InputError(
            f"box: expected numbers or arrays of shape ({latent_size},), got {box!r}"
        ) from error
    return low, high


@dataclass(frozen=True, eq=False)
class Region:
    """``low <= z <= high`` and ``||z||_2 <= radius``; not both at a time.

    Attributes:
        low: (k,).
        high: (k,).
        radius: Infinite for none.
    """

    low: Array
    high: Array
    radius: float

    @property
    def has_box(self) -> bool:
        """Whether any end is finite."""
        return bool(np.isfinite(self.low).any() or np.isfinite(self.high).any())

    @property
    def is_bounded(self) -> bool:
        """Whether there is a box or a ball."""
        return self.has_box or bool(np.isfinite(self.radius))

    def project(self, z: Array) -> Array:
        """The nearest point of the region to each row."""
        if np.isfinite(self.radius):
            norm = np.linalg.norm(z, axis=-1, keepdims=True)
            return z * np.minimum(1.0, self.radius / np.where(norm > 0, norm, 1.0))
        return np.clip(z, self.low, self.high) if self.has_box else z
