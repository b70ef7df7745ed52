"""The nearest code of a network with few latents, by splitting the box that holds it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from preimage.enclosure.contraction import Admitted, Ball, Contractor, Interval
from preimage.enclosure.observed import observed_interval
from preimage.enclosure.splitting import Part, explore
from preimage.generator import Generator
from preimage.matrix import Array, Flags

Norm = Literal["l2", "l1", "linf"]

# The level that parts are refuted at is this part of the gap below the best misfit.
_SHARE = 0.98


def misfits(generator: Generator, x: Array, z: Array, norm: Norm) -> Array:
    """``||x - G(z)||`` of each code, (batch, k) to (batch,)."""
    order = {"l2": 2, "l1": 1, "linf": np.inf}[norm]
    found = np.linalg.norm(generator(z) - x, order, axis=1)
    return np.where(np.isfinite(found), found, np.inf)


class Nearest:
    """One sample: the best code so far, and the level below which no code is.

    Every part of the box is split until linear bounds show that no code in it has a misfit of the
    best one's less the gap. Middles of parts that do better are polished, which lowers the level.

    Args:
        contractor: Of the network.
        generator: The network.
        x: (n,) the observation.
        norm: Of the misfit.
        gap: Absolute.
        polish: A local search from a code.
        level: If given, only codes with at most this misfit are looked for, and the first is
            enough.
    """

    def __init__(
        self, contractor: Contractor, generator: Generator, x: Array, norm: Norm, gap: float,
        polish: Callable[[Array], Array], level: float | None = None,
    ) -> None:  # fmt: skip
        self.contractor, self.generator, self.x, self.norm = contractor, generator, x, norm
        self.gap, self.polish, self.wanted = gap, polish, level
        self.z, self.value = np.full(generator.latent_size, np.nan), np.inf

    def run(self, z: Array, low: Array, high: Array, deadline: float) -> tuple[Array, float, float]:
        """The best code, its misfit, and a lower bound on that of any code of the box.

        Args:
            z: (k,) where to start.
            low: (k,) finite.
            high: (k,).
            deadline: Of ``time.perf_counter``.
        """
        self._improve(np.clip(np.where(np.isfinite(z), z, (low + high) / 2), low, high)[None])
        root = Part(low.copy(), high.copy())
        if self._done:
            return self.z, self.value, 0.0
        explore(self.contractor, root, self._admitted, self._visit, deadline)
        left = [part.misfit for part in root.leaves()]
        bound = max(self._level, 0.0) if not left else min(left)
        if not left and self.wanted is not None:
            bound = float(np.nextafter(bound, np.inf))
        return self.z, self.value, min(bound, self.value)

    @property
    def _level(self) -> float:
        return self.value - _SHARE * self.gap if self.wanted is None else self.wanted

    @property
    def _done(self) -> bool:
        return self.value <= (self.gap if self.wanted is None else self.wanted)

    def _admitted(self) -> Admitted:
        level = max(self._level, 0.0)
        if self.norm == "linf":
            activation = self.generator.layers[-1].activation
            return Interval(*observed_interval(activation, self.x, level))
        return Ball(self.x, level, self.norm)

    def _visit(self, parts: list[Part]) -> Flags | None:
        """Look at the middles; no part is kept."""
        self._improve(np.stack([(part.low + part.high) / 2 for part in parts]))
        return None if self._done else np.zeros(len(parts), dtype=bool)

    def _improve(self, codes: Array) -> None:
        values = misfits(self.generator, self.x, codes, self.norm)
        best = int(values.argmin())
        if values[best] >= self.value and np.isfinite(self.value):
            return
        for code in (codes[best], self.polish(codes[best])):
            value = float(misfits(self.generator, self.x, code[None], self.norm)[0])
            if value < self.value:
                self.z, self.value = code, value
