"""What methods are told: numbers, other methods, and where codes may lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from preimage.errors import InputError
from preimage.matrix import Array, Flags, as_float64

# A number c for |z_i| <= c, or two ends, each a number or an array of shape (k,); may be infinite.
Box = Any


def is_method(candidate: Any) -> bool:
    """Whether this is an object with ``solve``, and not a class or a name."""
    return not isinstance(candidate, (str, type)) and hasattr(candidate, "solve")


def draws_of(seed: int) -> np.random.Generator:
    """Of a stream of their own: the codes of ``default_rng(0)`` are those that users plant."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2019,)))


def check_positive(positive: dict[str, float], counts: dict[str, int]) -> None:
    """Raise ``InputError`` unless all numbers are above 0 and all counts whole, at least 1."""
    for name, value in positive.items():
        is_number = isinstance(value, (int, float, np.integer, np.floating))
        if not (is_number and np.isfinite(value) and value > 0):
            raise InputError(f"{name}: expected a number above 0, got {value!r}")
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
            raise InputError(f"{name}: expected a whole number of at least 1, got {count!r}")


def box_ends(box: Box, latent_size: int | None = None) -> tuple[Array, Array]:
    """Both ends, infinite without a box: (k,) each, or as they came without a latent size.

    Raises:
        InputError: ``box`` is not None, a number above 0, or two ends in order; or it has another
            number of coordinates.
    """
    if box is None:
        box = -np.inf, np.inf
    elif not np.iterable(box):
        check_positive({"box": box}, {})
        box = -box, box
    try:
        low, high = box
    except ValueError as error:
        raise InputError(f"box: expected a number or a pair (low, high), got {box!r}") from error
    low = as_float64(low, "box, low", infinite=True)
    high = as_float64(high, "box, high", infinite=True)
    size, shape = ("latent_size", ()) if latent_size is None else (latent_size, (latent_size,))
    try:
        low, high, _ = np.broadcast_arrays(low, high, np.empty(shape))
        fits = low.ndim <= 1 if latent_size is None else low.shape == shape
    except ValueError:
        fits = False
    if not (fits and (low <= high).all()):
        raise InputError(
            f"box: expected low <= high, each a number or an array of shape ({size},), got {box!r}"
        )
    return low, high


@dataclass(frozen=True, eq=False)
class Region:
    """``low <= z <= high`` and ``||z||_2 <= radius``; not both at a time.

    Attributes:
        low: A number or (k,); infinite for none.
        high: Likewise.
        radius: Infinite for none.
    """

    low: Array | float = -np.inf
    high: Array | float = np.inf
    radius: float = np.inf

    @property
    def has_box(self) -> bool:
        """Whether any end is finite."""
        return bool(np.isfinite(self.low).any() or np.isfinite(self.high).any())

    def project(self, z: Array) -> Array:
        """The nearest point of the region to each row."""
        if np.isfinite(self.radius):
            norm = np.linalg.norm(z, axis=-1, keepdims=True)
            return z * np.minimum(1.0, self.radius / np.where(norm > 0, norm, 1.0))
        return np.clip(z, self.low, self.high) if self.has_box else z

    def held(self, z: Array, slope: Array) -> Flags:
        """Coordinates at a face of the box that the negative gradient ``slope`` pushes against."""
        return ((z <= self.low) & (slope < 0)) | ((z >= self.high) & (slope > 0))

    def steps(self, z: Array, reach: Array) -> tuple[Array, Array]:
        """Ends of the interval of steps from ``z`` that end in the box and are within ``reach``."""
        return np.maximum(-reach, self.low - z), np.minimum(reach, self.high - z)
