"""Each ONNX operator computes what onnxruntime computes."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from networks import agree, model, run, save
from onnx import TensorProto, helper, numpy_helper

from preimage.activation import LeakyReLU, PReLU, ReLU
from preimage.io import load, onnx_evaluation

RNG = np.random.default_rng(0)


def f(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def i(*values):
    return np.array(values, dtype=np.int64)


def case(operator, shape, *inputs, opset=21, name="", **attributes):
    """An operator with ``z`` of shape (batch, *shape) where it is named, else as first input."""
    given = inputs if any(isinstance(v, str) and v == "z" for v in inputs) else ("z", *inputs)
    label = f"{operator}-{opset}-{name or ''}-{attributes or ''}"[:70]
    return pytest.param(shape, [(operator, given, "y", attributes)], opset, id=label)


POSITIVE = np.abs(f(3)) + 0.5
DENSE = [
    case("Gemm", (4,), f(5, 4), f(5), transB=1),
    case("Gemm", (4,), f(4, 5), f(1, 5), alpha=0.5, beta=2.0),
    case("Gemm", (4,), f(4, 5), np.float32(2.0), opset=9),
    case("Gemm", (4,), f(4, 5), opset=11),
    case("MatMul", (4,), f(4, 5)),
    case("MatMul", (3, 4), f(4, 5), name="last"),
    case("MatMul", (2, 3, 4), f(4, 5), name="last of four"),
    case("MatMul", (3, 4), f(5, 3), "z", name="left"),
    case("Add", (3, 2, 2), f(3, 1, 1)),
    case("Add", (3, 2), f(2), "z"),
    case("Add", (3, 1), f(1, 3, 4), name="grows"),
    case("Sub", (3, 2), f(3, 1)),
    case("Sub", (3, 2), f(2), "z", name="from"),
    case("Mul", (3, 2), f(3, 1)),
    case("Mul", (3, 2), np.float32(-2.0), "z"),
    case("Div", (3, 2), POSITIVE[:, None]),
    case("Neg", (3, 2)),
    case("BatchNormalization", (3, 4, 2), f(3), f(3), f(3), POSITIVE, epsilon=1e-3),
    case("BatchNormalization", (3,), f(3), f(3), f(3), POSITIVE, opset=9),
    case("Identity", (3,)),
    case("Cast", (3,), to=1),
    case("Dropout", (3,), np.float32(0.3), np.array(False)),
    case("Dropout", (3,), opset=9, ratio=0.3),
]
MOVES = [
    case("Flatten", (3, 2, 2)),
    case("Flatten", (3, 2, 2), axis=1),
    case("Reshape", (3, 4), i(-1, 2, 6)),
    case("Reshape", (3, 4), i(0, 0, 2, 2)),
    case("Transpose", (3, 4, 2), perm=[0, 3, 1, 2]),
    case("Squeeze", (3, 1, 2), i(2)),
    case("Squeeze", (3, 1, 2), opset=11, axes=[2]),
    case("Unsqueeze", (3, 2), i(1, -1)),
    case("Unsqueeze", (3, 2), opset=11, axes=[2]),
    case("Slice", (5, 4), i(1, -1), i(4, -99), i(1, 2), i(2, -2)),
    case("Slice", (5, 4), i(1), i(2**63 - 1), i(-1)),
    case("Slice", (5, 4), opset=9, axes=[2], starts=[-3], ends=[3]),
    case("Concat", (3, 2), "z", "z", axis=2),
    case("Expand", (3, 1), i(1, 3, 4)),
    case("Gather", (3, 4), i(2, 0, 2), axis=1),
    case("Pad", (3, 4), i(0, 1, 2, 0, 0, 3)),
    case("Pad", (3, 4), i(0, 1, 0, 0, 0, 3), np.float32(2.5), name="value"),
    case("Pad", (3, 4), i(0, -1, 0, 0, 0, 3), name="cut"),
    case("Pad", (3, 4), i(1, 2), np.float32(0), i(2), name="axes"),
    case("Pad", (3, 4), opset=9, pads=[0, 1, 0, 0, 0, 1], value=1.5),
    case("Pad", (3, 4), i(0, 1, 2, 0, 0, 3), mode="reflect"),
    case("Pad", (3, 4), i(0, 1, 2, 0, 0, 3), mode="edge"),
    case("DepthToSpace", (8, 2, 3), blocksize=2),
    case("DepthToSpace", (8, 2, 3), blocksize=2, mode="CRD"),
]
IMAGES = [
    case("Conv", (3, 5, 6), f(4, 3, 3, 3), f(4), pads=[1, 0, 2, 1], strides=[2, 1]),
    case("Conv", (4, 7, 6), f(6, 2, 3, 2), group=2, dilations=[2, 1]),
    case("Conv", (4, 7, 6), f(4, 1, 3, 3), group=4, auto_pad="SAME_UPPER", strides=[2, 3]),
    case("Conv", (2, 7, 6), f(3, 2, 4, 2), auto_pad="SAME_LOWER", strides=[2, 2]),
    case("Conv", (2, 7, 6), f(3, 2, 4, 2), auto_pad="VALID"),
    case("Conv", (3, 9), f(4, 3, 3), f(4), strides=[2]),
    case("Conv", (2, 3, 4, 3), f(3, 2, 2, 2, 2)),
    case("ConvTranspose", (3, 4, 5), f(3, 2, 4, 4), f(2), pads=[1, 1, 1, 1], strides=[2, 2]),
    case("ConvTranspose", (4, 4, 5), f(4, 3, 3, 2), group=2, dilations=[2, 1], strides=[1, 3]),
    case("ConvTranspose", (3, 4, 5), f(3, 2, 3, 3), strides=[3, 2], output_padding=[2, 1]),
    case("ConvTranspose", (3, 4, 5), f(3, 2, 3, 3), strides=[3, 2], output_shape=[10, 10]),
    case("ConvTranspose", (3, 4, 5), f(3, 2, 3, 4), strides=[2, 2], auto_pad="SAME_UPPER"),
    case("ConvTranspose", (3, 4, 5), f(3, 2, 3, 4), strides=[2, 2], auto_pad="SAME_LOWER"),
    case("ConvTranspose", (3, 6), f(3, 2, 5), strides=[2], pads=[0, 2]),
    case("ConvTranspose", (3, 1, 1), f(3, 2, 4, 4)),
    case("AveragePool", (3, 6, 7), kernel_shape=[2, 3]),
    case("AveragePool", (3, 6, 7), kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]),
    case("AveragePool", (3, 6, 7), kernel_shape=[3, 3], pads=[1, 0, 1, 1], count_include_pad=1),
    case("AveragePool", (3, 6, 7), kernel_shape=[2, 4], strides=[2, 3], ceil_mode=1),
    case("AveragePool", (3, 7, 7), kernel_shape=[3, 2], strides=[2, 2], auto_pad="SAME_UPPER"),
    case("AveragePool", (3, 7), kernel_shape=[2], dilations=[3]),
    case("MaxPool", (3, 6, 7), kernel_shape=[2, 3]),
    case("MaxPool", (3, 6, 7), kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]),
    case("MaxPool", (3, 6, 7), kernel_shape=[3, 2], pads=[1, 0, 1, 1], strides=[2, 2]),
    case("MaxPool", (3, 6, 7), kernel_shape=[2, 2], pads=[1, 1, 0, 0]),
    case("MaxPool", (3, 7, 8), kernel_shape=[2, 3], strides=[2, 3], ceil_mode=1),
    case("MaxPool", (3, 7, 7), kernel_shape=[3, 2], strides=[2, 2], auto_pad="SAME_UPPER"),
    case("MaxPool", (3, 7, 7), kernel_shape=[3, 2], strides=[2, 2], auto_pad="SAME_LOWER"),
    case("MaxPool", (3, 7), kernel_shape=[2], dilations=[3]),
    case("MaxPool", (3, 7, 7), kernel_shape=[3, 3], dilations=[2, 2], pads=[1, 1, 1, 1]),
    case("MaxPool", (2, 4, 4, 4), kernel_shape=[2, 2, 2], strides=[2, 2, 2]),
    case("MaxPool", (3, 6, 7), kernel_shape=[4, 4], name="large"),
    case("MaxPool", (3, 8), kernel_shape=[3], pads=[2, 2], name="wide pads"),
    case("Shrink", (3, 4), lambd=0.3, bias=0.1),
    case("Conv", (3, 6, 7), f(4, 3, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2], name="rest"),
    case(
        "ConvTranspose",
        (3, 4, 5),
        f(3, 2, 3, 3),
        f(2),
        strides=[2, 2],
        pads=[1, 1, 1, 1],
        output_padding=[1, 1],
    ),
    case("GlobalAveragePool", (3, 4, 5)),
    case("ReduceMean", (3, 4, 5), i(2, 3), keepdims=0),
    case("ReduceMean", (3, 4, 5), opset=13, axes=[-1]),
    case("Upsample", (3, 2, 3), np.float32([1, 1, 2, 3]), opset=9),
    case("Resize", (3, 2, 3), np.float32([1, 1, 2, 3]), opset=10),
    case("Resize", (3, 4, 6), np.float32([1, 1, 0.5, 0.4]), opset=10),
    case("Resize", (3, 4, 6), "z", "", np.float32([2, 1.5]), axes=[2, 3]),
    case("Resize", (3, 4, 6), "z", "", "", i(7, 5), axes=[2, 3]),
]
RESIZES = [
    case("Resize", (2, 4, 5), "z", "", np.float32([1, 1, *scales]), mode="nearest",
         coordinate_transformation_mode=transform, nearest_mode=rounding)
    for scales in ((2.0, 3.0), (1.5, 0.7))
    for transform in ("asymmetric", "half_pixel", "pytorch_half_pixel", "align_corners",
                      "half_pixel_symmetric")
    for rounding in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
]  # fmt: skip


MORE = [
    case("Clip", (3, 4), np.float32(-0.2), np.float32(0.7)),
    case("Clip", (3, 4), np.float32(0), np.float32(6), name="relu6"),
    case("Clip", (3, 4), "z", "", np.float32(0.5), name="above"),
    case("Clip", (3, 4), np.float32(0.1), name="below"),
    case("Clip", (3, 4), opset=9, min=-0.2, max=0.7),
    case("Clip", (3, 4), opset=9),
    case("Max", (3, 4), np.float32(0)),
    case("Max", (3, 4), f(4), name="constant"),
    case("Max", (3, 4), "z", np.float32(-0.5), f(3, 1), name="three"),
    case("Min", (3, 4), np.float32(0.3)),
    case("Abs", (3, 4)),
    case("HardSigmoid", (3, 4)),
    case("HardSigmoid", (3, 4), alpha=0.4, beta=0.3),
    case("Elu", (3, 4), alpha=0.6),
    case("Selu", (3, 4)),
    case("Celu", (3, 4), alpha=0.4),
    case("Softplus", (3, 4)),
    case("PRelu", (3, 4), f(3, 1) ** 2),
    case("PRelu", (2, 3, 4), np.abs(f(1, 1, 4)), name="as Keras writes it"),
    case("Sum", (3, 4), "z", f(3, 4), "z"),
    case("Mean", (3, 4), "z", f(3, 4)),
    case("ReduceSum", (3, 4), i(1), keepdims=0),
    case("ReduceSum", (3, 4), i(-1)),
    case("ReduceSum", (3, 4), opset=11, axes=[1], keepdims=0),
    case("ReduceMean", (3, 4), opset=18, noop_with_empty_axes=1),
    case("ReduceMean", (3, 4), "z", "", opset=18, noop_with_empty_axes=1, name="no axes"),
    case("ReduceMean", (3, 4), i(), opset=18, noop_with_empty_axes=1, name="empty axes"),
    case("ReduceMean", (3, 4), i(2), opset=18, noop_with_empty_axes=1),
    case("ReduceSum", (3, 4), noop_with_empty_axes=1),
    case("ReduceSum", (3, 4), i(), opset=13, noop_with_empty_axes=1, name="empty axes"),
    case("ReduceSum", (3, 4), i(1, 2), noop_with_empty_axes=1, keepdims=0),
    case("Tile", (3, 4), i(1, 2, 3)),
    case("SpaceToDepth", (2, 4, 6), blocksize=2),
    case("Where", (3, 4), np.array([True, False, True, True]), "z", f(3, 4)),
    case("CumSum", (3, 4), np.int64(1)),
    case("Trilu", (4, 4), upper=1),
    case("Einsum", (3, 4), "z", f(4, 5), equation="bij,jk->bik"),
    case("Resize", (2, 4, 5), "z", "", np.float32([1, 1, 1.5, 2]), mode="linear"),
    case("Resize", (2, 4, 5), "z", "", "", i(7, 9), mode="linear", axes=[2, 3],
         coordinate_transformation_mode="align_corners"),
    case("Resize", (2, 4, 5), "z", "", np.float32([1, 1, 2, 2]), mode="cubic",
         cubic_coeff_a=-0.75),
    case("Resize", (1, 100), "z", "", "", i(120), mode="nearest", axes=[2],
         coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
    case("Resize", (2, 4, 5), "z", "", np.float32([1, 1, 1.2, 1.1]), name="as large as before"),
    case("Resize", (2, 4, 5), "z", "", np.float32([1, 1, 1.2, 1.1]), mode="linear"),
    case("Upsample", (3, 2, 3), np.float32([1, 1, 2, 2]), opset=9, mode="linear"),
    case("Upsample", (3, 2, 3), opset=7, scales=[1.0, 1.0, 2.0, 2.0]),
    case("ConvTranspose", (3, 4, 5), f(3, 2, 2, 2), strides=[3, 3], name="gaps"),
    case("Flatten", (3, 4), opset=8),
    case("Gemm", (4,), f(5, 4), f(5), transB=1, opset=7),
    case("Add", (3, 4), f(4), opset=24),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "nodes", "opset"), [*DENSE, *MOVES, *IMAGES, *RESIZES, *MORE])
def test_outputs_agree_with_onnxruntime(tmp_path, shape, nodes, opset):
    """Claim: the same outputs as onnxruntime's."""
    # An affine operator first, so that those that move nothing still leave a network.
    shift = f(*shape)
    before = ("Add", ["x", shift], "z", {})
    path = save(model([before, *nodes], shape, opset=opset), tmp_path / "net.onnx")
    x = f(3, *shape)
    generator = load(path)
    agree(generator(x.reshape(3, -1)), run(path, x))


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (("Relu", ["a"], "y", {}), None),
        (("LeakyRelu", ["a"], "y", {"alpha": 0.125}), LeakyReLU(0.125)),
        (("Tanh", ["a"], "y", {}), None),
        (("Sigmoid", ["a"], "y", {}), None),
        (
            ("PRelu", ["a", np.float32([[0.5], [0.25], [2.0]])], "y", {}),
            PReLU((0.5, 0.25, 2.0), repeat=4),
        ),
        (("PRelu", ["a", np.float32([0.25])], "y", {}), LeakyReLU(0.25)),
        (("PRelu", ["a", np.float32([2.0])], "y", {}), PReLU((2.0,), repeat=12)),
        (("PRelu", ["a", np.zeros((3, 1), np.float32)], "y", {}), ReLU()),
        (
            ("PRelu", ["a", np.float32([0.5, 0.25, 1.0, 2.0])], "y", {}),
            PReLU((0.5, 0.25, 1.0, 2.0) * 3),
        ),
    ],
)
def test_activations(tmp_path, node, expected):
    """Claim: activations agree, and a PRelu becomes the simplest activation that is the same."""
    path = save(model([("Mul", ["x", f(3, 1)], "a", {}), node], (3, 4)), tmp_path / "net.onnx")
    x = f(5, 3, 4)
    generator = load(path)
    agree(generator(x.reshape(5, -1)), run(path, x))
    if expected is not None:
        assert generator.layers[0].activation == expected


