"""Enclosures: layer by layer from the observation down, then all layers at once while it pays."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from preimage.enclosure.cuts import Targets, find_radius
from preimage.enclosure.network import Bounds, Network
from preimage.enclosure.relaxation import Relaxation, relax
from preimage.enclosure.tighten import (
    Deduction,
    Radius,
    bound_outputs,
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


def enclose(network: Network, bounds: Bounds, budget: Budget, rounds: int) -> Deduction:
    """Bounds on the code and on all units, from the last layer down, then all layers at once.

    Args:
        network: The network.
        bounds: The box, and what the observation says of the last layer (``observed.start``).
        budget: When to stop; what holds until then is returned.
        rounds: Most rounds of tightening.
    """
    root = Deduction.start(bounds)
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
    bound_outputs(network, bounds, start, value)
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
