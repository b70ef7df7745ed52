"""The slab of pre-activations that an observed value allows.

What a layer program needs from an activation is one thing, its *slab*. Given an observed value
``x`` and a tolerance ``eps``, the pre-activations ``a`` with ``|act(a) - x| <= eps`` form an
interval ``[L, U]``, because every activation here is nondecreasing. Let the error bound ``delta``
vary, and replace the end points by their tangents at ``delta = eps``:

    L + rate_L (eps - delta)  <=  a  <=  U - rate_U (eps - delta).

The ends are now affine in ``delta``, so they can stand in a linear program, and at
``delta = eps`` they are exact. For ReLU and LeakyReLU this *is* the case distinction of the paper
(Algorithm 1 and Remark 1); for tanh and sigmoid heads it is its natural extension. One builder
of programs thus serves every activation and both norms.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from preimage.matrix import Array, Flags


class Slab(NamedTuple):
    """``lower - lower_rate * delta <= a <= upper + upper_rate * delta``, all of x's shape.

    A side that constrains nothing is infinite, with rate 0.
    """

    lower: Array
    lower_rate: Array
    upper: Array
    upper_rate: Array

    def at(self, delta: Array | float) -> Slab:
        """The slab at a fixed ``delta``: no rates are left."""
        zero = np.zeros_like(self.lower)
        lower, upper = self.lower - self.lower_rate * delta, self.upper + self.upper_rate * delta
        return Slab(lower, zero, upper, zero)

    def spread(self, size: Array | float) -> Slab:
        """The slab in which ``delta`` counts ``size`` times in each entry."""
        return Slab(self.lower, self.lower_rate * size, self.upper, self.upper_rate * size)

    def where(self, observed: Flags) -> Slab:
        """The slab that constrains nothing but the ``observed`` entries."""
        free = (-np.inf, 0.0, np.inf, 0.0)
        return Slab(
            *(np.where(observed, part, none) for part, none in zip(self, free, strict=True))
        )
