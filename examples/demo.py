"""Every method on noisy outputs, whose codes are known, and on real digits: ``make demo``.

``python examples/demo.py [--network NAME] [--out FOLDER] [--json]`` prints the tables and draws
``demo.png``, with what is proven of two outputs beside the pictures.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # small products are slower on several threads

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from preimage import (
    METHODS,
    Adam,
    Certificate,
    Generator,
    GradientDescent,
    Inversion,
    Status,
    certify,
    from_arrays,
    invert,
    zoo,
)
from preimage.plot import draw_intervals, image_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

NETWORK = "mnist-20-60-784"
NOISE = 0.05  # the level of the noise that is drawn, and what every method is told
SAMPLES = 6
PROVEN = 2  # outputs that are certified,
PROVEN_NOISE = 0.002  # with this much noise,
BOX = 5.0  # for codes with |z_i| <= BOX
LIMIT = 2.5  # seconds for a method on one table, and for a certificate

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
        stopped: Whether ``LIMIT`` ended it; the codes are the best found until then.
    """

    method: str
    error_median: float
    error_worst: float
    residual_median: float
    residual_worst: float
    failures: int
    milliseconds: float
    stopped: bool = False


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


def load_libraries() -> None:
    """Let every method invert an output of a tiny network, so that no time counts loading."""
    tiny = from_arrays([np.random.default_rng(0).standard_normal((8, 2)), np.eye(8)])
    for method in DEMO_METHODS.values():
        invert(tiny, tiny(np.ones((1, 2))), method, noise=NOISE, time_limit=0.1)


def run(generator: Generator, task: Task) -> Iterator[tuple[str, Inversion, float]]:
    """Invert a task by every method; yields name, inversion, seconds."""
    for name, method in DEMO_METHODS.items():
        start = time.perf_counter()
        inversion = invert(generator, task.observation, method, noise=NOISE, time_limit=LIMIT)
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
        stopped=bool(np.any(inversion.status == Status.TIME_LIMIT)) or seconds > LIMIT,
    )


def truth_score(generator: Generator, task: Task) -> Score:
    """The row of the true codes: the residual that the noise alone makes."""
    assert task.latent is not None
    residual = np.linalg.norm(task.observation - generator(task.latent), axis=1)
    return Score("ground truth", 0.0, 0.0, *_median_and_worst(residual), 0, float("nan"))


def _median_and_worst(values: Array) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    return (float(np.median(known)), float(known.max())) if len(known) else (np.nan, np.nan)


def proofs(generator: Generator, task: Task) -> Certificate:
    """What is proven of the first outputs, with less noise than the methods have to stand."""
    assert task.latent is not None
    clean = generator(task.latent[:PROVEN])
    error = np.random.default_rng(2).uniform(-PROVEN_NOISE, PROVEN_NOISE, clean.shape)
    return certify(generator, clean + error, noise=PROVEN_NOISE, box=BOX, time_limit=LIMIT)


def draw(pictures: Sequence[Mapping[str, Array]], titles: Sequence[str], proven: Certificate,
         truth: Array) -> Figure:  # fmt: skip
    """The rows of both tasks side by side, and the intervals of the certified outputs."""
    left, right = pictures
    count, entries = left["observation"].shape
    gap = np.full((1, entries), np.nan)
    rows = {label: np.concatenate([left[label], gap, right[label]]) for label in left}
    figure = image_grid(rows, columns=[titles[0], *[""] * count, titles[1]])
    old, tall = figure.get_size_inches()
    wide = old + 4.8
    for axes in figure.axes:
        x, y, w, h = axes.get_position().bounds
        axes.set_position((x * old / wide, y, w * old / wide, h))
    figure.set_size_inches(wide, tall)
    for i in range(len(proven)):
        place = ((old + 0.75) / wide, 0.58 - 0.48 * i, 3.9 / wide, 0.34)
        axes = figure.add_axes(place)
        centre = proven.witness[i]  # a code that explains the output, checked exactly
        ends = proven.lower[i] - centre, proven.upper[i] - centre
        draw_intervals(axes, *ends, {"true code": truth[i] - centre})
        axes.set_ylabel("distance from the witness", fontsize=9)
        axes.set_title(f"output {i}, noise {PROVEN_NOISE:g}: {_sentence(proven, i)}", fontsize=9)
    return figure


