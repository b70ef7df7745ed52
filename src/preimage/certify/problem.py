"""One sample's question, and its witnesses: codes that explain it, verified exactly."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from preimage import lp
from preimage.certify import checker
from preimage.enclosure.network import Bounds, Network, starting_bounds
from preimage.enclosure.relaxation import Relaxation, relax
from preimage.enclosure.tighten import end_programs
from preimage.layer_program import LayerProgram
from preimage.matrix import Array
from preimage.slab import Slab

# How far extreme points are moved towards the middle, so that rounding cannot push them out.
_SHRINK = (1e-9, 1e-6, 1e-4, 1e-2, 0.5, 0.9, 0.99, 0.999)
# Codes with few digits are multiples of one part in so many.
_GRIDS = (1.0, 2.0**10, 2.0**30)
# How far they are looked for without a box, in units of the witness or the resolution.
_FAR = 2.0**17


@dataclass(eq=False)
class Problem:
    """Everything about one sample.

    Attributes:
        network: The numbers of the generator.
        layers: The same as exact numbers.
        digests: Of the network and of the sensing matrix, as the checker computes them.
        x: (n,) the observation; NaN where nothing was seen.
        noise: Its bound.
        enclosed_noise: At least that, and the rounding error of a forward pass; codes are only
            excluded where they are wrong by more.
        low: (k,) the box, maybe infinite.
        high: (k,).
        given_resolution: Distance up to which codes count as one; None for 1 % of the scale.
        witnesses: Verified, first the one that the verdict is about.
    """

    network: Network
    layers: list[Any]
    digests: tuple[str, str | None]
    x: Array
    noise: float
    enclosed_noise: float
    low: Array
    high: Array
    given_resolution: float | None
    witnesses: list[Array] = field(default_factory=list)

    @cached_property
    def exact_x(self) -> list[int | None]:
        """The observation as the checker reads it."""
        return [None if math.isnan(v) else checker.exact(v) for v in self.x.tolist()]

    @property
    def resolution(self) -> float:
        """1 % of the box's half-width, or of max(1, |witness|) without a box, unless given."""
        if self.given_resolution is not None:
            return float(self.given_resolution)
        if self.has_box:
            wide = np.min(self.high - self.low, where=self.high > self.low, initial=np.inf)
            return 0.005 * float(wide) if wide < np.inf else 0.01
        size = max((float(np.abs(w).max(initial=0.0)) for w in self.witnesses[:1]), default=1.0)
        return 0.01 * max(1.0, size)

    @property
    def has_box(self) -> bool:
        """Whether all ends are finite."""
        return bool(np.isfinite(self.low).all() and np.isfinite(self.high).all())

    def bounds(self, noise: float) -> Bounds:
        """The box, and what the observation says of the last layer, rounded outward."""
        return starting_bounds(self.network, self.x, noise, self.low, self.high)

    def explains(self, z: Array) -> bool:
        """Whether z is in S, in exact arithmetic."""
        if not np.isfinite(z).all() or (z < self.low).any() or (z > self.high).any():
            return False
        if self.missed(z[None])[0] > 2 * self.enclosed_noise - self.noise:
            return False
        exact, low, high = (list(map(checker.exact, v.tolist())) for v in (z, self.low, self.high))
        box, noise = list(zip(low, high, strict=True)), checker.exact(self.noise)
        return bool(checker.explains(self.layers, self.exact_x, noise, box, exact))

    def missed(self, z: Array) -> Array:
        """The largest error of each code of a batch, (batch, k) to (batch,), in floats."""
        error = np.abs(self.network.generator(z) - self.x)
        return np.max(np.where(np.isnan(self.x), 0.0, error), axis=1, initial=0.0)

    def piece(self, z: Array) -> Relaxation:
        """S within the linear piece of z: no unit changes its sign."""
        bounds = self.bounds(self.noise)
        for i, a in enumerate(self.network.preactivations(z)[1:-1], 1):
            bounds.lower[i][a > 0], bounds.upper[i][a <= 0] = 0.0, 0.0
        return relax(self.network, bounds)

    def middle(self, z: Array) -> Array:
        """The code of the piece of z with the smallest largest error (its own, if there is none).

        minimise d  subject to  centre - rate d <= a_last <= centre + rate d,  the signs, the box
        """
        piece = self.piece(z)
        last = piece.layer == self.network.depth
        half = (piece.upper - piece.lower) / 2
        # Half the width of a two-sided row is its noise in units of the pre-activation.
        rate = np.where(last & np.isfinite(half), half / self.noise if self.noise else 1.0, last)
        rate = np.where(last, np.clip(rate, 1e-6, 1e6), 0.0)
        shift = rate * self.noise
        parts = (piece.lower + shift, rate, piece.upper - shift, rate)
        lower, lower_rate, upper, upper_rate = (part[None] for part in parts)
        slab = Slab(lower, np.where(np.isfinite(lower), lower_rate, 0.0), upper,
                    np.where(np.isfinite(upper), upper_rate, 0.0))  # fmt: skip
        nothing = np.zeros((1, piece.weight.shape[1]))
        found = lp.solve(LayerProgram(piece.weight, slab, "shared", nothing, piece.domain)).z[0]
        return found if np.isfinite(found).all() else z

    def extremes(self, z: Array) -> Array:
        """Codes of the piece of z that are extreme in each coordinate, (up to 2 k, k)."""
        piece = self.piece(z)
        # Without a box, as far as is of interest.
        reach = _FAR * max(1.0, self.resolution, float(np.abs(z).max(initial=0.0)))
        low, high = piece.domain
        near = np.where(np.isinf(low), z - reach, low), np.where(np.isinf(high), z + reach, high)
        found = replace(piece, domain=near).solve(end_programs(piece.inputs).objective)
        return found.z[np.isfinite(found.z).all(axis=1)]

    def find_witness(self, z: Array) -> Array | None:
        """A code in S near z, if one is found; remembered."""
        if self.bounds(self.noise).empty:
            return None
        candidates = [np.clip(z, self.low, self.high)]
        for _ in range(3):
            candidates.append(self.middle(candidates[-1]))
        for candidate in (*candidates, *_rounded(candidates[-1])):
            if self.explains(candidate):
                self.witnesses.append(candidate)
                return candidate
        return None

    def find_pair(self, z: Array) -> bool:
        """Whether two codes that are apart are found from z, a witness; they become the first."""
        points = self.extremes(z)
        if len(points) >= 2 and np.ptp(points, axis=0).max() > self.resolution:
            j = int(np.ptp(points, axis=0).argmax())
            ends = points[points[:, j].argmin()], points[points[:, j].argmax()]
            inner = [_inwards(end, z) for end in ends]
            pairs = [*zip(*inner, strict=True)]
            pairs += [(z, other) for some in inner for other in some]
            pairs += [(z, other) for end in ends for other in _rounded(end)]
            return any(self.are_apart(*pair) for pair in pairs)
        return False

    def look(self, low: Array, high: Array, points: Iterable[Array]) -> bool:
        """Look for codes in a part of the box; whether two that are apart are known then.

        Args:
            low: (k,) of the part.
            high: (k,).
            points: (k,) each, where to start from: without a witness, only the first.
        """
        if not self.witnesses:
            found = self.find_witness(next(iter(points)))
            return found is not None and self.find_pair(found)
        first = self.witnesses[0]
        for point in points:
            other = np.clip(point, low, high)
            if separation(first, other) <= self.resolution:
                continue
            if self.are_apart(first, other):
                return True
            inner = self.middle(other)
            if any(self.are_apart(first, each) for each in (inner, *_inwards(other, inner))):
                return True
        return False

    def is_near(self, low: Array, high: Array) -> bool:
        """Whether all codes of a part are within the resolution of the witness."""
        return bool(self.witnesses) and spread(self.witnesses[0], low, high) <= self.resolution

    def are_apart(self, one: Array, other: Array) -> bool:
        """Whether two codes are farther apart than the resolution, and both in S; remembered."""
        if separation(one, other) <= self.resolution:
            return False
        known = any(one is witness for witness in self.witnesses)
        if not (self.explains(other) and (known or self.explains(one))):
            return False
        self.witnesses[:] = [one, other]
        return True


def _inwards(edge: Array, inside: Array) -> list[Array]:
    """Codes between one at the edge of S, which rounding may put outside, and one inside."""
    return [edge + part * (inside - edge) for part in _SHRINK]


def _rounded(z: Array) -> list[Array]:
    """Codes near z with few binary digits, which can meet equations exactly."""
    return [np.round(z * grid) / grid for grid in _GRIDS]


def spread(witness: Array, low: Array, high: Array) -> float:
    """The largest distance from the witness within a box, rounded up."""
    far = np.maximum(np.abs(high - witness), np.abs(witness - low)).max(initial=0.0)
    return float(far if far == 0 else np.nextafter(far * (1 + 2.0**-50), np.inf))


def separation(one: Array, other: Array) -> float:
    """The largest difference of two codes, rounded down."""
    apart = float(np.abs(one - other).max(initial=0.0))
    return float(np.nextafter(apart * (1 - 2.0**-50), 0.0))
