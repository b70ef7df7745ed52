"""Networks from ONNX files: the graph in torch, compared with the file's own outputs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from preimage.errors import FormatError, InputError, extra
from preimage.io import onnx_file
from preimage.io.comparison import differs, probes
from preimage.io.limits import Limits, unique
from preimage.io.onnx_evaluation import open_session, reference
from preimage.io.tensors import reading
from preimage.matrix import Array
from preimage.torch_modules import torch
from preimage.torch_network import TorchNetwork

_MOST_NAMES = 20  # of tensors that an error lists
# An evaluation in float32 may differ from one in float64 so many times more than another does.
_CONDITION = 20.0


def load_onnx(path: Path, output: str | None, allow_external: bool, limits: Limits) -> TorchNetwork:
    """The network of an ONNX file that ``check_file`` has passed; arguments as of ``load``.

    Raises:
        InputError: Not a valid file, not of one latent and one output, one with an operator that
            torch is not known to have, or that torch computes differently.
        MissingExtraError: onnx or torch is not installed.
    """
    model = OnnxModel(*onnx_file.read(path, allow_external, limits), output, limits)
    samples = model.shape[0] if len(model.shape) > 1 else 1
    try:
        return _network(model, samples)
    except InputError:
        if samples == 1:
            raise
        with suppress(InputError):  # a file that multiplies columns, and not one of several samples
            return _network(model, 1)
        raise


def _network(model: OnnxModel, samples: int) -> TorchNetwork:
    """The model as torch runs it, compared with what the file computes."""
    with extra("torch", "torch"):
        from preimage.io.onnx_torch import OnnxModule
    module = OnnxModule(model, samples)
    network = TorchNetwork(module, (module.latent_size,))
    _compare(network, model, samples)
    return network


def _compare(network: TorchNetwork, model: OnnxModel, samples: int) -> None:
    """Compare what torch computes with what the file does.

    Raises:
        FormatError: They differ by more than rounding; the message names the first tensor.
    """
    z = probes(network.latent_size)
    z = np.resize(z, (max(len(z) // samples, 1) * samples, network.latent_size))
    z = z.astype(model.dtype).astype(np.float64)
    rounding = 2e-2 if model.dtype == "float16" else 2e-5  # relative, of a whole network
    expected, found = model.run(z, samples, model.output), network(z)
    draft = network.draft or network
    with np.errstate(invalid="ignore"):
        size = np.abs(found).max(axis=1)
        size += _CONDITION / rounding * np.abs(draft(z) - found).max(axis=1)
    if not differs(found, expected, size, rounding):
        return
    rows = [dict(network.module.tensors(row)) for row in torch.from_numpy(z)]
    for name in rows[0]:
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
        from onnx import helper

        graph, self.opset, self.limits = proto.graph, opset, limits
        self.output = _output(graph, output)
        self.nodes = _needed(graph.node, self.output)
        initializers = unique((tensor.name, tensor) for tensor in graph.initializer)
        used = {name for node in self.nodes for name in node.input}
        self._tensors = [tensor for name, tensor in initializers.items() if name in used]
        self.constants = {tensor.name: _constant(tensor) for tensor in self._tensors}
        inputs = [v for v in graph.input if v.name not in initializers and v.name in used]
        if len(inputs) != 1:
            shown = ", ".join(v.name for v in inputs or graph.input) or "none"
            what = (
                "; fix the others before the export"
                if inputs
                else ", on which the output does not depend"
            )
            raise FormatError(f"expected a network of one input, got {shown}{what}")
        (latent,) = inputs
        self.latent, self.shape = latent.name, _shape(latent, limits)
        with reading(f"a known type of numbers of the input {self.latent!r}"):
            kind = helper.tensor_dtype_to_np_dtype(latent.type.tensor_type.elem_type)
        self.dtype = str(kind.name)
        self._inputs = [v for v in graph.input if v.name in used]
        self._form = {"opset_imports": proto.opset_import, "ir_version": proto.ir_version}

    def run(self, z: Array, batch: int, name: str) -> Array:
        """Values of a tensor for latents (count, k), (count, entries), as the file gives them.

        By onnxruntime if it is installed, else by onnx.reference.
        """
        import onnx

        graph = onnx.helper.make_graph(
            self.nodes, "part", self._inputs, [onnx.ValueInfoProto(name=name)], self._tensors
        )
        proto = onnx.helper.make_model(graph, **self._form)
        try:
            session = open_session(proto.SerializeToString())
        except Exception:  # operators and types that onnxruntime does not have
            session = None
        session = session or reference(proto)
        found = []
        with reading("a network that can be run"):  # sizes may not fit
            for start in range(0, len(z), batch):
                latent = z[start : start + batch].reshape(self.shape).astype(self.dtype)
                (value,) = session.run([name], {self.latent: latent})
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


def _constant(tensor: Any) -> Any:
    from onnx import numpy_helper

    with reading(f"the values of tensor {tensor.name!r}"):
        value = numpy_helper.to_array(tensor)
    if value.dtype.kind in "cOSU":
        raise FormatError(f"tensor {tensor.name!r}: expected real numbers, got {value.dtype}")
    # The types of ml_dtypes, which onnx uses for bfloat16, convert themselves.
    return value.astype(np.float32) if value.dtype.kind == "V" else value
