"""What the equations of one linear piece say exactly: which directions they leave, or none."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from preimage.certify import checker
from preimage.certify.problem import Problem
from preimage.enclosure.network import Array

# Relative to the largest pivot: below, a row adds nothing to those before it. (What follows is
# checked exactly; a wrong guess only loses an answer.)
_RANK = 1e-9
# Sizes of the steps that are tried along a direction, as powers of two.
_STEPS = range(20, -40, -1)


def independent_rows(problem: Problem, z: Array) -> list[int]:
    """Outputs at z that are equations (two-sided, at the noise of the problem), and independent."""
    from scipy.linalg import qr  # a tenth of a second, which `import preimage` need not pay

    low, high = (end[-1] for end in (problem.bounds(0.0).lower, problem.bounds(0.0).upper))
    rows = np.flatnonzero(np.isfinite(low) & np.isfinite(high))
    piece = np.eye(len(z))
    for i, a in enumerate(problem.preactivations(z)[1:], 1):
        piece = problem.network.weights[i] @ piece
        if i < problem.network.depth:
            piece = np.where(a > 0, 1.0, problem.network.slopes[i])[:, None] * piece
    jacobian = piece[rows]
    if not jacobian.any():
        return []
    _, upper, order = qr(jacobian.T, mode="economic", pivoting=True)
    pivots = np.abs(np.diag(upper))
    return rows[order[: int((pivots > _RANK * pivots[0]).sum())]].tolist()


def _equations(problem: Problem, z: Array) -> tuple[list[list[Fraction]], list[int]]:
    """``J z = x - c`` of the independent rows on z's piece, as reduced rows (J, x - c); pivots."""
    signs = problem.preactivations(z)
    rows = []
    for row in independent_rows(problem, z):
        rho = [int(j == row) for j in range(len(problem.x))]
        # The constant c counts units of 2^-(1074 + scale), rho counts units of 2^-scale.
        constant, scale = 0, 0
        for i in range(problem.network.depth, 0, -1):
            layer = problem.layers[i]
            constant += sum(r * b for r, b in zip(rho, layer.bias, strict=True) if r)
            rho, scale, constant = layer.adjoint(rho), scale + layer.shift, constant << layer.shift
            if i > 1:
                below = problem.layers[i - 1]
                known = zip(rho, signs[i - 1].tolist(), below.slopes, strict=True)
                rho = [v * (below.one if a > 0 else c) for v, a, c in known]
                scale, constant = scale + below.bend, constant << below.bend
        rest = Fraction(float(problem.x[row])) - Fraction(constant, 1 << (scale + checker.UNIT))
        rows.append([*(Fraction(v, 1 << scale) for v in rho), rest])
    pivots: list[int] = []
    for column in range(len(z)):
        done = len(pivots)
        pivot = next((r for r in range(done, len(rows)) if rows[r][column]), None)
        if pivot is None:
            continue
        rows[done], rows[pivot] = rows[pivot], rows[done]
        rows[done] = top = [v / rows[done][column] for v in rows[done]]
        for r, other in enumerate(rows):
            if r != done and other[column]:
                rows[r] = [v - other[column] * t for v, t in zip(other, top, strict=True)]
        pivots.append(column)
    return rows, pivots


def exact_solutions(problem: Problem, z: Array) -> list[Array]:
    """Solutions of the equations of z's piece near z: what they leave free is rounded."""
    rows, pivots = _equations(problem, z)
    found = []
    for grid in (1.0, 2.0**10, 2.0**30):
        code = list(map(Fraction, (np.round(z * grid) / grid).tolist()))
        free = [column for column in range(len(z)) if column not in pivots]
        for row, pivot in zip(rows, pivots, strict=False):
            code[pivot] = row[-1] - sum(row[column] * code[column] for column in free)
        found.append(np.array([float(v) for v in code]))
    return found


def free_directions(problem: Problem, z: Array) -> list[list[int]]:
    """A basis, in integers, of the directions in which no equation of z's piece changes."""
    rows, pivots = _equations(problem, z)
    basis = []
    for column in sorted(set(range(len(z))) - set(pivots)):
        direction = [Fraction(int(j == column)) for j in range(len(z))]
        for row, pivot in zip(rows, pivots, strict=False):
            direction[pivot] = -row[column]
        scale = math.lcm(*(v.denominator for v in direction))
        basis.append([int(v * scale) for v in direction])
    return basis


def find_free_pair(problem: Problem, z: Array) -> bool:
    """Whether z, a witness, has another far from it along a free direction."""
    lines = [[s * v for v in line] for line in free_directions(problem, z) for s in (1, -1)]
    for line in lines:
        direction = np.array(line, dtype=np.float64)
        direction /= 2.0 ** math.floor(math.log2(np.abs(direction).max()))
        for power in _STEPS:
            other = z + 2.0**power * direction
            if np.abs(other - z).max() <= problem.resolution:
                break
            if problem.are_apart(z, other):
                return True
    return False
