"""Joint fits in the l1 and l-infinity norms, one linear region after another.

Let s say of every hidden unit whether it is active. Where all signs are as s says, in the linear
region of s, the last layer's pre-activations are affine in z, and the best fit there is one linear
program over z, whose constraints are the fit's rows and the signs. What the program promises is
exact. At its optimum some units stand at their kink; their multipliers say how much the program
would gain beyond. These are the candidate flips: they are tried one at a time, most gain first, and
when no neighbouring region holds a better point, the fit is a local minimum.

The outputs' own kinks need no signs. A program bounds the error of a ReLU output from above,

    |x - a|         where x > 0 and the unit is active (above |x - max(a, 0)|),
    max(a, 0) - x   where x <= 0,
    x               where x > 0 and the unit is inactive, as long as a <= 2 x,

exactly at the present z, so that what lowers the bound lowers the loss.
"""

from __future__ import annotations

import numpy as np

from preimage import lp
from preimage.generator import Generator
from preimage.layer_program import LayerProgram
from preimage.matrix import Array, Flags, Indices
from preimage.methods.joint.least_squares import LeastSquares
from preimage.network import known_chain
from preimage.slab import Slab

# No step is longer than so many times the code: a region may be unbounded.
_FARTHEST = 10.0
# Candidate flips that are tried before a point is taken for a local minimum.
_MOST_FLIPS = 24


def takes(generator: Generator) -> bool:
    """Whether every layer is a matrix with a piecewise-linear activation, the last a ReLU or none.

    (Under a leaky head the bound above would not hold.)
    """
    *hidden, last = generator.layers
    pieces = last.activation.slopes(last.output_size)
    return (
        all(layer.activation.slopes(layer.output_size) is not None for layer in hidden)
        and pieces is not None
        and bool((pieces[0] == 0).all() or (pieces[0] == 1).all())
    )


class LinearRegions:
    """The programs of runs in their linear regions; see the module's text and ``Programs``.

    Attributes:
        active: (runs, hidden units) s.
        candidates: (runs, hidden units + 1) units to flip, most gain first; then -1.
        tried: (runs,) how many of them have been; -1 before a run's own region was.
    """

    gain = 1e-11

    def __init__(self, problem: LeastSquares, z: Array, samples: Indices, norm: str) -> None:
        self.problem, self.samples, self.norm = problem, samples, norm
        generator = _chain(problem)
        self.entries = sum(generator.sizes[1:]) * z.shape[1]
        self.active = _side_by_side(generator.preactivations(z)[:-1], z) > 0
        self.candidates = np.full((len(z), self.active.shape[1] + 1), -1)
        self.tried, self.done = np.full(len(z), -1), np.zeros(len(z), dtype=bool)
        self.flipped = self.active.copy()

    @property
    def stationary(self) -> Flags:
        """Runs without a better neighbouring region."""
        return self.done

    def program(self, runs: Indices, z: Array) -> LayerProgram:
        """In a run's own region, or beyond its next candidate flip."""
        active, tried = self.active[runs].copy(), self.tried[runs]
        going = np.flatnonzero(tried >= 0)
        active[going, self.candidates[runs[going], tried[going]]] ^= True
        self.flipped[runs] = active
        return _program(self.problem, z, self.samples[runs], active, self.norm)

    def learn(
        self, runs: Indices, solution: lp.Solution, before: Array, after: Array, better: Flags
    ) -> None:
        """New candidates where a run has moved, or has tried its own region for the first time."""
        self.active[runs[better]] = self.flipped[runs[better]]
        fresh = better | (self.tried[runs] < 0)
        price = np.nan_to_num(solution.dual_lower + solution.dual_upper)
        price = price[:, self.problem.network.observation_size :]
        order = np.argsort(-price, axis=1, kind="stable")
        ranked = np.where(np.take_along_axis(price, order, axis=1) > 0, order, -1)
        self.candidates[runs[fresh], :-1] = ranked[fresh]
        self.tried[runs] = tried = np.where(fresh, 0, self.tried[runs] + 1)
        self.done[runs] = (self.candidates[runs, tried] < 0) | (tried >= _MOST_FLIPS)


def _chain(problem: LeastSquares) -> Generator:
    return known_chain(problem.network, "a fit region by region")


def _side_by_side(parts: list[Array], like: Array) -> Array:
    """(runs, units) of the hidden layers, of which there may be none."""
    return np.concatenate([np.zeros((len(like), 0)), *parts], axis=1)


def _program(
    problem: LeastSquares, z: Array, samples: Indices, active: Flags, norm: str
) -> LayerProgram:
    """The program of each run over its step: rows of the outputs, then a sign a hidden unit."""
    generator, observation = _chain(problem), problem.observation.take(samples)
    runs, k = z.shape
    product, value, first = np.broadcast_to(np.eye(k), (runs, k, k)), z, 0
    gradients, offsets = [], []
    for layer in generator.layers:
        gradient = np.matmul(layer.dense_weight, product)
        a = layer.affine(value)
        gradients.append(gradient)
        offsets.append(a)
        if layer is generator.layers[-1]:
            break
        # Values and slopes as s says: at a kink they may differ from what the sign of a says.
        own = active[:, first : first + layer.output_size]
        slope = np.where(own, 1.0, layer.activation.derivative(np.full_like(a, -1.0)))
        product, value = slope[:, :, None] * gradient, slope * a
        first += layer.output_size
    hidden = _side_by_side(offsets[:-1], z)
    slab = _output_slab(problem, offsets[-1], observation.values, norm)
    slab = observation.admit(slab)
    bent = np.concatenate(
        [np.zeros(0, dtype=bool)]
        + [layer.activation.derivative(np.full(layer.output_size, -1.0)) != 1
           for layer in generator.layers[:-1]]
    )  # fmt: skip
    # A unit may stand beyond its kink by rounding.
    lower = np.where(active & bent, np.minimum(-hidden, 0.0), -np.inf)
    upper = np.where(~active & bent, np.maximum(-hidden, 0.0), np.inf)
    zero = np.zeros_like(hidden)
    sides = (slab, Slab(lower, zero, upper, zero))
    reach = _FARTHEST * np.maximum(np.abs(z).max(axis=1, initial=0.0, keepdims=True), 1.0)
    return LayerProgram(
        np.concatenate([gradients[-1], *gradients[:-1]], axis=1),
        Slab(*(np.concatenate(parts, axis=1) for parts in zip(*sides, strict=True))),
        "own" if norm == "l1" else "shared",
        np.zeros((runs, k)),
        (np.maximum(-reach, problem.region.low - z), np.minimum(reach, problem.region.high - z)),
    )


def _output_slab(problem: LeastSquares, a: Array, x: Array, norm: str) -> Slab:
    """Bounds on the step's effect on the last pre-activations; see the module's text."""
    one, zero = np.ones_like(a), np.zeros_like(a)
    both = Slab(x - a, one, x - a, one)
    if (_chain(problem).layers[-1].activation.derivative(-one) == 1).all():
        return both
    fitted = (x > 0) & (a > 0)
    dead = (x > 0) & ~fitted
    lower, lower_rate = np.where(fitted, x - a, -np.inf), np.where(fitted, one, zero)
    if norm == "linf":
        return Slab(lower, lower_rate, x - a, one)
    upper = np.where(fitted, x - a, np.where(dead, 2 * x - a, -a))
    return Slab(lower, lower_rate, upper, np.where(dead, zero, one))
