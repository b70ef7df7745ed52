"""A torch network as a chain of layers.

The network is traced at one latent, so that what torch does is what is read: a graph of ATen
operations without side effects. Activations are sorted into levels: one that needs the result of
another stands above it. All that is affine between two levels becomes one weight and one bias,
which torch finds as the derivative of that part of the graph, and its value at 0. A value that is
used above a level, but stems from below it (a residual sum, a concatenation), is carried: its rows
pass the level with slope 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import scipy
import torch

from preimage.activation import Activation, Identity
from preimage.errors import FormatError
from preimage.generator import Generator, Layer
from preimage.io import torch_operations as operations
from preimage.io.comparison import NotKnownError
from preimage.matrix import Array, Indices
from preimage.torch_modules import differentiable

Node = Any
Tensor = Any

# Entries of the tensors that one batch of tangents may make.
_ENTRIES = 2**22
# Entries of a matrix that are computed, zeros included, before its number of nonzeros is known.
_MOST_COMPUTED = 2**31
_SAMPLED = 8  # columns from which the number of nonzeros is estimated
_MOST_NODES = 20_000
_MOST_PASSES = 4


def as_chain(run: Callable[[Tensor], Tensor], latent: Tensor, max_matrix_bytes: int) -> Generator:
    """Write a torch function of a latent, (1, k), to a tensor, (1, ...), as a chain of layers.

    It is traced at ``latent``; no matrix, dense or CSR, is larger than ``max_matrix_bytes``.

    Raises:
        NotKnownError: It cannot be traced, an operation is neither affine nor an activation, a
            matrix would take more, or a value would have to pass a smooth activation.
    """
    graph = _Graph(run, latent)
    level, state = graph.level, [graph.latent]
    maps: list[AffineMap] = []
    activations: list[Activation] = []
    for current in range(1, level[graph.output] + 1):
        closing = [node for node in graph.activations if level[node] == current]
        above = [node for node in level if level[node] >= current and node not in closing]
        below = (other for node in above for other in node.all_input_nodes if other in level)
        crossing = list(dict.fromkeys(node for node in below if level[node] < current))
        activations.append(graph.activation(closing, crossing))
        maps.append(graph.affine(state, [*(node.args[0] for node in closing), *crossing]))
        state = [*closing, *crossing]
    maps.append(graph.affine(state, [graph.output]))
    # The largest first: if one is too large, it is that one.
    by_size = sorted(maps, key=lambda each: each.size, reverse=True)
    built = {id(each): each.matrix(max_matrix_bytes) for each in by_size}
    weights, biases = [built[id(each)] for each in maps], [each.bias for each in maps]
    taken = _entries(weights[-1])
    if activations and taken is not None and not biases[-1].any():
        slopes = activations[-1].slopes(len(biases[-2]))
        # They are moved before the activation.
        weights[-2], biases[-2] = weights[-2][taken], biases[-2][taken]
        if slopes is not None:
            activations[-1] = operations.slope_activation(slopes[0][taken])
    else:
        activations.append(Identity())
    found = zip(weights, biases, activations, strict=False)  # the last may do nothing
    return Generator(tuple(Layer(w, b, a) for w, b, a in found))


def _entries(weight: Any) -> Indices | None:
    """Which inputs the outputs are, if each is one of them, and there are no more; else None."""
    csr = scipy.sparse.csr_array(weight)
    csr.eliminate_zeros()
    rows, columns = csr.shape
    if rows > columns or (np.diff(csr.indptr) != 1).any() or (csr.data != 1).any():
        return None
    return csr.indices.astype(np.intp)


class _Graph:
    """The operations that the output of a torch function needs, in an order of evaluation.

    Attributes:
        latent: The input.
        output: The output.
        values: Of each node, at one latent.
        level: Of each node that depends on the latent: how many activations it needs in turn.
        activations: Those nodes that are one, and which.

    Raises:
        NotKnownError: See ``as_chain``.
    """

    def __init__(self, run: Callable[[Tensor], Tensor], latent: Tensor) -> None:
        self.values: dict[Node, Any] = {}
        self.level: dict[Node, int] = {}
        self.activations: dict[Node, Activation] = {}
        traced = _traced(run, latent)
        with torch.no_grad():
            for node in traced.graph.nodes:
                if node.op == "get_attr":
                    value = attrgetter(node.target)(traced)
                    is_float = isinstance(value, torch.Tensor) and value.is_floating_point()
                    self.values[node] = value.double() if is_float else value
                elif node.op == "placeholder":
                    self.latent, self.values[node], self.level[node] = node, latent.double(), 0
                elif node.op == "call_function":
                    self._add(node)
                else:
                    (self.output,) = node.args
        if self.output not in self.level:
            raise FormatError("module: its output does not depend on the latent")
        tensors = (self.values[n] for n in self.level if isinstance(self.values[n], torch.Tensor))
        self._largest = max(tensor.numel() for tensor in tensors)

    def _add(self, node: Node) -> None:
        """Evaluate a node once; one that depends on the latent has a level."""
        name = operations.name_of(node)
        if _mutates(node):
            raise NotKnownError(f"{name} changes a value in place")
        inputs = [other for other in node.all_input_nodes if other in self.level]
        depends = bool(inputs) and name not in operations.CREATIONS
        if depends and getattr(node.kwargs.get("dtype"), "is_floating_point", False):
            node.update_kwarg("dtype", torch.float64)
        value = self.values[node] = _call(node, self.values)
        if not depends:
            return
        make, problem = operations.ACTIVATIONS.get(name), None
        if make is None or inputs != [node.args[0]]:
            problem = operations.affine_problem(node, self.level, value)
        elif activation := make(value, *_filled_in(node.args[1:], self.values)):
            self.activations[node] = activation
        else:
            problem = "is not increasing, or not of a supported kind"
        if problem:
            raise NotKnownError(f"{_place(node)} {problem}")
        self.level[node] = max(map(self.level.__getitem__, inputs)) + (node in self.activations)

    def activation(self, closing: Sequence[Node], carried: Sequence[Node]) -> Activation:
        """The activations of a level as one; a smooth one has to stand alone."""
        kinds, below = [self.activations[node] for node in closing], []
        for node, kind in zip(closing, kinds, strict=True):
            slopes = kind.slopes(self.values[node].numel())
            if slopes is None:
                others = [*carried, *(other.name for other in kinds if other != kind)]
                if not others:
                    return kind
                raise NotKnownError(
                    f"{_place(node)}: {others[0]} would have to pass beside the smooth "
                    f"{kind.name}, which a chain of layers cannot express"
                )
            below.append(slopes[0])
        below += [np.ones(self.values[node].numel()) for node in carried]
        return operations.slope_activation(np.concatenate(below))

    def evaluate(self, given: Mapping[Node, Tensor], wanted: Sequence[Node]) -> list[Tensor]:
        """Values of nodes, where those of some nodes below them are given."""
        needed, order = {*wanted}, []
        for node in reversed(self.level):
            if node in needed and node not in given:
                order.append(node)
                needed.update(node.all_input_nodes)
        values = {**self.values, **given}
        last = {other: node for node in order[::-1] for other in node.all_input_nodes}
        for node in order[::-1]:
            values[node] = _call(node, values)
            for other in node.all_input_nodes:
                if last[other] is node and other not in wanted:
                    values.pop(other)  # tensors of a batch are large
        return [values[node] for node in wanted]

    def affine(self, given: Sequence[Node], wanted: Sequence[Node]) -> AffineMap:
        """The wanted values as a function of the given ones, each flattened."""
        shapes = [self.values[node].shape for node in given]
        sizes = [shape.numel() for shape in shapes]

        def run(state: Tensor) -> Tensor:
            parts = [p.reshape(s) for p, s in zip(state.split(sizes), shapes, strict=True)]
            found = self.evaluate(dict(zip(given, parts, strict=True)), wanted)
            return torch.cat([value.reshape(-1) for value in found])

        zero = torch.zeros(sum(sizes), dtype=torch.float64, device=self.values[given[0]].device)
        return AffineMap(run, zero, self._largest)


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
        run, zero = self._run, self._zero
        some = torch.as_tensor(indices, device=zero.device)
        with torch.no_grad(), differentiable():
            if self._by_columns:
                moved = torch.func.jacfwd(lambda part: run(zero.index_add(0, some, part)))
                return moved(zero.new_zeros(len(some))).T.cpu().numpy()
            return torch.func.jacrev(lambda state: run(state)[some])(zero).cpu().numpy()

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

    table = operations.decompositions()
    try:
        with torch.no_grad(), differentiable():
            traced = make_fx(lambda z: run(z))(latent)
            for _ in range(_MOST_PASSES):  # some operations are taken apart after a pass
                functional = torch.func.functionalize(traced)
                traced = make_fx(functional, decomposition_table=table)(latent)
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


def _filled_in(given: Any, values: Mapping[Node, Any]) -> Any:
    """Arguments with the values of nodes in the place of these."""
    return torch.fx.node.map_arg(given, values.__getitem__)


def _call(node: Node, values: Mapping[Node, Any]) -> Any:
    args, kwargs = _filled_in((node.args, node.kwargs), values)
    return node.target(*args, **kwargs)


def _mutates(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


def _place(node: Node) -> str:
    """In the network, for messages."""
    return f"{operations.name_of(node)} ({node.name})"


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