def test_shapes_are_folded(tmp_path):
    """Claim: the chains that exporters write for ``view(x.size(0), -1)`` are constants."""
    nodes = [
        ("MatMul", ["x", f(4, 12)], "a", {}),
        ("Shape", ["a"], "shape", {}),
        ("Gather", ["shape", np.int64(0)], "batch", {"axis": 0}),
        ("Unsqueeze", ["batch", i(0)], "one", {}),
        ("Slice", ["shape", i(1), i(2), i(0)], "rest", {}),
        ("Div", ["rest", i(4)], "quarter", {}),
        ("ConstantOfShape", [i(1)], "zeros", {}),
        ("Cast", ["zeros"], "whole", {"to": 7}),
        ("Add", ["whole", i(4)], "four", {}),
        ("Concat", ["one", "quarter", "four"], "target", {"axis": 0}),
        ("Reshape", ["a", "target"], "b", {}),
        ("Transpose", ["b"], "y", {"perm": [0, 2, 1]}),
    ]
    path = save(model(nodes, (4,)), tmp_path / "net.onnx")
    x = f(3, 4)
    agree(load(path)(x), run(path, x))


def test_sums_of_one_segment(tmp_path):
    """Claim: branches that part and meet within a segment are one layer."""
    nodes = [
        ("Conv", ["x", f(4, 3, 3, 3), f(4)], "a", {"pads": [1, 1, 1, 1]}),
        ("Conv", ["a", f(4, 4, 1, 1)], "b", {}),
        ("Conv", ["a", f(4, 4, 3, 3), f(4)], "c", {"pads": [1, 1, 1, 1]}),
        ("Add", ["b", "c"], "d", {}),
        ("Sub", ["d", "a"], "e", {}),
        ("Concat", ["e", "x", np.ones((1, 1, 4, 4), np.float32)], "g", {"axis": 1}),
        ("Relu", ["g"], "y", {}),
    ]
    # onnxruntime does not broadcast the constant over the batch, so the batch is one.
    path = save(model(nodes, (3, 4, 4)), tmp_path / "net.onnx")
    x = f(1, 3, 4, 4)
    generator = load(path)
    assert generator.sizes == (48, 128)
    agree(generator(x.reshape(1, -1)), run(path, x))


