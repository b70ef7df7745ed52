"""What to expect of a network before anything is observed: ``preimage inspect``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from preimage.generator import Layer
from preimage.io.comparison import NotKnownError
from preimage.io.torch_module import known_layers
from preimage.matrix import Array
from preimage.methods.equations import rank_of_rows
from preimage.network import Network, chain_of
from preimage.observation import output_range
from preimage.torch_network import TorchNetwork

_DRAWS = 1000
_ENTRIES = 2**24  # numbers of all draws and layers together: fewer draws of a large network
_RANK_DRAWS = 10  # a Jacobian is larger than an output
_LARGEST = 2**25  # entries of a Jacobian whose rank is computed
_LARGEST_RANKED = 2**20  # and of the weight of a layer


@dataclass(frozen=True)
class LayerFacts:
    """One layer; *active rows* are the outputs that determine their pre-activation.

    The rank is that of the active rows: it says how many inputs they determine. NaN and -1 where
    the layer is too large to compute it.
    """

    index: int
    inputs: int
    outputs: int
    expansion: float
    parameters: int
    activation: str
    active_median: float
    active_worst: int
    rank_median: float
    rank_worst: int


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


def head_range(network: Network, outputs: Array) -> tuple[float, float] | None:
    """The range of the last activation, if it is bounded.

    Of a network that is only run it is what ``outputs`` at random codes look like: (0, 1), (-1, 1),
    or None.
    """
    if chain_of(network) is not None:
        low, high = output_range(network)
        return (low, high) if np.isfinite([low, high]).all() else None
    least, most = outputs.min(), outputs.max()
    if most > 1 or least < -1 or -0.1 <= least < 0:
        return None
    return (0.0, 1.0) if least >= 0 else (-1.0, 1.0)


def _jacobian_rank(network: Network, latent: Array) -> tuple[str, bool | None]:
    """A sentence, and whether most Jacobians have full rank; None if they are too large."""
    k, n = network.latent_size, network.observation_size
    if n * k > _LARGEST:
        return f"Rank of the whole Jacobian: not computed, it has {n} x {k} entries.", None
    ranks = [
        int(np.linalg.matrix_rank(network.linearize(z[None])[1][0])) if k else 0 for z in latent
    ]
    note = f"Rank of the whole Jacobian: {min(ranks)} to {max(ranks)} of {k}, {len(ranks)} draws."
    return note, float(np.median(ranks)) >= k


def inspect_generator(generator: Network, seed: int = 0) -> Inspection:
    """Draw codes from N(0, I) and count, layer by layer, what an inversion would know.

    Of a network that is only run it finds the rank and the methods.
    """
    chain, rng = chain_of(generator), np.random.default_rng(seed)
    if chain is not None:
        draws = min(max(_ENTRIES // sum(chain.sizes), _RANK_DRAWS), _DRAWS)
        latent = rng.standard_normal((draws, chain.latent_size))
        pairs = zip(chain.layers, chain.preactivations(latent), strict=True)
        layers = tuple(_layer_facts(index, *pair) for index, pair in enumerate(pairs))
        note, full_rank = _jacobian_rank(chain, latent[:_RANK_DRAWS])
        active = (
            f"Active rows: outputs that determine their pre-activation, over {draws} draws of "
            "z ~ N(0, I); a layer\nneeds as many as it has inputs, and fewer where its inputs are "
            "ReLU outputs, whose zeros help.\n"
            "Under noise, rows whose output is within the noise do not count."
        )
        return Inspection(layers, active, note, _judge_methods(layers, full_rank))
    latent = rng.standard_normal((_RANK_DRAWS, generator.latent_size))
    note, full_rank = _jacobian_rank(generator, latent)
    unknown = "The layers are not known"
    try:
        if isinstance(generator, TorchNetwork):
            known_layers(generator)
    except NotKnownError as error:
        unknown += f": {error}"
    return Inspection((), "", note, _judge_methods((), full_rank, unknown))


def _layer_facts(index: int, layer: Layer, a: Array) -> LayerFacts:
    """What is known of a layer from its pre-activations, (draws, outputs)."""
    rows = np.isfinite(layer.activation.inverse(layer.activation(a)))
    known, size = rows.sum(axis=1), math.prod(layer.weight.shape)
    few = rows[: _RANK_DRAWS if size <= _LARGEST_RANKED else 0]
    ranks = rank_of_rows(layer.scaled, few) if len(few) else np.array([-1])
    weights = layer.weight.nnz if layer.storage == "csr" else size
    return LayerFacts(
        index, layer.input_size, layer.output_size, layer.output_size / max(layer.input_size, 1),
        int(weights) + int(np.count_nonzero(layer.bias)), layer.activation.name,
        float(np.median(known)), int(known.min()),
        float(np.median(ranks)) if ranks.min() >= 0 else math.nan, int(ranks.min()),
    )  # fmt: skip


def _judge_methods(
    layers: Sequence[LayerFacts], full_rank: bool | None, unknown: str = ""
) -> tuple[MethodFacts, ...]:
    """A verdict a method; ``unknown`` says why there are no layers."""
    # A rank that was not computed, NaN or -1, says nothing.
    short = [f.index for f in layers if f.active_median < f.inputs or f.rank_median < f.inputs]
    tight = [f.index for f in layers if f.active_worst < f.inputs or 0 <= f.rank_worst < f.inputs]
    if unknown:
        layerwise, because = "no", unknown
    elif full_rank is False:
        first = layers and layers[0].rank_median < layers[0].inputs
        lacking = "the active rows of layer 0 lack" if first else "the Jacobian lacks"
        layerwise, because = "no", f"{lacking} rank in most draws"
    elif short:
        layerwise, because = "maybe", f"layer {short[0]} has too few active rows in most draws"
    elif tight:
        layerwise, because = "mostly", f"layer {tight[0]} has too few active rows in some draws"
    else:
        layerwise, because = "yes", "every layer has enough active rows in every draw"
    joint = "no" if full_rank is False else "maybe"
    rank = {
        True: "the Jacobian has full rank", False: "the Jacobian lacks rank in most draws",
        None: "the rank of the Jacobian is not computed",
    }[full_rank]  # fmt: skip
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
