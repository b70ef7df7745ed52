"""What ``preimage demo`` and ``preimage inspect`` compute, as data; the command shows it.

The demo inverts, by every method, noisy outputs, whose codes are known, and real digits, which
the network never made. The inspection says what to expect before anything is observed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preimage import METHODS, Adam, GradientDescent, Inversion, invert, zoo
from preimage.activation import activation_name
from preimage.generator import Generator

Array = NDArray[np.float64]

NETWORK = "mnist-20-60-784"
NOISE = 0.05  # the level of the noise that is drawn, and what every method is told
SAMPLES = 6
DRAWS = 1000
RANK_DRAWS = 10  # a Jacobian is larger than an output

# Rate and steps of gradient descent are the paper's for MNIST (section 5.2).
DEMO_METHODS = {
    **METHODS,
    "gradient": GradientDescent(rate=1e-3, steps=10_000),
    "adam": Adam(restarts=10),
}


@dataclass(frozen=True, eq=False)
class Task:
    """Observations to invert, and what is known about them.

    Attributes:
        title: One line for the reader.
        observation: (m, n).
        latent: (m, k) true codes; None if there are none.
    """

    title: str
    observation: Array
    latent: Array | None = None


@dataclass(frozen=True)
class Score:
    """One row of a demo table; NaN where unknown. The ground truth has a row of its own.

    Attributes:
        method: Name.
        error_median: Of ``||z - z*||_2 / ||z*||_2``, over the samples that have a code.
        error_worst: The largest of the same.
        residual_median: Of ``||x - G(z)||_2``.
        residual_worst: The largest of the same.
        failures: Samples without a code.
        milliseconds: Per sample.
    """

    method: str
    error_median: float
    error_worst: float
    residual_median: float
    residual_worst: float
    failures: int
    milliseconds: float


def draw_codes(generator: Generator, count: int, seed: int) -> Array:
    """Draw codes from N(0, I) that the generator can give away.

    Each code leaves as many hidden units active as it has entries, in every hidden layer: with
    fewer, no method could know the code.

    Returns:
        (count, latent_size).
    """
    rng = np.random.default_rng(seed)
    codes = np.empty((0, generator.latent_size))
    while len(codes) < count:
        drawn = rng.standard_normal((count, generator.latent_size))
        hidden = generator.preactivations(drawn)[:-1]
        active = np.min([(a > 0).sum(axis=1) for a in hidden], axis=0)
        codes = np.concatenate([codes, drawn[active >= generator.latent_size]])
    return codes[:count]


def tasks(generator: Generator, count: int = SAMPLES, seed: int = 0) -> tuple[Task, Task]:
    """Noisy outputs of the generator, and real digits: the first test image of each class."""
    latent = draw_codes(generator, count, seed)
    error = np.random.default_rng(seed + 1).uniform(-NOISE, NOISE, (count, 784))
    images, labels = zoo.digits()
    first = [int(np.flatnonzero(labels == digit)[0]) for digit in range(10)][:count]
    return (
        Task("noisy outputs of the network", generator(latent) + error, latent),
        Task("real MNIST test digits", images[first]),
    )


def run(generator: Generator, task: Task) -> Iterator[tuple[str, Inversion, float]]:
    """Invert a task by every method; yields name, inversion, seconds."""
    for name, method in DEMO_METHODS.items():
        start = time.perf_counter()
        inversion = invert(generator, task.observation, method, noise=NOISE)
        yield name, inversion, time.perf_counter() - start


def score(task: Task, method: str, inversion: Inversion, seconds: float) -> Score:
    """Sum up one method's work on one task."""
    error = np.full(len(inversion), np.nan)
    if task.latent is not None:
        distance = np.linalg.norm(inversion.latent - task.latent, axis=1)
        error = distance / np.linalg.norm(task.latent, axis=1)
    return Score(
        method,
        *_median_and_worst(error),
        *_median_and_worst(inversion.residual),
        failures=sum(not status.has_latent for status in inversion.status),
        milliseconds=1e3 * seconds / len(inversion),
    )


def truth_score(generator: Generator, task: Task) -> Score:
    """The row of the true codes: the residual that the noise alone makes."""
    assert task.latent is not None
    residual = np.linalg.norm(task.observation - generator(task.latent), axis=1)
    return Score("ground truth", 0.0, 0.0, *_median_and_worst(residual), 0, float("nan"))


def _median_and_worst(values: Array) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    return (float(np.median(known)), float(known.max())) if len(known) else (np.nan, np.nan)


