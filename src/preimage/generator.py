"""Layers and generators: forward pass, Jacobian, vector-Jacobian product."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from preimage.activation import Activation, ReLU, as_activation
from preimage.errors import InputError
from preimage.matrix import (
    Array,
    Weight,
    as_float64,
    as_rows,
    as_weight,
    digest_of,
    is_matrix,
    multiply,
    multiply_adjoint,
    multiply_columns,
    weight_parts,
)
from preimage.scaling import Scaled, scale


@dataclass(frozen=True, eq=False)
class Layer:
    """``activation(weight @ z + bias)``.

    Layers are equal when their contents are: weight (and whether it is sparse), bias, activation.

    Args:
        weight: Shape (outputs, inputs), dense or ``scipy.sparse``, kept as read-only float64.
        bias: Shape (outputs,); zeros if None.
        activation: A name or an object such as ``LeakyReLU(0.2)``.

    Raises:
        InputError: Wrong dimensions, numbers that are not finite and real, an unknown activation,
            or one with slopes for another number of units.
    """

    weight: Weight
    bias: Array = None  # type: ignore[assignment]  # filled in by __post_init__
    activation: Activation = field(default_factory=ReLU)

    def __post_init__(self) -> None:
        weight = as_weight(self.weight)
        if not is_matrix(weight):
            raise InputError(
                f"weight: expected a dense or sparse matrix, got a {type(weight).__name__}, which "
                "has none; keep such a network in torch, see preimage.from_torch"
            )
        bias = as_float64(np.zeros(weight.shape[0]) if self.bias is None else self.bias, "bias")
        if bias.shape != weight.shape[:1]:
            raise InputError(
                f"bias: expected shape ({weight.shape[0]},) for a weight of shape {weight.shape}, "
                f"got shape {bias.shape}"
            )
        object.__setattr__(self, "weight", weight)
        object.__setattr__(self, "bias", bias)
        object.__setattr__(self, "activation", as_activation(self.activation))
        self.activation.slopes(self.output_size)  # raises where it has slopes for other units

    @property
    def input_size(self) -> int:
        """Columns of the weight."""
        return int(self.weight.shape[1])

    @property
    def output_size(self) -> int:
        """Rows of the weight."""
        return int(self.weight.shape[0])

    @property
    def slopes(self) -> tuple[Array, Array] | None:
        """Slopes of the units below and above 0, (outputs,) each; None if they are smooth."""
        return self.activation.slopes(self.output_size)

    @property
    def slopes_below(self) -> Array | None:
        """Slope of each unit below 0, (outputs,), where all slopes above are 1; else None."""
        return self.slopes[0] if self.slopes and (self.slopes[1] == 1).all() else None

    @property
    def storage(self) -> str:
        """``"dense"`` or ``"csr"``."""
        return "dense" if isinstance(self.weight, np.ndarray) else "csr"

    @cached_property
    def scaled(self) -> Scaled:
        """The matrix's units, in which the solvers work."""
        return scale(self.weight)

    @cached_property
    def dense_weight(self) -> Array:
        """The matrix as a read-only dense array."""
        if self.storage == "dense":
            return self.weight
        dense = self.weight.toarray()
        dense.setflags(write=False)
        return dense

    def affine(self, z: Array) -> Array:
        """Pre-activations ``z @ weight.T + bias``, (batch, inputs) to (batch, outputs)."""
        return multiply(self.weight, z) + self.bias

    def adjoint(self, v: Array) -> Array:
        """``v @ weight``, (batch, outputs) to (batch, inputs)."""
        return multiply_adjoint(self.weight, v)

    def __call__(self, z: Array) -> Array:
        """Outputs, (batch, inputs) to (batch, outputs)."""
        return self.activation(self.affine(z))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content."""
        return digest_of(*weight_parts(self.weight), self.bias, repr(self.activation))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layer) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        kind = "" if self.storage == "dense" else ", sparse"
        name = self.activation.name
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
        return digest_of(*(layer.digest for layer in self.layers))

    def then(self, *layers: Layer) -> Generator:
        """The chain that goes on with these layers, such as those of ``preimage.measurements``.

        Raises:
            InputError: Layers that do not chain.

        >>> from_arrays([[[1.0], [-1.0]]]).then(Layer([[1.0, 1.0]]))([-2.0])
        array([2.])
        """
        return Generator((*self.layers, *layers))

    def fix(self, values: Mapping[int, float]) -> Generator:
        """The network of the other coordinates, where some have known values.

        Exact: what the fixed coordinates add to the first layer becomes part of its bias. A decoder
        of a latent and a one-hot label is fixed by the coordinates of the label.

        Args:
            values: By index of the latent coordinate.

        Raises:
            InputError: Indices that are none, numbers that are not finite, no coordinate left.

        >>> from_arrays([[[1.0, 10.0]]]).fix({1: 2.0})([3.0])
        array([23.])
        """
        k = self.latent_size
        if not all(isinstance(i, (int, np.integer)) and 0 <= i < k for i in values):
            raise InputError(f"values: expected indices from 0 to {k - 1}, got {list(values)}")
        indices = sorted(int(i) for i in values)
        if len(indices) >= k:
            raise InputError(f"values: expected at least one of {k} coordinates to be left")
        known = as_float64([values[i] for i in indices], "values")
        left = np.setdiff1d(np.arange(k), indices)
        first, *rest = self.layers
        columns = first.weight[:, indices]
        bias = first.bias + np.asarray(columns @ known)
        return Generator((Layer(first.weight[:, left], bias, first.activation), *rest))

    def domain(self, index: int) -> tuple[float, float]:
        """Interval that holds every input of ``layers[index]``: the range of the layer below."""
        return self.layers[index - 1].activation.range if index else (-np.inf, np.inf)

    def _repr_html_(self) -> str:
        from preimage.notebook import generator_html

        return generator_html(self)

    def __call__(self, z: ArrayLike) -> Array:
        """``G(z)``.

        Args:
            z: Shape (latent_size,) or (batch, latent_size).

        Returns:
            Shape (observation_size,) or (batch, observation_size), float64.
        """
        latent, single = as_rows(z, self.latent_size, "latent")
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
        latent, single = as_rows(z, self.latent_size, "latent")
        product = self.linearize(latent)[1]
        return product[0] if single else product

    @property
    def draft(self) -> None:
        """None: there is no cheaper version of this network (see ``Network``)."""

    def linearize(self, z: Array) -> tuple[Array, Array]:
        """``G(z)``, (batch, n), and the Jacobians, (batch, n, k), of ``z``, (batch, k)."""
        preactivations, last = self.preactivations(z), self.layers[-1].activation
        for product in self.jacobians(preactivations):
            jacobian = product
        slope, own = last.derivative(preactivations[-1])[:, :, None], jacobian.flags.writeable
        return last(preactivations[-1]), np.multiply(slope, jacobian, out=jacobian if own else None)

    def jvp(self, z: Array, tangent: Array) -> Array:
        """``J(z) t``, (batch, n), for one tangent a sample, (batch, k)."""
        for layer, a in zip(self.layers, self.preactivations(z), strict=True):
            tangent = layer.activation.derivative(a) * multiply(layer.weight, tangent)
        return tangent

    def vjp(self, z: ArrayLike, v: ArrayLike) -> Array:
        """Vector-Jacobian product ``v^T J(z)``, the gradient of ``v . G`` at z.

        Args:
            z: Shape (latent_size,) or (batch, latent_size).
            v: Shape (observation_size,) or (batch, observation_size), as z.

        Returns:
            The shape of z.
        """
        latent, single = as_rows(z, self.latent_size, "latent")
        cotangent, _ = as_rows(v, self.observation_size, "v", len(latent))
        *_, gradient = self.cotangents(self.preactivations(latent), cotangent)
        return gradient[0] if single else gradient

    def jacobians(self, preactivations: Sequence[Array]) -> Iterator[Array]:
        """Derivative of each layer's pre-activations in z, (batch, outputs, k), first layer first.

        Each is overwritten when the next is asked for.

        Args:
            preactivations: Those of a batch.
        """
        first, *later = self.layers
        # An identity of a wide latent would be far larger than the weight.
        product = np.broadcast_to(first.dense_weight, (len(preactivations[0]), *first.weight.shape))
        yield product
        for below, layer, a in zip(self.layers, later, preactivations, strict=False):
            slope, own = below.activation.derivative(a)[:, :, None], product.flags.writeable
            values = np.multiply(slope, product, out=product if own else None)
            product = multiply_columns(layer.weight, values)
            yield product

    def cotangents(self, preactivations: Sequence[Array], v: Array) -> Iterator[Array]:
        """Gradient of ``v . G`` in each layer's input, (batch, inputs), last layer first.

        Args:
            preactivations: Those of a batch.
            v: (batch, n).
        """
        for layer, a in zip(reversed(self.layers), reversed(preactivations), strict=True):
            v = layer.adjoint(v * layer.activation.derivative(a))
            yield v

    def __repr__(self) -> str:
        chain = " -> ".join(map(str, self.sizes))
        names = [layer.activation.name for layer in self.layers]
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