def _sentence(proven: Certificate, i: int) -> str:
    distance = f"{proven.distance[i]:.2g}"
    return {
        "unique": f"unique, every code within {distance}",
        "ambiguous": f"ambiguous, two codes {distance} apart",
        "infeasible": "no code",
        "undecided": "undecided",
    }[proven.verdict[i]]


def picture_rows(
    generator: Generator, task: Task, inversions: Mapping[str, Inversion]
) -> dict[str, Array]:
    """Observation, ground truth (blank where there is none), each method's reconstruction."""
    blank = np.full_like(task.observation, np.nan)
    rows = {"observation": task.observation}
    rows["ground truth"] = blank if task.latent is None else generator(task.latent)
    for name, inversion in inversions.items():
        rows[name] = inversion.reconstruct(generator)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Invert, print the tables, draw the picture."""
    parser = argparse.ArgumentParser(description="Every method on noisy outputs and real digits.")
    parser.add_argument(
        "--network", default=NETWORK, help="of the zoo, for 28 x 28 pixels: mnist-20-400-784-vae"
    )
    parser.add_argument("--out", type=Path, default=Path("demo-output"), help="folder of demo.png")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args(arguments)
    start = time.perf_counter()
    generator = zoo.load(options.network)
    load_libraries()
    both = tasks(generator)
    tables: dict[str, list[Score]] = {}
    pictures = []
    for task in both:
        scores = [] if task.latent is None else [truth_score(generator, task)]
        inversions = {}
        for name, inversion, seconds in run(generator, task):
            inversions[name] = inversion
            scores.append(score(task, name, inversion, seconds))
        tables[task.title] = scores
        pictures.append(picture_rows(generator, task, inversions))
    proven = proofs(generator, both[0])
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "demo.png"
    assert both[0].latent is not None
    draw(pictures, [task.title for task in both], proven, both[0].latent).savefig(path, dpi=120)
    total = time.perf_counter() - start
    if options.json:
        found = {title: [asdict(one) for one in scores] for title, scores in tables.items()}
        content = {
            "network": options.network, "noise": NOISE, "seconds": round(total, 1),
            "tables": found, "verdicts": list(proven.verdict),
        }  # fmt: skip
        sys.stdout.write(json.dumps(content, indent=2).replace("NaN", "null") + "\n")
        return
    for title, scores in tables.items():
        sys.stdout.write(f"{options.network}: {SAMPLES} {title}; noise={NOISE}\n{_table(scores)}\n")
    sys.stdout.write(
        "error: ||z - z*|| / ||z*||; residual: ||x - G(z)||; ms: per sample, without loading; "
        f"*: ended after {LIMIT:g} s with the best codes so far\n\n"
        + "".join(f"Proven of output {i} with noise {PROVEN_NOISE}, |z_i| <= {BOX:g}: "
                  f"{_sentence(proven, i)}\n" for i in range(len(proven)))
        + f"\nAll in {total:.0f} s, loading and drawing included. Picture: {path}\n"
    )  # fmt: skip


def _table(scores: Sequence[Score]) -> str:
    columns = ("method", "error, median", "worst", "residual, median", "worst", "failures", "ms")
    rows = [columns]
    for one in scores:
        method, *numbers, failures, milliseconds, stopped = asdict(one).values()
        words = ["" if np.isnan(n) else f"{n:.3g}" for n in (*numbers, milliseconds)]
        rows.append((method + " *" * stopped, *words[:-1], str(failures), words[-1]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