def picture_rows(
    generator: Generator, task: Task, inversions: Mapping[str, Inversion]
) -> dict[str, Array]:
    """Observation, ground truth (blank where there is none), each method's reconstruction."""
    blank = np.full_like(task.observation, np.nan)
    rows = {"observation": task.observation}
    rows["ground truth"] = blank if task.latent is None else generator(task.latent)
    for name, inversion in inversions.items():
        rows[name] = reconstruct(generator, inversion)
    return rows


def reconstruct(generator: Generator, inversion: Inversion) -> Array:
    """``G(latent)``, NaN where there is no latent."""
    found = np.isfinite(inversion.latent).all(axis=1)
    images = np.full((len(inversion), generator.observation_size), np.nan)
    images[found] = generator(inversion.latent[found])
    return images


@dataclass(frozen=True)
class LayerFacts:
    """One layer; *active rows* are the outputs that pin their pre-activation down."""

    index: int
    inputs: int
    outputs: int
    expansion: float
    parameters: int
    activation: str
    active_median: float
    active_worst: int


@dataclass(frozen=True)
class MethodFacts:
    """Whether a method can work: ``yes``, ``mostly``, ``maybe`` or ``no``, and one sentence."""

    method: str
    verdict: str
    reason: str


@dataclass(frozen=True)
class Inspection:
    """Layers first to last, the least rank of the Jacobian seen, and a verdict a method."""

    layers: tuple[LayerFacts, ...]
    active_note: str
    rank_note: str
    methods: tuple[MethodFacts, ...]


def inspect_generator(generator: Generator, seed: int = 0) -> Inspection:
    """Draw codes from N(0, I) and count, layer by layer, what an inversion would know."""
    latent = np.random.default_rng(seed).standard_normal((DRAWS, generator.latent_size))
    layers = []
    for index, (layer, a) in enumerate(
        zip(generator.layers, generator.preactivations(latent), strict=True)
    ):
        known = np.isfinite(layer.activation.inverse(layer.activation(a))).sum(axis=1)
        weights = layer.weight.nnz if layer.is_sparse else layer.weight.size
        layers.append(
            LayerFacts(
                index, layer.input_size, layer.output_size,
                layer.output_size / max(layer.input_size, 1),
                int(weights) + int(np.count_nonzero(layer.bias)),
                activation_name(layer.activation), float(np.median(known)), int(known.min()),
            )
        )  # fmt: skip
    ranks = [
        int(np.linalg.matrix_rank(generator.jacobian(z))) if z.size else 0
        for z in latent[:RANK_DRAWS]
    ]
    k = generator.latent_size
    return Inspection(
        tuple(layers),
        f"Active rows: outputs that determine their pre-activation, over {DRAWS} draws of "
        "z ~ N(0, I); a layer\nneeds as many as it has inputs, and fewer where its inputs are "
        "ReLU outputs, whose zeros help.\n"
        "Under noise, rows whose output is within the noise do not count.",
        f"Rank of the whole Jacobian: {min(ranks)} to {max(ranks)} of {k} over {RANK_DRAWS} draws.",
        _judge_methods(layers, float(np.median(ranks)) >= k),
    )


def _judge_methods(layers: list[LayerFacts], full_rank: bool) -> tuple[MethodFacts, ...]:
    short = [facts.index for facts in layers if facts.active_median < facts.inputs]
    tight = [facts.index for facts in layers if facts.active_worst < facts.inputs]
    if short:
        layerwise, because = "maybe", f"layer {short[0]} has too few active rows in most draws"
    elif tight:
        layerwise, because = "mostly", f"layer {tight[0]} has too few active rows in some draws"
    else:
        layerwise, because = "yes", "every layer has enough active rows in every draw"
    joint = "maybe" if full_rank else "no"
    rank = "the Jacobian has full rank" if full_rank else "the Jacobian lacks rank in most draws"
    return (
        MethodFacts("exact", layerwise, f"Without noise only: {because}."),
        MethodFacts("linf", layerwise, f"Noise with a known bound: {because}."),
        MethodFacts("l1", layerwise, f"Noise in few entries: {because}."),
        MethodFacts("relaxed", layerwise, f"When signs are uncertain; less accurate: {because}."),
        MethodFacts("gauss_newton", joint, f"All layers at once, may end elsewhere: {rank}."),
        MethodFacts("gradient", joint, f"Needs a rate that fits, may end elsewhere: {rank}."),
        MethodFacts("adam", joint, f"Restarts, no guarantee, no expansion needed: {rank}."),
    )
