"""A tidy table: one row a draw, facts about the run on top, kept as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Cell = str | int | float
Row = dict[str, Cell]

FIRST = ("method", "draw", "seed", "success", "error", "seconds")


@dataclass(frozen=True)
class Table:
    """Rows of one figure.

    Attributes:
        facts: What the rows depend on: configuration, versions, commit, seed, machine, seconds.
        rows: One a draw and method; all with the same columns.
    """

    facts: dict[str, str]
    rows: tuple[Row, ...]

    def where(self, **wanted: Cell) -> Table:
        """The rows whose columns have these values."""
        kept = (r for r in self.rows if all(r[name] == value for name, value in wanted.items()))
        return Table(self.facts, tuple(kept))

    def values(self, column: str) -> NDArray[np.float64]:
        """A column of numbers, shape (rows,)."""
        return np.array([float(row[column]) for row in self.rows])

    def distinct(self, column: str) -> list[Cell]:
        """The values of a column, each once, in the order of their first row."""
        return list(dict.fromkeys(row[column] for row in self.rows))

    def write(self, path: Path) -> None:
        """Write the facts as ``# name: value`` lines, then CSV."""
        text = io.StringIO()
        text.writelines(f"# {name}: {value}\n" for name, value in self.facts.items())
        columns = list(FIRST) + [c for c in self.rows[0] if c not in FIRST]
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        path.write_text(text.getvalue(), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Table:
        """Read what ``write`` wrote; what looks like a number becomes one."""
        lines = path.read_text(encoding="utf-8").splitlines()
        top = [line for line in lines if line.startswith("# ")]
        facts = dict(line[2:].split(": ", 1) for line in top)
        rows = csv.DictReader(lines[len(top) :])
        return cls(facts, tuple({n: _cell(v) for n, v in row.items()} for row in rows))


def _cell(text: str) -> Cell:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def medians(table: Table, x: str, y: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distinct values of the column ``x``, and the median of ``y`` at each (NaN left out)."""
    return _summary(table, x, y, lambda v: float(np.median(v)))


def means(table: Table, x: str, y: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distinct values of the column ``x``, and the mean of ``y`` at each (NaN left out)."""
    return _summary(table, x, y, lambda v: float(np.mean(v)))


def _summary(table: Table, x: str, y: str, of) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # type: ignore[no-untyped-def]
    at, values = table.values(x), table.values(y)
    places = np.unique(at)
    found = []
    for place in places:
        known = values[(at == place) & np.isfinite(values)]
        found.append(of(known) if len(known) else np.nan)
    return places, np.array(found)


def slope(x: Iterable[float], y: Iterable[float]) -> float:
    """Least-squares slope of log y over log x, over finite positive y."""
    x, y = np.asarray(list(x)), np.asarray(list(y))
    keep = np.isfinite(y) & (y > 0)
    return float(np.polyfit(np.log(x[keep]), np.log(y[keep]), 1)[0]) if keep.sum() > 1 else np.nan


def ratios_of_medians(upper: Table, lower: Table, x: str) -> NDArray[np.float64]:
    """Median error of one table over that of another, at each value of ``x``.

    Returns:
        (values, 4): x, the ratio, and the ends of its 95 % interval by the bootstrap over draws,
        which the two tables share.
    """
    found = []
    for place in np.unique(upper.values(x)):
        parts = [{r["draw"]: float(r["error"]) for r in t.where(**{x: float(place)}).rows}
                 for t in (upper, lower)]  # fmt: skip
        pairs = np.array([[part[draw] for part in parts] for draw in parts[0]])
        again = np.random.default_rng(0).integers(0, len(pairs), (1000, len(pairs)))
        above, below = np.median(pairs[again], axis=1).T
        ends = np.quantile(above / below, (0.025, 0.975))
        above, below = np.median(pairs, axis=0)
        found.append([place, above / below, *ends])
    return np.array(found)
