"""Neighbouring linear pieces: codes beyond the kinks of hidden units.

Where a descent ends, the code is the least-squares minimiser of its own linear piece (or lies on a
kink). Let ``M = J^T J`` be the normal matrix there. A hidden unit has the pre-activation ``a``,
whose gradient in z is ``v``, and its slope changes by ``s`` at the kink. Of all steps that take the
unit to ``-t a``, the one that raises the present piece's loss least is

    dz = -(1 + t) a M^-1 v / (v . M^-1 v).

Beyond the kink the unit's value is larger than the present piece says, by ``|s t a|``. This lowers
the loss at first by ``|s t a| u . error``, with ``u`` the derivative of the outputs in the unit's
value. So a unit promises something where ``u . error > 0``, and the more, the smaller

    |a| / (|s| u . error  v . M^-1 v).
"""

from __future__ import annotations

import numpy as np

from preimage.generator import Generator
from preimage.matrix import Array, Indices, slices
from preimage.methods.joint.least_squares import LeastSquares

# Keeps a singular matrix solvable, relative to its diagonal.
_RIDGE = 1e-8


def neighbours(problem: LeastSquares, z: Array, samples: Indices, count: int) -> Array:
    """Codes mirrored at the kinks of the ``count`` most promising units (t = 1), best first.

    Of each row of ``z``, (runs, k); (runs, count, k), NaN beyond the last unit that promises
    anything.
    """
    runs, k = z.shape
    found = np.full((runs, count, k), np.nan)
    chain = problem.chain
    if chain is None or not any(jump.any() for jump in jumps(chain)):
        return found
    for part in slices(runs, sum(chain.sizes) * k):
        codes = _mirrored(problem, chain, z[part], samples[part], count)
        found[part, : codes.shape[1]] = codes
    return found


def _mirrored(
    problem: LeastSquares, chain: Generator, z: Array, samples: Indices, count: int
) -> Array:
    """(runs, at most count, k)."""
    preactivations = chain.preactivations(z)
    error = problem.observation.take(samples).restrict(problem.error(z, samples))
    # From the last layer to the first; the last of both is not a hidden unit's.
    promised = list(chain.cotangents(preactivations, error))[-2::-1]
    jump = np.concatenate(jumps(chain))
    a, along = (np.concatenate(parts, axis=1) for parts in (preactivations[:-1], promised))
    v = np.concatenate([v.copy() for v in chain.jacobians(preactivations)][:-1], axis=1)
    direction = np.matmul(v, _inverse(problem.linearize(z, samples)[0]))
    spread = np.einsum("ruk,ruk->ru", v, direction)
    gain = jump * along * spread
    promising = gain > 0
    rank = np.where(promising, np.abs(a) / np.where(promising, gain, 1.0), np.inf)
    length = np.where(promising, -2.0 * a / np.where(promising, spread, 1.0), np.nan)
    at = np.arange(len(z))[:, None], np.argsort(rank, axis=1, kind="stable")[:, :count]
    return z[:, None] + length[at][:, :, None] * direction[at]


def jumps(chain: Generator) -> list[Array]:
    """|s| of the units of each hidden layer, (units,); 0 where there is no kink."""
    return [
        np.zeros(layer.output_size)
        if layer.slopes is None
        else np.abs(layer.slopes[1] - layer.slopes[0])
        for layer in chain.layers[:-1]
    ]


def _inverse(gram: Array) -> Array:
    """Of each matrix, (runs, k, k), slightly damped."""
    diagonal = np.einsum("raa->ra", gram)
    diagonal += _RIDGE * np.where(diagonal > 0, diagonal, 1.0)
    scale = 1.0 / np.sqrt(diagonal)
    inverse = np.linalg.inv(gram * scale[:, :, None] * scale[:, None, :])
    return np.asarray(inverse * scale[:, :, None] * scale[:, None, :])
