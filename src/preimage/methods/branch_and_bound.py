"""The global minimum of the misfit: by splitting the box, or as a mixed-integer program."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import scipy
from numpy.typing import NDArray

from preimage.enclosure.contraction import Contractor
from preimage.enclosure.descent import enclose
from preimage.enclosure.network import Bounds, as_network
from preimage.enclosure.network import Network as Enclosed
from preimage.enclosure.observed import starting_bounds
from preimage.enclosure.relaxation import Relaxation, relax
from preimage.enclosure.splitting import LARGEST
from preimage.enclosure.tighten import Budget
from preimage.errors import InputError
from preimage.generator import Generator
from preimage.inversion import Estimate, Status
from preimage.layer_program import LinearProgram
from preimage.lp import highs
from preimage.methods.gauss_newton import GaussNewton, Given
from preimage.methods.nearest import Nearest, misfits
from preimage.methods.parameters import check_positive
from preimage.methods.region import Box, box_ends, check_box
from preimage.network import Network, known_chain
from preimage.observation import Observation

Array = NDArray[np.float64]

# Programs a sample, each with integers for the outputs that the one before got wrong.
_REPAIRS = 4
# Outputs above this part of the misfit U get theirs at once: the minimum is hardly below it.
_CLOSE = 0.98
# Networks with more hidden units are split by their latents, if these are few.
_WIDE = 150


@dataclass(frozen=True)
class BranchAndBound:
    """Minimise ``||x - G(z)||`` over all z in a box, and prove how far from the minimum it ended.

    The joint method (``GaussNewton`` in the same norm) supplies a code with some misfit U. No
    better code has a larger error in any entry, so that enclosures at the noise U fix the signs of
    most units and bound the others; each that stays open takes a 0/1 variable t in

        minimise d  (or sum_j e_j)   over z, z_ij >= 0, t_ij in {0, 1}
        subject to  |s(a_j) - x_j| <= d  (e_j)
                    the relaxation of ``enclosure``
                    z_ij - a_ij <= (c - 1) low_ij (1 - t_ij)
                    z_ij - c a_ij <= (1 - c) high_ij t_ij

    which HiGHS solves (Lei et al. 2019, section 4, with integers where the paper guesses signs). In
    the l-infinity norm an output under a ReLU needs no integer, unless U is above x_j > d.

    The l2 norm is minimised by splitting the box instead, until linear bounds of all layers exclude
    every part (see ``methods.nearest``), which needs at most 6 latent entries in a finite box. With
    ``decide``, networks of many units are treated likewise.

    ``inversion.bound`` is a lower bound on the misfit of any code in the box: rounded outward where
    the box was split, else that of HiGHS less what its tolerances may be worth (for a proof that
    can be checked use ``preimage.certify``). ``inversion.gap`` is its distance from the misfit
    reached. Dense or sparse layers, piecewise-linear activations.

    Args:
        norm: ``"linf"``, ``"l1"``, or ``"l2"`` (at most 6 latent entries, in a finite box).
        box: Only codes with ``|z_i| <= box``, or ``(low, high)``, numbers or one a coordinate.
        gap: Absolute gap at which to stop, in the observation's units (summed under l1).
        time_limit: Seconds a sample.
        decide: Only decide whether some code has an l-infinity misfit of at most ``noise``, and
            stop as soon as that is known.
        rounds: Most rounds of tightening: what they decide, HiGHS need not branch on. With 0 the
            program keeps the network's own numbers, which helps where those are small integers.
        seed: Of the joint method.

    Raises:
        InputError: A parameter is out of its range.
    """

    norm: Literal["linf", "l1", "l2"] = "linf"
    box: Box = None
    gap: float = 1e-6
    time_limit: float = 60.0
    decide: bool = False
    rounds: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if self.norm not in ("linf", "l1", "l2"):
            raise InputError(f"norm: expected linf, l1 or l2, got {self.norm!r}")
        if self.decide and self.norm != "linf":
            raise InputError(
                "decide: expected norm='linf' with it, since `noise` bounds the largest error"
            )
        counts = {"rounds": self.rounds} if self.rounds else {}
        check_positive({"gap": self.gap, "time_limit": self.time_limit}, counts)
        check_box(self.box)

    def solve(self, network: Network, observation: Observation) -> Estimate:
        """Invert every sample; see ``methods.Method``."""
        generator = known_chain(network, "branch and bound")
        last = generator.layers[-1]
        if last.activation.slopes(last.output_size) is None:
            raise InputError(
                f"branch and bound needs a piecewise-linear head, not {last.activation.name}"
            )
        if observation.mask is not None:
            raise InputError(
                "branch and bound: expected sensing=None or a matrix, got a mask; "
                "leave out rows of the last layer instead"
            )
        if observation.weight is not None:
            raise InputError(
                "branch and bound: expected one noise level a sample, and entries of one scale; "
                "use method='linf', or divide rows of the last layer by their noise"
            )
        enclosed, splits = as_network(generator), self._splits(generator)
        joint = GaussNewton(norm=self.norm, box=self.box, seed=self.seed)
        if splits:
            joint = replace(joint, restarts=1, flip_rounds=0)
        contractor = Contractor.of(enclosed) if splits else None
        batch = len(observation)
        latent = np.full((batch, generator.latent_size), np.nan)
        bound, gap = np.zeros(batch), np.full(batch, np.nan)
        status = Status.SOLVED.each(batch)
        for sample in range(batch):
            deadline = min(time.perf_counter() + self.time_limit, observation.clock.deadline)
            part = observation.take(np.array([sample]))
            part = replace(part, clock=replace(observation.clock, deadline=deadline))
            start = joint.solve(generator, part).latent[0]
            search = Search(self, enclosed, generator, part)
            latent[sample], value, bound[sample] = search.run(start, contractor)
            gap[sample] = value - bound[sample]
            done = gap[sample] <= self.gap or (self.decide and search.decided(value, bound[sample]))
            if not done:
                over = part.clock.is_over
                status[sample] = Status.TIME_LIMIT if over else Status.STEP_LIMIT
        return Estimate(latent, status, bound=bound, gap=gap)

    def _splits(self, generator: Generator) -> bool:
        """Whether to split the box."""
        low, high = box_ends(self.box, generator.latent_size)
        small = generator.latent_size <= LARGEST and bool(np.isfinite([low, high]).all())
        if self.norm == "l2" and not small:
            raise InputError(
                f"norm='l2': expected at most {LARGEST} latent entries in a finite `box`, got "
                f"{generator.latent_size} entries, box={self.box!r}; GaussNewton minimises "
                "without a bound"
            )
        wide = self.decide and sum(generator.sizes[1:-1]) > _WIDE
        return small and (self.norm == "l2" or wide)


class Search:
    """One sample."""

    def __init__(
        self,
        method: BranchAndBound,
        network: Enclosed,
        generator: Generator,
        observation: Observation,
    ) -> None:
        self.method, self.network, self.generator = method, network, generator
        self.observation, self.clock = observation, observation.clock
        self.x, self.noise = observation.values[0], float(observation.noise[0])
        self.low, self.high = box_ends(method.box, network.sizes[0])

    def value(self, z: Array) -> float:
        """The misfit."""
        if not np.isfinite(z).all():
            return np.inf
        return float(misfits(self.generator, self.x, z[None], self.method.norm)[0])

    def decided(self, value: float, bound: float) -> bool:
        """Whether it is known that some code explains x, or that none does."""
        return value <= self.noise or bound > self.noise

    def run(self, z: Array, contractor: Contractor | None) -> tuple[Array, float, float]:
        """The best code, its misfit, and a lower bound; split with a contractor."""
        if contractor is not None:
            method, level = self.method, self.noise if self.method.decide else None
            nearest = Nearest(contractor, self.generator, self.x, method.norm, method.gap,
                              self.polished, level)  # fmt: skip
            return nearest.run(z, self.low, self.high, self.clock.deadline)
        best, bound = self.value(z), 0.0
        if self.method.decide and best <= self.noise:
            return z, best, bound
        reach = self.noise if self.method.decide else best * (1 + 1e-9)
        bounds = self.enclosure(reach)
        if bounds.empty:
            return z, best, np.nextafter(reach, np.inf) if self.method.decide else best
        if not all(np.isfinite(end).all() for end in bounds.outputs(self.network, 0)):
            return z, best, bound
        uncertain = (self.x > _CLOSE * reach) & (self.x <= reach) & (not self.method.decide)
        for _ in range(_REPAIRS):
            if self.clock.is_over:
                break
            model = Model(self, relax(self.network, bounds), bounds, reach, uncertain)
            gap = self.noise / 2 if self.method.decide else self.method.gap / 2
            point, found = highs.minimise_mixed(model.program, gap, self.clock.left)
            if found == np.inf:
                return z, best, np.nextafter(reach, np.inf) if self.method.decide else best
            bound = max(bound, found)
            if point is None:
                break
            code = np.clip(point[: len(self.low)], self.low, self.high)
            for candidate in (code, self.polished(code)):
                if self.value(candidate) < best:
                    z, best = candidate, self.value(candidate)
            more = model.broken(self.generator(code), bound) & ~uncertain
            done = best <= self.noise if self.method.decide else best - bound <= self.method.gap
            if done or not more.any():
                break
            uncertain |= more
            reach = reach if self.method.decide else min(reach, best * (1 + 1e-9))
        return z, best, min(bound, best) if best > 0 else 0.0

    def enclosure(self, reach: float) -> Bounds:
        """What is known of codes whose misfit is at most reach."""
        bounds = starting_bounds(self.network, self.x, reach, self.low, self.high)
        budget = Budget(self.clock.deadline, 1)
        return enclose(self.network, bounds, budget, self.method.rounds).bounds

    def polished(self, z: Array) -> Array:
        """The best code near z, by linear programs on its pieces."""
        joint = GaussNewton(norm=self.method.norm, box=self.method.box, restarts=1, flip_rounds=0,
                            start=Given(z[None]))  # fmt: skip
        return np.asarray(joint.solve(self.generator, self.observation).latent[0])


class Model:
    """The mixed program: variables v of the relaxation, then misfits, then 0/1 variables."""

    def __init__(
        self,
        search: Search,
        relaxation: Relaxation,
        bounds: Bounds,
        reach: float,
        uncertain: NDArray[np.bool_],
    ) -> None:
        self.x, self.reach, self.depth = search.x, reach, search.network.depth
        self.l1, self.decide = search.method.norm == "l1", search.method.decide
        self.slopes = search.network.slopes[-1]
        self.size = relaxation.weight.shape[1]
        self.misfits = len(self.x) if self.l1 else 1
        self.parts: list[tuple[scipy.sparse.csr_array, Array, Array]] = []
        self.switches = 0
        hidden = relaxation.layer < self.depth
        self.add(relaxation.weight[hidden], 0.0, relaxation.lower[hidden], relaxation.upper[hidden])
        self.hidden_switches(search.network, relaxation, bounds)
        self.outputs(relaxation, bounds, uncertain)
        self.program = self.build(relaxation)

    def add(
        self, weight: Array, misfit: Array | float, lower: Array, upper: Array,
        switch: Array | float = 0.0, unit: NDArray[np.intp] | None = None,
    ) -> None:  # fmt: skip
        """Rows ``lower <= weight v + misfit d + switch t <= upper``.

        ``unit`` tells the output of each row (whose misfit is meant under l1); 0/1 variables are
        the newest ones, one a row.
        """
        count = len(weight)
        if not count:
            return
        rows = np.arange(count)
        column = unit if self.l1 and unit is not None else np.zeros(count, dtype=np.intp)
        middle = scipy.sparse.csr_array(
            (np.broadcast_to(misfit, count), (rows, column)), shape=(count, self.misfits)
        )
        right = scipy.sparse.csr_array((count, self.switches))
        if np.any(switch):
            newest = self.switches - count + rows
            entries = np.broadcast_to(switch, count), (rows, newest)
            right = scipy.sparse.csr_array(entries, shape=(count, self.switches))
        self.parts.append(
            (
                scipy.sparse.hstack([scipy.sparse.csr_array(weight), middle, right], format="csr"),
                lower,
                upper,
            )
        )

    def hidden_switches(self, network: Enclosed, relaxation: Relaxation, bounds: Bounds) -> None:
        """``z - a <= (c - 1) low (1 - t)``, ``z - c a <= (1 - c) high t``; >= where c > 1."""
        for layer, unit in relaxation.undecided():
            low, high = bounds.lower[layer][unit], bounds.upper[layer][unit]
            c = float(network.slopes[layer][unit])
            own = np.zeros(self.size)
            own[relaxation.column[layer][unit]] = 1.0
            image, offset = relaxation.image[layer][unit], float(relaxation.offset[layer][unit])
            self.switches += 1
            for slope, fixed, rate in ((1.0, (c - 1) * low, (c - 1) * low),
                                       (c, 0.0, -(1 - c) * high)):  # fmt: skip
                edge = np.array([fixed + slope * offset])
                open_end = np.array([-np.inf if c < 1 else np.inf])
                lower, upper = (open_end, edge) if c < 1 else (edge, open_end)
                self.add((own - slope * image)[None], 0.0, lower, upper, rate)

    def outputs(self, relaxation: Relaxation, bounds: Bounds, uncertain: NDArray[np.bool_]) -> None:
        """``|s(a) - x| <= d`` for every output."""
        x, c = self.x, self.slopes
        image, offset = relaxation.image[self.depth], relaxation.offset[self.depth]
        low, high = bounds.lower[-1].copy(), bounds.upper[-1].copy()
        box = relaxation.domain
        positive, negative = np.maximum(image, 0.0), np.minimum(image, 0.0)
        low = np.maximum(low, positive @ box[0] + negative @ box[1] + offset)
        high = np.minimum(high, positive @ box[1] + negative @ box[0] + offset)
        free = np.full(len(x), np.inf)
        every = np.arange(len(x))

        def rows(pick: NDArray[np.bool_], slope: Array, above: bool) -> None:
            """``slope a - d <= x`` or ``slope a + d >= x``."""
            edge = (x - slope * offset)[pick]
            lower, upper = (-free[pick], edge) if above else (edge, free[pick])
            self.add((slope[:, None] * image)[pick], -1.0 if above else 1.0, lower, upper,
                     unit=every[pick])  # fmt: skip

        ones = np.ones_like(c)
        active, inactive = (low >= 0) | (c == 1), high <= 0
        # s is the larger of a and c a (c < 1); both must not be too large. (c > 1: the sign of a
        # is settled by a 0/1 variable below.)
        rows((c <= 1) & ~inactive, ones, True)
        rows(inactive | ((c > 0) & (c < 1) & ~active), c, True)
        # It must not be too small either: clear where the sign is known, or follows from x > d.
        if not self.l1:
            active |= (c == 0) & (x > self.reach)
        rows(active, ones, False)
        rows(inactive & ~active, c, False)
        # Under a ReLU, an error x - s(a) above d is possible only where x > d.
        open_ = ~active & ~inactive & ((c > 0) | self.l1 | uncertain)
        open_ &= (c > 0) | (x > 0)
        for j in np.flatnonzero(open_):
            self.switches += 1
            self.switched(j, image[j], float(offset[j]), float(low[j]), float(high[j]))

    def switched(self, j: np.intp, image: Array, offset: float, low: float, high: float) -> None:
        """Output j by its sign: t = 1 for a >= 0, where a is in [low, high]."""
        x, c = float(self.x[j]), float(self.slopes[j])
        unit, row, free = np.array([j]), image[None], np.array([np.inf])
        # a >= low (1 - t),  a <= high t
        self.add(row, 0.0, np.array([low - offset]), free, low)
        self.add(row, 0.0, -free, np.array([-offset]), -high)
        # t = 1: a + d >= x (and a - d <= x);  t = 0: c a + d >= x (and c a - d <= x)
        big = abs(x) + max(abs(low), abs(high)) * (1 + c)
        self.add(row, 1.0, np.array([x - offset - big]), free, -big, unit)
        self.add(c * row, 1.0, np.array([x - c * offset]), free, big, unit)
        if c > 1:
            self.add(row, -1.0, -free, np.array([x - offset + big]), big, unit)
            self.add(c * row, -1.0, -free, np.array([x - c * offset]), -big, unit)

    def build(self, relaxation: Relaxation) -> LinearProgram:
        """All rows over all variables."""
        width = self.size + self.misfits + self.switches
        matrices = [
            scipy.sparse.csr_array((m.data, m.indices, m.indptr), shape=(m.shape[0], width))
            for m, _, _ in self.parts
        ]
        low, high = relaxation.domain
        # An output below 0 under a ReLU is missed by that much at least.
        missed = np.where(self.slopes == 0, np.maximum(-self.x, 0.0), 0.0)
        least = missed if self.l1 else np.array([missed.max(initial=0.0)])
        most = np.full(self.misfits, self.reach * (1 + 1e-6))
        ones, zeros = np.ones(self.switches), np.zeros(self.switches)
        return LinearProgram(
            cost=np.concatenate([np.zeros(self.size), np.ones(self.misfits), zeros]),
            matrix=scipy.sparse.vstack(matrices, format="csr"),
            bound=np.concatenate([upper for _, _, upper in self.parts]),
            lower=np.concatenate([low, least, zeros]),
            upper=np.concatenate([high, np.maximum(most, least), ones]),
            least=np.concatenate([lower for _, lower, _ in self.parts]),
            integer=np.concatenate([np.zeros(self.size + self.misfits), ones]).astype(bool),
        )

    def broken(self, outputs: Array, bound: float) -> NDArray[np.bool_]:
        """Outputs that a ReLU leaves too small, and that the program did not see."""
        return (
            (self.slopes == 0) & (self.x - outputs > bound) & (self.x > bound) & ~np.isnan(outputs)
        )
