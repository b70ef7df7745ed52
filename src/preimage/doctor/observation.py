"""Mistakes of an observation: its size, scale, layout, or that it is of another network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from preimage.generator import Generator
from preimage.inversion import outputs_of
from preimage.invert import invert
from preimage.matrix import Array
from preimage.methods import GaussNewton
from preimage.network import Network, chain_of
from preimage.pixels import image_shape

_FIT = GaussNewton(restarts=2, flip_rounds=0, steps=25)
_EXPLAINED = 0.2  # unexplained part of an observation below which nothing is wrong with it
_CODES = (0.1, 3.0)  # root mean square of the entries of a plausible code
# Usual mistakes of scale undone.
_SCALES: dict[str, Callable[[Array], Array]] = {
    "it is divided by 255": lambda x: x / 255,
    "it is divided by 65535": lambda x: x / 65535,
    "it is divided by 255 and mapped from 0..1 to -1..1": lambda x: x / 127.5 - 1,
    "it is mapped from 0..1 to -1..1": lambda x: 2 * x - 1,
    "it is mapped from -1..1 to 0..1": lambda x: (x + 1) / 2,
    "it is multiplied by 255": lambda x: 255 * x,
    "MNIST's normalisation (0.1307, 0.3081) is undone": lambda x: 0.3081 * x + 0.1307,
    "it is negated (x to -x)": lambda x: -x,
    "black and white are exchanged (x to 1 - x)": lambda x: 1 - x,
    "black and white are exchanged (x to 255 - x) and it is divided by 255": lambda x: 1 - x / 255,
    "a gamma correction is undone (x to x^2.2)": lambda x: np.maximum(x, 0.0) ** 2.2,
    "it is gamma-corrected (x to x^(1/2.2))": lambda x: np.maximum(x, 0.0) ** (1 / 2.2),
    "a sigmoid is applied to it": expit,
}


@dataclass(frozen=True)
class Finding:
    """One result.

    Attributes:
        topic: ``import``, ``head``, ``codes``, ``size``, ``scale``, ``layout``, ``range``,
            ``method`` or ``time``.
        wrong: Whether something is likely to be a mistake.
        message: What was found, and what to do about it.
    """

    topic: str
    wrong: bool
    message: str


def of_observation(network: Network, samples: Array, outputs: Array) -> Finding:
    """What is wrong with samples, (m, n), of a network whose outputs at random codes are given."""
    wanted, given = network.observation_size, samples.shape[1]
    if given != wanted:
        return Finding("size", True, _size_message(wanted, given))
    if not np.isfinite(samples).all():
        return Finding("size", True, (
            "The observation holds NaN or infinity: hide such entries with a mask (sensing=mask)."
        ))  # fmt: skip
    if (samples.std(axis=1) == 0).any():
        return Finding("scale", True, (
            "An observation is constant: all its entries are equal. Were its bytes divided by 255 "
            "in integers?"
        ))  # fmt: skip
    (own,) = _scores(network, samples, [lambda x: x])
    if own <= _EXPLAINED:
        return Finding("scale", False, (
            f"Scale and layout fit: {_percent(own)} of the contrast is left unexplained."
        ))  # fmt: skip
    changes = _changes(wanted, chain_of(network), outputs)
    scores = _scores(network, samples, [change for _, change in changes.values()])
    name, score = list(changes)[int(np.argmin(scores))], scores.min()
    if score < min(0.5 * own, own - 0.1):
        return Finding(changes[name][0], True, (
            f"The observation fits this network much better where {name}: then "
            f"{_percent(score)} of its contrast is left unexplained."
        ))  # fmt: skip
    if own > 0.9:
        return Finding("range", True, (
            f"{_percent(own)} of the observation's contrast is left unexplained, about as much as "
            "by a constant, and no usual change of scale or layout helps: is it an observation of "
            "this network?"
        ))  # fmt: skip
    return Finding("scale", False, (
        f"Scale and layout fit: {_percent(own)} of the contrast is left unexplained, and no "
        "usual change of them explains much more."
    ))  # fmt: skip


def _percent(share: float) -> str:
    return f"{min(share, 1.0):.0%}" if share > 0.01 else "under 1%"


def _size_message(wanted: int, given: int) -> str:
    text = f"The network makes {wanted} entries, the observation has {given}: "
    shape, seen = image_shape(wanted), image_shape(given)
    if given == 3 * wanted:
        return text + "it is a colour picture; convert it to gray."
    if wanted == 3 * given:
        return text + "it is a gray picture; the network makes colour."
    if given == 4 * wanted or 3 * given == 4 * wanted:
        return text + "it has an alpha channel; remove it."
    if len(shape) == len(seen) and shape[0] != 1 and seen[0] != 1:
        rows, columns = ("×".join(map(str, s[-2:])) for s in (shape, seen))
        return text + f"resize it from {columns} to {rows}, or check that this is its network."
    return text + "check that this is its network."


def _changes(
    size: int, chain: Generator | None, outputs: Array
) -> dict[str, tuple[str, Callable[[Array], Array]]]:
    """Usual mistakes undone, each with its topic."""
    height, width = image_shape(size)[-2:]
    colours = size // (height * width)

    def moved(
        how: Callable[[Array], Array], shape: tuple[int, ...] = (colours, height, width)
    ) -> tuple[str, Callable[[Array], Array]]:
        return "layout", lambda x: how(x.reshape(len(x), *shape)).reshape(len(x), -1)

    found = {words: ("scale", change) for words, change in _SCALES.items()}
    if chain is not None and chain.layers[-1].activation.name == "identity" and outputs.min() < 0:
        found["the missing sigmoid is undone (x to its logit; import the head, too)"] = (
            "head", lambda x: np.log(np.clip(x, 1e-4, 1 - 1e-4) / np.clip(1 - x, 1e-4, 1 - 1e-4))
        )  # fmt: skip
    if height > 1:
        found |= {
            "rows and columns are exchanged": moved(lambda x: x.swapaxes(2, 3)),
            "it is turned upside down": moved(lambda x: x[:, :, ::-1]),
            "left and right are exchanged": moved(lambda x: x[..., ::-1]),
        }
    if height == width > 1:
        found |= {
            "it is turned to the left": moved(lambda x: np.rot90(x, 1, (2, 3))),
            "it is turned to the right": moved(lambda x: np.rot90(x, -1, (2, 3))),
        }
    if colours == 3:
        found |= {
            "channels are moved first (NHWC to NCHW)": moved(
                lambda x: x.transpose(0, 3, 1, 2), (height, width, 3)
            ),
            "channels are moved last (NCHW to NHWC)": moved(lambda x: x.transpose(0, 2, 3, 1)),
            "red and blue are exchanged (BGR to RGB)": moved(lambda x: x[:, ::-1]),
        }
    return found


def _scores(network: Network, samples: Array, changes: list[Callable[[Array], Array]]) -> Array:
    """For each change, how badly the network explains the changed samples; 0 is perfectly.

    The score is the part of a sample's contrast that the best code found leaves unexplained,
    ``||x - G(z)|| / ||x - mean(x)||``, which does not depend on the scale, plus a penalty for
    codes that N(0, I) would hardly draw: networks without biases explain any scale.
    """
    changed = np.concatenate([change(samples) for change in changes])
    found = invert(network, changed, _FIT)
    error = np.linalg.norm(changed - outputs_of(network, found.latent), axis=1)
    contrast = np.linalg.norm(changed - changed.mean(axis=1, keepdims=True), axis=1)
    size = np.maximum(np.sqrt(np.mean(np.square(found.latent), axis=1)), 1e-9)
    unlikely = np.maximum(np.log2(size / _CODES[1]), np.log2(_CODES[0] / size))
    score = error / np.where(contrast > 0, contrast, np.nan) + 0.2 * np.clip(unlikely, 0.0, 5.0)
    score = np.where(np.isfinite(score), score, np.inf)
    return np.asarray(np.median(score.reshape(len(changes), -1), axis=1))
