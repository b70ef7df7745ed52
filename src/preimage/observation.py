"""What was observed: values and noise level, checked once, at the door."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from preimage.errors import InputError
from preimage.generator import Generator, as_float64

Array = NDArray[np.float64]

# Relative to the largest entry of an observation: differences below this are taken as rounding.
# Linear programs are solved to about 1e-10 of their scale, so this is what "exact" can mean.
ROUNDING = 1e-9


def scale_of(x: Array) -> Array:
    """(batch,) largest absolute entry of each sample; 1 where all are 0."""
    largest = np.max(np.abs(x), axis=1, initial=0.0)
    return np.where(largest > 0, largest, 1.0)


@dataclass(frozen=True, eq=False)
class Observation:
    """``x = G(z*) + e`` with ``max |e| <= noise``.

    Attributes:
        values: (batch, n) float64.
        noise: (batch,) bound on the largest absolute noise entry, in units of ``values``.
    """

    values: Array
    noise: Array

    @property
    def tolerance(self) -> Array:
        """(batch,) the initial tolerance: the noise, but never below rounding error."""
        return np.maximum(self.noise, ROUNDING * scale_of(self.values))

    def take(self, samples: NDArray[np.intp]) -> Observation:
        """Only these samples."""
        return Observation(self.values[samples], self.noise[samples])

    def __len__(self) -> int:
        return len(self.values)


def check_observation(
    generator: Generator, values: ArrayLike, noise: ArrayLike
) -> tuple[Observation, bool]:
    """Check ``values`` and ``noise`` against a generator.

    Args:
        generator: Whose outputs are observed.
        values: Shape (n,) or (batch, n), real and finite.
        noise: Largest absolute noise entry; a number, or one for each sample.

    Returns:
        The observation, always with a batch dimension, and whether ``values`` had none.

    Raises:
        InputError: Wrong shape, NaN or infinity, complex numbers, negative noise.
    """
    x = as_float64(values, "observation")
    n = generator.observation_size
    if x.ndim not in (1, 2) or x.shape[-1] != n:
        raise InputError(
            f"observation: expected shape ({n},) or (batch, {n}), the generator's output size, "
            f"got shape {x.shape}; flatten images to vectors first"
        )
    level = as_float64(noise, "noise")
    batch = 1 if x.ndim == 1 else len(x)
    if level.shape not in ((), (batch,)):
        raise InputError(
            f"noise: expected a number or shape ({batch},), one a sample, got shape {level.shape}"
        )
    if (level < 0).any():
        raise InputError(f"noise: expected a level of at least 0, got {level.min()}")
    return Observation(np.atleast_2d(x), np.broadcast_to(level, (batch,))), x.ndim == 1
