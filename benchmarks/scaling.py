"""How the kernel's time a program grows: with k, with n, with the batch and with threads."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from cases import Effort, draw, mean_seconds
from tqdm import tqdm

from preimage import lp

EXPANSION = 5
# A curve's programs are as many as take about this many multiplications, for the longest steps.
_WORK = 2e9


@dataclass(frozen=True)
class Curve:
    """Seconds a program of one norm against one quantity.

    Attributes:
        of: What is varied.
        norm: ``"linf"`` or ``"l1"``.
        x: Its values.
        seconds: The least of three runs at each.
    """

    of: str
    norm: str
    x: np.ndarray
    seconds: np.ndarray

    @property
    def exponent(self) -> float:
        """Slope of the line through all points in logarithms."""
        return float(np.polyfit(np.log(self.x), np.log(self.seconds), 1)[0])


def measure(effort: Effort) -> list[Curve]:
    """Every curve, both norms; the least effort keeps only the first points."""
    points = effort.points
    threads = list(range(1, (os.cpu_count() or 1) + 1))
    grids = {
        "k": [(EXPANSION * k, k, 0, None) for k in (10, 20, 40, 60, 100, 150, 200, 300, 400)],
        "n": [(n, 60, 0, None) for n in (120, 240, 480, 960, 1920, 3840, 7680)],
        "batch": [(784, 60, 2**e, None) for e in range(11)],
        "threads": [(784, 60, 256, count) for count in threads],
    }
    curves = []
    for of, grid in grids.items():
        for norm in effort.norms:
            taken = []
            for n, k, batch, count in tqdm(grid[:points], desc=f"{norm} against {of}", leave=False):
                batch = batch or int(np.clip(_WORK / (n * k * k), 8, 256))
                program = draw(n, k, norm, batch)
                os.environ["PREIMAGE_NUM_THREADS"] = str(count or "")
                lp.solve(program)
                runs = [mean_seconds(lambda: lp.solve(program), 0.02) for _ in range(3)]  # noqa: B023
                taken.append(min(runs) / batch)
            x = np.array([{"k": g[1], "n": g[0], "batch": g[2], "threads": g[3]}[of] for g in grid])
            curves.append(Curve(of, norm, x[:points], np.array(taken)))
    return curves
