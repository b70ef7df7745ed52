"""Measure certificates and proven optima: ``python benchmarks/certificates.py [--draws N]``.

Prints one row a claim, with the number measured and the number claimed; exits with 1 if one is
missed. Run it on a quiet machine: the times are wall times of one sample at a time.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import preimage
from examples import hardness
from preimage.enclosure.descent import enclose
from preimage.enclosure.network import Bounds, as_network, rounding_error, starting_bounds
from preimage.enclosure.tighten import Budget, Deduction, end_programs, tighten_by
from preimage.lp import highs
from preimage.methods.branch_and_bound import Search, mixed_program
from preimage.observation import Observation

NOISES = [1e-4, 1e-2, 0.1]


def row(claim: str, measured: str, target: str, holds: bool) -> bool:
    """Print one row of the table; returns whether the claim holds."""
    print(f"{'ok    ' if holds else 'MISSED'} {claim:<52} {measured:<66} {target}", flush=True)
    return holds


def draw(
    generator: preimage.Generator, noise: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A code within the box, and its noisy output."""
    z = np.clip(rng.normal(size=generator.latent_size), -4.9, 4.9)
    return z, generator(z) + rng.uniform(-noise, noise, size=generator.observation_size)


def backward_half_width(generator: preimage.Generator, x: np.ndarray, noise: float) -> np.ndarray:
    """Half-widths after one backward pass, without tightening."""
    network, k = as_network(generator), generator.latent_size
    box = np.full(k, 5.0)
    bounds = starting_bounds(network, x, noise, -box, box)
    bounds = enclose(network, bounds, Budget(time.perf_counter() + 60, 1), rounds=0).bounds
    # The first layer alone, within the intervals of its units.
    first = as_network(preimage.Generator(generator.layers[:1]))
    bounds = Bounds(bounds.lower[:2], bounds.upper[:2])
    deduction, budget = Deduction.start(bounds), Budget(np.inf, 1)
    tighten_by(lambda relaxed: end_programs(relaxed.inputs), first, deduction, budget)
    return (bounds.upper[0] - bounds.lower[0]) / 2


def trained(draws: int) -> list[bool]:
    """The trained decoder with |z| <= 5."""
    generator = preimage.zoo.load("mnist-20-60-784")
    preimage.certify(
        generator, draw(generator, 0.1, np.random.default_rng(0))[1], noise=0.1, box=5.0
    )
    held = []
    for noise in NOISES:
        rng, rows = np.random.default_rng(1), []
        for _ in range(draws):
            z, x = draw(generator, noise, rng)
            start = time.perf_counter()
            found = preimage.certify(generator, x, noise=noise, box=5.0)
            seconds = time.perf_counter() - start
            inside = bool(((found.lower <= z) & (z <= found.upper)).all())
            half = np.median(found.upper - found.lower) / 2
            guess = preimage.invert(generator, x, noise=noise).latent
            error = float(np.median(np.abs(guess - z)))
            before = np.median(backward_half_width(generator, x, noise))
            rows.append((inside, found.verdict != "undecided", half, before / half, seconds, error))
        inside, decided, half, ratio, seconds, error = (
            np.array(part) for part in zip(*rows, strict=True)
        )
        claim = f"20-60-784, noise {noise:g}, {draws} draws"
        verdicts = f"{inside.mean():.1%} inside; {decided.mean():.1%} decided"
        held.append(row(f"{claim}: truth in the box, decided", verdicts, "100 %; >= 95 %",
                        bool(inside.all()) and decided.mean() >= 0.95))  # fmt: skip
        text = (
            f"half-width {np.median(half) / noise:.2f} a, error of auto "
            f"{np.nanmedian(error) / noise:.2f} a; {np.median(ratio):.1f} x smaller"
        )
        held.append(row(f"{claim}: box", text, ">= 3 x than one pass, from 1e-2",
                        noise < 1e-2 or np.median(ratio) >= 3))  # fmt: skip
        text = f"median {np.median(seconds):.2f} s, worst {seconds.max():.2f} s"
        held.append(row(f"{claim}: time", text, "<= 1 s a sample", np.median(seconds) <= 1.0))
    return held


def gaussian(draws: int) -> list[bool]:
    """Random networks, every entry off by exactly the noise."""
    inside = 0
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        weights = [rng.normal(size=(n, k)) / np.sqrt(n) for k, n in ((20, 60), (60, 784))]
        generator, z = preimage.from_arrays(weights), rng.normal(size=20)
        noise = 10.0 ** rng.uniform(-4, -1)
        x = generator(z) + noise * rng.choice([-1.0, 1.0], size=784)
        network, box = as_network(generator), np.full(20, 5.0)
        wide = noise + rounding_error(network, x, z)
        bounds = starting_bounds(network, x, wide, -box, box)
        bounds = enclose(network, bounds, Budget(time.perf_counter() + 60, 1), rounds=1).bounds
        inside += bool(((bounds.lower[0] <= z) & (z <= bounds.upper[0])).all())
    text = f"{inside}/{draws} inside"
    claim = "Gaussian 20-60-784, noise at its bound"
    return [row(claim, text, "100 %", inside == draws)]


