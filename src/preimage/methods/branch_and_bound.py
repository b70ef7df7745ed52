"""The global minimum of the misfit: by splitting the box, or as a mixed-integer program."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import scipy

from preimage.activation import Identity
from preimage.enclosure.contraction import Admitted, Ball, Contractor, Interval
from preimage.enclosure.descent import enclose
from preimage.enclosure.network import Bounds, as_network, observed_interval, starting_bounds
from preimage.enclosure.network import Network as Enclosed
from preimage.enclosure.relaxation import relax
from preimage.enclosure.splitting import LARGEST, WIDE, Part, can_split, explore
from preimage.enclosure.tighten import Budget, Deduction
from preimage.errors import InputError
from preimage.generator import Generator, Layer
from preimage.inversion import Estimate, Status
from preimage.layer_program import LinearProgram
from preimage.lp import highs
from preimage.matrix import Array, Flags
from preimage.methods.gauss_newton import GaussNewton, Given
from preimage.methods.parameters import Box, box_ends, check_positive
from preimage.network import Network, known_chain
from preimage.observation import Observation

# Programs a sample, each with integers for the outputs that the one before got wrong.
_REPAIRS = 4
# Outputs above this part of the misfit U get theirs at once: the minimum is hardly below it.
_CLOSE = 0.98
# The level that parts of the box are refuted at is this part of the gap below the best misfit.
_SHARE = 0.98


@dataclass(frozen=True)
class BranchAndBound:
    """Minimise ``||x - G(z)||`` over all z in a box, and prove how far from the minimum it ended.

    The joint method (``GaussNewton`` in the same norm) supplies a code with some misfit U. No
    better code has a larger error in any entry, so that enclosures at the noise U fix the signs of
    most units and bound the others; each that stays open takes a 0/1 variable t in

        minimise d  (or sum_j e_j)   over z, z_ij >= 0, t_ij in {0, 1}
        subject to  |z_dj - x_j| <= d  (e_j)
                    the relaxation of ``enclosure``
                    z_ij - a_ij <= (c - 1) low_ij (1 - t_ij)
                    z_ij - c a_ij <= (1 - c) high_ij t_ij

    which HiGHS solves (Lei et al. 2019, section 4, with integers where the paper guesses signs). In
    the l-infinity norm an output under a ReLU needs no integer, unless U is above x_j > d.

    The l2 norm is minimised by splitting the box instead, until linear bounds of all layers exclude
    every part, which needs at most 6 latent entries in a finite box. With
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
        box_ends(self.box)

    def solve(self, network: Network, observation: Observation) -> Estimate:
        """Invert every sample; see ``methods.Method``."""
        generator = known_chain(network, "branch and bound")
        last = generator.layers[-1]
        if last.slopes is None:
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
        # The outputs as one more layer, without an activation.
        copy = Layer(scipy.sparse.eye_array(last.output_size, format="csr"), activation=Identity())
        outputs = as_network(generator.then(copy))
        joint = GaussNewton(norm=self.norm, box=self.box, seed=self.seed)
        if splits:
            joint = replace(joint, restarts=1, flip_rounds=0)
        contractor = Contractor.of(enclosed) if splits else None
        batch = len(observation)
        latent = np.full((batch, generator.latent_size), np.nan)
        bound, gap = np.zeros(batch), np.full(batch, np.nan)
        status = Status.SOLVED.each(batch)
        for sample in range(batch):
            if observation.clock.is_over:  # codes for the others, without a bound
                rest = np.arange(sample, batch)
                latent[rest] = joint.solve(generator, observation.take(rest)).latent
                status[rest] = Status.TIME_LIMIT
                break
            deadline = min(time.perf_counter() + self.time_limit, observation.clock.deadline)
            part = observation.take(np.array([sample]))
            part = replace(part, clock=replace(observation.clock, deadline=deadline))
            start = joint.solve(generator, part).latent[0]
            search = Search(self, enclosed, outputs, generator, part)
            bound[sample] = search.run(start, contractor)
            latent[sample], gap[sample] = search.z, search.value - bound[sample]
            decided = search.value <= search.noise or bound[sample] > search.noise
            if not (gap[sample] <= self.gap or (self.decide and decided)):
                over = part.clock.is_over
                status[sample] = Status.TIME_LIMIT if over else Status.STEP_LIMIT
        return Estimate(latent, status, bound=bound, gap=gap)

    def _splits(self, generator: Generator) -> bool:
        """Whether to split the box."""
        small = can_split(*box_ends(self.box, generator.latent_size))
        if self.norm == "l2" and not small:
            raise InputError(
                f"norm='l2': expected at most {LARGEST} latent entries in a finite `box`, got "
                f"{generator.latent_size} entries, box={self.box!r}; GaussNewton minimises "
                "without a bound"
            )
        wide = self.decide and sum(generator.sizes[1:-1]) > WIDE
        return small and (self.norm == "l2" or wide)


