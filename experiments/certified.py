"""What is proven at each noise: half-widths of the boxes, and verdicts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from experiments.experiment import Experiment, Job
from experiments.problems import (
    TRAINED,
    Problem,
    Question,
    certified,
    drawn,
    noise_of,
    random_generator,
    row,
)
from experiments.style import panels
from experiments.table import Row, Table, medians
from preimage import zoo

VERDICTS = {"unique": "#009E73", "ambiguous": "#E69F00", "undecided": "#BBBBBB",
            "infeasible": "#D55E00"}  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Network (``random`` has ``sizes``), levels, seed; ``box`` bounds the codes."""

    draws: int
    levels: tuple[float, ...]
    network: str = TRAINED
    sizes: tuple[int, ...] = ()
    box: float = 10.0
    time_limit: float = 10.0
    seed: int = 10


def jobs(config: Config) -> Iterator[Job]:
    """One certificate each."""
    yield from ((i, draw) for i in range(len(config.levels)) for draw in range(config.draws))


def work(config: Config, job: Job) -> list[Row]:
    """Certify a noisy output; the true code must be in the box, or ``success`` is 0."""
    index, draw = job
    level = config.levels[index]
    problem = posed(config, index, draw)
    proof, seconds = certified(problem.question, config.box, config.time_limit)
    lower, upper = np.ravel(proof.lower), np.ravel(proof.upper)
    inside = bool(((lower <= problem.truth[0]) & (problem.truth[0] <= upper)).all())
    verdict = str(np.ravel(np.array(proof.verdict, dtype=object))[0])
    width = float(np.median((upper - lower) / 2))
    return [row("certify", draw, config.seed, inside and verdict != "infeasible", width, seconds,
                noise=level, verdict=verdict)]  # fmt: skip


def posed(config: Config, index: int, draw: int) -> Problem:
    """A noisy output of a code in the box."""
    seed = (config.seed, draw)
    if config.network == "random":
        generator = random_generator(config.sizes, np.random.default_rng(seed))
    else:
        generator = zoo.load(config.network)
    truth = np.clip(drawn(generator, (*seed, 1)), -config.box, config.box)[None]
    level = config.levels[index]
    error = noise_of("uniform", level, generator.observation_size, (*seed, 2 + index))
    return Problem(Question(generator, generator(truth) + error, level), truth)


def draw(config: Config, table: Table) -> Figure:
    """Half-widths on the left, shares of the verdicts on the right."""
    figure, (left, right) = panels(2, width=8.5, height=4.0)
    noise = table.values("noise")
    left.plot(noise, table.values("error"), ".", color="#000000", alpha=0.4)
    left.plot(*medians(table, "noise", "error"), color="#000000", marker="P")
    left.set(xscale="log", yscale="log", xlabel="noise level a (uniform)",
             ylabel="median half-width of the box")  # fmt: skip
    levels = np.unique(noise)
    bottom = np.zeros(len(levels))
    for verdict, colour in VERDICTS.items():
        share = np.array([
            np.mean([r["verdict"] == verdict for r in table.where(noise=float(a)).rows])
            for a in levels
        ])  # fmt: skip
        right.bar(range(len(levels)), share, bottom=bottom, color=colour, label=verdict)
        bottom += share
    right.set_xticks(range(len(levels)), [f"{a:g}" for a in levels])
    right.set(xlabel="noise level a (uniform)", ylabel="share of verdicts", ylim=(0, 1))
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


EXPERIMENTS = {
    "certified": Experiment(
        {
            "tiny": Config(draws=2, levels=(1e-4, 1e-1), network="random", sizes=(3, 12, 40)),
            "quick": Config(draws=2, levels=(1e-5, 1e-4, 1e-3, 1e-2), time_limit=5.0),
            "paper": Config(draws=50, levels=(1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
                            time_limit=60.0),
        }, jobs, work, draw),
}  # fmt: skip
