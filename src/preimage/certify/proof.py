"""How proof trees are written down for the checker."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from preimage.certify import checker
from preimage.enclosure.splitting import Part
from preimage.enclosure.tighten import Deduction, Step


def plain(value: Any) -> Any:
    """Plain JSON: of a dataclass its fields, of numbers hexadecimal text, exactly; null for NaN."""
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(part) for part in value]
    if isinstance(value, float):
        return None if np.isnan(value) else value.hex()
    if is_dataclass(value):
        return {part.name: plain(getattr(value, part.name)) for part in fields(value)}
    return value


def record(tree: Deduction | Part) -> dict[str, Any]:
    """Plain JSON, as ``checker.forms`` reads it."""
    return _parts(tree) if isinstance(tree, Part) else _node(tree)


def _node(tree: Deduction) -> dict[str, Any]:
    steps = [_step(step) for step in tree.steps]
    if tree.split is None:
        return {"steps": steps, "end": "empty" if tree.empty else "box"}
    children = [_node(child) for child in tree.children]
    return {"steps": steps, "split": [*tree.split, plain(0.0)], "children": children}


def _step(step: Step) -> list[Any]:
    """Multipliers are units, integers, and the exponent e of their unit 2^-e, for each layer."""
    layer, unit, upper, end = (part.tolist() for part in (*step.targets, step.values))
    multipliers = [
        [
            [units[part].tolist(), *checker.scaled(values[part].tolist())]
            for first, units, values in step.mu
            for part in [slice(*first[i : i + 2])]
        ]
        for i in range(len(unit))
    ]
    sides = map(int, upper)
    if step.radius:
        proofs = zip(unit, sides, multipliers, strict=True)
        return ["radius", step.start, plain(end[0]), [list(proof) for proof in proofs]]
    starts = [step.start] * len(unit)
    cuts = zip(layer, unit, sides, plain(end), starts, multipliers, strict=True)
    return ["cuts", *(list(cut) for cut in cuts)]


def _parts(root: Part) -> dict[str, Any]:
    tokens: list[Any] = []
    stack = [root]
    while stack:
        part = stack.pop()
        # Each row as its places and its numbers.
        found = [] if part.rows is None else [(row, np.flatnonzero(row)) for row in part.rows]
        rows = [[at.tolist(), plain(row[at])] for row, at in found]
        if part.split is not None:
            tokens.append(["split", *plain(part.split)])
        elif part.children:
            left = part.children[0]
            tokens.append(["cut", *plain([left.low, left.high]), rows])
        else:
            tokens.append(["empty", rows] if part.empty else ["box"])
        stack += reversed(part.children)
    return {"subdivision": tokens}