class Search:
    """One sample: the best code so far and its misfit, which codes and bounds are compared with.

    Attributes:
        z: (k,) the best code; NaN for none.
        value: Its misfit.
        goal: The misfit that is small enough: the noise where that only is to be decided, else the
            gap.
    """

    def __init__(
        self, method: BranchAndBound, network: Enclosed, outputs: Enclosed, generator: Generator,
        observation: Observation,
    ) -> None:  # fmt: skip
        self.method, self.network, self.generator = method, network, generator
        self.outputs = outputs
        self.observation, self.clock = observation, observation.clock
        self.x, self.noise = observation.values[0], float(observation.noise[0])
        self.low, self.high = box_ends(method.box, network.sizes[0])
        self.z, self.value = np.full(network.sizes[0], np.nan), np.inf
        self.goal = self.noise if method.decide else method.gap

    def run(self, z: Array, contractor: Contractor | None) -> float:
        """A lower bound on the misfit of any code, from the code z on; split with a contractor."""
        if contractor is not None:
            return min(self.split(z, contractor), self.value)
        if np.isfinite(z).all():
            self.consider(z)
        return self.solve_programs()

    def misfits(self, codes: Array) -> Array:
        """``||x - G(z)||`` of each code, (codes, k) to (codes,)."""
        order = {"l2": 2, "l1": 1, "linf": np.inf}[self.method.norm]
        found = np.linalg.norm(self.generator(codes) - self.x, order, axis=1)
        return np.where(np.isfinite(found), found, np.inf)

    def consider(self, *codes: Array) -> None:
        """Keep the best of these codes, if it is better than all before."""
        for code in codes:
            value = float(self.misfits(code[None])[0])
            if value < self.value:
                self.z, self.value = code, value

    def polished(self, z: Array) -> Array:
        """The best code near z, by linear programs on its pieces."""
        joint = GaussNewton(norm=self.method.norm, box=self.method.box, restarts=1, flip_rounds=0,
                            start=Given(z[None]))  # fmt: skip
        return np.asarray(joint.solve(self.generator, self.observation).latent[0])

    def split(self, z: Array, contractor: Contractor) -> float:
        """The bound, by splitting the box until linear bounds exclude every part.

        A part is excluded if no code in it has a misfit of the best one's less the gap. Middles of
        parts that do better are polished, which lowers that level.
        """
        middle = (self.low + self.high) / 2
        self._improve(np.clip(np.where(np.isfinite(z), z, middle), self.low, self.high)[None])
        if self.value <= self.goal:
            return 0.0
        root = Part(self.low.copy(), self.high.copy())
        explore(contractor, root, self._admitted, self._visit, self.clock.deadline)
        left = [part.misfit for part in root.leaves()]
        if left:
            return min(left)
        return self._excluded(self.noise) if self.method.decide else self._level

    @property
    def _level(self) -> float:
        level = self.noise if self.method.decide else self.value - _SHARE * self.method.gap
        return max(level, 0.0)

    def _admitted(self) -> Admitted:
        if self.method.norm == "linf":
            activation = self.generator.layers[-1].activation
            return Interval(*observed_interval(activation, self.x, self._level))
        return Ball(self.x, self._level)

    def _visit(self, parts: list[Part]) -> Flags | None:
        """Look at the middles; no part is kept."""
        self._improve(np.stack([(part.low + part.high) / 2 for part in parts]))
        return None if self.value <= self.goal else np.zeros(len(parts), dtype=bool)

    def _improve(self, codes: Array) -> None:
        """Polish the best of these codes, if it is better than all before."""
        values = self.misfits(codes)
        best = codes[int(values.argmin())]
        if values.min() < self.value or not np.isfinite(self.value):
            self.consider(best, self.polished(best))

    def _excluded(self, reach: float) -> float:
        """The bound where no code has a misfit of at most ``reach``, or none that is better."""
        return float(np.nextafter(reach, np.inf)) if self.method.decide else self.value

    def solve_programs(self) -> float:
        """The bound, by mixed programs."""
        method, bound = self.method, 0.0
        if self.clock.is_over or (method.decide and self.value <= self.noise):
            return bound
        reach = self.noise if method.decide else self.value * (1 + 1e-9)
        bounds = starting_bounds(self.network, self.x, reach, self.low, self.high)
        bounds = enclose(self.network, bounds, Budget(self.clock.deadline, 1), method.rounds).bounds
        if bounds.empty:
            return self._excluded(reach)
        if not np.isfinite([bounds.lower[0], bounds.upper[0]]).all():
            return bound
        bounds = self.with_outputs(bounds)
        close = 0.0 if method.norm == "l1" else _CLOSE * reach
        exact = (self.x > close) & (not method.decide)
        for _ in range(_REPAIRS):
            if self.clock.is_over:
                break
            program = mixed_program(self.outputs, bounds, self.x, reach, method.norm, exact)
            point, found = highs.minimise_mixed(program, self.goal / 2, self.clock.left)
            if found == np.inf:
                return self._excluded(reach)
            bound = max(bound, found)
            if point is None:
                break
            code = np.clip(point[: len(self.low)], self.low, self.high)
            self.consider(code, self.polished(code))
            # Outputs that a ReLU leaves too small, and that the program did not see.
            more = (self.x - self.generator(code) > bound) & (self.x > bound) & ~exact
            if self.value - (0.0 if method.decide else bound) <= self.goal or not more.any():
                break
            exact |= more
            reach = reach if method.decide else min(reach, self.value * (1 + 1e-9))
        return min(bound, self.value)

    def with_outputs(self, bounds: Bounds) -> Bounds:
        """The same bounds for ``outputs``, whose last layer has none."""
        free = np.full(len(self.x), np.inf)
        deduction = Deduction.start(Bounds([*bounds.lower, -free], [*bounds.upper, free]))
        deduction.propagate(self.outputs)
        return deduction.bounds


