"""Small jobs with known answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from planted import gaussian_generator

import preimage


def problem(samples: int = 40, seed: int = 0) -> tuple[preimage.Generator, np.ndarray, np.ndarray]:
    """A network of 3-12-20, outputs of it, and their codes."""
    rng = np.random.default_rng(seed)
    generator = gaussian_generator((3, 12, 20), rng, bias=True)
    latent = rng.standard_normal((samples, 3))
    return generator, generator(latent), latent


def content(store: Path) -> dict[str, bytes]:
    """Every file of a store but the lock, by name."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file() and path.name != "lock"
    }
