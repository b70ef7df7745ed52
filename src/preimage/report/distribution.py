"""How numbers are spread, from parts of them at a time, and the histogram that shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preimage.notebook import number

Array = NDArray[np.float64]

_BARS = 24
_FINE = 2**16  # bins that quantiles are read from: 0.06 % wide over 16 decades
_RANGE = 1e-16  # of the largest number; what is smaller counts as this


@dataclass(frozen=True, eq=False)
class Distribution:
    """Numbers that are at least 0, on a logarithmic axis.

    Attributes:
        counts: (bins,) of the numbers that are known.
        low: Left end of the axis.
        high: Right end.
        least: The smallest number.
        most: The largest number.
        mark: A number that is drawn as a line; the axis reaches it. 0 for none.
        unknown: How many are NaN or infinite.
    """

    counts: NDArray[np.int64]
    low: float
    high: float
    least: float
    most: float
    mark: float
    unknown: int

    @staticmethod
    def of(parts: Callable[[], Iterable[Array]], mark: float = 0.0) -> Distribution:
        """Go through the parts twice, so that no more than one is held at a time."""
        most, least, positive, unknown = 0.0, np.inf, np.inf, 0
        for part in parts():
            known = part[np.isfinite(part)]
            unknown += len(part) - len(known)
            most = max(most, known.max(initial=0.0))
            least = min(least, known.min(initial=np.inf))
            positive = min(positive, known[known > 0].min(initial=np.inf))
        counts = np.zeros(_FINE, dtype=np.int64)
        high, positive = max(most, mark), min(positive, mark or np.inf)
        low = max(positive, _RANGE * high) if high > 0 else 0.0
        span = np.log(high / low) if 0 < low < high else 1.0
        for part in parts():
            known = np.maximum(part[np.isfinite(part)], low)
            place = np.log(known / low) / span if low > 0 else np.zeros(len(known))
            counts += np.bincount(np.minimum((place * _FINE).astype(int), _FINE - 1), None, _FINE)
        return Distribution(counts, low, high, least, most, mark, unknown)

    @property
    def known(self) -> int:
        """How many numbers are known."""
        return int(self.counts.sum())

    def quantile(self, q: float) -> float:
        """The number that a share ``q`` of the others does not exceed, to three digits."""
        place = int(np.searchsorted(np.cumsum(self.counts), q * self.known))
        middle = (place + 0.5) / _FINE
        return self.low * (self.high / self.low) ** middle if self.low < self.high else self.high

    def histogram(self, of: str, mark_name: str = "") -> str:
        """A figure with its numbers in words.

        Args:
            of: What the numbers are, in plural.
            mark_name: What the number is that is drawn as a line.
        """
        if not self.known:
            return f"<p>No {of} are known.</p>"
        text = (
            f"{self.known} {of}: smallest {number(self.least)}, median "
            f"{number(self.quantile(0.5))}, 95 % at most {number(self.quantile(0.95))}, largest "
            f"{number(self.most)}"
        )
        text += f"; {self.unknown} unknown" if self.unknown else ""
        if not self.low < self.high:
            return f"<p>{text}.</p>"
        heights = np.add.reduceat(self.counts, np.arange(0, _FINE, _FINE // _BARS)[:_BARS])
        step, tall, top = 600 / _BARS, 120, 30
        bars = "".join(
            f'<rect x="{i * step + 1:.1f}" y="{top + tall - h:.1f}" width="{step - 2:.1f}" '
            f'height="{h:.1f}"/>'
            for i, h in enumerate(tall * heights / heights.max())
        )
        line = ""
        if self.mark > 0:
            x = 600 * np.log(self.mark / self.low) / np.log(self.high / self.low)
            side, anchor = (8, "start") if x < 300 else (-8, "end")
            text += f"; the line is the {mark_name}, {number(self.mark)}"
            line = (
                f'<path d="M{x:.1f} 2V{top + tall}" stroke="var(--ink)" stroke-width="3" '
                f'stroke-dasharray="5 3"/><text x="{x + side:.1f}" y="22" '
                f'text-anchor="{anchor}">{mark_name} {number(self.mark)}</text>'
            )
        return (
            f'<figure><svg role="img" aria-label="Histogram of {text}" viewBox="0 0 600 185" '
            f'width="600"><g fill="var(--bar)">{bars}</g>{line}'
            f'<path d="M0 {top + tall}.5H600" stroke="var(--soft)"/>'
            f'<text y="178">{number(self.low)}</text>'
            f'<text x="300" y="178" text-anchor="middle">logarithmic</text>'
            f'<text x="600" y="178" text-anchor="end">{number(self.high)}</text></svg>'
            f"<figcaption>{text}.</figcaption></figure>"
        )
