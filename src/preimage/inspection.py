"""What to expect of a network before anything is observed: ``preimage inspect``."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from preimage.activation import activation_name
from preimage.generator import Generator

_DRAWS = 1000
_ENTRIES = 2**24  # numbers of all draws and layers together: fewer draws of a large network
_RANK_DRAWS = 10  # a Jacobian is larger than an output


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
    draws = min(max(_ENTRIES // sum(generator.sizes), _RANK_DRAWS), _DRAWS)
    latent = np.random.default_rng(seed).standard_normal((draws, generator.latent_size))
    layers = []
    for index, (layer, a) in enumerate(
        zip(generator.layers, generator.preactivations(latent), strict=True)
    ):
        known = np.isfinite(layer.activation.inverse(layer.activation(a))).sum(axis=1)
        weights = layer.weight.nnz if layer.storage == "csr" else math.prod(layer.weight.shape)
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
        for z in latent[:_RANK_DRAWS]
    ]
    k = generator.latent_size
    return Inspection(
        tuple(layers),
        f"Active rows: outputs that determine their pre-activation, over {draws} draws of "
        "z ~ N(0, I); a layer\nneeds as many as it has inputs, and fewer where its inputs are "
        "ReLU outputs, whose zeros help.\n"
        "Under noise, rows whose output is within the noise do not count.",
        f"Rank of the whole Jacobian: {min(ranks)} to {max(ranks)} of {k}, {_RANK_DRAWS} draws.",
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
        MethodFacts("auto", "yes" if layerwise == "yes" else joint, "The cheapest that explains."),
        MethodFacts("exact", layerwise, f"Without noise only: {because}."),
        MethodFacts("linf", layerwise, f"Noise with a known bound: {because}."),
        MethodFacts("l1", layerwise, f"Noise in few entries: {because}."),
        MethodFacts("relaxed", layerwise, f"When signs are uncertain; less accurate: {because}."),
        MethodFacts("gauss_newton", joint, f"All layers at once, may end elsewhere: {rank}."),
        MethodFacts("projected_gradient", layerwise, f"Partial measurements: {because}."),
        MethodFacts("gradient", joint, f"Needs a rate that fits, may end elsewhere: {rank}."),
        MethodFacts("adam", joint, f"Restarts, no guarantee, no expansion needed: {rank}."),
    )
