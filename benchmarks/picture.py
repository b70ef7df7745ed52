"""The picture on top of the README: ``python benchmarks/picture.py`` draws docs/inversion.png.

Outputs of a trained network with uniform noise and a square unseen; what gradient descent finds
with the paper's settings for such networks; what ``auto`` finds. The codes are the first that are
drawn, and no sample is left out. Prints the error of each.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import preimage
from preimage.plot import image_grid

COUNT, NOISE, SQUARE = 8, 0.05, slice(8, 20)
OUT = Path(__file__).parent.parent / "docs" / "inversion.png"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    out = parser.parse_args().out
    generator = preimage.zoo.load("mnist-20-60-784")
    rng = np.random.default_rng(0)
    truth = generator(rng.standard_normal((COUNT, generator.latent_size)))
    mask = np.ones((28, 28), dtype=bool)
    mask[SQUARE, SQUARE] = False
    noisy = truth + rng.uniform(-NOISE, NOISE, truth.shape)
    observation = np.where(mask.ravel(), noisy, np.nan)
    methods = {
        "gradient descent": preimage.GradientDescent(rate=1e-3, steps=10_000),
        "preimage": "auto",
    }
    rows = {"observation": observation, "truth": truth}
    for name, method in methods.items():
        found = preimage.invert(generator, observation, method, noise=NOISE, sensing=mask.ravel())
        rows[name] = found.reconstruct(generator)
        error = np.linalg.norm(rows[name] - truth, axis=1) / np.linalg.norm(truth, axis=1)
        print(f"{name}: relative errors of the image {', '.join(f'{e:.3f}' for e in error)}")
    image_grid(rows).savefig(out, dpi=150)


if __name__ == "__main__":
    main()
