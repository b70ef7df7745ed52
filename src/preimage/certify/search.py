"""From enclosures to verdicts: look for witnesses, split on signs that stay open."""

from __future__ import annotations

import numpy as np

from preimage.certify.problem import Problem
from preimage.certify.proof import Node
from preimage.enclosure.descent import tighten
from preimage.enclosure.tighten import Budget, Deduction


def settle(problem: Problem, root: Deduction, budget: Budget, rounds: int) -> tuple[Node, str]:
    """Split until every part is empty or near the witness.

    Returns:
        The proof, and what stopped the search (empty if nothing did).
    """
    tree = Node(root)
    stack, stopped = [tree], ""
    network = problem.network
    while stack:
        node = stack.pop()
        deduction = node.deduction
        budget.nodes -= 1
        if node is not tree and not deduction.empty:
            tighten(network, deduction, budget, rounds)
        low, high = deduction.bounds.lower[0], deduction.bounds.upper[0]
        if deduction.empty or problem.is_near(low, high):
            continue
        if budget.spent:
            stopped = stopped or "the node or time limit was reached"
            continue
        if _look(problem, deduction):
            return tree, ""
        if problem.is_near(low, high):
            continue
        open_ = deduction.bounds.undecided(network)
        if not open_:
            stopped = stopped or "a part is neither empty nor near, by less than rounding"
            continue
        node.split = _widest(deduction, open_)
        for side in (1, 0):
            child = deduction.branch()
            layer, unit, value = node.split
            (child.bounds.lower if side else child.bounds.upper)[layer][unit] = value
            node.children.insert(0, Node(child))
            stack.append(node.children[0])
    return tree, stopped


def _look(problem: Problem, deduction: Deduction) -> bool:
    """Look for codes in this part; whether two that are apart are known then."""
    low, high = deduction.bounds.lower[0], deduction.bounds.upper[0]
    start = (low + high) / 2
    if not np.isfinite(start).all():
        return False
    points = [start, *problem.extremes(start)] if problem.witnesses else [start]
    return problem.look(low, high, points)


def _widest(deduction: Deduction, open_: list[tuple[int, int]]) -> tuple[int, int, float]:
    """The unit whose hull has the largest gap."""

    def gap(place: tuple[int, int]) -> float:
        layer, unit = place
        low, high = deduction.bounds.lower[layer][unit], deduction.bounds.upper[layer][unit]
        return float(min(-low, high)) if np.isinf(high - low) else float(-low * high / (high - low))

    layer, unit = max(open_, key=gap)
    return layer, unit, 0.0
