"""Where the layer-wise programs lose a code: equations, wrong equations and error of each layer.

The layers are inverted one by one, as ``LayerwiseLP`` does, so that each has a row: how many
equations it took, how many of these belong to units that are not active, their rank, and the
error of the input that was found. ``l1`` is Algorithm 2, which stops at the first tolerance that
does not help; ``l1 patient`` is the library's default.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.figure import Figure

from experiments.experiment import Experiment, Job
from experiments.problems import (
    TRAINED,
    Array,
    Problem,
    Question,
    drawn,
    inverted,
    noise_of,
    random_generator,
    row,
)
from experiments.style import legend, panels
from experiments.table import Row, Table, medians
from preimage import Generator, LayerwiseLP, zoo

METHODS = {
    "linf": LayerwiseLP("linf"),
    "l1": LayerwiseLP("l1", patience=0),
    "l1 patient": LayerwiseLP("l1"),
}
# The noise of the figure that each is to explain: 3, and 1c.
NOISE = {"linf": "gaussian", "l1": "uniform", "l1 patient": "uniform"}
FAILURE = 0.1  # a relative latent error above this and above 10 times the noise is a failure
_COLOURS = ("#0072B2", "#56B4E9", "#D55E00", "#E69F00")


@dataclass(frozen=True)
class Config:
    """Networks (names of the zoo, or ``random`` and sizes), noise levels, draws, methods."""

    draws: int
    levels: tuple[float, ...]
    networks: tuple[str, ...] = (
        TRAINED, "mnist-20-60-784-vae", "random-20-60-784", "random-20-100-500",
    )  # fmt: skip
    methods: tuple[str, ...] = ("linf", "l1", "l1 patient")
    seed: int = 11


def network_of(config: Config, name: str) -> Generator:
    """Of the zoo, or with random weights."""
    if not name.startswith("random-"):
        return zoo.load(name)
    sizes = tuple(map(int, name.split("-")[1:]))
    return random_generator(sizes, np.random.default_rng(config.seed))


def jobs(config: Config) -> Iterator[Job]:
    """All draws of one network at one level, by one method."""
    for name in config.networks:
        for level in range(len(config.levels)):
            yield from ((name, level, method) for method in config.methods)


def posed(config: Config, name: str, level: int, kind: str) -> Problem:
    """Noisy outputs of a network."""
    generator = network_of(config, name)
    truth = np.array([drawn(generator, (config.seed, i, 1)) for i in range(config.draws)])
    noise, size = config.levels[level], generator.observation_size
    error = np.array([noise_of(kind, noise, size, (config.seed, i, 2 + level))
                      for i in range(config.draws)])  # fmt: skip
    return Problem(Question(generator, generator(truth) + error, noise), truth)


def work(config: Config, job: Job) -> list[Row]:
    """One row a draw and layer."""
    name, level, method = job
    problem = posed(config, name, level, NOISE[method])
    generator, rows = problem.question.generator, []
    preactivations = generator.preactivations(problem.truth)
    inputs = [problem.truth]
    for layer in generator.layers[:-1]:
        inputs.append(layer(inputs[-1]))
    for index, (found, eps, target, seconds) in inverted_layers(problem.question, method):
        layer = generator.layers[index]
        active = preactivations[index] > 0
        equations = target > eps[:, None]
        errors = Problem(problem.question, inputs[index]).errors(found)
        for i in range(config.draws):
            weight = layer.dense_weight
            rows.append(row(
                method, i, config.seed, errors[i] <= max(FAILURE, 10 * config.levels[level]),
                errors[i], seconds, noise=config.levels[level], network=name, layer=index,
                inputs=layer.input_size, active=int(active[i].sum()),
                equations=int(equations[i].sum()), wrong=int((equations & ~active)[i].sum()),
                rank=_rank(weight[equations[i]]), condition=_condition(weight[active[i]]),
                tolerance=float(eps[i]),
            ))  # fmt: skip
    return rows


def inverted_layers(
    question: Question, name: str
) -> Iterator[tuple[int, tuple[Array, Array, Array, float]]]:
    """From the last layer to the first: its index; input, tolerance, target and seconds."""
    x, eps = question.observation, np.full(len(question.observation), question.noise)
    for index, layer in reversed(list(enumerate(question.generator.layers))):
        # A hidden layer's input is the output of a ReLU.
        method = replace(METHODS[name], box=None if index == 0 else (0.0, np.inf))
        inversion, seconds = inverted(Question(Generator((layer,)), x, eps), method)
        reached = inversion.layers[0].tolerance
        yield index, (inversion.latent, reached, x, seconds)
        x, eps = inversion.latent, reached


def _rank(rows: Array) -> int:
    return int(np.linalg.matrix_rank(rows)) if len(rows) else 0


def _condition(rows: Array) -> float:
    values = np.linalg.svd(rows, compute_uv=False)
    return float(values[0] / values[-1]) if len(rows) >= rows.shape[1] else float("inf")


def draw(config: Config, table: Table) -> Figure:
    """Rank of the last layer's equations, l-infinity errors, l1 errors."""
    figure, axes = panels(3, width=9.5, height=4.4)
    for name, colour in zip(config.networks, _COLOURS, strict=False):
        here = table.where(network=name)
        look = {"color": colour, "marker": "o", "markersize": 4}
        last = here.where(layer=int(here.values("layer").max()), method="linf")
        noise, rank = medians(last, "noise", "rank")
        axes[0].plot(noise, rank / float(last.rows[0]["inputs"]), label=name, **look)
        axes[1].plot(*medians(here.where(layer=0, method="linf"), "noise", "error"), **look)
        axes[2].plot(*_worst(here.where(layer=0, method="l1")), **look)
        axes[2].plot(*_worst(here.where(layer=0, method="l1 patient")), **look, linestyle=":")
    titles = (
        "l∞: equations of the last layer",
        "l∞: median error",
        "l1: 90 % quantile (dotted: patient)",
    )
    labels = (
        "rank / inputs",
        "relative latent error",
        "relative latent error",
    )
    words = ("Gaussian, deviation a", "Gaussian, deviation a", "uniform on (−a, a)")
    for panel, title, label, word in zip(axes, titles, labels, words, strict=True):
        panel.set(xscale="log", xlabel=f"noise a ({word})", ylabel=label)
        panel.set_title(title, fontsize=10)
    for panel in axes[1:]:
        panel.set_yscale("log")
    legend(axes[0])
    return figure


def _worst(table: Table) -> tuple[Array, Array]:
    noise = np.unique(table.values("noise"))
    return noise, np.array([
        np.quantile(table.where(noise=float(a)).values("error"), 0.9) for a in noise
    ])  # fmt: skip


EXPERIMENTS = {
    "layer-errors": Experiment(
        {
            "tiny": Config(draws=10, levels=(1e-4, 0.55), networks=(TRAINED, "random-20-100-500")),
            "quick": Config(draws=30, levels=(1e-6, 1e-4, 1e-2, 0.03, 0.1, 0.3, 0.55)),
            "paper": Config(draws=200, levels=(1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 0.55)),
        }, jobs, work, draw),
}  # fmt: skip
