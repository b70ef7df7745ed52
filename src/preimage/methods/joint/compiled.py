"""Dense chains and damped steps in the C kernel (``src/kernel/chain.c``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preimage import engine
from preimage.generator import Generator, Layer
from preimage.matrix import Array, Flags, Indices, Integers
from preimage.observation import Observation

KINKED, TANH, SIGMOID = 0, 1, 2
# Handing less than this to another thread costs more than it saves.
_RUNS_A_THREAD = 16


@dataclass(frozen=True, eq=False)
class CompiledChain:
    """A dense chain and what is fitted, in the layout of the kernel.

    Attributes:
        arrays: What the pointers of the structure point to.
        chain: ``Chain`` of chain.c: the layers and the observation.
    """

    arrays: tuple[NDArray[Any] | None, ...]
    chain: Integers

    def loss(
        self,
        z: Array,
        samples: Indices,
        gram: Array | None = None,
        slope: Array | None = None,
        place: Indices | None = None,
        below: Array | None = None,
    ) -> Array:
        """(runs,) ``0.5 ||y - G(z)||^2``, linearised in the same pass where that is wanted.

        ``J^T J`` is written to ``gram``, (places, k, k), and ``J^T (y - G(z))`` to ``slope``,
        (places, k), at each run's ``place``; only of runs whose loss is lower than ``below``.
        """
        z, loss = np.ascontiguousarray(z), np.empty(len(z))
        of = np.ascontiguousarray(samples, dtype=np.int64)
        at = None if place is None else np.ascontiguousarray(place, dtype=np.int64)
        given = self.chain, of, z, loss, below, at, gram, slope
        # The fields of ``Runs`` of chain.c; below, of ``Steps``.
        engine.call("chain_linearize", len(z), threads(len(z)), *given)
        return loss


def compile_chain(chain: Generator, observation: Observation) -> CompiledChain | None:
    """The measured network in the layout of the kernel; None where there is none, or it cannot."""
    layers = chain.layers
    kinds = [_kind(layer) for layer in layers]
    if engine.library() is None or None in kinds or any(la.storage != "dense" for la in layers):
        return None
    below = [layer.slopes_below for layer in layers]
    arrays: tuple[NDArray[Any] | None, ...] = (
        np.array(chain.sizes, dtype=np.int64),
        np.array(kinds, dtype=np.int64),
        np.concatenate([layer.weight.ravel() for layer in layers]),
        np.concatenate([_columns(layer.weight).ravel() for layer in layers]),
        np.concatenate([layer.bias for layer in layers]),
        np.concatenate([np.ones(la.output_size) if c is None else c
                        for la, c in zip(layers, below, strict=True)]),
    )  # fmt: skip
    weight = observation.mask if observation.weight is None else observation.weight
    weight = None if weight is None else np.ascontiguousarray(weight, dtype=np.float64)
    arrays += (np.ascontiguousarray(observation.values), weight)
    return CompiledChain(arrays, engine.packed(len(layers), *arrays))


def damped_steps(
    gram: Array, slope: Array, runs: Indices, damping: Array, held: Flags | None
) -> tuple[Array, Array] | None:
    """See ``model.damped_step``; None where there is no kernel."""
    if engine.library() is None:
        return None
    count, k = len(runs), slope.shape[1]
    place = np.ascontiguousarray(runs, dtype=np.int64)
    given = map(np.ascontiguousarray, (gram, slope, damping))
    mask = None if held is None else np.ascontiguousarray(held)
    step, predicted = np.empty((count, k)), np.empty(count)
    engine.call("damped_steps", count, threads(count), k, place, *given, mask, step, predicted)
    return step, predicted


def threads(runs: int) -> int:
    """Threads that share so many runs."""
    return max(min(engine.processors(), runs // _RUNS_A_THREAD), 1)


def _columns(weight: Array) -> Array:
    """The columns, each padded by zeros to whole registers of the kernel."""
    return np.pad(weight.T, ((0, 0), (0, -len(weight) % 8)))


def _kind(layer: Layer) -> int | None:
    """Its number in chain.c; None for what the kernel does not have."""
    smooth = {"tanh": TANH, "sigmoid": SIGMOID}.get(layer.activation.name)
    return smooth if layer.slopes_below is None else KINKED
