"""Checks of the numbers that methods take."""

from __future__ import annotations

from typing import Any

import numpy as np

from preimage.errors import InputError


def is_method(candidate: Any) -> bool:
    """Whether this is an object with ``solve``, and not a class or a name."""
    return not isinstance(candidate, (str, type)) and hasattr(candidate, "solve")


def check_positive(positive: dict[str, float], counts: dict[str, int]) -> None:
    """Raise ``InputError`` unless all numbers are above 0 and all counts whole, at least 1."""
    for name, value in positive.items():
        is_number = isinstance(value, (int, float, np.integer, np.floating))
        if not (is_number and np.isfinite(value) and value > 0):
            raise InputError(f"{name}: expected a number above 0, got {value!r}")
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
            raise InputError(f"{name}: expected a whole number of at least 1, got {count!r}")
