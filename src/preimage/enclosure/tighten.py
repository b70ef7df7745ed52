"""Steps of a proof: ends cut by interval arithmetic, and by linear programs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from preimage import lp
from preimage.enclosure.bound_proofs import BoundProof, Targets, find_cuts
from preimage.enclosure.network import Array, Bounds, Network
from preimage.enclosure.relaxation import Relaxation
from preimage.lp import Outcome

# A cut is kept if it takes this part of the interval away, or decides a sign.
_WORTH = 0.01
# Entries of a matrix up to which HiGHS is asked where the kernel has no answer.
_SMALL = 5000
# Bits of a multiplier, counted from the largest of a proof.
_BITS = 36
# Multipliers below this part of the largest are left out; cuts hold for any multipliers.
_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Radius:
    """No output of a layer with an infinite end is above ``value`` in size; see ``radius``.

    Attributes:
        start: The layer.
        value: The radius.
        proofs: For each infinite end: unit, whether upper, multipliers as in ``BoundProof``.
    """

    start: int
    value: float
    proofs: list[tuple[int, bool, list[tuple[NDArray[np.intp], Array]]]]


# Cuts of one step are all proven from the bounds before the step.
Step = list[BoundProof] | Radius


@dataclass
class Deduction:
    """Bounds, and the steps that led there.

    Attributes:
        bounds: What holds after the steps.
        steps: In order.
        binding: (n,) the outputs that some program needed so far.
    """

    bounds: Bounds
    binding: NDArray[np.bool_]
    steps: list[Step] = field(default_factory=list)

    @staticmethod
    def start(bounds: Bounds) -> Deduction:
        """Nothing is deduced yet; outputs that are bounded from both sides often bind."""
        low, high = bounds.lower[-1], bounds.upper[-1]
        return Deduction(bounds, np.isfinite(low) & np.isfinite(high))

    @property
    def empty(self) -> bool:
        """Whether it is proven that there is no code."""
        return self.bounds.empty

    def branch(self) -> Deduction:
        """The same bounds, with no steps yet."""
        return Deduction(self.bounds.copy(), self.binding.copy())

    def propagate(self, network: Network) -> None:
        """Interval arithmetic from the code through the hidden layers."""
        for layer in range(1, network.depth):
            count = network.sizes[layer]
            unit, upper = np.tile(np.arange(count), 2), np.repeat([False, True], count)
            mu = {layer: np.vstack([np.eye(count), -np.eye(count)])}
            targets = Targets(np.full(2 * count, layer), unit, upper)
            self.cut(network, {}, layer - 1, targets, mu)

    def cut(
        self,
        network: Network,
        slopes: dict[int, Array],
        start: int,
        targets: Targets,
        mu: dict[int, Array],
        *,
        signs: bool = False,
    ) -> float:
        """Make the cuts that multipliers prove and that are worth it; the largest part cut off.

        With ``signs``, units whose sign becomes known get the one cut that tells it and no other.
        """
        bounds, best, made = self.bounds, 0.0, []
        ends = find_cuts(network, bounds, slopes, start, mu, targets)
        known = _signs_known(bounds, targets, ends) if signs else {}
        for row, (layer, unit, upper) in enumerate(
            zip(*(part.tolist() for part in targets), strict=True)
        ):
            low, high, end = bounds.lower[layer][unit], bounds.upper[layer][unit], ends[row]
            part = _part(low, high, end, upper)
            if (
                signs
                and layer in known
                and known[layer][unit]
                and not (end <= 0 < high if upper else low < 0 <= end)
            ):
                continue
            decides = layer > 0 and (end <= 0 < high if upper else low < 0 <= end)
            if part > _WORTH or decides:
                made.append(BoundProof(layer, unit, upper, float(end), start, sparse_rows(mu, row)))
                best = max(best, part)
        for cut in made:
            side = bounds.upper if cut.upper else bounds.lower
            side[cut.layer][cut.unit] = cut.value
        if made:
            self.steps.append(made)
        return best


def bound_outputs(network: Network, bounds: Bounds, start: int, radius: float) -> None:
    """Bound the outputs of a layer by a radius where they have an infinite end."""
    low, high = bounds.outputs(network, start)
    loose, c = np.isinf(low) | np.isinf(high), network.slopes[start]
    with np.errstate(divide="ignore"):
        least = np.where(c > 0, np.nextafter(-radius / c, -np.inf), -np.inf)
    lower, upper = bounds.lower[start], bounds.upper[start]
    lower[loose] = np.maximum(lower, least)[loose]
    upper[loose] = np.minimum(upper, radius)[loose]


def _signs_known(bounds: Bounds, targets: Targets, ends: Array) -> dict[int, NDArray[np.bool_]]:
    """For each layer but the latent, the units whose sign is known after cuts at these ends."""
    after = bounds.copy()
    for upper, side, pick in ((False, after.lower, np.maximum), (True, after.upper, np.minimum)):
        for layer in np.unique(targets.layer):
            rows = (targets.layer == layer) & (targets.upper == upper)
            pick.at(side[layer], targets.unit[rows], ends[rows])
    return {
        int(layer): (after.lower[layer] >= 0) | (after.upper[layer] <= 0)
        for layer in np.unique(targets.layer[targets.layer > 0])
    }


def shortened(multipliers: Array) -> Array:
    """Multipliers of ``_BITS`` bits below the largest of each row; exact sums are faster then."""
    largest = np.abs(multipliers).max(axis=1, keepdims=True, initial=0.0)
    grid = np.ldexp(1.0, np.frexp(largest)[1] - _BITS)
    return np.round(multipliers / grid) * grid


def sparse_rows(mu: dict[int, Array], row: int) -> list[tuple[NDArray[np.intp], Array]]:
    """The nonzero multipliers of one target, lowest layer first."""
    units = [np.flatnonzero(mu[layer][row]) for layer in sorted(mu)]
    return [(u, mu[layer][row, u]) for u, layer in zip(units, sorted(mu), strict=True)]


def _part(low: float, high: float, end: float, upper: bool) -> float:
    """How much of [low, high] a new end takes away, 0 to 1."""
    if (end >= high) if upper else (end <= low):
        return 0.0
    if np.isinf(low) or np.isinf(high) or high <= low:
        return 1.0
    return float(min((high - end if upper else end - low) / (high - low), 1.0))


@dataclass(frozen=True, eq=False)
class Target:
    """One end to cut: minimise ``objective @ v``, in which its own a has the coefficient share."""

    layer: int
    unit: int
    upper: bool
    objective: Array
    share: float


def output_targets(relaxation: Relaxation, units: Iterable[int]) -> list[Target]:
    """Both ends of outputs of the starting layer (the code, if that is 0)."""
    found = []
    for unit in units:
        direction = np.zeros(relaxation.weight.shape[1])
        direction[relaxation.column[relaxation.start][unit]] = 1.0
        found.append(Target(relaxation.start, unit, False, direction, 0.0))
        found.append(Target(relaxation.start, unit, True, -direction, 0.0))
    return found


def end_targets(_network: Network, relaxation: Relaxation) -> list[Target]:
    """Both ends of the pre-activation of every undecided unit."""
    found = []
    for layer, unit in relaxation.undecided():
        image = relaxation.image[layer][unit]
        found.append(Target(layer, unit, False, image, 1.0))
        found.append(Target(layer, unit, True, -image, -1.0))
    return found


def sign_targets(network: Network, relaxation: Relaxation) -> list[Target]:
    """Whether either sign of an undecided unit is impossible.

    ``a <= 0`` means ``z = c a``, so that a positive least value of ``z - c a`` proves a > 0; on the
    hull this is a weaker thing to ask than a positive least value of a. Likewise ``z - a``.
    """
    found = []
    for layer, unit in relaxation.undecided():
        image, c = relaxation.image[layer][unit], float(network.slopes[layer][unit])
        own = np.zeros(len(image))
        own[relaxation.column[layer][unit]] = 1.0
        turn = 1.0 if c < 1 else -1.0
        found.append(Target(layer, unit, False, turn * (own - c * image), -turn * c))
        found.append(Target(layer, unit, True, turn * (own - image), -turn))
    return found


def solve(
    relaxation: Relaxation, objective: Array
) -> tuple[Array, NDArray[np.bool_], NDArray[np.bool_]]:
    """Signed row multipliers of each objective, (targets, rows).

    Returns:
        The multipliers, which of them are an optimum's, and which prove that there is no point.
    """
    program = relaxation.program(objective)
    small = relaxation.weight.size <= _SMALL
    found = lp.solve(program) if small else lp.kernel.minimise(program)
    dual = found.dual_lower - found.dual_upper
    if len(dual) and not (found.outcome == Outcome.OPTIMAL).any():
        # The bounds may hold no code by a margin that the solver does not trust; cuts can tell.
        slack = relaxation.elastic()
        dual[:1] = slack.dual_lower - slack.dual_upper
        found.outcome[0] = Outcome.INFEASIBLE
    known = np.isfinite(dual).all(axis=1)
    return dual, known & (found.outcome == Outcome.OPTIMAL), known & (
        found.outcome == Outcome.INFEASIBLE
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Proposal:
    """Multipliers that may prove ends, and whether one proves that there is no code at all."""

    targets: Targets
    mu: dict[int, Array]
    empty: bool

    @staticmethod
    def join(parts: list[Proposal]) -> Proposal:
        """All of them."""
        targets = Targets(
            *(np.concatenate(ends) for ends in zip(*(p.targets for p in parts), strict=True))
        )
        mu = {layer: np.concatenate([p.mu[layer] for p in parts]) for layer in parts[0].mu}
        return Proposal(targets, mu, any(part.empty for part in parts))


def propose(network: Network, relaxation: Relaxation, wanted: list[Target]) -> Proposal | None:
    """Solve one linear program for each wanted end; None where none has an answer."""
    if not wanted or not len(relaxation.weight):
        return None
    dual, optimal, empty = solve(relaxation, np.stack([target.objective for target in wanted]))
    good = np.flatnonzero(optimal | empty)
    if empty.any():
        good = np.flatnonzero(empty)[:1]  # one proof that there is no code is enough
    if not len(good):
        return None
    dual = np.where(np.abs(dual) > _TINY * np.abs(dual).max(axis=1, keepdims=True), dual, 0.0)
    wanted = [wanted[index] for index in good]
    mu = relaxation.multipliers(network, shortened(dual[good]))
    for row, target in enumerate(wanted):
        if target.layer > relaxation.start and optimal[good[row]]:
            mu[target.layer][row, target.unit] += target.share
    targets = Targets(
        np.array([target.layer for target in wanted]),
        np.array([target.unit for target in wanted]),
        np.array([target.upper for target in wanted]),
    )
    return Proposal(targets, mu, bool(empty.any()))


def tighten_bounds(
    network: Network, deduction: Deduction, relaxation: Relaxation, parts: Iterable[list[Target]]
) -> float:
    """Cut the ends that linear programs propose, all in one step; the largest part cut off.

    The relaxation and its multipliers are about the bounds before the step, in which the same
    units have a known sign.
    """
    found: list[Proposal] = []
    for wanted in parts:
        proposal = None if deduction.empty else propose(network, relaxation, wanted)
        if proposal is not None:
            found = [proposal] if proposal.empty else [*found, proposal]
        if proposal is not None and proposal.empty:
            break
    if not found:
        return 0.0
    joined = Proposal.join(found)
    deduction.binding |= (joined.mu[network.depth] != 0).any(axis=0)
    start = relaxation.start
    return deduction.cut(network, relaxation.slopes, start, joined.targets, joined.mu)
