"""A box of codes split until every part is refuted or kept: the tree, and the loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from preimage.enclosure.contraction import Admitted, Contraction, Contractor
from preimage.matrix import Array, Flags

# Latents up to this size can be split.
LARGEST = 6
# Networks with more hidden units are split by their latents, if these are few.
WIDE = 150
# A cut is made if it leaves less than this part of the volume; each has to be checked later.
_WORTH = 0.7
# A part that was cut to this in some coordinate is cut again before it is split.
_AGAIN = 0.5
# A cut is made a little less deep than proven, by a part of itself and of the box, so that another
# program can prove it, too.
_MARGIN, _LEAST = 1e-3, 1e-5
# Above these excesses a part is far from refuted, and is split in two and in three coordinates.
_FAR, _FARTHER = 0.3, 0.45


def can_split(low: Array, high: Array) -> bool:
    """Whether the latent can be split: few entries, in a finite box."""
    return len(low) <= LARGEST and bool(np.isfinite([low, high]).all())


@dataclass(eq=False)
class Part:
    """A box that a parent's split or cut left over.

    Attributes:
        low: (k,).
        high: (k,).
        split: Coordinate and place; None where it is a leaf, or cut.
        children: The two sides of a split, or what a cut left.
        empty: Whether a leaf is refuted; else it may hold codes.
        rows: (rows, n) multipliers that refute it or prove its cut, where the usual ones do not.
        misfit: A lower bound on the misfit of its codes, where that is asked for.
        depth: Number of parts that hold it.
    """

    low: Array
    high: Array
    split: tuple[int, float] | None = None
    children: list[Part] = field(default_factory=list)
    empty: bool = False
    rows: Array | None = None
    misfit: float = 0.0
    depth: int = 0

    def cut(self, low: Array, high: Array) -> Part:
        """Leave this of it."""
        least = _LEAST * (self.high - self.low)
        low = np.maximum(low - _MARGIN * (low - self.low) - least, self.low)
        high = np.minimum(high + _MARGIN * (self.high - high) + least, self.high)
        self.children = [Part(low, high, misfit=self.misfit, depth=self.depth + 1)]
        return self.children[0]

    def halve(self, influence: Array, times: int) -> list[Part]:
        """Split in the middle, where the outputs move most, each side again ``times - 1`` times."""
        i = int(np.argmax(influence))
        place = float((self.low[i] + self.high[i]) / 2)
        if not self.low[i] < place < self.high[i]:
            return []
        self.split = i, place
        for side in (0, 1):
            low, high = self.low.copy(), self.high.copy()
            (low if side else high)[i] = place
            self.children.append(Part(low, high, misfit=self.misfit, depth=self.depth + 1))
        if times <= 1:
            return self.children
        smaller = influence.copy()
        smaller[i] /= 2
        return [part for child in self.children for part in child.halve(smaller, times - 1)]

    def leaves(self) -> list[Part]:
        """Those that may hold codes."""
        found, stack = [], [self]
        while stack:
            part = stack.pop()
            stack += part.children
            if not part.children and not part.empty:
                found.append(part)
        return found


def explore(
    contractor: Contractor,
    root: Part,
    admitted: Callable[[], Admitted],
    visit: Callable[[list[Part]], Flags | None],
    deadline: float,
) -> bool:
    """Cut and split all parts of a box.

    Args:
        contractor: Of the network.
        root: The box; its children are added.
        admitted: What explains the observation; asked for each batch.
        visit: Sees the parts of a batch that are not refuted, and says which of them are kept as
            they are; None stops the search.
        deadline: Of ``time.perf_counter``.

    Returns:
        Whether the search came to its end; if not, some leaves were not looked at.
    """
    stack = [root]
    while stack:
        if time.perf_counter() >= deadline:
            return False
        batch = stack[-contractor.batch :]
        del stack[-contractor.batch :]
        low, high = np.stack([p.low for p in batch]), np.stack([p.high for p in batch])
        found = contractor.contract(low, high, admitted())
        left, rows = _leave(batch, found)
        if not left:
            continue
        kept = visit(left)
        if kept is None:
            return False
        for part, row, keep in zip(left, rows, kept.tolist(), strict=True):
            if keep:
                continue
            before = high[row] - low[row]
            if ((part.high - part.low) < _AGAIN * before).any():
                stack.append(part)
                continue
            excess = found.excess[row]
            times = 1 + int(excess > _FAR) + int(excess > _FARTHER)
            stack += part.halve(found.influence[row], min(times, len(part.low)))
    return True


def _leave(batch: list[Part], found: Contraction) -> tuple[list[Part], list[int]]:
    """Note what each part became; those that are left, and their rows."""
    left, rows = [], []
    for row, part in enumerate(batch):
        part.rows = found.rows[row] if found.rows[row].any() else None
        part.misfit = max(part.misfit, float(found.misfit[row]))
        if found.empty[row]:
            part.empty = True
            continue
        low, high = found.low[row], found.high[row]
        share = np.prod((high - low) / np.where(part.high > part.low, part.high - part.low, 1.0))
        left.append(part.cut(low, high) if share < _WORTH else part)
        rows.append(row)
    return left, rows
