"""ONNX models made by hand, and what onnxruntime says of them."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

onnxruntime.set_default_logger_severity(4)


def model(nodes, input_shape, constants=(), *, opset=21, batch="batch"):
    """A model with the input ``x`` of shape (batch, *input_shape) and these nodes.

    Nodes are ``(operator, inputs, output, attributes)``; arrays among the inputs are constants.
    The tensor ``y`` is flattened, as ``flat``, the output.
    """
    initializers, made = [numpy_helper.from_array(v, n) for n, v in dict(constants).items()], []
    last = ("Flatten", ["y"], "flat", {})
    for index, (operator, inputs, target, attributes) in enumerate([*nodes, last]):
        names = []
        for value in inputs:
            if not isinstance(value, str):
                name = f"constant_{len(initializers)}"
                initializers.append(numpy_helper.from_array(np.asarray(value), name))
                value = name
            names.append(value)
        name = f"node_{index}"
        targets = [target] if isinstance(target, str) else target
        made.append(helper.make_node(operator, names, targets, name=name, **attributes))
    graph = helper.make_graph(
        made,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *input_shape])],
        [helper.make_tensor_value_info("flat", TensorProto.FLOAT, [batch, None])],
        initializers,
    )
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def save(proto, path):
    onnx.save(proto, path)
    return path


def run(path, x):
    """The outputs that onnxruntime computes, flattened."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    outputs = session.run(None, {session.get_inputs()[0].name: x.astype(np.float32)})
    return outputs[0]


def agree(found, expected, tolerance=1e-5):
    """Equal to 1e-5 of the largest entry, which is what float32 leaves."""
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * abs(expected).max())
