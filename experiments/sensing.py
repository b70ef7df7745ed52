"""Error against the number of Gaussian measurements, beside Bora et al. and the Lasso.

Two kinds of images: those that the network makes, and real digits, which it never made. Needs
scikit-learn (extra ``experiments``) for the Lasso.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from scipy.fft import dctn, idctn
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LassoCV

from experiments.experiment import Experiment, Job
from experiments.problems import TRAINED, Array, Problem, Question, drawn, inverted, row
from experiments.style import curve, dots, legend, panels
from experiments.table import Row, Table, medians
from preimage import Adam, Auto, Generator, zoo

METHODS = {"auto": Auto(), "adam": Adam(restarts=10, steps=500)}
FOLDS, PENALTIES = 10, 30  # of the cross-validation that chooses the Lasso's penalty
SUCCESS = 1e-2  # largest relative error of the image


@dataclass(frozen=True)
class Config:
    """Sizes, draws, seed, methods; ``noise`` is the deviation of the noise of a measurement."""

    draws: int
    measurements: tuple[int, ...]
    noise: float = 1e-3
    network: str = TRAINED
    images: tuple[str, ...] = ("range", "digits")
    methods: tuple[str, ...] = ("auto", "adam", "lasso pixels", "lasso DCT")
    seed: int = 7


def jobs(config: Config) -> Iterator[Job]:
    """All draws of one method at one number of measurements."""
    for kind in config.images:
        for m in config.measurements:
            for name in config.methods:
                yield kind, m, name


def work(config: Config, job: Job) -> list[Row]:
    """Recover images from their measurements."""
    kind, m, name = job
    problem = posed(config, kind, m)
    question = problem.question
    if name in METHODS:
        inversion, seconds = inverted(question, METHODS[name])
        found = question.generator(np.nan_to_num(inversion.latent))
    else:
        found, seconds = lasso(question.sensing, question.observation, name.endswith("DCT"))
    return [row(name, i, config.seed, e <= SUCCESS, e, seconds, m=m, images=kind)
            for i, e in enumerate(problem.errors(found))]  # fmt: skip


def posed(config: Config, kind: str, m: int) -> Problem:
    """Images, all measured by one matrix with entries N(0, 1/m)."""
    generator = zoo.load(config.network)
    images = images_of(config, generator, kind)
    rng = np.random.default_rng((config.seed, m))
    matrix = rng.standard_normal((m, images.shape[1])) / np.sqrt(m)
    measured = images @ matrix.T + config.noise * rng.standard_normal((len(images), m))
    return Problem(Question(generator, measured, config.noise, matrix), images)


def images_of(config: Config, generator: Generator, kind: str) -> Array:
    """Outputs of the network, or real digits."""
    if kind == "digits":
        return zoo.digits()[0][: config.draws]
    codes = [drawn(generator, (config.seed, i)) for i in range(config.draws)]
    return generator(np.array(codes))


def lasso(matrix: Array, measured: Array, cosines: bool) -> tuple[Array, float]:
    """Images that are sparse in pixels, or in the discrete cosine transform.

    Each image has the penalty that predicts measurements best that were left out.
    """
    side = round(matrix.shape[1] ** 0.5)
    design = matrix
    if cosines:
        # The transform is orthogonal: A x = (A C^T)(C x), with each row of A transformed.
        design = dctn(matrix.reshape(-1, side, side), axes=(1, 2), norm="ortho")
        design = design.reshape(matrix.shape)
    start = time.perf_counter()
    model = LassoCV(alphas=PENALTIES, eps=1e-4, cv=min(FOLDS, len(matrix)), max_iter=2000,
                    tol=1e-3, fit_intercept=False)  # fmt: skip
    with warnings.catch_warnings():
        # The smallest of the penalties may not converge, and are not chosen then.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = np.array([model.fit(design, y).coef_ for y in measured])
    seconds = (time.perf_counter() - start) / len(measured)
    if cosines:
        spread = idctn(found.reshape(-1, side, side), axes=(1, 2), norm="ortho")
        found = spread.reshape(found.shape)
    return found, seconds


def draw(config: Config, table: Table) -> Figure:
    """One panel a kind of images."""
    figure, axes = panels(len(config.images), width=8.5, height=4.2)
    titles = {"range": "images that the network makes", "digits": "real test digits"}
    for panel, kind in zip(axes, config.images, strict=True):
        for name in config.methods:
            part = table.where(method=name, images=kind)
            dots(panel, name, part.values("m"), part.values("error"))
            curve(panel, name, *medians(part, "m", "error"))
        panel.set(xscale="log", yscale="log", xlabel="Gaussian measurements m",
                  ylabel="relative error of the image")  # fmt: skip
        panel.set_title(titles[kind], fontsize=10)
    legend(axes[0])
    return figure


_ALL = (10, 15, 20, 25, 30, 40, 50, 75, 100, 150, 200, 300, 400)
EXPERIMENTS = {
    "sensing": Experiment(
        {
            "tiny": Config(draws=3, measurements=(10, 100), images=("range",),
                           methods=("auto", "lasso DCT")),
            "quick": Config(draws=8, measurements=(10, 20, 30, 50, 100, 200, 400)),
            "paper": Config(draws=50, measurements=_ALL),
        }, jobs, work, draw),
}  # fmt: skip
