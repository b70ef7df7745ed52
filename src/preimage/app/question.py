"""From what a visitor picks, draws or uploads to an observation, and from that to codes.

What is not as expected is an ``InputError``, whose message the page shows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import preimage
from preimage.errors import FormatError, InputError
from preimage.inspection import head_range
from preimage.io.limits import Limits, check_file
from preimage.io.observations import load_observations
from preimage.io.sources import read_picture
from preimage.matrix import Array, Flags
from preimage.network import Network, chain_of
from preimage.pixels import image_shape

# A picture from a phone's camera has some 12 million pixels.
UPLOAD = Limits(file_bytes=32 * 2**20, entries=2**25)
_ARRAYS = (".npy", ".npz", ".safetensors")
# Methods that answer in seconds, best first. Those in _ANY need no known layers.
_METHODS = ("auto", "linf", "exact", "l1", "relaxed", "gauss_newton", "gradient")
_ANY = ("auto", "gauss_newton", "gradient")
_PATIENCE = 10.0  # seconds for a method


class Question(NamedTuple):
    """What is asked: which code made this?"""

    observation: Array  # (n,) with noise
    seen: Flags  # (n,) False where a pixel is hidden
    noise: float  # bound on the largest noise entry

    @property
    def sensing(self) -> Flags | None:
        """The mask, as ``preimage.invert`` takes it; None if nothing is hidden."""
        return None if self.seen.all() else self.seen


class Answer(NamedTuple):
    """What one method found, and how many seconds it took."""

    method: str
    found: preimage.Inversion
    seconds: float


def gray_range(network: Network) -> tuple[float, float]:
    """The outputs that are drawn as black and as white: those of a tanh head, or 0 and 1."""
    codes = np.random.default_rng(0).standard_normal((8, network.latent_size))
    head = head_range(network, network(codes))
    return (-1.0, 1.0) if head == (-1.0, 1.0) else (0.0, 1.0)


def to_gray(network: Network, vector: Array) -> Array:
    """An output on the scale 0..1 that pictures have."""
    low, high = gray_range(network)
    return (vector - low) / (high - low)


def from_gray(network: Network, picture: Array) -> Array:
    """A picture on the scale 0..1 as an output."""
    low, high = gray_range(network)
    return low + (high - low) * picture


def random_code(network: Network, seed: int | None = None) -> Array:
    """(k,) from N(0, I)."""
    return np.random.default_rng(seed).standard_normal(network.latent_size)


def read_upload(path: str | Path, network: Network) -> Array:
    """A picture of any common format, made to fit, or the first sample of an array that fits.

    It is (n,), on the scale of the network's outputs; arrays are taken as they are.
    """
    path = check_file(path, UPLOAD)
    if path.suffix.lower() in _ARRAYS:
        values = load_observations(path, network, limits=UPLOAD)
        if not len(values):
            raise FormatError(f"{path.name}: expected a sample, got none")
        return values[0]
    levels = read_picture(path, UPLOAD, image_shape(network.observation_size))
    return from_gray(network, levels.ravel() / 255)


def ask(network: Network, canvas: Any, noise: Any, seed: int = 0) -> Question:
    """The question that the canvas and the noise slider pose; uniform noise is added.

    The canvas has a ``picture``, n gray levels, and ``hidden``, n numbers, positive where hidden.
    """
    size = network.observation_size
    picture, hidden = numbers(canvas, "picture", size), numbers(canvas, "hidden", size)
    noise = float(numbers({"noise": noise}, "noise"))
    if not 0 <= noise <= 1:
        raise InputError(f"noise: expected a number from 0 to 1, got {noise!r}")
    seen = _some(hidden <= 0)
    error = np.random.default_rng(seed).uniform(-noise, noise, picture.size)
    return Question(from_gray(network, picture) + error, seen, noise)


def again(network: Network, parts: Any) -> Question:
    """The question that comes back with a code that was moved."""
    size = network.observation_size
    values, seen = numbers(parts, "observation", size), _some(numbers(parts, "seen", size) > 0)
    return Question(values, seen, float(numbers(parts, "noise")))


def methods_for(network: Network) -> tuple[str, ...]:
    """The methods that can invert it, best first."""
    return _ANY if chain_of(network) is None else _METHODS


def answer(network: Network, question: Question, method: str) -> Answer:
    """Invert by a method."""
    start = time.perf_counter()
    found = preimage.invert(
        network, question.observation, method, noise=question.noise, time_limit=_PATIENCE,
        sensing=question.sensing,
    )  # fmt: skip
    return Answer(method, found, time.perf_counter() - start)


def move(network: Network, question: Question, parts: Any) -> tuple[Array, float]:
    """The network's output at a code, (n,), and its largest error on what is seen."""
    output = network(numbers(parts, "code", network.latent_size))
    return output, float(np.abs(question.observation - output)[question.seen].max())


def _some(seen: Flags) -> Flags:
    if not seen.any():
        raise InputError("every pixel is hidden: leave some to be seen")
    return seen


def numbers(parts: Any, name: str, *shape: int) -> Array:
    """What came from a browser under a name, as an array of this shape."""
    entries = parts.get(name) if isinstance(parts, Mapping) else None
    try:
        found = np.asarray(entries, dtype=np.float64)
    except (TypeError, ValueError):
        found = np.full(1, np.nan)
    if found.shape != shape or not np.isfinite(found).all():
        raise InputError(f"{name}: expected {math.prod(shape)} finite number(s)")
    return found


def canvas_value(network: Network, vector: Array) -> dict[str, Any]:
    """What the canvas takes: the picture of an output, nothing of it hidden."""
    shape = image_shape(vector.size)
    return {
        "picture": np.round(to_gray(network, vector), 6).tolist(),
        "hidden": [0] * vector.size,
        "colours": math.prod(shape[:-2]),
        "height": shape[-2],
        "width": shape[-1],
    }
