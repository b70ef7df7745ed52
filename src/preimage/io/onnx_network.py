"""Generators from ONNX files: the graph as layers, compared with the file's own outputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preimage.errors import FormatError
from preimage.generator import Generator
from preimage.io import onnx_file
from preimage.io.chain import (
    MAX_MATRIX_BYTES,
    Chain,
    as_chain,
    differs,
    first_different,
    largest_numbers,
    probes,
)
from preimage.io.limits import Limits, unique
from preimage.io.onnx_graph import OnnxGraph
from preimage.io.onnx_operations import open_session

Array = NDArray[np.float64]

_MOST_NAMES = 20  # of tensors that an error lists
# Relative rounding errors of a whole network, in float16 and in wider types.
_ROUNDING = {"float16": 2e-2}
_FLOAT32_ROUNDING = 2e-5


def load_onnx(
    path: Path, output: str | None, allow_external: bool, limits: Limits, max_matrix_bytes: int
) -> Generator:
    """The network of an ONNX file that ``check_file`` has passed.

    Args:
        path: The file.
        output: Name of the tensor that is the observation; None is the graph's only output.
        allow_external: Whether weights may stand in other files of the same folder.
        limits: What the file may ask for.
        max_matrix_bytes: The largest matrix of a layer.

    Raises:
        FormatError: Not a valid file, not of one latent and one output, no chain of layers, or one
            that differs from what the file computes.
        MissingExtraError: onnx is not installed.
    """
    model, opset = onnx_file.read(path, allow_external, limits)
    network = _Model(model, opset, output, limits)
    if network.shape[0] > 1 and len(network.shape) > 1:
        try:  # a file that was exported for several samples
            return _known(network, network.shape[0], max_matrix_bytes)
        except FormatError as error:
            try:  # or one that multiplies columns
                return _known(network, 1, max_matrix_bytes)
            except FormatError:
                raise error from None
    return _known(network, 1, max_matrix_bytes)


def _known(network: _Model, batch: int, max_matrix_bytes: int = MAX_MATRIX_BYTES) -> Generator:
    graph = OnnxGraph(
        network.nodes, network.constants, network.latent, network.shape, batch, network.output,
        network.opset, network.limits,
    )  # fmt: skip
    if not graph.sizes[network.output]:
        raise FormatError(f"output {network.output!r}: it is empty")
    chain = as_chain(graph, max_matrix_bytes)
    generator = chain.generator
    draws = probes(generator.latent_size)
    draws = draws[: len(draws) // batch * batch] if batch <= len(draws) else np.resize(
        draws, (batch, generator.latent_size)
    )  # fmt: skip
    rounding = _ROUNDING.get(network.dtype, _FLOAT32_ROUNDING)
    draws = draws.astype(network.dtype).astype(np.float64)
    expected = network.run(draws, batch, [network.output])[0]
    found, size = generator(draws), largest_numbers(generator, draws)
    if differs(found, expected, size, rounding):
        raise FormatError(_reason(network, chain, draws, batch, rounding))
    return generator


def _reason(network: _Model, chain: Chain, draws: Array, batch: int, rounding: float) -> str:
    """What is said of layers that differ from the file's own values."""

    def original(name: str) -> Array | None:
        if name not in network.names:
            return None  # made of an operator's parts
        return network.run(draws, batch, [name])[0]

    name = first_different(chain, draws, rounding, original)
    return (
        "the layers found differ from what the file computes"
        + ("" if name is None else f", first at the tensor {name!r}")
        + "; please report this"
    )


