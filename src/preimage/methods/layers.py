"""From the last layer to the first: the loop of all methods that invert one layer at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from preimage.generator import Generator, Layer
from preimage.inversion import Estimate, LayerReport, Status
from preimage.matrix import Array, Flags, Indices, Integers
from preimage.methods.equations import rank_of_rows
from preimage.methods.joint.search import plug_in
from preimage.methods.parameters import Box, Region, box_ends
from preimage.observation import Observation

# Both ends of the interval of a layer's inputs: numbers, or (k,).
Domain = tuple[Any, Any]


class LayerAnswer(NamedTuple):
    """The inputs of one layer, for a batch of its outputs.

    Attributes:
        z: (batch, k) inputs; NaN where there are none.
        tolerance: (batch,) of these inputs.
        status: (batch,) ``SOLVED`` where this layer adds nothing to what is known.
        slack: (batch,) as in ``LayerReport``.
        programs: (batch,) likewise.
        equations: (batch, n) rows that were taken as equations.
        full: (batch,) where these are known to have full column rank.
    """

    z: Array
    tolerance: Array
    status: NDArray[np.object_]
    slack: Array
    programs: Integers
    equations: Flags
    full: Flags


# Of a layer, the domain of its inputs, its outputs with their tolerances, and the samples that have
# any.
InvertLayer = Callable[[Layer, Domain, Observation, Array, Indices], LayerAnswer]


def invert_layers(
    generator: Generator, observation: Observation, invert_layer: InvertLayer, box: Box = None
) -> Estimate:
    """Invert one layer after another; the inputs of each are the outputs of the one below.

    Samples that time leaves without a code get a rough one: see ``plug_in``.
    """
    status, clock = Status.SOLVED.each(len(observation)), observation.clock
    above, tolerance, reports = observation, observation.tolerance, []
    for index in reversed(range(len(generator.layers))):
        layer = generator.layers[index]
        domain: Domain = generator.domain(index)
        if index == 0 and box is not None:
            domain = box_ends(box, generator.latent_size)
        clock.report(f"layer {index + 1} of {len(generator.layers)}", len(above))
        open_ = np.isin(status, (Status.SOLVED, Status.AMBIGUOUS))
        if clock.is_over:
            status[open_] = Status.TIME_LIMIT
            z = np.full((len(above), layer.input_size), np.nan)
            reports.append(_report(layer, above, None))
            continue
        found = invert_layer(layer, domain, above, tolerance, np.flatnonzero(open_))
        worse = found.status != Status.SOLVED
        status[worse] = found.status[worse]
        reports.append(_report(layer, above, None if clock.is_over else found))
        z, tolerance = found.z, found.tolerance
        above = Observation(z, tolerance, clock=clock)
    late = np.flatnonzero((status == Status.TIME_LIMIT) & ~np.isfinite(z).all(axis=1))
    if len(late):
        region = Region(*box_ends(box, generator.latent_size))
        z[late] = region.project(plug_in(generator, observation.take(late)))
    return Estimate(z, status, tuple(reversed(reports)))


def _report(layer: Layer, above: Observation, found: LayerAnswer | None) -> LayerReport:
    """What a layer did; None for nothing in time. NaN outputs give -1."""
    x, batch = above.values, len(above)
    if found is None:
        unknown, none = np.full(batch, np.nan), np.full(batch, -1)
        return LayerReport(unknown, unknown, none, none, none, np.zeros(batch, dtype=np.int64))
    eps, (low, high) = found.tolerance[:, None], layer.activation.range
    outside = above.seen((x < low - eps) | (x > high + eps))
    equations, known = above.seen(found.equations), np.isfinite(x).all(axis=1)
    rank = np.where(known, layer.input_size, -1)
    open_ = known & ~found.full
    rank[open_] = rank_of_rows(layer.scaled, equations[open_], above.clock)
    return LayerReport(
        found.slack,
        np.where(known, found.tolerance, np.nan),
        np.where(known, equations.sum(axis=1), -1),
        rank,
        np.where(known, outside.sum(axis=1), -1),
        found.programs,
    )
