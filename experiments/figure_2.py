"""Figure 2: success rate against the number of latent entries, noiseless k-250-600."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from experiments.experiment import Experiment, Job
from experiments.problems import Problem, Question, inverted, random_generator, row
from experiments.style import curve, legend, panels
from experiments.table import Row, Table, means
from preimage import Auto, GradientDescent, LayerwiseLP

METHODS = {
    "linf": LayerwiseLP("linf"),
    "l1": LayerwiseLP("l1", patience=0),  # as in the paper
    "gradient": GradientDescent(rate=1.0, steps=1000),
    "auto": Auto(),
}
SUCCESS = 1e-3  # largest relative error, as in the paper
BAND = 0.99
_PAPER = (*range(10, 100, 10), *range(100, 131, 2), *range(140, 251, 10))
_QUICK = (10, 40, 70, 100, 109, 115, 120, 125, 130, 140)


@dataclass(frozen=True)
class Config:
    """Sizes, draws, seed, methods; gradient descent gets the first ``slow_draws`` draws only."""

    draws: int
    slow_draws: int
    widths: tuple[int, ...]
    activation: str = "relu"
    hidden: tuple[int, ...] = (250, 600)
    methods: tuple[str, ...] = ("linf", "l1", "gradient", "auto")
    seed: int = 2

    def draws_of(self, method: str) -> int:
        """How many draws a method gets."""
        return min(self.slow_draws, self.draws) if method == "gradient" else self.draws


def limit(k: np.ndarray, rows: int) -> np.ndarray:
    """P(at least k of ``rows`` units of the first layer are active), each with probability 1/2."""
    found: np.ndarray = stats.binom.sf(k - 1, rows, 0.5)
    return found


def band(k: np.ndarray, rows: int, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Between what success rates ``draws`` draws at the limit lie in 99 of 100 cases."""
    tail = (1 - BAND) / 2
    chance = limit(k, rows)
    return tuple(stats.binom.ppf(q, draws, chance) / draws for q in (tail, 1 - tail))


def jobs(config: Config) -> Iterator[Job]:
    """One network each."""
    yield from ((k, draw) for k in config.widths for draw in range(config.draws))


def work(config: Config, job: Job) -> list[Row]:
    """Invert by every method."""
    k, draw = job
    problem, rows = posed(config, k, draw), []
    for name in config.methods:
        if draw < config.draws_of(name):
            inversion, seconds = inverted(problem.question, METHODS[name])
            (error,) = problem.errors(inversion.latent)
            rows.append(row(name, draw, config.seed, error <= SUCCESS, error, seconds, k=k))
    return rows


def posed(config: Config, k: int, draw: int) -> Problem:
    """A network and one output of it, without noise."""
    rng = np.random.default_rng((config.seed, k, draw))
    generator = random_generator((k, *config.hidden), rng, config.activation)
    truth = rng.standard_normal((1, k))
    return Problem(Question(generator, generator(truth)), truth)


def draw(config: Config, table: Table) -> Figure:
    """Success rates; for ReLU the limit with its band."""
    figure, (axes,) = panels()
    if config.activation == "relu":
        k = np.arange(min(config.widths), max(config.widths) + 1)
        low, high = band(k, config.hidden[0], config.draws)
        axes.fill_between(k, low, high, color="#808080", alpha=0.2, linewidth=0,
                          label=f"{BAND:.0%} band of {config.draws} draws")  # fmt: skip
        curve(axes, "limit", k, limit(k, config.hidden[0]), note=": P(≥ k active in layer 1)")
    for name in config.methods:
        curve(axes, name, *means(table.where(method=name), "k", "success"))
    axes.set(xlabel="latent entries k", ylabel="success rate (relative error ≤ 1e-3)")
    axes.set_ylim(-0.04, 1.04)
    hidden = "-".join(map(str, config.hidden))
    word = "ReLU" if config.activation == "relu" else "LeakyReLU(0.1)"
    draws = f"{config.draws} draws a width (gradient descent: {config.draws_of('gradient')})"
    axes.set_title(f"k-{hidden}, {word}, noiseless, {draws}", fontsize=10)
    legend(axes)
    return figure


_TINY = {"hidden": (30, 72), "draws": 10, "slow_draws": 10, "methods": ("linf", "gradient", "auto")}
EXPERIMENTS = {
    "figure-2a": Experiment(
        {
            "tiny": Config(widths=(4, 8, 12, 15, 18), **_TINY),  # type: ignore[arg-type]
            "quick": Config(draws=30, slow_draws=6, widths=_QUICK),
            "paper": Config(draws=200, slow_draws=200, widths=_PAPER),
        }, jobs, work, draw),
    "figure-2b": Experiment(
        {
            "tiny": Config(widths=(8, 30), activation="leaky_relu(0.1)", **_TINY),  # type: ignore[arg-type]
            "quick": Config(draws=5, slow_draws=3, widths=(10, 50, 100, 150, 200, 250),
                            activation="leaky_relu(0.1)"),
            "paper": Config(draws=200, slow_draws=200, widths=_PAPER,
                            activation="leaky_relu(0.1)"),
        }, jobs, work, draw),
}  # fmt: skip
