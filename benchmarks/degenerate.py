"""Verdicts on degenerate and badly scaled programs: ``python benchmarks/degenerate.py``.

Draws small programs of integers with duplicate, parallel and zero rows, zero columns, ties and
gaps, and the same programs with rows and columns scaled by up to 1e12. What the kernel says of
each, with nothing behind it, is compared with what HiGHS says of the unscaled one. A verdict is
wrong if the two differ, or the values by more than 1e-6. Prints what is wrong and the counts; ends
with 1 if one verdict is wrong or more than 2 % stay open.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from preimage import lp
from preimage.activation import Slab
from preimage.layer_program import LayerProgram
from preimage.lp import Outcome, kernel

SLACKS = ["shared", "own", "none"]
SCALED = ["nothing", "columns", "all", "rows", "single rows"]
DOMAINS = [(-np.inf, np.inf), (0.0, np.inf), (-2.0, 3.0)]
AGREE = 1e-6


def draw(rng: np.random.Generator, slack: str) -> LayerProgram:
    """A small program of integers: duplicate, parallel and zero rows, zero columns, ties, gaps."""
    k, n = int(rng.integers(1, 5)), int(rng.integers(1, 10))
    weight = rng.integers(-2, 3, size=(n, k)).astype(float)
    if rng.random() < 0.3:
        weight[:, int(rng.integers(k))] = 0.0
    if rng.random() < 0.3 and k > 1:
        weight[:, 0] = 2 * weight[:, -1]
    more = [weight[:1], -2 * weight[:1], np.zeros((1, k))]
    weight = np.vstack([weight, *(part for part in more if rng.random() < 0.5)])
    n = len(weight)
    if rng.random() < 0.5:
        # Bounds around a point, some of them tight; else anything, often infeasible.
        middle = weight @ rng.integers(-1, 3, size=k)
        lower, upper = middle - rng.integers(0, 2, size=n), middle + rng.integers(0, 2, size=n)
    else:
        lower = rng.integers(-3, 3, size=n).astype(float)
        upper = lower + rng.integers(-1 if slack != "none" else 0, 4, size=n)
    lower = np.where(rng.random(n) < 0.4, -np.inf, lower)
    upper = np.where(rng.random(n) < 0.3, np.inf, upper)
    rates = rng.integers(0 if rng.random() < 0.3 else 1, 3, size=(2, n)).astype(float)
    if slack == "none":
        rates[:] = 0.0
    rates[0, np.isinf(lower)], rates[1, np.isinf(upper)] = 0.0, 0.0
    objective = rng.integers(-2, 3, size=k) * float(slack == "none" or rng.random() < 0.3)
    slab = Slab(lower[None], rates[:1], upper[None], rates[1:])
    domain = DOMAINS[int(rng.integers(3))]
    return LayerProgram(weight, slab, slack, objective[None].astype(float), domain)


def rescaled(program: LayerProgram, rows: np.ndarray, columns: np.ndarray) -> LayerProgram:
    """The same program with its rows, and the units of z, scaled: the same slacks and value."""
    low, high = program.box()
    return replace(
        program,
        weight=rows[:, None] * program.weight * columns,
        slab=Slab(*(part * rows for part in program.slab)),
        objective=program.objective * columns,
        domain=(low / columns, high / columns),
    )


def units(program: LayerProgram, what: str, exponent: int, rng: np.random.Generator):
    """Factors of the rows and columns of one of ``SCALED``."""
    n, k = program.weight.shape
    rows, columns = np.ones(n), np.ones(k)
    if what == "all":
        rows[:] = 10.0**exponent
    elif what == "single rows":
        rows[rng.random(n) < 0.5] = 10.0**exponent
    elif what == "rows":
        rows = 10.0 ** (exponent * rng.uniform(-0.5, 0.5, size=n))
    elif what == "columns":
        columns = 10.0 ** (exponent * rng.uniform(-0.5, 0.5, size=k))
    return rows, columns


def value_of(program: LayerProgram, z: np.ndarray) -> np.ndarray:
    """Objective and slack at z, in the units of ``program``."""
    slack = program.slack_at(z) if program.slack != "none" else 0.0
    return (program.objective * z).sum(axis=1) + slack


def judge(seed: int) -> str:
    """``right``, ``open`` or a description of what is wrong with the verdict on one program."""
    rng = np.random.default_rng(seed)
    slack = SLACKS[seed % 3]
    program = draw(rng, slack)
    right = lp.solve(program, "highs")
    if right.outcome[0] == Outcome.FAILED:
        return "open"
    what, exponent = SCALED[seed // 3 % 5], int(rng.choice([-12, -6, 6, 12]))
    rows, columns = units(program, what, exponent, rng)
    found = kernel.minimise(rescaled(program, rows, columns))
    if found.outcome[0] == Outcome.FAILED:
        return "open"
    if found.outcome[0] != right.outcome[0]:
        return f"seed {seed} ({what}): {found.outcome[0]}, expected {right.outcome[0]}"
    if found.outcome[0] == Outcome.OPTIMAL:
        value, expected = value_of(program, found.z * columns)[0], right.value[0]
        if abs(value - expected) > AGREE * max(1.0, abs(expected)):
            return f"seed {seed} ({what}): value {value:.9g}, expected {expected:.9g}"
    return "right"


def main() -> int:
    """Judge as many programs as asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=120_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.count)
    with ProcessPoolExecutor() as pool:
        found = Counter(tqdm(pool.map(judge, seeds, chunksize=250), total=len(seeds)))
    right, open_ = found.pop("right", 0), found.pop("open", 0)
    print("\n".join(found))
    print(f"{len(seeds)} programs: {right} right, {open_} open, {found.total()} wrong")
    return 1 if found or open_ > 0.02 * len(seeds) else 0


if __name__ == "__main__":
    sys.exit(main())
