"""Layers and generators: forward pass, Jacobian, vector-Jacobian product."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from preimage.activation import Activation, ReLU, activation_name, as_activation
from preimage.errors import InputError

Array = NDArray[np.float64]
Weight = Any  # a read-only float64 array, or a canonical scipy.sparse.csr_array


def as_float64(values: ArrayLike, argument: str) -> Array:
    """Copy ``values`` into a read-only, C-contiguous float64 array; the door for every array.

    Integers and floats up to float64 are promoted exactly.

    Raises:
        InputError: ``values`` is complex, an object or ragged array, text, wider than float64,
            or holds NaN or infinity (the message gives the first index).
    """
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise InputError(f"{argument}: expected an array of real numbers, got {error}") from error
    if array.dtype.kind not in "buif" or array.dtype.itemsize > 8:
        raise InputError(
            f"{argument}: expected real numbers of at most 64 bits, got dtype {array.dtype}"
        )
    array = np.array(array, dtype=np.float64, order="C")
    finite = np.isfinite(array)
    if not finite.all():
        index = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise InputError(
            f"{argument}: expected finite numbers, got {array[index]} at index {index} "
            f"({int((~finite).sum())} in all)"
        )
    array.setflags(write=False)
    return array


def _as_weight(weight: Any) -> Weight:
    if not sparse.issparse(weight):
        dense = as_float64(weight, "weight")
        if dense.ndim != 2:
            raise InputError(f"weight: expected shape (outputs, inputs), got shape {dense.shape}")
        return dense
    as_float64(weight.tocoo().data, "weight.data")
    matrix = sparse.csr_array(weight, dtype=np.float64, copy=True)
    if matrix.ndim != 2:
        raise InputError(f"weight: expected shape (outputs, inputs), got shape {matrix.shape}")
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    for part in (matrix.data, matrix.indices, matrix.indptr):
        part.setflags(write=False)
    return matrix


@dataclass(frozen=True, eq=False)
class Layer:
    """``activation(weight @ z + bias)``.

    Layers are equal when their contents are: weight (and whether it is sparse), bias, activation.

    Args:
        weight: Shape (outputs, inputs), dense or ``scipy.sparse``; kept as read-only float64.
        bias: Shape (outputs,); zeros if None.
        activation: A name or an object such as ``LeakyReLU(0.2)``.

    Raises:
        InputError: Wrong dimensions, numbers that are not finite and real, unknown activation.
    """

    weight: Weight
    bias: Array = None  # type: ignore[assignment]  # filled in by __post_init__
    activation: Activation = field(default_factory=ReLU)

    def __post_init__(self) -> None:
        weight = _as_weight(self.weight)
        bias = as_float64(np.zeros(weight.shape[0]) if self.bias is None else self.bias, "bias")
        if bias.shape != weight.shape[:1]:
            raise InputError(
                f"bias: expected shape ({weight.shape[0]},) for a weight of shape {weight.shape}, "
                f"got shape {bias.shape}"
            )
        object.__setattr__(self, "weight", weight)
        object.__setattr__(self, "bias", bias)
        object.__setattr__(self, "activation", as_activation(self.activation))

    @property
    def input_size(self) -> int:
        """Columns of the weight."""
        return int(self.weight.shape[1])

    @property
    def output_size(self) -> int:
        """Rows of the weight."""
        return int(self.weight.shape[0])

    @property
    def is_sparse(self) -> bool:
        """Whether the weight is a ``scipy.sparse.csr_array``."""
        return sparse.issparse(self.weight)

    @cached_property
    def dense_weight(self) -> Array:
        """The weight as a read-only dense array."""
        if not self.is_sparse:
            return self.weight
        dense = self.weight.toarray()
        dense.setflags(write=False)
        return dense

    def affine(self, z: Array) -> Array:
        """Pre-activations ``z @ weight.T + bias``, (batch, inputs) to (batch, outputs)."""
        if self.is_sparse:
            return (self.weight @ z.T).T + self.bias
        return z @ self.weight.T + self.bias

    def adjoint(self, v: Array) -> Array:
        """``v @ weight``, (batch, outputs) to (batch, inputs)."""
        return (self.weight.T @ v.T).T if self.is_sparse else v @ self.weight

    def __call__(self, z: Array) -> Array:
        """Outputs, (batch, inputs) to (batch, outputs)."""
        return self.activation(self.affine(z))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content."""
        parts = (
            (self.weight.data, self.weight.indices.astype("<i8"), self.weight.indptr.astype("<i8"))
            if self.is_sparse
            else (self.weight,)
        )
        sha = hashlib.sha256(repr((self.weight.shape, self.is_sparse)).encode())
        for part in (*parts, self.bias):
            # -0.0 and 0.0 are equal numbers, so they must hash alike.
            sha.update(np.ascontiguousarray(part + 0).tobytes())
        sha.update(repr(self.activation).encode())
        return sha.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layer) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        kind = ", sparse" if self.is_sparse else ""
        name = activation_name(self.activation)
        return f"Layer({self.input_size} -> {self.output_size}, {name}{kind})"


