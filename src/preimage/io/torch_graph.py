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
import scipy
import torch

from preimage.errors import FormatError
from preimage.io.chain import NotKnownError, Step
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
# Entries of a matrix that are computed, zeros included, before its number of nonzeros is known.
_MOST_COMPUTED = 2**31
_SAMPLED = 8  # columns from which the number of nonzeros is estimated
_MOST_NODES = 20_000
_MOST_PASSES = 4


class TorchGraph:
    """The operations of a torch function of a latent, a tensor (1, k), to a tensor (1, ...).

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
        value = self._values[node.name] = self._call(node, self._values)
        if not depends:
            return
        place = f"{name} ({node.name})"
        make, activation = ACTIVATIONS.get(name), None
        if make is not None and inputs == (node.args[0].name,):
            activation = make(value, *_filled_in(node.args[1:], self._values))
            problem = None if activation else "is not increasing, or not of a supported kind"
        else:
            problem = affine_problem(node, self._dependent, value)
        if problem:
            raise NotKnownError(f"{place} {problem}")
        self.steps.append(Step(node.name, inputs, activation, place))
        self._dependent.add(node.name)

    def _call(self, node: Any, values: Mapping[str, Any]) -> Any:
        args, kwargs = _filled_in((node.args, node.kwargs), values)
        return node.target(*args, **kwargs)

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

        zero = torch.zeros(sum(sizes), dtype=torch.float64, device=self._values[given[0]].device)
        return AffineMap(run, zero, max(self.sizes.values()))


class AffineMap:
    """``W s + b``, as torch evaluates it: columns of W at unit vectors of s, or rows.

    Args:
        run: The function of a tensor, (inputs,) to (outputs,).
        zero: The tensor at which it gives b.
        largest: Entries of the largest tensor on the way.

    Raises:
        NotKnownError: Torch can differentiate it in neither mode.
    """

    def __init__(self, run: Callable[[Tensor], Tensor], zero: Tensor, largest: int) -> None:
        self._run, self._zero = run, zero
        with torch.no_grad():
            self.bias: Array = run(zero).cpu().numpy()
        inputs, outputs = len(zero), len(self.bias)
        self.size = inputs * outputs  # entries of W, zeros included
        self._chunk = max(_ENTRIES // max(inputs, outputs, largest), 1)
        for by_columns in (inputs <= outputs, inputs > outputs):
            self._by_columns = by_columns
            try:
                self._adjoint = None if by_columns else torch.func.vjp(run, zero)[1]
                self._images(np.arange(1))
                break
            except (NotImplementedError, RuntimeError):  # an operation without such a derivative
                continue
        else:
            raise NotKnownError("torch cannot differentiate its affine operations")

    def matrix(self, limit: int) -> Any:
        """W, dense or CSR, whichever is smaller.

        Raises:
            NotKnownError: It would take more than ``limit`` bytes.
        """
        outputs, dense = len(self.bias), 8 * self.size <= limit
        count = len(self._zero) if self._by_columns else outputs
        if not dense:  # some columns or rows tell, before all are computed
            sample = np.linspace(0, count - 1, min(_SAMPLED, count, self._chunk)).astype(np.intp)
            nonzeros = int(np.count_nonzero(self._images(sample)) * count / len(sample))
            if self.size > _MOST_COMPUTED or _csr_bytes(nonzeros, outputs) > 1.5 * limit:
                raise self._too_large(limit)
        parts, nonzeros = [], 0
        for start in range(0, count, self._chunk):
            part = self._images(np.arange(start, min(start + self._chunk, count)))
            parts.append(part if dense else scipy.sparse.csr_array(part))
            nonzeros += int(np.count_nonzero(part))
            if not dense and _csr_bytes(nonzeros, outputs) > limit:
                raise self._too_large(limit)
        whole = np.concatenate(parts) if dense else scipy.sparse.vstack(parts, format="csr")
        whole = whole.T if self._by_columns else whole
        if dense and whole.nbytes <= _csr_bytes(nonzeros, outputs):
            return np.ascontiguousarray(whole)
        return scipy.sparse.csr_array(whole)

    def _images(self, indices: Indices) -> Array:
        """Columns of W, (some, outputs), or rows, (some, inputs).

        They have no rounding error of the bias, as differences would have.
        """

        def image(unit: Tensor) -> Tensor:
            if self._adjoint is None:
                return torch.func.jvp(self._run, (self._zero,), (unit,))[1]
            return self._adjoint(unit)[0]

        places = torch.as_tensor(indices, device=self._zero.device)
        count = len(self._zero) if self._by_columns else len(self.bias)
        with torch.no_grad(), differentiable():
            units = torch.nn.functional.one_hot(places, count).to(self._zero.dtype)
            return torch.func.vmap(image)(units).cpu().numpy()

    def _too_large(self, limit: int) -> NotKnownError:
        return NotKnownError(
            f"a layer of {len(self._zero)} inputs and {len(self.bias)} outputs needs a matrix of "
            f"more than max_matrix_bytes={limit}"
        )


def _csr_bytes(nonzeros: int, rows: int) -> int:
    """8 of the value and 4 of the index."""
    return 12 * nonzeros + 4 * (rows + 1)


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
    """A module whose forward takes one latent of a shape at a time."""

    def __init__(self, module: torch.nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.module, self.shape = module, shape

    def forward(self, z: Tensor) -> Tensor:
        """The outputs of latents, both with a leading batch dimension, flattened."""
        return by_sample(lambda one: self.module(one.reshape(self.shape)).reshape(-1), z)
