"""Two searches for a verdict: splits by the signs of units, or of the latent's box."""

from __future__ import annotations

import numpy as np

from preimage.certify import checker
from preimage.certify.problem import Problem
from preimage.enclosure.contraction import Contractor, Interval
from preimage.enclosure.descent import tighten
from preimage.enclosure.splitting import Part, explore
from preimage.enclosure.tighten import Budget, Deduction
from preimage.matrix import Flags

# A part of the box is searched for codes where its middle explains the observation up to so many
# times the noise, and at most so often.
_NEAR, _LOOKS = 4.0, 60
# A part of this size, in units of the resolution, is split no further: S touches it, or nearly so.
_TINY = 1e-3
# Levels of the tree that a cut and the splits after it may add.
_LEVELS = 4


def split_signs(problem: Problem, root: Deduction, budget: Budget, rounds: int) -> str:
    """Split until every part is empty or near the witness.

    Returns:
        What stopped the search (empty if nothing did).
    """
    stack, stopped = [(root, 0)], ""
    while stack:
        part, depth = stack.pop()
        budget.nodes -= 1
        if part is not root and not part.empty:
            tighten(problem.network, part, budget, rounds)
        if part.empty or problem.is_near(part.low, part.high):
            continue
        if budget.spent:
            stopped = stopped or "the node or time limit was reached"
            continue
        if _look(problem, part):
            return ""
        if problem.is_near(part.low, part.high):
            continue
        open_ = part.bounds.undecided(problem.network)
        if not open_:
            stopped = stopped or "a part is neither empty nor near, by less than rounding"
        elif depth == checker.DEPTH:
            stopped = stopped or "the largest depth of a proof was reached"
        else:
            children = part.branch(*max(open_, key=part.gap))
            stack += [(child, depth + 1) for child in reversed(children)]
    return stopped


def _look(problem: Problem, part: Deduction) -> bool:
    """Look for codes in this part; whether two that are apart are known then."""
    start = (part.low + part.high) / 2
    if not np.isfinite(start).all():
        return False
    points = [start, *problem.extremes(start)] if problem.witnesses else [start]
    return problem.look(part.low, part.high, points)


def split_box(problem: Problem, deadline: float) -> tuple[Part, str]:
    """Split until all codes are found or excluded.

    Returns:
        The parts, or the whole box where some were not looked at; and what stopped the search.
    """
    whole, root = (Part(problem.low, problem.high) for _ in range(2))
    bounds = problem.bounds(problem.enclosed_noise)
    if bounds.empty:
        root.empty = True
        return root, ""
    admitted = Interval(bounds.lower[-1], bounds.upper[-1])
    looks, tiny = _LOOKS, 0

    def near(parts: list[Part]) -> Flags:
        """Which parts are within the resolution of the witness."""
        return np.array([problem.is_near(part.low, part.high) for part in parts])

    def visit(parts: list[Part]) -> Flags | None:
        """Look for codes where they may be; which parts are near the witness, or tiny."""
        nonlocal looks, tiny
        middles = np.stack([(part.low + part.high) / 2 for part in parts])
        missed, done = problem.missed(middles), near(parts)
        for row in np.argsort(missed):
            if looks <= 0 or missed[row] > _NEAR * problem.noise:
                break
            if not done[row]:
                looks -= 1
                if problem.look(parts[row].low, parts[row].high, [middles[row]]):
                    return None
                done = near(parts)
        widths = np.stack([part.high - part.low for part in parts])
        small = (widths <= _TINY * problem.resolution).all(axis=1)
        small |= np.array([part.depth + _LEVELS > checker.DEPTH for part in parts])
        small &= ~done
        for row in np.flatnonzero(small)[: tiny < _LOOKS]:
            points = [middles[row], *problem.extremes(middles[row])]
            if problem.look(problem.low, problem.high, points):
                return None
        tiny += int(small.sum())
        return done | small

    contractor = Contractor.of(problem.network)
    finished = explore(contractor, root, lambda: admitted, visit, deadline)
    if len(problem.witnesses) > 1:
        return whole, ""
    stopped = "" if finished else "the time limit was reached"
    if tiny:
        stopped = "a part is neither empty nor near, by less than can be told"
    return root if finished else whole, stopped