@dataclass(frozen=True)
class Generator:
    """A chain of layers, ``G(z) = layer_d(... layer_1(z))``.

    Args:
        layers: At least one; each must take as many inputs as the one before gives.

    Raises:
        InputError: No layers, or layers that do not chain.

    >>> generator = from_arrays([[[1.0], [-1.0]]])
    >>> generator([2.0])
    array([2., 0.])
    """

    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        layers = tuple(self.layers)
        if not layers:
            raise InputError("layers: expected at least one layer, got none")
        for index, layer in enumerate(layers):
            if not isinstance(layer, Layer):
                raise InputError(f"layers[{index}]: expected a Layer, got {type(layer).__name__}")
            if index and layer.input_size != layers[index - 1].output_size:
                raise InputError(
                    f"layers[{index}]: expected {layers[index - 1].output_size} inputs, the "
                    f"outputs of layers[{index - 1}], got a weight of shape {layer.weight.shape}"
                )
        object.__setattr__(self, "layers", layers)

    @property
    def latent_size(self) -> int:
        """k, the number of latent coordinates."""
        return self.layers[0].input_size

    @property
    def observation_size(self) -> int:
        """n, the number of output entries."""
        return self.layers[-1].output_size

    @property
    def sizes(self) -> tuple[int, ...]:
        """Latent size, then the output size of each layer."""
        return (self.latent_size, *(layer.output_size for layer in self.layers))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content of all layers."""
        return hashlib.sha256("".join(layer.digest for layer in self.layers).encode()).hexdigest()

    def domain(self, index: int) -> tuple[float, float]:
        """Interval that holds every input of ``layers[index]``: the range of the layer below."""
        return self.layers[index - 1].activation.range if index else (-np.inf, np.inf)

    def _as_latent(self, z: ArrayLike) -> tuple[Array, bool]:
        latent = as_float64(z, "latent")
        if latent.ndim not in (1, 2) or latent.shape[-1] != self.latent_size:
            raise InputError(
                f"latent: expected shape ({self.latent_size},) or (batch, {self.latent_size}), "
                f"got shape {latent.shape}"
            )
        return np.atleast_2d(latent), latent.ndim == 1

    def __call__(self, z: ArrayLike) -> Array:
        """``G(z)``.

        Args:
            z: Shape (latent_size,) or (batch, latent_size).

        Returns:
            Shape (observation_size,) or (batch, observation_size), float64.
        """
        latent, single = self._as_latent(z)
        for layer in self.layers:
            latent = layer(latent)
        return latent[0] if single else latent

    def preactivations(self, z: Array) -> list[Array]:
        """``a_i = W_i z_{i-1} + b_i`` of every layer, each (batch, outputs), for a (batch, k)."""
        found = []
        for layer in self.layers:
            found.append(layer.affine(z))
            z = layer.activation(found[-1])
        return found

    def jacobian(self, z: ArrayLike) -> Array:
        """Derivative of G, ``D_d W_d ... D_1 W_1``; at a kink, that of the side below.

        Args:
            z: Shape (latent_size,) or (batch, latent_size).

        Returns:
            Shape (observation_size, latent_size), with the batch in front if z has one.
        """
        latent, single = self._as_latent(z)
        batch = len(latent)
        product = np.broadcast_to(np.eye(self.latent_size), (batch,) + (self.latent_size,) * 2)
        for layer, a in zip(self.layers, self.preactivations(latent), strict=True):
            if layer.is_sparse:
                product = (
                    np.stack([layer.weight @ p for p in product])
                    if batch
                    else np.zeros((0, layer.output_size, self.latent_size))
                )
            else:
                product = layer.weight @ product
            product = layer.activation.derivative(a)[:, :, None] * product
        return product[0] if single else product

    def vjp(self, z: ArrayLike, v: ArrayLike) -> Array:
        """Vector-Jacobian product ``v^T J(z)``, the gradient of ``v . G`` at z.

        Args:
            z: Shape (latent_size,) or (batch, latent_size).
            v: Shape (observation_size,) or (batch, observation_size), as z.

        Returns:
            The shape of z.
        """
        latent, single = self._as_latent(z)
        cotangent = np.atleast_2d(as_float64(v, "v"))
        if cotangent.shape != (len(latent), self.observation_size):
            raise InputError(
                f"v: expected shape {(len(latent), self.observation_size)} for a latent of shape "
                f"{latent.shape}, got shape {cotangent.shape}"
            )
        gradient = self.pull_back(self.preactivations(latent), cotangent)
        return gradient[0] if single else gradient

    def pull_back(self, preactivations: Sequence[Array], v: Array) -> Array:
        """``v^T J`` from the pre-activations of a forward pass, so that none is done twice."""
        for layer, a in zip(reversed(self.layers), reversed(preactivations), strict=True):
            v = layer.adjoint(v * layer.activation.derivative(a))
        return v

    def __repr__(self) -> str:
        chain = " -> ".join(map(str, self.sizes))
        names = [activation_name(layer.activation) for layer in self.layers]
        same = names[0] if len(set(names)) == 1 else ", ".join(names)
        return f"Generator({chain}; {same})"


def from_arrays(
    weights: Sequence[Any],
    biases: Sequence[ArrayLike | None] | None = None,
    activation: Activation | str = "relu",
    head: Activation | str | None = None,
) -> Generator:
    """Build a generator from its matrices.

    Args:
        weights: One matrix a layer, first layer first, each (outputs, inputs), dense or sparse.
        biases: One vector (or None) a layer; None for no biases at all.
        activation: Of every layer, but for the last if ``head`` is given.
        head: Activation of the last layer.

    Raises:
        InputError: Sizes that do not fit, numbers that are not finite, unknown activation names.

    >>> from_arrays([[[1.0], [2.0]], [[1.0, 1.0]]], activation="leaky_relu(0.2)", head="tanh")
    Generator(1 -> 2 -> 1; leaky_relu(0.2), tanh)
    """
    weights = list(weights)
    offsets: list[Any] = [None] * len(weights) if biases is None else list(biases)
    if len(offsets) != len(weights):
        raise InputError(f"biases: expected {len(weights)}, one a weight, got {len(offsets)}")
    body = as_activation(activation)
    last = body if head is None else as_activation(head, "head")
    layers = []
    for index, (weight, bias) in enumerate(zip(weights, offsets, strict=True)):
        try:
            layers.append(Layer(weight, bias, last if index == len(weights) - 1 else body))
        except InputError as error:
            raise InputError(f"layer {index}: {error}") from error
    return Generator(tuple(layers))