def mixed_program(
    outputs: Enclosed, bounds: Bounds, x: Array, reach: float, norm: str, exact: Flags
) -> LinearProgram:
    """The mixed program: variables v of the relaxation, then misfits d, then 0/1 variables t.

    Args:
        outputs: The network, and its outputs as one more layer without an activation.
        bounds: On all its units, finite but for the last layer.
        x: (n,) the observation.
        reach: The largest misfit.
        norm: ``"linf"`` or ``"l1"``.
        exact: (n,) outputs under a ReLU that take a 0/1 variable. The others may be too large,
            which matters only where d is below x.
    """
    relaxation = relax(outputs, bounds)
    size, last = relaxation.weight.shape[1], outputs.depth
    units, value = relaxation.undecided, relaxation.values
    own = units.layer == last - 1
    chosen = ~own | (units.slope > 0)
    chosen[own] |= exact[units.unit[own]]
    layer, unit, c, image, offset = units.take(chosen)
    low, high = bounds.of(layer, unit)
    # z - a <= (c - 1) low (1 - t),  z - c a <= (1 - c) high t;  >= where c > 1.
    side = np.where(c > 1, -1.0, 1.0)
    slope, sides = np.concatenate([np.ones_like(c), c]), np.tile(side, 2)[:, None]
    rows = sides * (np.tile(value[chosen], (2, 1)) - slope[:, None] * np.tile(image, (2, 1)))
    switches = scipy.sparse.vstack(
        [scipy.sparse.diags_array(side * (c - 1) * end) for end in (low, high)]
    )
    limit = np.concatenate([side * ((c - 1) * low + offset), side * c * offset])
    # |s(a) - x| <= d
    count = len(x)
    misfits = scipy.sparse.eye_array(count) if norm == "l1" else np.ones((count, 1))
    fit, rest = relaxation.last.image, x - relaxation.last.offset
    matrix = scipy.sparse.block_array(
        [
            [scipy.sparse.csr_array(relaxation.weight), None, None],
            [scipy.sparse.csr_array(rows), None, switches],
            [scipy.sparse.csr_array(fit), -misfits, None],
            [scipy.sparse.csr_array(-fit), -misfits, None],
        ],
        format="csr",
    )
    d, t = misfits.shape[1], len(c)
    free = np.full(len(limit) + 2 * count, -np.inf)
    return LinearProgram(
        cost=np.concatenate([np.zeros(size), np.ones(d), np.zeros(t)]),
        matrix=matrix,
        bound=np.concatenate([relaxation.upper, limit, rest, -rest]),
        lower=np.concatenate([relaxation.domain[0], np.zeros(d + t)]),
        upper=np.concatenate([relaxation.domain[1], np.full(d, reach * (1 + 1e-6)), np.ones(t)]),
        least=np.concatenate([relaxation.lower, free]),
        integer=np.arange(size + d + t) >= size + d,
    )
