"""Small latents of deep networks: split the box until all codes are found or excluded."""

from __future__ import annotations

from typing import Any

import numpy as np

from preimage.certify.problem import Problem
from preimage.certify.proof import plain
from preimage.enclosure.contraction import Contractor, Interval
from preimage.enclosure.splitting import Part, explore
from preimage.matrix import Array, Flags

# A part is searched for codes where its middle explains the observation up to so many times the
# noise, and at most so often.
_NEAR, _LOOKS = 4.0, 60
# A part of this size, in units of the resolution, is split no further: S touches it, or nearly so.
_TINY = 1e-3


class Subdivision:
    """One sample: the tree of parts, and the codes that are found on the way."""

    def __init__(self, problem: Problem, contractor: Contractor, deadline: float) -> None:
        self.problem, self.contractor, self.deadline = problem, contractor, deadline
        self.root = Part(problem.low.copy(), problem.high.copy())
        self.looks, self.tiny, self.finished = _LOOKS, 0, False

    def run(self) -> str:
        """Split; what stopped it, empty if nothing did."""
        bounds = self.problem.bounds(self.problem.enclosed_noise)
        admitted = Interval(bounds.lower[-1], bounds.upper[-1])
        if bounds.empty:
            self.root.empty = self.finished = True
            return ""
        self.finished = explore(
            self.contractor, self.root, lambda: admitted, self._visit, self.deadline
        )
        if len(self.problem.witnesses) > 1:
            return ""
        if self.tiny:
            return "a part is neither empty nor near, by less than can be told"
        return "" if self.finished else "the time limit was reached"

    def hull(self) -> tuple[Array, Array]:
        """The smallest box around the parts that may hold codes; crossed where there are none."""
        left = self.root.leaves()
        if not left:
            k = len(self.problem.low)
            return np.full(k, np.inf), np.full(k, -np.inf)
        return np.min([p.low for p in left], axis=0), np.max([p.high for p in left], axis=0)

    def record(self) -> dict[str, Any]:
        """Plain JSON, in the form that ``boxes`` reads."""
        tokens: list[Any] = []
        stack = [self.root]
        while stack:
            part = stack.pop()
            if part.split is not None:
                tokens.append(["split", *plain(part.split)])
            elif part.children:
                left = part.children[0]
                tokens.append(["cut", *plain([left.low, left.high]), _sparse(part.rows)])
            else:
                tokens.append(["empty", _sparse(part.rows)] if part.empty else ["box"])
            stack += reversed(part.children)
        return {"subdivision": tokens}

    def _visit(self, parts: list[Part]) -> Flags | None:
        """Look for codes where they may be; which parts are near the witness, or tiny."""
        problem = self.problem
        near = self._near(parts)
        middles = np.stack([(part.low + part.high) / 2 for part in parts])
        missed = problem.missed(middles)
        for row in np.argsort(missed):
            if self.looks <= 0 or missed[row] > _NEAR * problem.noise:
                break
            if near[row]:
                continue
            self.looks -= 1
            if problem.look(parts[row].low, parts[row].high, [middles[row]]):
                return None
            near = self._near(parts)
        widths = np.stack([part.high - part.low for part in parts])
        tiny = ~near & (widths <= _TINY * problem.resolution).all(axis=1)
        for row in np.flatnonzero(tiny)[: self.tiny < _LOOKS]:
            points = [middles[row], *problem.extremes(middles[row])]
            if problem.look(problem.low, problem.high, points):
                return None
        self.tiny += int(tiny.sum())
        return near | tiny

    def _near(self, parts: list[Part]) -> Flags:
        """Which parts are within the resolution of the witness."""
        return np.array([self.problem.is_near(part.low, part.high) for part in parts])


def _sparse(rows: Array | None) -> list[Any]:
    """Each row as its places and its numbers."""
    places = [] if rows is None else [(row, np.flatnonzero(row)) for row in rows]
    return [[at.tolist(), plain(row[at])] for row, at in places]
