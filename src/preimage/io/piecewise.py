"""Functions made of ReLU or ELU, for both front ends.

``x`` and the bounds are whatever a front end computes with: they take ``+``, ``-`` and ``*``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

ReLU = Callable[[Any], Any]


def clip(x: Any, low: Any, high: Any, relu: ReLU) -> Any:
    """``min(max(x, low), high)``; None is no bound."""
    if low is not None:
        x = relu(x - low) + low
    return x if high is None else smallest(x, high, relu)


def largest(a: Any, b: Any, relu: ReLU) -> Any:
    """``max(a, b)``; b is carried past the ReLU, which costs nothing if it is constant."""
    return relu(a - b) + b


def smallest(a: Any, b: Any, relu: ReLU) -> Any:
    """``min(a, b)``; b is carried past the ReLU, which costs nothing if it is constant."""
    return -relu(-a + b) + b


def absolute(x: Any, relu: ReLU) -> Any:
    """``|x|``."""
    return relu(x) + relu(-x)


def hard_sigmoid(x: Any, slope: float, shift: float, relu: ReLU) -> Any:
    """``min(max(slope x + shift, 0), 1)``."""
    return clip(x * slope + shift, 0.0, 1.0, relu)


def scaled_elu(
    x: Any, alpha: float, scale: float, inner: float, elu: Callable[[Any, float], Any]
) -> Any:
    """``scale x`` where ``x > 0``, else ``scale alpha (exp(inner x) - 1)``, as SELU and CELU are.

    ``scale / inner`` times the ELU of ``alpha inner`` at ``inner x``. Of a CELU, scale is 1; where
    ``inner`` is not 1, the slope above 0 is ``scale``.
    """
    return elu(x * inner, alpha * inner) * (scale / inner)
