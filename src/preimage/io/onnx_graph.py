"""An ONNX network as a graph of affine operations and activations.

Every node is evaluated once, at the latent 0: that gives the shapes, the constants and the biases.
Values of a file that was exported for several samples hold them one after the other; the latent is
that of the first sample, and the others stay 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preimage.errors import FormatError, InputError
from preimage.io import piecewise
from preimage.io.chain import AffineMap, NotKnownError, Step
from preimage.io.limits import Limits
from preimage.io.onnx_operations import (
    ACTIVATIONS,
    AFFINE,
    PRODUCTS,
    Linear,
    Shaped,
    activation,
    allowed,
    attributes,
    evaluate,
    linear_part,
)

Array = NDArray[np.float64]

_FLOATS = (1, 10, 11, 16)  # ONNX's numbers of float32, float16, float64 and bfloat16
_SELU_ALPHA, _SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875  # the defaults
_CHUNK = 2**22  # entries of the values that are computed at once
_REMEDY = "; if you have the torch module, preimage.from_torch runs it as it is"


class OnnxGraph:
    """The nodes of a model behind its output; a ``chain.Graph``.

    Args:
        nodes: In an order of evaluation.
        constants: Initializers by name.
        latent: Name of the input.
        shape: Of the input, with the batch.
        batch: Samples that the input holds.
        output: Name of the output.
        opset: Version of the operators.
        limits: ``entries`` of each array; all together may have four times as many.

    Raises:
        NotKnownError: A node is neither affine nor a known activation.
        FormatError: A node does not fit, or asks for more than the limits allow.
    """

    def __init__(
        self,
        nodes: Sequence[Any],
        constants: Mapping[str, NDArray[Any]],
        latent: str,
        shape: tuple[int, ...],
        batch: int,
        output: str,
        opset: int,
        limits: Limits,
    ) -> None:
        self.latent, self.output, self.batch, self.opset = latent, output, batch, opset
        self.steps: list[Step] = []
        self.sizes: dict[str, int] = {}
        self._values: dict[str, Any] = {**constants, latent: np.zeros(shape)}
        self._linear: dict[str, tuple[Linear, Array, tuple[str, ...]]] = {}
        self._dependent = {latent}
        self._limits, self._asked = limits, 0
        self.sizes[latent] = self._size(latent)
        for node in nodes:
            self._add(node)
        if output not in self._dependent:
            raise FormatError(f"output {output!r}: it does not depend on the latent")
        self._prune()

    def _size(self, name: str) -> int:
        """Entries of a value that belong to the first sample."""
        total = int(self._values[name].size)
        if total % self.batch:
            raise NotKnownError(f"{name!r} has {total} entries for {self.batch} samples")
        return total // self.batch

    # Nodes --------------------------------------------------------------------------------------

    def _add(self, node: Any) -> None:
        place = f"{node.name or f'the node of {node.output[0]!r}'}: {node.op_type}"
        missing = [name for name in node.input if name and name not in self._values]
        if missing:
            raise FormatError(f"{place}: nothing gives its input {missing[0]!r}")
        try:
            self._limits.check(
                "entries", self._asked // 4, "a quarter of the entries of all arrays"
            )
            self._add_checked(node, place)
        except NotKnownError as error:
            raise NotKnownError(f"{place}: {error}{_REMEDY}") from error
        except InputError as error:
            raise FormatError(f"{place}: {error}") from error
        except Exception as error:  # what an evaluator raises where sizes do not fit
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise FormatError(f"{place}: it does not fit: {reason}") from error

    def _add_checked(self, node: Any, place: str) -> None:
        if not allowed(node):
            own = node.domain in ("", "ai.onnx")
            raise NotKnownError(f"not supported{'' if own else f' (domain {node.domain})'}")
        dependent = [i for i, name in enumerate(node.input) if name in self._dependent]
        if node.op_type in ("Shape", "Size"):
            dependent = []
        if not dependent:
            self._keep(node, self._evaluated(node))
            return
        for new in self._expanded(node):
            self._add_dependent(new, place)

    def _evaluated(self, node: Any) -> list[Any]:
        return evaluate(Shaped(node, self.opset), self._inputs(node), self._limits)

    def _inputs(self, node: Any) -> list[Any]:
        """Values of a node's inputs, in float64 if any of them depends on the latent."""
        inputs = [self._values[name] if name else None for name in node.input]
        if not any(name in self._dependent for name in node.input):
            return inputs
        if node.op_type in ("Resize", "Upsample"):  # whose scales are float32 by definition
            return [_promoted(inputs[0]), *inputs[1:]]
        return [_promoted(value) for value in inputs]

    def _keep(self, node: Any, found: Sequence[Any]) -> None:
        for name, value in zip((n for n in node.output if n), found, strict=False):
            self._values[name] = value
            self._asked += value.size

    def _add_dependent(self, node: Any, place: str) -> None:
        kind = node.op_type
        self._keep(node, self._evaluated(node))
        places = [i for i, name in enumerate(node.input) if name in self._dependent]
        names = tuple(node.input[i] for i in places)
        inputs = self._inputs(node)
        if kind in ACTIVATIONS and places == [0]:
            self._step(node.output[0], names, activation(node, inputs), place)
            return
        self._check_affine(node, places)
        operator = Shaped(node, self.opset)
        for index, name in enumerate(n for n in node.output if n):
            self._step(name, names, None, place)
            self._linear[name] = *linear_part(operator, inputs, places, index), names

    def _step(self, name: str, inputs: tuple[str, ...], kind: Any, place: str) -> None:
        value = np.asarray(self._values[name])
        if value.dtype.kind != "f":
            raise NotKnownError(f"it gives {value.dtype} values that depend on the latent")
        if not np.isfinite(value).all():
            raise FormatError("its values are not finite")
        self._values[name] = value.astype(np.float64)
        self._dependent.add(name)
        self.sizes[name] = self._size(name)
        self.steps.append(Step(name, tuple(dict.fromkeys(inputs)), kind, place))

    def _check_affine(self, node: Any, places: Sequence[int]) -> None:
        kind, given = node.op_type, attributes(node)
        if kind == "BatchNormalization" and given.get("training_mode", 0):
            raise NotKnownError("it is in training mode; export the network in eval mode")
        if kind == "Dropout" and len(node.input) > 2 and self._values[node.input[2]]:
            raise NotKnownError("it is in training mode; export the network in eval mode")
        if kind in AFFINE:
            if set(places) & set(AFFINE[kind]):
                raise NotKnownError("an index, divisor or parameter depends on the latent")
        elif kind in PRODUCTS:
            if len(set(places) & set(PRODUCTS[kind])) > 1:
                raise NotKnownError("it multiplies two values that depend on the latent")
        else:
            raise NotKnownError("it is not piecewise affine, or not known to be")

    def _prune(self) -> None:
        """Leave out what the output does not need."""
        needed, kept = {self.output}, []
        for step in reversed(self.steps):
            if step.name in needed:
                kept.append(step)
                needed.update(step.inputs)
        self.steps = kept[::-1]

    # Operators made of others -------------------------------------------------------------------

    def _expanded(self, node: Any) -> list[Any]:
        """The nodes that a node stands for."""
        kind, given = node.op_type, attributes(node)
        if kind in ("Cast", "CastLike") and (kind == "CastLike" or given["to"] in _FLOATS):
            return [_node("Identity", [node.input[0]], node.output[0])]
        if kind == "PRelu" and "axis" in given:
            raise NotKnownError("PRelu with an axis is not supported")
        x = _Value(node.input[0], self, node.output[0], []) if node.input else None
        found = None if x is None else self._made(node, kind, given, x)
        if found is None:
            return [node]
        return [*found.nodes, _node("Identity", [found.name], node.output[0])]

    def _made(self, node: Any, kind: str, given: Mapping[str, Any], x: _Value) -> _Value | None:
        """The value of a node that is made of ReLU or ELU of x; None if it is not."""
        match kind:
            case "Clip":
                low = self._bound(node, 1, given.get("min"), x)
                return piecewise.clip(x, low, self._bound(node, 2, given.get("max"), x), _relu)
            case "HardSigmoid":
                slope, shift = given.get("alpha", 0.2), given.get("beta", 0.5)
                return piecewise.hard_sigmoid(x, slope, shift, _relu)
            case "Abs":
                return piecewise.absolute(x, _relu)
            case "Selu":
                alpha, gamma = given.get("alpha", _SELU_ALPHA), given.get("gamma", _SELU_GAMMA)
                return piecewise.scaled_elu(x, alpha, gamma, 1.0, _elu)
            case "Celu":
                alpha = given.get("alpha", 1.0)
                return piecewise.scaled_elu(x, alpha, 1.0, 1 / alpha, _elu)
            case "Max" | "Min":
                step = piecewise.largest if kind == "Max" else piecewise.smallest
                for name in node.input[1:]:
                    other = replace(x, name=name)
                    # A constant is carried past the ReLU for nothing.
                    x = step(other, x, _relu) if name in self._dependent else step(x, other, _relu)
                return x
        return None

    def constant(self, value: Any) -> str:
        """The name of a new constant."""
        name = f"constant:{len(self._values)}"
        self._values[name] = np.asarray(value, dtype=np.float64)
        return name

    def _bound(self, node: Any, index: int, attribute: Any, x: _Value) -> Any:
        """A bound of Clip, which is an attribute or an input; None if there is none."""
        if attribute is not None:
            return attribute if abs(attribute) < 1e38 else None
        name = node.input[index] if len(node.input) > index else ""
        if name in self._dependent:
            raise NotKnownError("a bound depends on the latent")
        return replace(x, name=name) if name else None

    # Evaluation ---------------------------------------------------------------------------------

    def affine(self, given: Sequence[str], wanted: Sequence[str]) -> AffineMap:
        """The wanted values as a function of the given ones, each flattened."""
        sizes = [self.sizes[name] for name in given]
        inputs = sum(sizes)
        zero = np.zeros((1, inputs))
        bias = self._pushed(zero, given, wanted, biases=True)[0]

        def images(indices: NDArray[np.intp]) -> Array:
            units = np.zeros((len(indices), inputs))
            units[np.arange(len(indices)), indices] = 1.0
            return self._pushed(units, given, wanted, biases=False)

        largest = max(inputs, len(bias), *(self.batch * size for size in self.sizes.values()))
        return AffineMap(bias, inputs, True, images, max(_CHUNK // largest, 1))

    def _pushed(
        self, state: Array, given: Sequence[str], wanted: Sequence[str], biases: bool
    ) -> Array:
        """The wanted values of some states, or the linear part of them."""
        samples, at = len(state), 0
        values: dict[str, Array] = {}
        for name in given:
            size = self.sizes[name]
            values[name] = np.zeros((samples, self.batch * size))
            values[name][:, :size] = state[:, at : at + size]
            at += size
        needed, order = {*wanted} - {*given}, []
        for step in reversed(self.steps):
            if step.name in needed:
                order.append(step.name)
                needed.update(set(step.inputs) - {*given})
        for name in reversed(order):
            linear, bias, names = self._linear[name]
            values[name] = linear([values[other] for other in names])
            if biases:
                values[name] = values[name] + bias
        found = [values[name][:, : self.sizes[name]] for name in wanted]
        return np.concatenate(found, axis=1)


@dataclass(frozen=True)
class _Value:
    """A value in a graph; arithmetic with others, or with numbers, adds nodes.

    Args:
        name: In the graph.
        graph: Which keeps the numbers.
        output: What the names of new values begin with.
        nodes: The new nodes, in an order of evaluation.
    """

    name: str
    graph: OnnxGraph
    output: str
    nodes: list[Any]

    def then(self, kind: str, *others: Any, **given: Any) -> _Value:
        """The value of a new node, whose first input is this one."""
        inputs = [v.name if isinstance(v, _Value) else self.graph.constant(v) for v in others]
        name = f"{self.output}:{len(self.nodes)}"
        self.nodes.append(_node(kind, [self.name, *inputs], name, **given))
        return replace(self, name=name)

    def __add__(self, other: Any) -> _Value:
        return self.then("Add", other)

    def __sub__(self, other: Any) -> _Value:
        return self.then("Sub", other)

    def __mul__(self, other: Any) -> _Value:
        return self.then("Mul", other)

    def __neg__(self) -> _Value:
        return self.then("Neg")


def _relu(x: _Value) -> _Value:
    return x.then("Relu")


def _elu(x: _Value, alpha: float) -> _Value:
    return x.then("Elu", alpha=alpha)


def _node(kind: str, inputs: Sequence[Any], output: str, **given: Any) -> Any:
    from onnx import helper

    return helper.make_node(kind, inputs, [output], name=output, **given)


def _promoted(value: Any) -> Any:
    """Numbers of any float type in float64."""
    if value is None or value.dtype.kind not in "fV":
        return value
    return value.astype(np.float64)
