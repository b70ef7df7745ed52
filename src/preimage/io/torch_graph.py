"""A torch network as a graph of affine operations and activations.

The network is traced at one latent, so that what torch does is what is read: a graph of ATen
operations without side effects. Nothing affine is computed here. The matrix between two levels of
activations is the derivative that torch finds of the operations between them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import torch

from preimage.errors import FormatError
from preimage.io.chain import AffineMap, NotKnownError, Step
from preimage.io.torch_operations import (
    ACTIVATIONS,
    CREATIONS,
    affine_problem,
    decompositions,
    name_of,
)
from preimage.matrix import Array, Indices
from preimage.torch_modules import differentiable

Tensor = Any

# Entries of the tensors that one batch of tangents may make.
_ENTRIES = 2**22
_MOST_NODES = 20_000
_MOST_PASSES = 4


class TorchGraph:
    """The operations of a torch function of a latent, (1, k) to (1, ...).

    Args:
        run: The function, of tensors.
        latent: A tensor of shape (1, k).

    Attributes:
        latent: Name of the input.
        output: Name of the output.
        steps: In an order of evaluation, and only those that the output needs.
        sizes: Entries of each tensor that depends on the latent.

    Raises:
        NotKnownError: It cannot be traced, or an operation is neither affine nor an activation.
    """

    def __init__(self, run: Any, latent: Tensor) -> None:
        traced = _traced(run, latent)
        self._nodes = {node.name: node for node in traced.graph.nodes}
        self._values: dict[str, Any] = {}
        self._dependent: set[str] = set()
        self.steps: list[Step] = []
        output: Any = None
        with torch.no_grad():
            for node in traced.graph.nodes:
                if node.op == "get_attr":
                    value = attrgetter(node.target)(traced)
                    is_float = isinstance(value, torch.Tensor) and value.is_floating_point()
                    self._values[node.name] = value.double() if is_float else value
                elif node.op == "placeholder":
                    self.latent, self._values[node.name] = node.name, latent.double()
                    self._dependent.add(node.name)
                elif node.op == "call_function":
                    self._add(node)
                else:
                    (output,) = node.args
        if getattr(output, "name", None) not in self._dependent:
            raise FormatError("module: its output does not depend on the latent")
        self.output: str = output.name
        tensors = (n for n in self._dependent if isinstance(self._values[n], torch.Tensor))
        self.sizes = {name: self._values[name].numel() for name in tensors}

    def _add(self, node: Any) -> None:
        """Evaluate a node once; one that depends on the latent is a step."""
        name = name_of(node)
        if _mutates(node):
            raise NotKnownError(f"{name} changes a value in place")
        inputs = tuple(i.name for i in node.all_input_nodes if i.name in self._dependent)
        depends = bool(inputs) and name not in CREATIONS
        if depends and getattr(node.kwargs.get("dtype"), "is_floating_point", False):
            node.update_kwarg("dtype", torch.float64)
        self._values[node.name] = self._call(node, self._values)
        if depends:
            self.steps.append(self._step(node, inputs, f"{name} ({node.name})"))
            self._dependent.add(node.name)

    def _call(self, node: Any, values: Mapping[str, Any]) -> Any:
        args, kwargs = _filled_in((node.args, node.kwargs), values)
        return node.target(*args, **kwargs)

    def _step(self, node: Any, inputs: tuple[str, ...], place: str) -> Step:
        value, make = self._values[node.name], ACTIVATIONS.get(name_of(node))
        if make is not None and inputs == (node.args[0].name,):
            activation = make(value, *_filled_in(node.args[1:], self._values))
            if activation is None:
                raise NotKnownError(f"{place} is not increasing, or not of a supported kind")
            return Step(node.name, inputs, activation, place)
        problem = affine_problem(node, self._dependent, value)
        if problem:
            raise NotKnownError(f"{place} {problem}")
        return Step(node.name, inputs, None, place)

    # Evaluation ---------------------------------------------------------------------------------

    def evaluate(self, given: Mapping[str, Tensor], wanted: Sequence[str]) -> list[Tensor]:
        """Values of nodes, where those of some nodes below them are given."""
        needed, order = {*wanted}, []
        for step in reversed(self.steps):
            if step.name in needed and step.name not in given:
                order.append(self._nodes[step.name])
                needed.update(step.inputs)
        values = {**self._values, **given}
        last = {other: node for node in order[::-1] for other in node.all_input_nodes}
        for node in order[::-1]:
            values[node.name] = self._call(node, values)
            for other in node.all_input_nodes:
                if last[other] is node and other.name not in wanted:
                    values.pop(other.name)  # tensors of a batch are large
        return [values[name] for name in wanted]

    def affine(self, given: Sequence[str], wanted: Sequence[str]) -> AffineMap:
        """The wanted values as a function of the given ones, each flattened."""
        sizes = [self.sizes[name] for name in given]
        shapes = [self._values[name].shape for name in given]

        def run(state: Tensor) -> Tensor:
            parts = [p.reshape(s) for p, s in zip(state.split(sizes), shapes, strict=True)]
            found = self.evaluate(dict(zip(given, parts, strict=True)), wanted)
            return torch.cat([value.reshape(-1) for value in found])

        inputs, outputs = sum(sizes), sum(self.sizes[name] for name in wanted)
        zero = torch.zeros(inputs, dtype=torch.float64, device=self._values[given[0]].device)
        with torch.no_grad():
            bias = run(zero).cpu().numpy()
        chunk = max(_ENTRIES // max(inputs, outputs, *self.sizes.values()), 1)
        for by_columns in (inputs <= outputs, inputs > outputs):
            try:
                images = _images(run, zero, outputs, by_columns)
                images(np.arange(1))
            except (NotImplementedError, RuntimeError):  # an operation without such a derivative
                continue
            return AffineMap(bias, inputs, by_columns, images, chunk)
        raise NotKnownError("torch cannot differentiate its affine operations")


def _traced(run: Any, latent: Tensor) -> Any:
    """A function as a graph of operations that its output needs, without side effects."""
    from torch.fx.experimental.proxy_tensor import make_fx

    try:
        with torch.no_grad(), differentiable():
            traced = make_fx(lambda z: run(z))(latent)
            for _ in range(_MOST_PASSES):  # some operations are taken apart after a pass
                functional = torch.func.functionalize(traced)
                traced = make_fx(functional, decomposition_table=decompositions())(latent)
                if not any(map(_mutates, traced.graph.nodes)):
                    break
    except Exception as error:  # the code of a forward can raise anything
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        if "trying to get value out of a tracing tensor" in reason:
            reason = "it branches on values that depend on the latent"
        raise NotKnownError(f"its forward cannot be traced: {reason}") from error
    traced.graph.eliminate_dead_code(lambda n: n.op in ("placeholder", "output") or _mutates(n))
    if len(traced.graph.nodes) > _MOST_NODES:
        raise NotKnownError(f"it has {len(traced.graph.nodes)} operations")
    return traced


def _filled_in(given: Any, values: Mapping[str, Any]) -> Any:
    """Arguments with the values of nodes in the place of these."""
    return torch.fx.node.map_arg(given, lambda node: values[node.name])


def _images(
    run: Callable[[Tensor], Tensor], zero: Tensor, outputs: int, by_columns: bool
) -> Callable[[Indices], Array]:
    """A function that gives some columns or rows of the derivative, (some, entries of one).

    They have no rounding error of the bias, as differences would have.
    """
    adjoint = None if by_columns else torch.func.vjp(run, zero)[1]

    def linear(unit: Tensor) -> Tensor:
        return torch.func.jvp(run, (zero,), (unit,))[1] if adjoint is None else adjoint(unit)[0]

    def images(indices: Indices) -> Array:
        places = torch.as_tensor(indices, device=zero.device)
        count = len(zero) if by_columns else outputs
        with torch.no_grad(), differentiable():
            units = torch.nn.functional.one_hot(places, count).to(zero.dtype)
            return torch.func.vmap(linear)(units).cpu().numpy()

    return images


def _mutates(node: Any) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


# A function of one latent, for batches ------------------------------------------------------------


def by_sample(run: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """``run`` of each latent of a batch."""
    if len(z) == 1:  # as torch is to trace it
        return run(z[0])[None]
    return torch.func.vmap(run)(z)


class BySample(torch.nn.Module):
    """A module whose forward takes one latent at a time.

    Args:
        module: Its output may have any shape.
        shape: Of the latent that it takes.
    """

    def __init__(self, module: torch.nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.module, self.shape = module, shape

    def forward(self, z: Tensor) -> Tensor:
        """The outputs of latents, both with a leading batch dimension, flattened."""
        return by_sample(lambda one: self.module(one.reshape(self.shape)).reshape(-1), z)
