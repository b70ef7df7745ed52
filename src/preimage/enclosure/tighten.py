"""Steps of a proof: ends tightened by interval arithmetic, and by linear programs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from preimage.enclosure.bound_proofs import proven_ends
from preimage.enclosure.network import Bounds, Network, Targets
from preimage.enclosure.relaxation import Relaxation, Units, relax
from preimage.lp import Outcome
from preimage.matrix import Array, Flags, Indices

# A new end is kept if it takes this part of the interval away, or decides a sign.
_WORTH = 0.01
# Bits of a multiplier, counted from the largest of a proof.
_BITS = 36
# Most linear programs in one call of the solver.
_CHUNK = 128
# Their first number: as many as have so many matrix entries in all, but at least four; and no more
# than there is time for, at so many products a second (two cores make 1.1e10 to 1.9e10).
_FIRST_ENTRIES = 2_000_000
_PRODUCTS = 1e10
# Most units in one step of interval arithmetic.
_UNITS = 256
# Part of the remaining time that a call may take, as the last one predicts.
_PART = 0.2


@dataclass
class Budget:
    """What a sample may cost.

    Attributes:
        deadline: Of ``time.perf_counter``.
        nodes: Branches that may still be opened.
        checking: Seconds that checking one bound proof takes; the deadline is as much earlier.
        proofs: How many may have been made.
    """

    deadline: float
    nodes: int
    checking: float = 0.0
    proofs: int = 0

    @property
    def left(self) -> float:
        """Seconds."""
        return self.deadline - time.perf_counter() - self.checking * self.proofs

    @property
    def spent(self) -> bool:
        """Whether to stop."""
        return self.nodes <= 0 or self.left <= 0

    def times(self, products: int) -> float:
        """How often there is time for so many products."""
        return max(self.left, 0.0) * _PRODUCTS / max(products, 1)

    def chunks(self, count: int, rows: int, columns: int) -> Iterator[slice]:
        """Slices of ``count`` programs with a matrix of this shape, while there is time."""
        first, entries = 0, max(rows * columns, 1)
        size = int(min(max(4, _FIRST_ENTRIES // entries), self.times(entries * columns)))
        while first < count and size and not self.spent:
            size = min(size, _CHUNK)
            start = time.perf_counter()
            yield slice(first, first + size)
            first += size
            self.proofs += size
            seconds = (time.perf_counter() - start) / size
            size = max(int(min(_PART * self.left / max(seconds, 1e-9), 4 * size)), 1)


class Step(NamedTuple):
    """Ends that are all proven from the bounds before the step.

    Attributes:
        targets: The ends.
        values: (targets,) where they are now.
        start: The lowest layer whose equations are used is ``start + 1``.
        mu: For each layer from start + 1 on, as far as needed, those of ``bound_proofs`` that are
            not 0: where each target's start, their units, and their values.
        radius: Whether these are the infinite ends of a layer's outputs, with one value: that no
            such output is above it in size, which they prove together; see ``proven_radius``.
    """

    targets: Targets
    values: Array
    start: int
    mu: list[tuple[Indices, Indices, Array]]
    radius: bool = False


@dataclass(eq=False)
class Deduction:
    """A tree of bounds: what was deduced, then a split by the sign of a unit, if there is one.

    Attributes:
        bounds: What holds after the steps.
        binding: (n,) the outputs that some program needed so far.
        steps: That led there, in order.
        split: Layer and number of a unit; None at a leaf.
        children: Where its pre-activation is at most 0, and where it is at least 0.
    """

    bounds: Bounds
    binding: Flags
    steps: list[Step] = field(default_factory=list)
    split: tuple[int, int] | None = None
    children: list[Deduction] = field(default_factory=list)

    @staticmethod
    def start(bounds: Bounds) -> Deduction:
        """Nothing is deduced yet; outputs that are bounded from both sides often bind."""
        low, high = bounds.lower[-1], bounds.upper[-1]
        return Deduction(bounds, np.isfinite(low) & np.isfinite(high))

    @property
    def empty(self) -> bool:
        """Whether it is proven that there is no code."""
        return self.bounds.empty

    @property
    def low(self) -> Array:
        """(k,) of the code."""
        return self.bounds.lower[0]

    @property
    def high(self) -> Array:
        """(k,) of the code."""
        return self.bounds.upper[0]

    def gap(self, place: tuple[int, int]) -> float:
        """The largest gap of the hull of an undecided unit, by layer and number."""
        layer, unit = place
        low, high = self.bounds.lower[layer][unit], self.bounds.upper[layer][unit]
        return float(min(-low, high)) if np.isinf(high - low) else float(-low * high / (high - low))

    def branch(self, layer: int, unit: int) -> list[Deduction]:
        """Split, and return the children."""
        self.split = layer, unit
        for side in (0, 1):
            bounds = self.bounds.copy()
            (bounds.lower if side else bounds.upper)[layer][unit] = 0.0
            self.children.append(Deduction(bounds, self.binding.copy()))
        return self.children

    def leaves(self) -> list[Deduction]:
        """Those that may hold codes."""
        if self.children:
            return [leaf for child in self.children for leaf in child.leaves()]
        return [] if self.empty else [self]

    def propagate(self, network: Network) -> None:
        """Interval arithmetic from the code through the hidden layers."""
        for layer in range(1, network.depth):
            count = network.sizes[layer]
            # The cost is quadratic in the units of a step.
            for first in range(0, count, _UNITS):
                units = np.arange(first, min(first + _UNITS, count))
                rows = np.eye(count)[units]
                mu = {layer: np.vstack([rows, -rows])}
                targets = Targets.both(np.full_like(units, layer), units)
                self.deduce(network, layer - 1, targets, mu)

    def deduce(
        self,
        network: Network,
        start: int,
        targets: Targets,
        mu: dict[int, Array],
        budget: Budget | None = None,
    ) -> float:
        """One step: the ends that multipliers prove and that are worth it.

        Args:
            network: The network.
            start: See ``Step``.
            targets: Ends that may be tightened.
            mu: For each layer above start, up to some layer, (targets, n_i).
            budget: Counts the proofs, unless they take no time to check.

        Returns:
            The largest part of an interval that was taken away, 0 to 1.
        """
        bounds = self.bounds
        low, high = bounds.of(targets.layer, targets.unit)
        ends = proven_ends(network, bounds, start, mu, targets)
        part = _part(low, high, ends, targets.upper)
        crosses = np.where(targets.upper, (ends <= 0) & (high > 0), (low < 0) & (ends >= 0))
        chosen = (part > _WORTH) | crosses & (targets.layer > 0)
        rows = np.flatnonzero(chosen)
        if not len(rows):
            return 0.0
        if budget is not None:
            budget.proofs += len(rows)
        made = targets.take(rows)
        bounds.tighten(made, ends[rows])
        self.steps.append(Step(made, ends[rows], start, sparse(mu, rows)))
        return float(part[rows].max())


def shortened(multipliers: Array) -> Array:
    """Multipliers of ``_BITS`` bits below the largest of each row; exact sums are faster then."""
    largest = np.abs(multipliers).max(axis=1, keepdims=True, initial=0.0)
    grid = np.ldexp(1.0, np.frexp(largest)[1] - _BITS)
    return np.round(multipliers / grid) * grid


def sparse(mu: dict[int, Array], rows: Indices) -> list[tuple[Indices, Indices, Array]]:
    """Some rows of the multipliers, as ``Step`` has them."""
    found = []
    for chosen in (mu[layer][rows] for layer in sorted(mu)):
        row, unit = np.nonzero(chosen)
        first = np.searchsorted(row, np.arange(len(rows) + 1))
        found.append((first, unit, chosen[row, unit]))
    return found


def _part(low: Array, high: Array, ends: Array, upper: Flags) -> Array:
    """How much of each [low, high] a new end takes away, 0 to 1."""
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.minimum(np.where(upper, high - ends, ends - low) / (high - low), 1.0)
    share = np.where(np.isinf(low) | np.isinf(high) | (high <= low), 1.0, share)
    return np.where(np.where(upper, ends >= high, ends <= low), 0.0, share)


class Programs(NamedTuple):
    """Linear programs ``minimise objective @ v`` whose multipliers may prove ends.

    Attributes:
        targets: The end that each may prove.
        objective: (targets, variables).
        share: (targets,) the coefficient of the target's own pre-activation in the objective; not
            used where that is a variable.
    """

    targets: Targets
    objective: Array
    share: Array


def end_programs(units: Units) -> Programs:
    """The least and the largest value of what each unit is."""
    share = np.repeat([1.0, -1.0], len(units.unit))
    image = np.vstack([units.image, -units.image])
    return Programs(Targets.both(units.layer, units.unit), image, share)


def sign_programs(relaxation: Relaxation) -> Programs:
    """Whether either sign of an undecided unit is impossible.

    ``a <= 0`` means ``z = c a``, so that a positive least value of ``z - c a`` proves a > 0; on the
    hull this is a weaker thing to ask than a positive least value of a. Likewise ``z - a``.
    """
    units = relaxation.undecided
    turn = np.tile(np.where(units.slope < 1, 1.0, -1.0), 2)
    share = -turn * np.concatenate([units.slope, np.ones_like(units.slope)])
    value, image = (np.tile(rows, (2, 1)) for rows in (relaxation.values, units.image))
    objective = turn[:, None] * value + share[:, None] * image
    return Programs(Targets.both(units.layer, units.unit), objective, share)


def solve(relaxation: Relaxation, objective: Array, budget: Budget) -> tuple[Array, Flags, Flags]:
    """Signed row multipliers of the first objectives, as many as there is time for.

    Ends with the first chunk in which some multipliers prove that there is no point.

    Args:
        relaxation: The rows.
        objective: (targets, variables).
        budget: The time.

    Returns:
        The multipliers, (solved, rows), which of them are an optimum's, and which prove that there
        is no point.
    """
    nothing = np.zeros(0, dtype=bool)
    found = [(np.zeros((0, len(relaxation.weight))), nothing, nothing)]
    for part in budget.chunks(len(objective), *relaxation.weight.shape):
        solution = relaxation.solve(objective[part])
        dual, outcome = solution.dual_lower - solution.dual_upper, solution.outcome
        if not (outcome == Outcome.OPTIMAL).any():
            # The bounds may hold no code by a margin that the solver does not trust; proofs can
            # tell.
            slack = relaxation.elastic()
            dual[:1] = slack.dual_lower - slack.dual_upper
            outcome[0] = Outcome.INFEASIBLE
        known = np.isfinite(dual).all(axis=1)
        empty = known & (outcome == Outcome.INFEASIBLE)
        found.append((dual, known & (outcome == Outcome.OPTIMAL), empty))
        if empty.any():
            break
    dual, optimal, empty = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    return dual, optimal, empty


def tighten_by(
    programs: Callable[[Relaxation], Programs],
    network: Network,
    deduction: Deduction,
    budget: Budget,
    start: int = 0,
    outputs: Flags | None = None,
) -> float:
    """Relax, solve programs while there is time, and deduce in one step what they prove.

    Nothing is done without time for one of them. Where one proves that there is no code, the step
    is that proof.

    Args:
        programs: Those of a relaxation.
        network: The network.
        deduction: Gets the step.
        budget: The time.
        start: See ``relax``.
        outputs: See ``relax``.

    Returns:
        The largest part of an interval that was taken away, 0 to 1.
    """
    open_ = len(deduction.bounds.undecided(network, start))
    columns = network.sizes[start] + open_
    # One product with each layer, and a program with two rows for each open unit.
    building = columns * sum(weight.dense.size for weight in network.weights[start + 1 :])
    if deduction.empty or budget.times(building + 2 * open_ * columns**2) < 1:
        return 0.0
    relaxation = relax(network, deduction.bounds, start, outputs)
    if not len(relaxation.weight):
        return 0.0
    wanted, before = programs(relaxation), budget.proofs
    dual, optimal, empty = solve(relaxation, wanted.objective, budget)
    budget.proofs = before  # those that are made are counted below
    infeasible = bool(empty.any())
    chosen = np.flatnonzero(empty)[:1] if infeasible else np.flatnonzero(optimal)
    if not len(chosen):
        return 0.0
    dual, targets = dual[chosen], wanted.targets.take(chosen)
    mu = relaxation.multipliers(shortened(dual))
    for layer in () if infeasible else np.unique(targets.layer[targets.layer > start]):
        here = np.flatnonzero(targets.layer == layer)
        mu[layer][here, targets.unit[here]] += wanted.share[chosen[here]]
    deduction.binding |= (mu[network.depth] != 0).any(axis=0)
    return deduction.deduce(network, start, targets, mu, budget)