def layers(shape, nodes, opset=21, constants=()):
    """A network with layers of its own before and after."""
    first = ("MatMul", ["x", f(shape[0], 12)], "z", {})
    return model([first, *nodes], shape, constants, opset=opset)


SKIPS = {
    "residual": [("Relu", ["z"], "a", {}), ("Add", ["a", "z"], "b", {}), ("Relu", ["b"], "y", {})],
    "concatenated": [
        ("LeakyRelu", ["z"], "a", {"alpha": 0.2}), ("Concat", ["a", "z", "x"], "b", {"axis": 1}),
        ("MatMul", ["b", f(28, 7)], "c", {}), ("Relu", ["c"], "d", {}),
        ("Concat", ["d", "a"], "y", {"axis": 1}),
    ],
    "two branches": [
        ("Relu", ["z"], "a", {}), ("Clip", ["z", np.float32(-1), np.float32(1)], "b", {}),
        ("Sub", ["a", "b"], "y", {}),
    ],
    "largest of two": [
        ("Split", ["z"], ["a", "b"], {"axis": 1, "num_outputs": 2}), ("Max", ["a", "b"], "y", {}),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", SKIPS)
def test_skips_become_layers(tmp_path, name):
    """Claim: sums and concatenations around activations carry rows of slope 1."""
    path = save(layers((4,), SKIPS[name]), tmp_path / "net.onnx")
    x = f(5, 4)
    agree(load(path)(x), run(path, x))


CONSTANTS = {
    "square root": [("Sqrt", [np.float32([4.0])], "c", {})],
    "power": [("Pow", [np.float32([3.0]), np.float32(2)], "c", {})],
    "reciprocal": [("Reciprocal", [np.float32([4.0])], "c", {})],
    "norm": [("ReduceL2", [f(3, 4), i(0)], "n", {"keepdims": 0}),
             ("ReduceMax", ["n", i(0)], "c", {})],
    "dequantized": [
        ("DequantizeLinear", [np.int8([[3]]), np.float32(0.5), np.int8(1)], "c", {})],
    "largest": [("Max", [np.float32([1.0]), np.float32([2.0])], "c", {})],
    "product": [("MatMul", [f(1, 3), f(3, 1)], "c", {})],
    "of a shape": [("Shape", ["z"], "s", {"start": 1}), ("Cast", ["s"], "t", {"to": 1}),
                   ("ReduceSum", ["t"], "c", {"keepdims": 0})],
}  # fmt: skip


@pytest.mark.parametrize("name", CONSTANTS)
def test_constant_parts_are_evaluated(tmp_path, name):
    """Claim: whatever does not depend on the latent is a constant, by any operator."""
    nodes = [*CONSTANTS[name], ("Mul", ["z", "c"], "a", {}), ("Relu", ["a"], "y", {})]
    path = save(layers((4,), nodes), tmp_path / "net.onnx")
    x = f(5, 4)
    agree(load(path)(x), run(path, x))


def raw(nodes, inputs, output, constants):
    """A model with these inputs, ``(name, shape)``, whose output has no shape."""
    graph = helper.make_graph(
        [helper.make_node(k, i, [o], **a) for k, i, o, a in nodes], "graph",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs],
        [onnx.ValueInfoProto(name=output)],
        [numpy_helper.from_array(v, n) for n, v in constants.items()],
    )  # fmt: skip
    graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize(
    ("nodes", "inputs"),
    [
        ([("MatMul", ["w", "x"], "a", {}), ("Relu", ["a"], "y", {})], [("x", [4])]),
        ([("MatMul", ["w", "x"], "a", {}), ("Relu", ["a"], "y", {})], [("x", [4, 1])]),
        ([("MatMul", ["x", "v"], "a", {}), ("Relu", ["a"], "y", {})], [("x", [1, 4])]),
        ([("MatMul", ["x", "v"], "a", {}), ("Relu", ["a"], "y", {})],
         [("x", [1, 4]), ("unused", [7])]),
    ],
)  # fmt: skip
def test_inputs_of_other_forms(tmp_path, nodes, inputs):
    """Claim: no batch, columns, and inputs that are not used."""
    proto = raw(nodes, inputs, "y", {"w": f(6, 4), "v": f(4, 6)})
    path = save(proto, tmp_path / "net.onnx")
    generator = load(path)
    assert (generator.latent_size, generator.observation_size) == (4, 6)
    x = f(4)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feed = {n: np.zeros(s, np.float32) for n, s in inputs}
    feed["x"] = x.reshape(inputs[0][1])
    names = {value.name for value in session.get_inputs()}
    expected = session.run(None, {k: v for k, v in feed.items() if k in names})[0]
    agree(generator(x), expected.reshape(-1))


@pytest.mark.parametrize("opset", [7, 9, 13, 14, 15])
def test_batch_norm_without_onnxruntime(tmp_path, monkeypatch, opset):
    """Claim: a batch norm of any opset is that of eval mode, also where it is a constant."""
    more = {"spatial": 1} if opset < 9 else {}
    norm = ("BatchNormalization", ["z", f(12), f(12), f(12), np.abs(f(12)) + 0.5], "b", more)
    constant = ("BatchNormalization", [f(1, 12), *norm[1][1:]], "c", more)
    nodes = [norm, constant, ("Add", ["b", "c"], "a", {}), ("Relu", ["a"], "y", {})]
    path, z = save(layers((4,), nodes, opset), tmp_path / "net.onnx"), f(3, 4)
    expected = run(path, z)
    agree(load(path)(z), expected)
    monkeypatch.setattr(onnx_evaluation, "_runtime", lambda: None)
    agree(load(path)(z), expected)


def test_without_onnxruntime(tmp_path, monkeypatch):
    """Claim: onnx.reference alone gives the same layers."""
    nodes = [
        ("Conv", ["x", f(4, 3, 3, 3), f(4)], "a", {"pads": [1, 1, 1, 1]}), ("Relu", ["a"], "b", {}),
        ("Resize", ["b", "", np.float32([1, 1, 2, 2])], "y", {}),
    ]  # fmt: skip
    path = save(model(nodes, (3, 4, 4)), tmp_path / "net.onnx")
    with_runtime = load(path)
    monkeypatch.setattr(onnx_evaluation, "_runtime", lambda: None)
    without, z = load(path), f(3, 48)
    assert np.abs(without(z) - with_runtime(z)).max() < 1e-6
