"""Dense chains and damped steps in the C kernel (``src/kernel/chain.c``)."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preimage import engine
from preimage.generator import Generator, Layer
from preimage.observation import Observation
from preimage.threads import processors

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Indices = NDArray[np.intp]

KINKED, TANH, SIGMOID = 0, 1, 2
# Handing less than this to another thread costs more than it saves.
_RUNS_A_THREAD = 16


class _Chain(ctypes.Structure):
    """``Chain`` of chain.c."""

    _fields_ = (
        ("layers", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("sizes", "kind", "rows", "columns", "bias",
                                               "slope")),
    )  # fmt: skip


class _Fit(ctypes.Structure):
    """``Fit`` of chain.c."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in ("values", "weight", "linear"))


@dataclass(frozen=True, eq=False)
class CompiledChain:
    """A dense chain and what is fitted, in the layout of the kernel.

    Attributes:
        arrays: What the pointers of the two structures point to.
        chain: The layers.
        fit: The observation.
    """

    arrays: tuple[NDArray[Any], ...]
    chain: _Chain
    fit: _Fit

    def loss(self, z: Array, samples: Indices) -> Array:
        """(runs,) ``0.5 ||y - G(z)||^2``."""
        return self._call(z, samples, None, None)

    def linearize(self, z: Array, samples: Indices) -> tuple[Array, Array]:
        """``J^T J``, (runs, k, k), and ``J^T (y - G(z))``, (runs, k)."""
        runs, k = z.shape
        gram, slope = np.empty((runs, k, k)), np.empty((runs, k))
        self._call(z, samples, gram, slope)
        return gram, slope

    def _call(self, z: Array, samples: Indices, gram: Array | None, slope: Array | None) -> Array:
        z, loss = np.ascontiguousarray(z), np.empty(len(z))
        of = np.ascontiguousarray(samples, dtype=np.int64)
        _checked(
            engine.library().chain_linearize(  # type: ignore[union-attr]
                ctypes.byref(self.chain), ctypes.byref(self.fit), ctypes.c_int64(len(z)),
                _pointer(of), _pointer(z), _pointer(loss), _pointer(gram), _pointer(slope),
                threads(len(z)),
            )
        )  # fmt: skip
        return loss


def compile_chain(
    chain: Generator, observation: Observation, linear: Flags | None
) -> CompiledChain | None:
    """The chain in the layout of the kernel; None where there is no kernel, or it cannot.

    Args:
        chain: The measured network.
        observation: Of all samples.
        linear: (samples, m) outputs whose activation is left out; None for none.
    """
    layers = chain.layers
    kinds = [_kind(layer) for layer in layers]
    known = all(kind is not None for kind in kinds)
    if engine.library() is None or not known or any(la.storage != "dense" for la in layers):
        return None
    slopes = [layer.activation.slopes(layer.output_size) for layer in layers]
    arrays = (
        np.array(chain.sizes, dtype=np.int64),
        np.array(kinds, dtype=np.int64),
        np.concatenate([layer.weight.ravel() for layer in layers]),
        np.concatenate([layer.weight.T.ravel() for layer in layers]),
        np.concatenate([layer.bias for layer in layers]),
        np.concatenate([np.ones(la.output_size) if pieces is None else pieces[0]
                        for la, pieces in zip(layers, slopes, strict=True)]),
    )  # fmt: skip
    weight = observation.mask if observation.weight is None else observation.weight
    weight = None if weight is None else np.ascontiguousarray(weight, dtype=np.float64)
    free = None if linear is None else _bytes(linear)
    values = np.ascontiguousarray(observation.values)
    kept = tuple(part for part in (values, weight, free) if part is not None)
    return CompiledChain(
        (*arrays, *kept),
        _Chain(len(layers), *map(engine.address, arrays)),
        _Fit(*(None if part is None else engine.address(part) for part in (values, weight, free))),
    )


def damped_steps(
    gram: Array, slope: Array, damping: Array, held: Flags | None
) -> tuple[Array, Array] | None:
    """See ``step.damped_step``; None where there is no kernel."""
    library = engine.library()
    if library is None:
        return None
    runs, k = slope.shape
    gram, slope = np.ascontiguousarray(gram), np.ascontiguousarray(slope)
    damping = np.ascontiguousarray(damping)
    mask = None if held is None else _bytes(held)
    step, predicted = np.empty((runs, k)), np.empty(runs)
    _checked(
        library.damped_steps(
            ctypes.c_int64(runs), ctypes.c_int64(k), _pointer(gram), _pointer(slope),
            _pointer(damping), _pointer(mask), _pointer(step), _pointer(predicted), threads(runs),
        )
    )  # fmt: skip
    return step, predicted


def threads(runs: int) -> int:
    """Threads that share so many runs."""
    return max(min(processors(), runs // _RUNS_A_THREAD), 1)


def _kind(layer: Layer) -> int | None:
    """Its number in chain.c; None for what the kernel does not have."""
    if layer.activation.slopes(layer.output_size) is not None:
        return KINKED
    return {"tanh": TANH, "sigmoid": SIGMOID}.get(layer.activation.name)


def _bytes(mask: Flags) -> NDArray[np.uint8]:
    return np.ascontiguousarray(mask).view(np.uint8)


def _pointer(array: NDArray[Any] | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if array is None else engine.address(array))


def _checked(code: int) -> None:
    if code:
        raise MemoryError("the kernel found no memory for its threads")
