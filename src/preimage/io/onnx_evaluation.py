"""One node of an ONNX graph, evaluated by onnx.reference or onnxruntime under limits."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from preimage.io.limits import Limits

Array = NDArray[Any]

# Neither evaluated nor followed: control flow, randomness, text, sequences.
_REFUSED = (
    "If", "Loop", "Scan", "Random", "Bernoulli", "Multinomial", "String", "RegexFullMatch",
    "TfIdfVectorizer", "ImageDecoder", "Sequence", "SplitToSequence", "ConcatFromSequence",
    "Optional",
)  # fmt: skip
# Those that the reference evaluates slowly, entry by entry; it has no Pad of negative size.
_HEAVY = frozenset({"Conv", "ConvTranspose", "Resize", "Upsample", "AveragePool", "GridSample",
                    "Pad"})  # fmt: skip
_SMALL = 1024  # entries of an input whose values matter for the shape of an output


def allowed(node: Any) -> bool:
    """Whether a node may be evaluated at all."""
    return node.domain in ("", "ai.onnx") and not node.op_type.startswith(_REFUSED)


class Operators(NamedTuple):
    """The operators of one version, and how much a node may ask for."""

    opset: int
    limits: Limits

    def defaults(self, node: Any) -> list[Any]:
        """Those attributes of a node that it leaves out and ONNX has a value for."""
        from onnx import defs

        given = {attribute.name for attribute in node.attribute}
        known = defs.get_schema(node.op_type, self.opset, node.domain).attributes.values()
        return [a.default_value for a in known if a.default_value.type and a.name not in given]

    def attributes(self, node: Any) -> dict[str, Any]:
        """The attributes of a node by name, with defaults; bytes are text."""
        from onnx import helper

        pairs = (*node.attribute, *self.defaults(node))
        found = {a.name: helper.get_attribute_value(a) for a in pairs}
        return {name: v.decode() if isinstance(v, bytes) else v for name, v in found.items()}

    def evaluate(self, node: Any, inputs: Sequence[Array | None]) -> list[Array]:
        """The outputs of a node; heavy ones by onnxruntime in float32, if it is installed.

        Raises:
            FormatError: An output would have more entries than the limit.
            Exception: What onnx or onnxruntime raise where sizes do not fit.
        """
        from onnx import helper, numpy_helper

        self.shapes(node, inputs)
        runtime = node.op_type in _HEAVY and _runtime() is not None
        wide = any(v is not None and v.dtype == np.float64 for v in inputs)
        if runtime and node.op_type != "Pad":
            inputs = [
                v if v is None or v.dtype != np.float64 else v.astype(np.float32) for v in inputs
            ]
        names = [f"i{i}" if value is not None else "" for i, value in enumerate(inputs)]
        outputs = [f"o{i}" for i, name in enumerate(node.output) if name]
        single = helper.make_node(node.op_type, names, outputs, domain=node.domain)
        single.attribute.extend(node.attribute)
        constants = [
            numpy_helper.from_array(np.asarray(v), n)
            for n, v in zip(names, inputs, strict=True) if v is not None
        ]  # fmt: skip
        results = [helper.make_empty_tensor_value_info(name) for name in outputs]
        graph = helper.make_graph([single], "node", [], results, constants)
        imports = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=8)
        session = open_session(model.SerializeToString()) if runtime else reference(model)
        found = [np.asarray(value) for value in session.run(None, {})]
        return [v.astype(np.float64) if wide and v.dtype == np.float32 else v for v in found]

    def shapes(self, node: Any, inputs: Sequence[Array | None]) -> list[tuple[int, ...] | None]:
        """The shapes of the outputs that have a name, before anything is allocated.

        None where onnx cannot tell. Of inputs with more than 1024 entries only the shapes count.

        Raises:
            FormatError: An output would have more entries than the limit.
            Exception: What onnx raises where sizes do not fit.
        """
        from onnx import defs, helper, numpy_helper, shape_inference

        types, data = {}, {}
        for name, value in zip(node.input, inputs, strict=True):
            if value is None:
                continue
            # The type of floats does not matter, and some operators do not take float64.
            kind = np.dtype(np.float32) if value.dtype.kind in "fV" else value.dtype
            number = helper.np_dtype_to_tensor_dtype(kind)
            types[name] = helper.make_tensor_type_proto(number, value.shape)
            if value.size <= _SMALL:
                data[name] = numpy_helper.from_array(np.asarray(value, dtype=kind), name)
        schema = defs.get_schema(node.op_type, self.opset, "")
        imports = [helper.make_opsetid("", self.opset)]
        found = shape_inference.infer_node_outputs(
            schema, node, types, data, opset_imports=imports, ir_version=8
        )
        shapes: list[tuple[int, ...] | None] = []
        for name in filter(None, node.output):
            made: Any = found[name].tensor_type if name in found else None
            dims = made.shape.dim if made is not None and made.HasField("shape") else None
            known = [d.dim_value for d in dims or () if d.HasField("dim_value")]
            self.limits.check_shape(known)
            shapes.append(None if dims is None or len(known) < len(dims) else tuple(known))
        return shapes


@functools.cache
def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        return None
    onnxruntime.set_default_logger_severity(4)
    return onnxruntime


def open_session(data: bytes) -> Any:
    """An onnxruntime session of one thread without optimisations; None without onnxruntime."""
    runtime = _runtime()
    if runtime is None:
        return None
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def reference(model: Any) -> Any:
    """onnx.reference for a model; it takes a batch norm of opset 13 or less for one in training."""
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.ops.op_batch_normalization import BatchNormalization_14

    class BatchNormalization(BatchNormalization_14):
        op_domain = ""

        def _run(self, *inputs: Any, spatial: int = 1, **how: Any) -> Any:
            return super()._run(*inputs, **how)

    return ReferenceEvaluator(model, new_ops=[BatchNormalization])
