"""Dense networks in compiled code: descents, flips and normal equations of many runs at once.

This is the only room that speaks to the compiled ones; importing them (inside the functions) loads
Numba. Runs are spread over threads; what a run finds depends on nothing but the run.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from preimage.activation import Activation, Identity, LeakyReLU, PReLU, ReLU, Sigmoid, Tanh
from preimage.generator import Generator
from preimage.observation import Observation
from preimage.threads import processors

if TYPE_CHECKING:
    from preimage.methods.dense.descent import Fit
    from preimage.methods.dense.network import Network

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

# Handing less than this to another thread costs more than it saves.
_RUNS_A_PART = 16


def as_network(generator: Generator) -> Network | None:
    """The generator as the compiled rooms take it; None where they cannot."""
    layers = generator.layers
    kinds = [_kind(layer.activation, layer.output_size) for layer in layers]
    if any(layer.storage != "dense" for layer in layers) or any(kind is None for kind in kinds):
        return None
    from preimage.methods.dense.network import Network

    return Network(
        np.concatenate([layer.weight.T.ravel() for layer in layers]),
        np.concatenate([layer.bias for layer in layers]),
        np.concatenate([kind[1] for kind in kinds if kind]),
        np.array([kind[0] for kind in kinds if kind]),
        np.array(generator.sizes),
    )


def _kind(activation: Activation, size: int) -> tuple[int, Array] | None:
    """Its number in ``network``, and the slope of each unit's negative side."""
    slope: Any = 0.0
    if isinstance(activation, LeakyReLU):
        slope = activation.slope
    elif isinstance(activation, PReLU):
        slope = activation.derivative(np.full(size, -1.0))
    elif isinstance(activation, Identity):
        slope = 1.0
    elif isinstance(activation, (Tanh, Sigmoid)):
        return (1 if isinstance(activation, Tanh) else 2), np.ones(size)
    elif not isinstance(activation, ReLU):
        return None
    return 0, np.broadcast_to(slope, size).astype(np.float64)


def as_fit(
    observation: Observation,
    linear: NDArray[np.bool_] | None,
    prior: float,
    rounding: Array,
    enough: Array | None,
) -> Fit:
    """What is fitted, as the compiled rooms take it; see ``descent.Fit``."""
    from preimage.methods.dense.descent import Fit

    def rows(mask: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
        none = np.zeros((0, observation.values.shape[1]), dtype=np.bool_)
        return none if mask is None else np.array(mask, order="C")

    return Fit(
        np.array(observation.values, order="C"),
        rows(observation.mask),
        rows(linear),
        float(prior),
        np.array(rounding),
        np.full(len(observation), -np.inf) if enough is None else np.array(enough),
    )


def descend(
    network: Network,
    fit: Fit,
    samples: Indices,
    z: Array,
    damping: Array,
    limits: tuple[int, float, float, int, float],
) -> tuple[Array, Array, NDArray[np.bool_], Array]:
    """Levenberg-Marquardt from each row of z; codes, losses, whether stationary, damping.

    ``limits`` are those of ``descent.Limits``.
    """
    from preimage.methods.dense import descent

    runs = len(z)
    ends = descent.Ends(z.copy(), np.zeros(runs), np.zeros(runs, dtype=np.bool_), damping.copy())

    def work(part: slice) -> None:
        own = descent.Ends(*(array[part] for array in ends))  # type: ignore[arg-type]
        descent.descend(network, fit, samples[part], descent.Limits(*limits), own)

    in_parts(samples, work)
    return ends.z, ends.loss, ends.stationary, ends.damping


def flips(
    network: Network, fit: Fit, samples: Indices, z: Array, first: Indices, most: int, count: int
) -> Array:
    """(samples, count, k) the most promising neighbours; z itself where there are no more."""
    from preimage.methods.dense import neighbours as inner

    starts = np.repeat(z[:, None], count, axis=1)

    def work(part: slice) -> None:
        inner.flips(network, fit, samples[part], z[part], first[part], most, starts[part])

    in_parts(samples, work)
    return starts


def normal_equations(network: Network, derivatives: Array, error: Array) -> tuple[Array, Array]:
    """``J^T J``, (runs, k, k), and ``J^T error``, (runs, k).

    Args:
        network: The network.
        derivatives: (runs, units) of each layer's activation; 0 where a unit is inactive or an
            output not observed.
        error: (runs, m).
    """
    from preimage.methods.dense import descent

    runs, k = len(error), int(network.sizes[0])
    gram, slope = np.empty((runs, k, k)), np.empty((runs, k))

    def work(part: slice) -> None:
        descent.normal_equations(network, derivatives[part], error[part], gram[part], slope[part])

    in_parts(np.arange(runs), work)
    return gram, slope


def in_parts(samples: Indices, work: Callable[[slice], None]) -> None:
    """``work`` on slices of the runs, in threads; runs of a sample, side by side, stay together."""
    ends = np.append(np.flatnonzero(np.diff(samples, prepend=-1)), len(samples))
    count = max(min(processors() * 4, len(samples) // _RUNS_A_PART), 1)
    cuts = ends[np.linspace(0, len(ends) - 1, count + 1).astype(int)]
    parts = [slice(*pair) for pair in itertools.pairwise(cuts) if pair[0] < pair[1]]
    if len(parts) <= 1:
        for part in parts:
            work(part)
        return
    with ThreadPoolExecutor(processors()) as pool:
        for _ in pool.map(work, parts):
            pass
