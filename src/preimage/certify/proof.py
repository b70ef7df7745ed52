"""Proof trees, and how they are written down for the checker."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np

from preimage.certify import checker
from preimage.enclosure.tighten import Deduction, Step
from preimage.matrix import Array


@dataclass
class Node:
    """Steps, then a split into ``a <= value`` and ``a >= value`` (layer 0: of z).

    Attributes:
        deduction: Its steps, and what holds after them.
        split: Layer, unit, value; None at a leaf.
        children: The two sides of a split.
    """

    deduction: Deduction
    split: tuple[int, int, float] | None = None
    children: list[Node] = field(default_factory=list)

    def hull(self) -> tuple[Array, Array]:
        """The smallest box around the codes that may be left; crossed where there are none."""
        if self.split is not None:
            lows, highs = zip(*(child.hull() for child in self.children), strict=True)
            return np.min(lows, axis=0), np.max(highs, axis=0)
        bounds = self.deduction.bounds
        low, high = bounds.lower[0].copy(), bounds.upper[0].copy()
        if self.deduction.empty:
            low[:], high[:] = np.inf, -np.inf
        return low, high

    def record(self) -> dict[str, Any]:
        """Plain JSON; floats as hexadecimal text."""
        steps = [_step_record(step) for step in self.deduction.steps]
        if self.split is not None:
            layer, unit, value = self.split
            children = [child.record() for child in self.children]
            return {"steps": steps, "split": [layer, unit, plain(value)], "children": children}
        return {"steps": steps, "end": "empty" if self.deduction.empty else "box"}


def plain(value: Any) -> Any:
    """Plain JSON: of a dataclass its fields, of numbers hexadecimal text, exactly; null for NaN."""
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(part) for part in value]
    if isinstance(value, float):
        return None if np.isnan(value) else value.hex()
    if is_dataclass(value):
        return {part.name: plain(getattr(value, part.name)) for part in fields(value)}
    return value


def _step_record(step: Step) -> list[Any]:
    cuts = [
        [cut.layer, cut.unit, int(cut.upper), plain(cut.value), cut.start,
         _multiplier_record(cut.multipliers)] for cut in step.proofs
    ]  # fmt: skip
    if not step.radius:
        return ["cuts", *cuts]
    (_, _, _, value, start, _), *_ = cuts
    return ["radius", start, value, [[unit, upper, mu] for _, unit, upper, _, _, mu in cuts]]


def _multiplier_record(multipliers: list[Any]) -> list[Any]:
    """Units, integers, and the exponent e of their unit 2^-e, for each layer."""
    pairs = [(np.asarray(units).tolist(), values.tolist()) for units, values in multipliers]
    return [[units, *checker.scaled(values)] for units, values in pairs]