def plain_optimum(
    generator: preimage.Generator, x: np.ndarray, reach: float
) -> tuple[float, float]:
    """HiGHS on the straightforward formulation: interval arithmetic, an integer a hidden unit."""
    method = preimage.BranchAndBound(box=5.0, time_limit=60.0)
    network = as_network(generator)
    start = time.perf_counter()
    outputs = as_network(generator.then(preimage.Layer(np.eye(len(x)), activation="identity")))
    search = Search(method, network, outputs, generator, Observation(x[None], np.array([reach])))
    bounds = search.with_outputs(starting_bounds(network, x, reach, search.low, search.high))
    program = mixed_program(search.outputs, bounds, x, reach, "linf", x > 0.98 * reach)
    _, bound = highs.minimise_mixed(program, 5e-7, 60.0)
    return bound, time.perf_counter() - start


def optima(draws: int) -> list[bool]:
    """The global minimum on the trained decoder, at noise 0.1."""
    generator = preimage.zoo.load("mnist-20-60-784")
    rng, rows, plain = np.random.default_rng(2), [], []
    for index in range(draws):
        _, x = draw(generator, 0.1, rng)
        joint = preimage.invert(generator, x, preimage.GaussNewton(norm="linf", box=5.0), noise=0.1)
        start = time.perf_counter()
        method = preimage.BranchAndBound(box=5.0, time_limit=60.0)
        found = preimage.invert(generator, x, method, noise=0.1)
        seconds = time.perf_counter() - start
        near = joint.residual_max <= found.residual_max + 1e-6
        rows.append((found.gap <= 1e-6, near, seconds))
        if index < max(draws // 10, 2):
            bound, its = plain_optimum(generator, x, float(joint.residual_max) * (1 + 1e-9))
            plain.append((abs(bound - found.residual_max), its, seconds))
    proven, near, seconds = (np.array(part) for part in zip(*rows, strict=True))
    apart, its, ours = (np.array(part) for part in zip(*plain, strict=True))
    claim = f"optimum at noise 0.1, {draws} draws"
    times = f"median {np.median(seconds):.2f} s, worst {seconds.max():.1f} s"
    text = f"{proven.mean():.1%} proven; {times}"
    held = [
        row(claim, text, "median <= 1 s", bool(proven.mean() > 0.5 and np.median(seconds) <= 1))
    ]
    text = f"{near.mean():.1%} within 1e-6"
    held.append(row("joint method's code is the optimum", text, ">= 95 %", near.mean() >= 0.95))
    text = (
        f"plain HiGHS {np.median(its):.1f} s (ours {np.median(ours):.1f} s); "
        f"apart by at most {apart.max():.1e}"
    )
    finished = its < 60
    same = bool((apart[finished] <= 1e-6).all())
    held.append(row(f"the same by plain HiGHS, {len(plain)} draws", text, "<= 1e-6", same))
    return held


def formulas(count: int) -> list[bool]:
    """Random 3SAT at the phase transition, against a SAT solver."""
    from pysat.solvers import Cadical153

    rng, rows = np.random.default_rng(3), []
    method = preimage.BranchAndBound(decide=True, box=(0.0, 1.0), rounds=0, time_limit=60.0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "formula.cnf"
        for _ in range(count):
            size = int(rng.integers(12, 21))
            clauses = [
                [int(v) for v in (rng.choice(size, 3, replace=False) + 1) * rng.choice([-1, 1], 3)]
                for _ in range(round(4.26 * size))
            ]
            lines = "".join(" ".join(map(str, clause)) + " 0\n" for clause in clauses)
            path.write_text(f"p cnf {size} {len(clauses)}\n{lines}")
            with Cadical153(bootstrap_with=clauses) as solver:
                truth = solver.solve()
            generator, x = hardness.from_cnf(path)
            start = time.perf_counter()
            found = preimage.invert(generator, x, method, noise=hardness.NOISE)
            seconds = time.perf_counter() - start
            yes = found.residual_max <= hardness.NOISE
            right = yes == truth
            if yes:
                right &= hardness.satisfies(path, hardness.assignment(found.latent))
            rows.append((yes or found.bound > hardness.NOISE, right, truth, seconds))
    done, right, truth, seconds = (np.array(part) for part in zip(*rows, strict=True))
    text = (
        f"{done.mean():.1%} finish, {right[done].mean():.1%} of them right ({truth.sum()} "
        f"satisfiable); worst {seconds.max():.0f} s"
    )
    claim = f"3SAT at ratio 4.26, {count} formulas"
    return [row(claim, text, "95 % finish in 60 s; all right",
                bool(done.mean() >= 0.95 and right[done].all()))]  # fmt: skip


def main() -> int:
    """Measure and print everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=100, help="a noise level")
    draws = parser.parse_args().draws
    held = trained(draws) + optima(-(-draws // 2)) + formulas(draws) + gaussian(10 * draws)
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
