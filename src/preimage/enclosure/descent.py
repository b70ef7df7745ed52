"""Enclosures: layer by layer from the observation down, then all layers at once while it pays."""

from __future__ import annotations

import numpy as np

from preimage.enclosure.bound_proofs import proven_radius
from preimage.enclosure.network import Bounds, Network, Targets
from preimage.enclosure.relaxation import Relaxation, relax
from preimage.enclosure.tighten import (
    Budget,
    Deduction,
    Programs,
    Step,
    end_programs,
    shortened,
    sign_programs,
    solve,
    sparse,
    tighten_by,
)

# Another round of tightening must have taken away this part of some interval.
_PAYS = 0.1
# Matrix entries, over all programs, up to which a pass over one hidden layer is cheap.
_CHEAP = 20_000_000


def enclose(network: Network, bounds: Bounds, budget: Budget, rounds: int) -> Deduction:
    """Bounds on the code and on all units, from the last layer down, then all layers at once.

    Args:
        network: The network.
        bounds: The box, and what the observation says of the last layer (``starting_bounds``).
        budget: When to stop; what holds until then is returned.
        rounds: Most rounds of tightening.
    """
    root = Deduction.start(bounds)
    finite = np.isfinite([root.low, root.high]).all()
    if finite and not budget.spent:
        root.propagate(network)
    for start in range(network.depth - 1, -1, -1):
        if root.empty or budget.spent:
            return root
        invert_layer(network, root, start, budget)
        if finite and start > 0:
            _tighten_open_outputs(network, root, start, budget)
        elif finite or add_radius(network, root, start, budget):
            # Ends of the latent cost least, and decide most of the signs.
            tighten_by(_inputs, network, root, budget, start)
    if budget.spent or not np.isfinite([root.low, root.high]).all():
        return root
    root.propagate(network)
    tighten(network, root, budget, rounds)
    return root


def _tighten_open_outputs(
    network: Network, deduction: Deduction, start: int, budget: Budget
) -> None:
    """Tighten the outputs of a layer whose sign is open, if that is cheap."""
    units = np.flatnonzero(np.isnan(deduction.bounds.decided(network, start)))

    def programs(relaxation: Relaxation) -> Programs:
        return end_programs(relaxation.inputs.take(units))

    if 2 * len(units) * network.weights[start + 1].dense.size <= _CHEAP:
        tighten_by(programs, network, deduction, budget, start)


def invert_layer(network: Network, deduction: Deduction, start: int, budget: Budget) -> None:
    """Bound the outputs of a layer by least squares on the layer above, without any program.

    With R the pseudo-inverse of the rows whose interval is finite, each divided by its half-width,
    row j of R is a multiplier that proves both ends of output j.
    """
    low, high = (end[start + 1] for end in (deduction.bounds.lower, deduction.bounds.upper))
    rows = np.flatnonzero(np.isfinite(low) & np.isfinite(high))
    weight, count = network.weights[start + 1].dense[rows], network.sizes[start]
    half = (high - low)[rows] / 2
    if len(rows) < count or not count:
        return
    half = np.maximum(half, 1e-9 * half.max(initial=0.0) + 1e-300)
    scaled = weight / half[:, None]
    try:
        inverse = np.linalg.solve(scaled.T @ scaled, scaled.T) / half
    except np.linalg.LinAlgError:
        return
    if not np.isfinite(inverse).all():
        return
    inverse, mu = shortened(inverse), np.zeros((2 * count, network.sizes[start + 1]))
    mu[:count, rows], mu[count:, rows] = -inverse, inverse
    targets = Targets.both(np.full(count, start), np.arange(count))
    deduction.deduce(network, start, targets, {start + 1: mu}, budget)


def add_radius(network: Network, deduction: Deduction, start: int, budget: Budget) -> bool:
    """Bound the outputs of a layer where they are infinite; whether they are finite."""
    bounds = deduction.bounds
    rows = np.flatnonzero(np.isinf(np.concatenate(bounds.outputs(network, start))))
    if not len(rows):
        return True
    relaxation = relax(network, bounds, start)
    programs = end_programs(relaxation.inputs)
    targets = programs.targets.take(rows)
    dual, optimal, _ = solve(relaxation.loosened(), programs.objective[rows], budget)
    if len(dual) < len(rows) or not optimal.all():
        return False
    mu = relaxation.multipliers(dual)
    value = proven_radius(network, bounds, start, mu, targets)
    if not np.isfinite(value):
        return False
    values, every = np.full(len(rows), value), np.arange(len(rows))
    deduction.steps.append(Step(targets, values, start, sparse(mu, every), radius=True))
    _bound_outputs(network, bounds, start, value)
    return True


def _bound_outputs(network: Network, bounds: Bounds, start: int, radius: float) -> None:
    """Bound the outputs of a layer by a radius where they have an infinite end."""
    low, high = bounds.outputs(network, start)
    loose, c = np.isinf(low) | np.isinf(high), network.slopes[start]
    with np.errstate(divide="ignore"):
        least = np.where(c > 0, np.nextafter(-radius / c, -np.inf), -np.inf)
    lower, upper = bounds.lower[start], bounds.upper[start]
    lower[loose] = np.maximum(lower, least)[loose]
    upper[loose] = np.minimum(upper, radius)[loose]


def _inputs(relaxation: Relaxation) -> Programs:
    return end_programs(relaxation.inputs)


def _undecided(relaxation: Relaxation) -> Programs:
    return end_programs(relaxation.undecided)


def tighten(network: Network, deduction: Deduction, budget: Budget, rounds: int) -> None:
    """All layers at once: ends and signs of open units, then the code, while it pays."""
    for _ in range(rounds):
        if deduction.empty or budget.spent:
            return
        best = max(
            tighten_by(_undecided, network, deduction, budget, outputs=deduction.binding),
            tighten_by(sign_programs, network, deduction, budget, outputs=deduction.binding),
            tighten_by(_inputs, network, deduction, budget),
        )
        if best < _PAYS or not deduction.bounds.undecided(network):
            return