class _Model:
    """The part of a model that its output needs, and how to run it."""

    def __init__(self, proto: Any, opset: int, output: str | None, limits: Limits) -> None:
        graph = proto.graph
        self.proto, self.opset, self.limits = proto, opset, limits
        self.names = {name for node in graph.node for name in node.output}
        self.output = _output(graph, output)
        self.nodes = _needed(graph.node, self.output, opset)
        initializers = unique((tensor.name, tensor) for tensor in graph.initializer)
        used = {name for node in self.nodes for name in node.input}
        self.constants = {n: _constant(t) for n, t in initializers.items() if n in used}
        inputs = [v for v in graph.input if v.name not in initializers and v.name in used]
        reaching = [v for v in inputs if self._reaches_output(v.name)]
        if len(reaching) != 1:
            shown = ", ".join(v.name for v in reaching or graph.input) or "none"
            raise FormatError(
                f"expected a network of one input, got {shown}; fix the others before the export"
                if len(reaching) > 1
                else f"expected a network of one input, got {shown}, on which the output does not "
                "depend"
            )
        latent = reaching[0]
        self.latent, self.shape = latent.name, _shape(latent, limits)
        self.dtype = _dtype(latent)
        self._others = {
            v.name: np.zeros(_shape(v, limits), _dtype(v)) for v in inputs if v is not latent
        }
        self.constants.update(self._others)

    def _reaches_output(self, name: str) -> bool:
        """Whether the values of an input count, and not only its shape."""
        reached = {name}
        for node in self.nodes:
            if node.op_type not in ("Shape", "Size") and reached & set(node.input):
                reached.update(node.output)
        return self.output in reached

    def run(self, z: Array, batch: int, names: Sequence[str]) -> list[Array]:
        """Values of tensors for latents (count, k), each (count, entries), as the file gives them.

        By onnxruntime if it is installed, else by onnx.reference.
        """
        import onnx
        from onnx.reference import ReferenceEvaluator

        graph = onnx.GraphProto(name="part")
        graph.node.extend(self.nodes)
        used = {name for node in self.nodes for name in node.input}
        graph.initializer.extend(t for t in self.proto.graph.initializer if t.name in used)
        graph.input.extend(v for v in self.proto.graph.input if v.name in used)
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        proto = onnx.helper.make_model(
            graph, opset_imports=self.proto.opset_import, ir_version=self.proto.ir_version
        )
        try:
            session = open_session(proto.SerializeToString())
        except Exception:  # operators and types that onnxruntime does not have
            session = None
        session = session or ReferenceEvaluator(proto)
        found: list[list[Array]] = [[] for _ in names]
        for start in range(0, len(z), batch):
            latent = z[start : start + batch].reshape(self.shape).astype(self.dtype)
            feed = {self.latent: latent, **self._others}
            for values, value in zip(found, session.run(list(names), feed), strict=True):
                values.append(np.asarray(value, dtype=np.float64).reshape(batch, -1))
        return [np.concatenate(values) for values in found]


def _needed(nodes: Sequence[Any], output: str, opset: int) -> list[Any]:
    wanted, found = {output}, []
    for node in reversed(nodes):
        if wanted & set(node.output):
            found.append(node)
            wanted.update(node.input)
        if any(a.HasField("g") or a.graphs for a in node.attribute):
            raise FormatError(f"{node.name}: {node.op_type}: not supported, as all control flow")
        training = node.op_type == "BatchNormalization" and opset < 14
        if training and sum(map(bool, node.output)) > 1:
            raise FormatError(
                f"{node.name}: BatchNormalization: it is in training mode; export the network in "
                "eval mode"
            )
    return found[::-1]


def _output(graph: Any, output: str | None) -> str:
    known = [name for node in graph.node for name in node.output if name]
    if output is not None:
        if output not in known:
            shown = ", ".join(known[-_MOST_NAMES:])
            raise FormatError(f"output: no tensor is called {output!r}; the last ones are {shown}")
        return output
    names = [value.name for value in graph.output]
    if len(names) != 1:
        raise FormatError(f"expected a network of one output, got {', '.join(names)}; pass output=")
    return str(names[0])


def _shape(value: Any, limits: Limits) -> tuple[int, ...]:
    """The shape of an input; a first dimension that is open is one sample."""
    if not value.type.HasField("tensor_type"):
        raise FormatError(f"input {value.name!r}: expected a tensor")
    dimensions = list(value.type.tensor_type.shape.dim)
    sizes = [int(d.dim_value) if d.HasField("dim_value") else 0 for d in dimensions]
    open_alone = len(sizes) == 1 and sizes[0] < 1
    if not sizes or open_alone or min(sizes[1:], default=1) < 1:
        shown = [size or d.dim_param or "?" for size, d in zip(sizes, dimensions, strict=True)]
        raise FormatError(
            f"input {value.name!r}: expected a shape (batch, ...) with only the batch open, got "
            f"({', '.join(map(str, shown))}); export the network with fixed sizes"
        )
    return limits.check_shape((max(sizes[0], 1), *sizes[1:]))


def _dtype(value: Any) -> str:
    from onnx import helper

    try:
        kind = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"input {value.name!r}: its type of numbers is unknown") from error
    return str(kind.name)


def _constant(tensor: Any) -> Any:
    from onnx import numpy_helper

    try:
        value = numpy_helper.to_array(tensor)
    except Exception as error:  # as when it is parsed
        raise FormatError(f"tensor {tensor.name!r}: {error}") from error
    if value.dtype.kind in "cOSU":
        raise FormatError(f"tensor {tensor.name!r}: expected real numbers, got {value.dtype}")
    # The types of ml_dtypes, which onnx uses for bfloat16, convert themselves.
    return value.astype(np.float32) if value.dtype.kind == "V" else value
