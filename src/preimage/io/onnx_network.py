"""Networks from ONNX files: the graph in torch, compared with the file's own outputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from preimage.errors import FormatError, InputError, extra
from preimage.io import onnx_file
from preimage.io.chain import differs, probes
from preimage.io.limits import Limits, unique
from preimage.io.onnx_evaluation import open_session
from preimage.io.tensors import reading
from preimage.io.torch_module import with_layers
from preimage.matrix import Array
from preimage.network import Network
from preimage.torch_modules import torch
from preimage.torch_network import TorchNetwork

_MOST_NAMES = 20  # of tensors that an error lists
# Relative rounding errors of a whole network, in float16 and in wider types.
_ROUNDING = {"float16": 2e-2}
_FLOAT32_ROUNDING = 2e-5
# An evaluation in float32 may differ from one in float64 so many times more than another does.
_CONDITION = 20.0


def load_onnx(
    path: Path, output: str | None, allow_external: bool, limits: Limits, max_matrix_bytes: int
) -> Network:
    """The network of an ONNX file that ``check_file`` has passed; arguments as of ``load``.

    Raises:
        FormatError: Not a valid file, not of one latent and one output, one with an operator that
            torch is not known to have, or that torch computes differently.
        MissingExtraError: onnx or torch is not installed.
    """
    model, opset = onnx_file.read(path, allow_external, limits)
    network = OnnxModel(model, opset, output, limits)
    if network.shape[0] > 1 and len(network.shape) > 1:
        try:  # a file that was exported for several samples
            return _network(network, network.shape[0], max_matrix_bytes)
        except FormatError as error:
            try:  # or one that multiplies columns
                return _network(network, 1, max_matrix_bytes)
            except FormatError:
                raise error from None
    return _network(network, 1, max_matrix_bytes)


def _network(model: OnnxModel, samples: int, max_matrix_bytes: int) -> Network:
    """The layers of a model where they are known, else the model as torch runs it."""
    with extra("torch", "torch"):
        from preimage.io.onnx_torch import OnnxModule
    module = OnnxModule(model, samples)
    try:
        network = TorchNetwork(module, (module.latent_size,))
    except InputError as error:
        raise FormatError(str(error)) from error
    _compare(network, model, samples)
    return with_layers(network, max_matrix_bytes)


def _compare(network: TorchNetwork, model: OnnxModel, samples: int) -> None:
    """Compare what torch computes with what the file does.

    Raises:
        FormatError: They differ by more than rounding; the message names the first tensor.
    """
    z = probes(network.latent_size)
    z = np.resize(z, (max(len(z) // samples, 1) * samples, network.latent_size))
    z = z.astype(model.dtype).astype(np.float64)
    rounding = _ROUNDING.get(model.dtype, _FLOAT32_ROUNDING)
    expected, found = model.run(z, samples, model.output), network(z)
    draft = network.draft or network
    with np.errstate(invalid="ignore"):
        size = np.abs(found).max(axis=1)
        size += _CONDITION / rounding * np.abs(draft(z) - found).max(axis=1)
    if not differs(found, expected, size, rounding):
        return
    rows = [dict(network.module.tensors(row)) for row in torch.from_numpy(z)]
    for name in filter(model.names.__contains__, rows[0]):
        own = np.stack([row[name].reshape(-1).double().numpy() for row in rows])
        if differs(own, model.run(z, samples, name), np.abs(own).max(axis=1), rounding):
            break
    raise FormatError(
        f"torch computes something else than the file, first at the tensor {name!r}; please "
        "report this"
    )


class OnnxModel:
    """The part of a model that its output needs, and how to run it."""

    def __init__(self, proto: Any, opset: int, output: str | None, limits: Limits) -> None:
        self.proto, self.opset, self.limits = proto, opset, limits
        self.names = {name for node in proto.graph.node for name in node.output}
        self.output = _output(proto.graph, output)
        graph = onnx_file.written_out(proto, opset, limits).graph
        self.nodes = _needed(graph.node, self.output)
        initializers = unique((tensor.name, tensor) for tensor in graph.initializer)
        used = {name for node in self.nodes for name in node.input}
        self.constants = {n: _constant(t) for n, t in initializers.items() if n in used}
        inputs = [v for v in graph.input if v.name not in initializers and v.name in used]
        reaching = [v for v in inputs if self._reaches_output(v.name)]
        if len(reaching) != 1:
            shown = ", ".join(v.name for v in reaching or graph.input) or "none"
            what = (
                "; fix the others before the export"
                if reaching
                else ", on which the output does not depend"
            )
            raise FormatError(f"expected a network of one input, got {shown}{what}")
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

    def run(self, z: Array, batch: int, name: str) -> Array:
        """Values of a tensor for latents (count, k), (count, entries), as the file gives them.

        By onnxruntime if it is installed, else by onnx.reference.
        """
        import onnx
        from onnx.reference import ReferenceEvaluator

        graph = onnx.GraphProto(name="part")
        nodes = _needed(self.proto.graph.node, self.output)
        graph.node.extend(nodes)
        used = {name for node in nodes for name in node.input}
        graph.initializer.extend(t for t in self.proto.graph.initializer if t.name in used)
        graph.input.extend(v for v in self.proto.graph.input if v.name in used)
        graph.output.append(onnx.ValueInfoProto(name=name))
        proto = onnx.helper.make_model(
            graph, opset_imports=self.proto.opset_import, ir_version=self.proto.ir_version
        )
        try:
            session = open_session(proto.SerializeToString())
        except Exception:  # operators and types that onnxruntime does not have
            session = None
        session = session or ReferenceEvaluator(proto)
        found = []
        with reading("a network that can be run"):  # sizes may not fit
            for start in range(0, len(z), batch):
                latent = z[start : start + batch].reshape(self.shape).astype(self.dtype)
                (value,) = session.run([name], {self.latent: latent, **self._others})
                found.append(np.asarray(value, dtype=np.float64).reshape(batch, -1))
        return np.concatenate(found)


def _needed(nodes: Sequence[Any], output: str) -> list[Any]:
    wanted, found = {output}, []
    for node in reversed(nodes):
        if wanted & set(node.output):
            found.append(node)
            wanted.update(node.input)
        if any(a.HasField("g") or a.graphs for a in node.attribute):
            raise FormatError(f"{node.name}: {node.op_type}: not supported, as all control flow")
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

    with reading(f"a known type of numbers of the input {value.name!r}"):
        return str(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name)


def _constant(tensor: Any) -> Any:
    from onnx import numpy_helper

    with reading(f"the values of tensor {tensor.name!r}"):
        value = numpy_helper.to_array(tensor)
    if value.dtype.kind in "cOSU":
        raise FormatError(f"tensor {tensor.name!r}: expected real numbers, got {value.dtype}")
    # The types of ml_dtypes, which onnx uses for bfloat16, convert themselves.
    return value.astype(np.float32) if value.dtype.kind == "V" else value
