"""Enclosures: layer by layer from the observation down, then all layers at once while it pays."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from preimage.enclosure.bound_proofs import Targets, find_radius
from preimage.enclosure.network import Bounds, Network
from preimage.enclosure.relaxation import Relaxation, relax
from preimage.enclosure.tighten import (
    Deduction,
    Radius,
    Target,
    bound_outputs,
    end_targets,
    output_targets,
    shortened,
    sign_targets,
    solve,
    sparse_rows,
    tighten_bounds,
)

# Another round of tightening must have cut off this part of some interval.
_PAYS = 0.1
# Most linear programs in one call of the solver.
_CHUNK = 128
# Their first number: as many as have so many matrix entries in all, but at least four.
_FIRST_ENTRIES = 2_000_000
# Matrix entries, over all programs, up to which a pass over one hidden layer is cheap.
_CHEAP = 20_000_000
# Part of the remaining time that a call may take, as the last one predicts.
_PART = 0.2


@dataclass
class Budget:
    """What a sample may cost.

    Attributes:
        deadline: Of ``time.perf_counter``.
        nodes: Branches that may still be opened.
        checking: Seconds that checking one cut takes; the deadline is as much earlier.
        cuts: How many may have been made.
    """

    deadline: float
    nodes: int
    checking: float = 0.0
    cuts: int = 0

    @property
    def left(self) -> float:
        """Seconds."""
        return self.deadline - time.perf_counter() - self.checking * self.cuts

    @property
    def spent(self) -> bool:
        """Whether to stop."""
        return self.nodes <= 0 or self.left <= 0

    def chunks(self, count: int, entries: int) -> Iterator[slice]:
        """Slices of ``count`` programs with a matrix of so many entries, while there is time."""
        first, size = 0, max(4, _FIRST_ENTRIES // max(entries, 1))
        while first < count and not self.spent:
            size = min(size, _CHUNK)
            start = time.perf_counter()
            yield slice(first, first + size)
            first += size
            self.cuts += size
            seconds = (time.perf_counter() - start) / size
            size = max(int(min(_PART * self.left / max(seconds, 1e-9), 4 * size)), 1)


def enclose(network: Network, bounds: Bounds, budget: Budget, rounds: int) -> Deduction:
    """Bounds on the code and on all units, from the last layer down, then all layers at once.

    Args:
        network: The network.
        bounds: The box, and what the observation says of the last layer (``observed.start``).
        budget: When to stop; what holds until then is returned.
        rounds: Most rounds of tightening.
    """
    root = Deduction.start(bounds)
    finite = all(np.isfinite(end).all() for end in (root.bounds.lower[0], root.bounds.upper[0]))
    if finite:
        root.propagate(network)
    for start in range(network.depth - 1, -1, -1):
        if root.empty or budget.spent:
            return root
        invert_layer(network, root, start)
        if finite:
            if start > 0:
                _pull_open(network, root, start, budget)
            continue
        relaxation = relax(network, root.bounds, start)
        if start > 0 or not all(np.isfinite(end).all() for end in relaxation.domain):
            if not add_radius(network, root, relaxation, budget):
                continue
            relaxation = relax(network, root.bounds, start)
            _pull(network, root, relaxation, start, budget)
    if not all(np.isfinite(end).all() for end in root.bounds.outputs(network, 0)):
        return root
    if finite:
        # Ends of the latent cost least, and decide most of the signs.
        _pull(network, root, relax(network, root.bounds), 0, budget)
    root.propagate(network)
    tighten(network, root, budget, rounds)
    return root


def _pull(
    network: Network,
    deduction: Deduction,
    relaxation: Relaxation,
    start: int,
    budget: Budget,
) -> float:
    """Cut the outputs of a layer; the largest part cut off."""
    units = range(len(relaxation.column[start]))
    wanted = output_targets(relaxation, units)
    return _cut(network, deduction, relaxation, wanted, budget)


def _pull_open(network: Network, deduction: Deduction, start: int, budget: Budget) -> None:
    """Cut the outputs of a layer whose sign is open, by the layers above it, if that is cheap."""
    units = np.flatnonzero(np.isnan(deduction.bounds.decided(network, start)))
    if 2 * len(units) * network.weights[start + 1].size <= _CHEAP:
        relaxation = relax(network, deduction.bounds, start)
        wanted = output_targets(relaxation, units.tolist())
        _cut(network, deduction, relaxation, wanted, budget)


def _cut(
    network: Network,
    deduction: Deduction,
    relaxation: Relaxation,
    wanted: list[Target],
    budget: Budget,
) -> float:
    """Cut all wanted ends, while there is time; the largest part cut off."""
    size = relaxation.weight.size
    parts = (wanted[part] for part in budget.chunks(len(wanted), size))
    return tighten_bounds(network, deduction, relaxation, parts)


def invert_layer(network: Network, deduction: Deduction, start: int) -> None:
    """Bound the outputs of a layer by least squares on the layer above, without any program.

    With R the pseudo-inverse of the rows whose interval is finite, each divided by its half-width,
    row j of R is a multiplier that proves both ends of output j.
    """
    low, high = (end[start + 1] for end in (deduction.bounds.lower, deduction.bounds.upper))
    rows = np.flatnonzero(np.isfinite(low) & np.isfinite(high))
    weight, count = network.weights[start + 1][rows], network.sizes[start]
    half = (high - low)[rows] / 2
    if len(rows) < count or not count:
        return
    half = np.maximum(half, 1e-9 * half.max(initial=0.0) + 1e-300)
    scaled = weight / half[:, None]
    try:
        inverse = np.linalg.solve(scaled.T @ scaled, scaled.T) / half
    except np.linalg.LinAlgError:
        return
    if not np.isfinite(inverse).all():
        return
    inverse, mu = shortened(inverse), np.zeros((2 * count, network.sizes[start + 1]))
    mu[:count, rows], mu[count:, rows] = inverse, -inverse
    unit, upper = np.tile(np.arange(count), 2), np.repeat([True, False], count)
    targets = Targets(np.full(2 * count, start), unit, upper)
    deduction.cut(network, {}, start, targets, {start + 1: mu}, signs=True)


def add_radius(
    network: Network, deduction: Deduction, relaxation: Relaxation, budget: Budget
) -> bool:
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
    loosened, parts = relaxation.loosened(), []
    for part in budget.chunks(len(ends), relaxation.weight.size):
        dual, optimal, _ = solve(loosened, objective[part])
        if not optimal.all():
            return False
        parts.append(dual)
    dual = np.concatenate([np.zeros((0, len(relaxation.lower))), *parts])
    if len(dual) < len(ends):
        return False  # the time is up
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
            best = max(best, _cut(network, deduction, relaxation, wanted, budget))
            if deduction.empty:
                return
        relaxation = relax(network, deduction.bounds)
        best = max(best, _pull(network, deduction, relaxation, 0, budget))
        if best < _PAYS or not relaxation.undecided():
            return
