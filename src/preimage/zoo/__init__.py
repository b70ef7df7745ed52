"""Small trained networks that ship with the package, each with a card of where it comes from.

>>> from preimage import zoo
>>> zoo.load("mnist-20-60-784")
Generator(20 -> 60 -> 784; relu)
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from preimage.errors import FormatError, InputError
from preimage.generator import Generator
from preimage.io import load as _load_file
from preimage.io.observations import load_observations, read_idx
from preimage.matrix import Array, Integers, digest_of

__all__ = ["Card", "card", "digits", "load", "names"]

_DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Card:
    """Where a network comes from and what it is worth.

    Attributes:
        name: What ``load`` takes.
        file: Name of the file with the weights.
        sha256: Of that file.
        sizes: Latent size, then the output size of each layer.
        activation: Activations, biases and convolutions, in words.
        data: What it was trained on.
        command: Trains it again.
        seed: Of the training.
        seconds: That the training took, on one core.
        quality: Measures of the samples, each with its meaning; see ``training.quality``.
        license: Of the weights.
    """

    name: str
    file: str
    sha256: str
    sizes: tuple[int, ...]
    activation: str
    data: str
    command: str
    seed: int
    seconds: float
    quality: dict[str, Any]
    license: str


def names() -> tuple[str, ...]:
    """Names of the networks, in alphabetical order."""
    return tuple(sorted(path.stem for path in _DATA.glob("*.json")))


def card(name: str) -> Card:
    """Return the card of a network.

    Raises:
        InputError: There is no such network.
    """
    if name not in names():
        raise InputError(f"name: expected one of {', '.join(names())}, got {name!r}")
    fields = json.loads((_DATA / f"{name}.json").read_text(encoding="utf-8"))
    return Card(**{**fields, "sizes": tuple(fields["sizes"])})


def load(name: str) -> Generator:
    """Load a network.

    Raises:
        InputError: There is no such network.
        FormatError: Its file is not the one that the card describes.
    """
    described = card(name)
    path = _DATA / described.file
    sha256 = digest_of(path.read_bytes())
    if sha256 != described.sha256:
        raise FormatError(
            f"{path}: expected SHA-256 {described.sha256} as on the card, got {sha256}; "
            "reinstall preimage"
        )
    return cast(Generator, _load_file(path))


def digits() -> tuple[Array, Integers]:
    """Return 100 MNIST test digits: the first ten of each class, class by class.

    MNIST is by Yann LeCun and Corinna Cortes, licensed under CC BY-SA 3.0.

    Returns:
        Images (100, 784) in [0, 1], labels (100,).
    """
    images = load_observations(_DATA / "mnist-test-100-images-idx3-ubyte")
    return images, read_idx(_DATA / "mnist-test-100-labels-idx1-ubyte").astype(np.int64)
