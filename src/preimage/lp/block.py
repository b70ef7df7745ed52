"""Pose, start and solve the samples of a block, one after another, in compiled code."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from preimage.lp.compiled import entry
from preimage.lp.interior import STUCK, minimise
from preimage.lp.matrix import Matrix, equilibrate_into, room_for_matrix
from preimage.lp.normal import Rows, largest
from preimage.lp.pose import OWN, SHARED, Answers, Bounds, pose, restore
from preimage.lp.room import new_point, new_scratch, new_sides
from preimage.lp.start import start
from preimage.lp.working_set import extend, new_part, restrict

Array = NDArray[np.float64]


@entry
def solve_block(
    weight: Array, batch: Bounds, shared_matrix: Matrix, slack: int, answers: Answers
) -> None:
    """Solve every sample of a batch.

    Args:
        weight: (1 or batch, n, k).
        batch: Its parts are (batch, n) or (batch, k).
        shared_matrix: The scaled weight if the batch shares it; of no rows if it has one a sample.
        slack: SHARED, OWN or NONE.
        answers: Written.
    """
    n, k = weight.shape[1:]
    many = len(shared_matrix.row) == 0
    matrix = room_for_matrix(n, k, 0) if many else shared_matrix
    m = len(matrix.row)
    work, sides = new_scratch(m, k), new_sides(m, k)
    at, step, other = new_point(m, k), new_point(m, k), new_point(m, k)
    part = new_part(m, k)
    shared = 1 if slack == SHARED else 0
    soft = 2 * m if slack == OWN else 0
    count = 2 * m + 2 * k + 1
    rows = Rows(
        matrix.columns,
        matrix.table,
        np.arange(m),
        matrix.first,
        matrix.place,
        np.zeros(m),
        np.zeros(m),
        m,
        k,
        shared,
        count,
        soft,
    )
    for b in range(len(answers.z)):
        if many:
            equilibrate_into(weight[b], matrix)
        bounds = Bounds(
            batch.lower[b],
            batch.lower_rate[b],
            batch.upper[b],
            batch.upper_rate[b],
            batch.low[b],
            batch.high[b],
            batch.objective[b],
        )
        unit, price = pose(matrix, bounds, slack, sides, rows)
        linear = largest(bounds.objective) > 0.0
        start(rows, sides, linear, work, at)
        few = restrict(rows, sides, at, part, work)
        answers.steps[b] = 0
        for attempt in range(2):
            whole = attempt == 1 or few.m == 0
            verdict, steps = minimise(
                rows if whole else few,
                sides if whole else part.sides,
                at if whole else part.at,
                step,
                other,
                work,
            )
            answers.verdict[b] = verdict
            answers.steps[b] += steps
            if whole or (verdict != STUCK and extend(rows, sides, at, few, part, work)):
                break
        restore(matrix, bounds, rows, sides, at, unit, price, b, answers)
