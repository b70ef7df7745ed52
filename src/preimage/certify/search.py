"""From enclosures to verdicts: tighten, find witnesses, split on signs that stay open."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from preimage.certify.equations import only_point
from preimage.certify.problem import Problem
from preimage.certify.proof import Node
from preimage.enclosure.cuts import Targets, find_radius
from preimage.enclosure.network import Array, Network
from preimage.enclosure.relaxation import Relaxation, relax
from preimage.enclosure.tighten import (
    Deduction,
    Radius,
    end_targets,
    output_targets,
    pull,
    sign_targets,
    solve,
    sparse_rows,
)

# Another round of tightening must have cut off this part of some interval.
_PAYS = 0.1
# Linear programs that are solved between two looks at the clock.
_CHUNK = 128
# Open signs that are split although the part is near the witness.
_FEW = 4


@dataclass
class Budget:
    """What a sample may cost.

    Attributes:
        deadline: Of ``time.perf_counter``.
        nodes: Branches that may still be opened.
    """

    deadline: float
    nodes: int

    @property
    def spent(self) -> bool:
        """Whether to stop."""
        return self.nodes <= 0 or time.perf_counter() >= self.deadline


def enclose(problem: Problem, budget: Budget, rounds: int) -> Deduction:
    """Bounds on the code and on all units, from the last layer down, then all layers at once."""
    network = problem.network
    root = Deduction.start(problem.bounds(problem.noise + problem.rounding))
    if np.isfinite(root.bounds.lower[0]).all() and np.isfinite(root.bounds.upper[0]).all():
        root.propagate(network)
    for start in range(network.depth - 1, -1, -1):
        if root.empty or budget.spent:
            return root
        relaxation = relax(network, root.bounds, start)
        if start > 0 or not all(np.isfinite(end).all() for end in relaxation.domain):
            if not add_radius(network, root, relaxation):
                continue
            relaxation = relax(network, root.bounds, start)
            _pull(network, root, relaxation, start, budget)
    if not all(np.isfinite(end).all() for end in root.bounds.outputs(network, 0)):
        return root
    root.propagate(network)
    tighten(network, root, budget, rounds)
    return root


def _pull(
    network: Network, deduction: Deduction, relaxation: Relaxation, start: int, budget: Budget
) -> float:
    """Cut the outputs of a layer; the largest part cut off."""
    best, units = 0.0, np.arange(len(relaxation.column[start]))
    for first in range(0, len(units), _CHUNK // 2):
        if not budget.spent:
            wanted = output_targets(relaxation, units[first : first + _CHUNK // 2].tolist())
            best = max(best, pull(network, deduction, relaxation, wanted))
    return best


def add_radius(network: Network, deduction: Deduction, relaxation: Relaxation) -> bool:
    """Bound the outputs of the starting layer where they are infinite; whether they are finite."""
    start, bounds = relaxation.start, deduction.bounds
    low, high = bounds.outputs(network, start)
    ends = [(j, bool(side)) for side, end in enumerate((low, high))
            for j in np.flatnonzero(np.isinf(end)).tolist()]  # fmt: skip
    if not ends:
        return True
    units, uppers = (np.array(part) for part in zip(*ends, strict=True))
    objective = np.zeros((len(ends), relaxation.weight.shape[1]))
    objective[np.arange(len(ends)), relaxation.column[start][units]] = np.where(uppers, -1.0, 1.0)
    dual, optimal, _ = solve(relaxation.loosened(), objective)
    if not optimal.all():
        return False
    mu = relaxation.multipliers(network, dual)
    targets = Targets(np.full(len(ends), start), units, uppers)
    value = find_radius(network, bounds, relaxation.slopes, start, mu, targets)
    if not np.isfinite(value):
        return False
    proofs = [(j, side, sparse_rows(mu, row)) for row, (j, side) in enumerate(ends)]
    deduction.steps.append(Radius(start, value, proofs))
    loose = np.isinf(low) | np.isinf(high)
    c = network.slopes[start]
    with np.errstate(divide="ignore"):
        least = np.where(c > 0, np.nextafter(-value / c, -np.inf), -np.inf)
    for end, other, pick in (
        (bounds.lower[start], least, np.maximum), (bounds.upper[start], value, np.minimum)
    ):  # fmt: skip
        end[loose] = pick(end, other)[loose]
    return True


def tighten(network: Network, deduction: Deduction, budget: Budget, rounds: int) -> None:
    """All layers at once: cut ends and signs of open units, then the code, while it pays."""
    for _ in range(rounds):
        if deduction.empty or budget.spent:
            return
        best = 0.0
        for targets in (end_targets, sign_targets):
            relaxation = relax(network, deduction.bounds, outputs=deduction.binding)
            wanted = targets(network, relaxation)
            for first in range(0, len(wanted), _CHUNK):
                if not budget.spent:
                    part = wanted[first : first + _CHUNK]
                    best = max(best, pull(network, deduction, relaxation, part))
            if deduction.empty:
                return
        relaxation = relax(network, deduction.bounds)
        best = max(best, _pull(network, deduction, relaxation, 0, budget))
        if best < _PAYS or not relaxation.undecided():
            return


def settle(problem: Problem, root: Deduction, budget: Budget, rounds: int) -> tuple[Node, str]:
    """Split until every part is empty or near the witness.

    Returns:
        The proof, and what stopped the search (empty if nothing did).
    """
    tree = Node.of(root)
    stack, stopped = [(tree, root)], ""
    network = problem.network
    while stack:
        node, deduction = stack.pop()
        budget.nodes -= 1
        if node is not tree and not deduction.empty:
            tighten(network, deduction, budget, rounds)
        if deduction.empty:
            node.end = "empty"
            continue
        open_ = relax(network, deduction.bounds).undecided()
        if _is_point(problem, node, open_):
            continue
        # At noise 0 a few signs more may show that the code is the only one.
        exact = problem.noise == 0 and bool(problem.witnesses) and 0 < len(open_) <= _FEW
        if _near(problem, deduction) and not (exact and not budget.spent):
            continue
        if budget.spent:
            stopped = stopped or "the node or time limit was reached"
            continue
        if not _look(problem, deduction):
            return tree, ""
        if _near(problem, deduction) and not exact:
            continue
        if not open_:
            stopped = stopped or "a part is neither empty nor near, by less than rounding"
            continue
        node.split = _widest(deduction, open_)
        for side in (1, 0):
            child = deduction.branch()
            layer, unit, value = node.split
            (child.bounds.lower if side else child.bounds.upper)[layer][unit] = value
            node.children.insert(0, Node.of(child))
            stack.append((node.children[0], child))
    return tree, stopped


def _is_point(problem: Problem, node: Node, open_: list[tuple[int, int]]) -> bool:
    """Whether the witness is the only code of this part; then the node says so."""
    if problem.noise == 0 and problem.witnesses and not open_:
        node.rows = only_point(problem, node.bounds)
        node.end = "point" if node.rows else "box"
    return bool(node.rows)


def _near(problem: Problem, deduction: Deduction) -> bool:
    """Whether all codes of this part are near the witness."""
    return bool(problem.witnesses) and (
        spread(problem.witnesses[0], deduction.bounds.lower[0], deduction.bounds.upper[0])
        <= problem.resolution
    )


def spread(witness: Array, low: Array, high: Array) -> float:
    """The largest distance from the witness within a box, rounded up."""
    far = np.maximum(np.abs(high - witness), np.abs(witness - low)).max(initial=0.0)
    return float(far if far == 0 else np.nextafter(far * (1 + 2.0**-50), np.inf))


def _look(problem: Problem, deduction: Deduction) -> bool:
    """Look for codes in this part; False where two that are apart are found."""
    low, high = deduction.bounds.lower[0], deduction.bounds.upper[0]
    start = (low + high) / 2
    if not np.isfinite(start).all():
        return True
    if not problem.witnesses:
        found = problem.find_witness(start)
        return found is None or not problem.find_pair(found)
    first = problem.witnesses[0]
    for point in [start, *problem.extremes(start)]:
        other = np.clip(point, low, high)
        if np.abs(other - first).max() > problem.resolution:
            middle = problem.middle(other)
            for candidate in (other, (1 - 1e-6) * other + 1e-6 * middle, middle):
                if problem.are_apart(first, candidate):
                    return False
    return True


def _widest(deduction: Deduction, open_: list[tuple[int, int]]) -> tuple[int, int, float]:
    """The unit whose hull has the largest gap."""

    def gap(place: tuple[int, int]) -> float:
        layer, unit = place
        low, high = deduction.bounds.lower[layer][unit], deduction.bounds.upper[layer][unit]
        return float(min(-low, high)) if np.isinf(high - low) else float(-low * high / (high - low))

    layer, unit = max(open_, key=gap)
    return layer, unit, 0.0
