"""Problems with known answers."""

from __future__ import annotations

import itertools

import numpy as np

from preimage import Generator, Layer, from_arrays
from preimage.layer_program import LayerProgram, layer_program
from preimage.observation import Observation


def gaussian_generator(
    sizes: tuple[int, ...],
    rng: np.random.Generator,
    activation: object = "relu",
    *,
    bias: bool = False,
    head: object = None,
) -> Generator:
    """Weights N(0, 1/n_i) as in the paper; biases N(0, 0.01) if asked for."""
    pairs = list(itertools.pairwise(sizes))
    weights = [rng.normal(size=(n, k)) / np.sqrt(n) for k, n in pairs]
    biases = [0.1 * rng.normal(size=n) for _, n in pairs] if bias else None
    return from_arrays(weights, biases, activation, head)


def relative_error(latent: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """``||z - z*|| / ||z*||`` a sample."""
    return np.linalg.norm(latent - truth, axis=-1) / np.linalg.norm(truth, axis=-1)


def program_of(
    layer: Layer, x: np.ndarray, eps: np.ndarray, norm: str, domain: tuple[float, float]
) -> LayerProgram:
    """The program of one layer for all of its outputs ``x``."""
    return layer_program(layer, Observation(x, eps), eps, norm, domain)
