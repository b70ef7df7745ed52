"""Each ONNX operator computes what onnxruntime computes."""

from __future__ import annotations

import numpy as np
import pytest
from networks import agree, model, run, save

from preimage.activation import LeakyReLU, PReLU, ReLU
from preimage.io import load

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


@pytest.mark.parametrize(("shape", "nodes", "opset"), [*DENSE, *MOVES, *IMAGES, *RESIZES])
@pytest.mark.parametrize("max_matrix_bytes", [0, None], ids=["operator", "matrix"])
def test_outputs_agree_with_onnxruntime(tmp_path, shape, nodes, opset, max_matrix_bytes):
    """Claim: as a matrix and as an operator, the same outputs as onnxruntime's, to 1e-5."""
    # An affine operator first, so that those that move nothing still leave a network.
    shift = f(*shape)
    before = ("Add", ["x", shift], "z", {})
    path = save(model([before, *nodes], shape, opset=opset), tmp_path / "net.onnx")
    x = f(3, *shape)
    generator = load(path, max_matrix_bytes=max_matrix_bytes)
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
        (("PRelu", ["a", np.float32([2.0])], "y", {}), PReLU((2.0, 2.0, 2.0), repeat=4)),
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


@pytest.mark.parametrize("max_matrix_bytes", [0, None])
def test_sums_of_one_segment(tmp_path, max_matrix_bytes):
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
    generator = load(path, max_matrix_bytes=max_matrix_bytes)
    assert generator.sizes == (48, 128)
    agree(generator(x.reshape(1, -1)), run(path, x))
