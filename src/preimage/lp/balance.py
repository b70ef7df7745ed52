"""Badly scaled programs, brought to units in which their numbers compare.

Tolerances ask for a size of each row and column. The largest entry gives none where rows differ by
1e12: one entry then speaks for the whole column. Factors r and c, powers of two, that make

    sum over w_ja != 0 of  (log2 |w_ja| + log2 r_j + log2 c_a)^2

smallest, do: they undo any scaling of rows and columns (Curtis and Reid 1972), and round nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from preimage.activation import Slab
from preimage.layer_program import LayerProgram

Array = NDArray[np.float64]

# Rows and columns whose largest entries, and 1, differ by less than this are left as they are.
_SPREAD = 2.0**10
_MOST_ROUNDS = 100
# In powers of two: when the factors have settled, and how large they may be.
_SETTLED = 0.1
_FARTHEST = 400.0


@dataclass(frozen=True, eq=False)
class Balanced:
    """A program in other units.

    Attributes:
        program: Its weight is ``row w column``, its latent ``z / column``.
        row: (n,) or (batch, n); multipliers times this are those of the program that came.
        column: (k,) or (batch, k); latents and rays times this.
    """

    program: LayerProgram
    row: Array
    column: Array


def balance(program: LayerProgram) -> Balanced | None:
    """The program in better units; None where its own will do."""
    magnitude = np.abs(program.weight)
    in_row, in_column = magnitude.max(axis=-1, initial=0.0), magnitude.max(axis=-2, initial=0.0)
    bad, empty = _odd(in_row) | _odd(in_column), in_row == 0
    if not bad.any() and not empty.any():
        return None
    row, column = (
        np.ones(magnitude.shape[:-1]),
        np.ones((*magnitude.shape[:-2], *magnitude.shape[-1:])),
    )
    for sample in np.argwhere(bad):
        at = tuple(sample)
        row[at], column[at] = _factors(magnitude[at])
    weight = row[..., :, None] * program.weight * column[..., None, :]
    if empty.any():
        row = np.where(empty, _factors_of_bounds(program.slab), row)
    low, high = program.box()
    scaled = replace(
        program,
        weight=weight,
        slab=Slab(*(part * row for part in program.slab)),
        objective=program.objective * column,
        domain=(low / column, high / column),
    )
    return Balanced(scaled, row, column)


def _odd(peak: Array) -> NDArray[np.bool_]:
    """Whether the nonzero ones among (..., n) numbers lie far from each other or from 1, (...)."""
    least = np.where(peak > 0, peak, 1.0).min(axis=-1, initial=1.0)
    return np.asarray(least * _SPREAD < peak.max(axis=-1, initial=1.0))


def _factors(magnitude: Array) -> tuple[Array, Array]:
    """Factors of the rows and columns of one (n, k) matrix, by alternating least squares."""
    present = magnitude > 0
    log = np.log2(np.where(present, magnitude, 1.0))
    in_row, in_column = np.maximum(present.sum(axis=1), 1), np.maximum(present.sum(axis=0), 1)
    row, column = np.zeros(len(log)), np.zeros(log.shape[1])
    for _ in range(_MOST_ROUNDS):
        row = -np.where(present, log + column, 0.0).sum(axis=1) / in_row
        before, column = column, -np.where(present, log + row[:, None], 0.0).sum(axis=0) / in_column
        if np.abs(column - before).max(initial=0.0) < _SETTLED:
            break
    row, column = (
        np.exp2(np.round(np.clip(part, -_FARTHEST, _FARTHEST))) for part in (row, column)
    )
    return row, column


def _factors_of_bounds(slab: Slab) -> Array:
    """(batch, n) factors of rows without an entry: their rates give the units, or their bounds."""
    bounds = (np.where(np.isinf(part), 0.0, np.abs(part)) for part in (slab.lower, slab.upper))
    rate, bound = np.maximum(slab.lower_rate, slab.upper_rate), np.maximum(*bounds)
    size = np.where(rate > 0, rate, np.where(bound > 0, bound, 1.0))
    return np.asarray(np.exp2(-np.round(np.log2(size))))
