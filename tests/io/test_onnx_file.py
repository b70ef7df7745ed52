"""ONNX files: what is refused, and that the error names the file, the node and what to do."""

from __future__ import annotations

import os
import sys

import numpy as np
import onnx
import pytest
from networks import agree, model, run, save
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from preimage.errors import FormatError, MissingExtraError
from preimage.io import Limits, load

RNG = np.random.default_rng(0)


def f(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def dense(*nodes, **options):
    """A Gemm from 4 to 6, then these nodes on ``a``."""
    nodes = nodes or (("Relu", ["a"], "y", {}),)
    return model([("Gemm", ["x", f(4, 6), f(6)], "a", {}), *nodes], (4,), **options)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([("TopK", ["a", np.array([3])], ["y", "n"], {})], "node_1: TopK: not supp.*from_torch"),
        ([("Div", ["a", np.zeros(6, np.float32)], "y", {})], "node_1: Div"),
        ([("Add", ["a", np.full(6, np.nan, np.float32)], "y", {})],
         "node_1: Add: its values are not finite"),
        ([("Gemm", ["a", f(5, 3)], "y", {})], "node_1: Gemm: it does not fit"),
        ([("Gemm", [f(3, 6), "a"], "y", {})], "node_1: Gemm: it does not fit"),
        ([("MatMul", [f(3, 6), "a"], "y", {})], "node_1: MatMul: it does not fit"),
        ([("Conv", ["a", f(1, 1, 2, 2)], "y", {})], "node_1: Conv: it does not fit"),
        ([("Reshape", ["a", np.array([0, 4])], "y", {})], "node_1: Reshape: it does not fit"),
        ([("Reshape", ["a", np.array([1, 1, 0, 0])], "y", {})], "node_1: Reshape: it does not fit"),
        ([("Transpose", ["a"], "y", {"perm": [0, 0]})], "node_1: Transpose: it does not fit"),
        ([("Slice", ["a", np.array([0]), np.array([0]), np.array([1])], "y", {})],
         "output 'flat': it is empty"),
        ([("Squeeze", ["a", np.array([1])], "y", {})], "node_1: Squeeze: it does not fit"),
        ([("Gather", ["a", np.array([9])], "y", {"axis": 1})], "node_1: Gather: it does not fit"),
        ([("Cast", ["a"], "b", {"to": 7}), ("Cast", ["b"], "y", {"to": 1})],
         "node_1: Cast: real numbers that depend on the latent are cast"),
        ([("Dropout", ["a", np.float32(0.5), np.array(True)], "y", {})],
         "node_1: Dropout: it is in training mode"),
        ([("BatchNormalization", ["a", *[f(6)] * 3, -np.ones(6, np.float32)], "y", {})],
         "node_1: BatchNormalization: .*not"),
        ([("BatchNormalization", ["a", *[np.ones(5, np.float32)] * 4], "y", {})],
         "node_1: BatchNormalization: it does not fit"),
        ([("Expand", ["a", np.array([1, 2**30, 6])], "y", {})],
         "node_1: Expand: entries of an array"),
        ([("Pad", ["a", np.array([0, 0, 0, 2**40])], "y", {})], "node_1: Pad: entries of"),
        ([("Resize", ["a", "", np.float32([1, 1e9])], "y", {})], "node_1: Resize: entries of"),
        ([("Resize", ["a", "", np.float32([1, -1])], "y", {})], "node_1: Resize: "),
        ([("Tile", ["a", np.array([1, 2**40])], "y", {})], "node_1: Tile: entries of"),
        ([("ConstantOfShape", [np.array([2**40])], "b", {}), ("Add", ["a", "b"], "y", {})],
         "node_1: ConstantOfShape: entries of"),
        ([("Range", [np.int64(0), np.int64(2**40), np.int64(1)], "b", {}),
          ("Cast", ["b"], "c", {"to": 1}), ("Add", ["a", "c"], "y", {})],
         "node_1: Range: entries of"),
        ([("Constant", [], "b", {"value_string": "a"}), ("Add", ["a", "b"], "y", {})],
         "node_2: Add: it does not fit"),
        ([("RandomNormal", [], "b", {"shape": [1, 6]}), ("Add", ["a", "b"], "y", {})],
         "node_1: RandomNormal: not supported"),
        ([("Relu", [f(3)], "y", {})], "on which the output does not depend"),
        ([("Identity", [f(1, 3)], "y", {})], "on which the output does not depend"),
    ],
)  # fmt: skip
def test_the_node_is_named(tmp_path, nodes, message):
    """Claim: an error names the file, the node, its operator and what was expected."""
    path = save(dense(*nodes), tmp_path / "net.onnx")
    with pytest.raises(FormatError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_other_domains_and_subgraphs(tmp_path):
    """Claim: what is not of ONNX's own operators is named with its domain."""
    proto = dense()
    proto.graph.node[1].domain = "com.microsoft"
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(FormatError, match=r"node_1: Relu: not supported \(domain com\.microsoft\)"):
        load(save(proto, tmp_path / "net.onnx"))
    branch = helper.make_graph(
        [helper.make_node("Identity", ["a"], ["b"])], "branch", [],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, [1, 6])],
    )  # fmt: skip
    nodes = [("If", [np.array(True)], "y", {"then_branch": branch, "else_branch": branch})]
    with pytest.raises(FormatError, match="node_1: If: not supported"):
        load(save(dense(*nodes), tmp_path / "net.onnx"))


def test_functions_of_the_file_are_inlined(tmp_path):
    """Claim: operators that a file defines itself are what they are made of."""
    body = [helper.make_node("Relu", ["i"], ["r"]), helper.make_node("Neg", ["r"], ["o"])]
    imports = [helper.make_opsetid("", 21)]
    proto = dense(("NegativeRelu", ["a"], "y", {}))
    proto.graph.node[1].domain = "own"
    proto.opset_import.append(helper.make_opsetid("own", 1))
    proto.functions.append(helper.make_function("own", "NegativeRelu", ["i"], ["o"], body, imports))
    path = save(proto, tmp_path / "net.onnx")
    x = f(3, 4)
    agree(load(path)(x), run(path, x))


@pytest.mark.parametrize("opset", [*range(7, 26)])
def test_every_opset(tmp_path, opset):
    """Claim: 7 and all later ones."""
    path = save(dense(opset=opset), tmp_path / "net.onnx")
    x = f(3, 4)
    agree(load(path)(x), run(path, x))


@pytest.mark.parametrize("opset", [6, 99])
def test_other_opsets(tmp_path, opset):
    """Claim: the error says which opset to export."""
    path = save(dense(opset=opset), tmp_path / "net.onnx")
    with pytest.raises(
        FormatError, match=rf"opset 7 to \d+, got {opset}; export it with|not a valid ONNX file"
    ):
        load(path)


@pytest.mark.parametrize("content", [b"", b"rubbish", b"\x08\x08", b"\0" * 99, b"PK\3\4"])
def test_rubbish(tmp_path, content):
    """Claim: no file crashes the reader."""
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"net\.onnx: "):
        load(path)


def test_damaged_files(tmp_path):
    """Claim: a file with any byte changed is read, or refused with an error of our own."""
    data = bytearray(dense().SerializeToString())
    path = tmp_path / "net.onnx"
    for _ in range(300):
        changed = bytearray(data)
        for place in RNG.integers(0, len(data), 3):
            changed[place] = RNG.integers(0, 256)
        path.write_bytes(changed)
        try:
            load(path)
        except FormatError:
            pass


def _second_input(graph):
    graph.input.extend([helper.make_tensor_value_info("z", 1, [1, 6])])
    graph.node[1].op_type = "Add"
    graph.node[1].input.append("z")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.node[1].input.__setitem__(0, "zzz"), "not a valid ONNX file: .*zzz"),
        (lambda g: g.node.reverse(), "not a valid ONNX file"),
        (lambda g: g.input.pop(), "expected a network of one input, got none|not a valid"),
        (lambda g: g.output.extend([helper.make_tensor_value_info("a", 1, [1, 6])]),
         "expected a network of one output, got flat, a; pass output="),
        (lambda g: g.input[0].type.tensor_type.shape.dim[1].ClearField("dim_value"),
         r"input 'x': expected a shape \(batch, ...\) with only the batch open, got \(batch, \?\)"),
        (lambda g: g.input[0].type.tensor_type.shape.dim.pop(), "only the batch open, got"),
        (_second_input, "expected a network of one input, got x, z; fix the others"),
        (lambda g: g.initializer[0].dims.__setitem__(0, 10**12), "not a valid|constant_0"),
        (lambda g: g.initializer[0].dims.__setitem__(0, -4), "not a valid|constant_0"),
        (lambda g: setattr(g.initializer[0], "data_type", TensorProto.COMPLEX64), "constant_0|not"),
    ],
)  # fmt: skip
def test_graphs_of_another_kind(tmp_path, change, message):
    """Claim: one input, one output, one open dimension; the error says which are not."""
    proto = dense()
    change(proto.graph)
    with pytest.raises(FormatError, match=message):
        load(save(proto, tmp_path / "net.onnx"))


def test_weights_that_are_not_used_do_not_matter(tmp_path):
    """Claim: what the output does not depend on is not read."""
    nodes = [("Relu", ["a"], "y", {}), ("Softplus", ["a"], "unused", {})]
    proto = dense(*nodes, constants={"odd": np.array([1 + 1j], np.complex64)})
    load(save(proto, tmp_path / "net.onnx"))


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_other_floats_are_promoted_exactly(tmp_path, kind):
    """Claim: weights of 16 and of 64 bits are what the file has."""
    weight = f(4, 6).astype(kind)
    proto = model([("MatMul", ["x", weight], "y", {})], (4,))
    proto.graph.input[0].type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(
        np.dtype(kind)
    )
    generator = load(save(proto, tmp_path / "net.onnx"))
    assert np.array_equal(generator.layers[0].weight, weight.T.astype(np.float64))


def test_a_fixed_batch_is_one_sample(tmp_path):
    """Claim: a network that was exported for a batch of 8 is the same network."""
    target = np.array([8, 2, 3])
    proto = dense(("Relu", ["a"], "b", {}), ("Reshape", ["b", target], "y", {}), batch=8)
    path = save(proto, tmp_path / "net.onnx")
    x = f(8, 4)
    agree(load(path)(x), run(path, x))


def test_output(tmp_path):
    """Claim: any tensor may be the observation; an unknown one is told, with those there are."""
    path = save(dense(("Relu", ["a"], "b", {}), ("Neg", ["b"], "y", {})), tmp_path / "net.onnx")
    x = f(3, 4)
    weight, bias = (numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer)
    agree(load(path, output="a")(x), x @ weight + bias)
    agree(load(path, output="b")(x), np.maximum(x @ weight + bias, 0))
    with pytest.raises(FormatError, match="no tensor is called 'zzz'; the last ones are a, b, y"):
        load(path, output="zzz")


# Weights in other files -------------------------------------------------------------------------


def external(tmp_path, width=6, **change):
    """A model in ``model/`` whose weights stand in ``model/weights.bin``."""
    folder = tmp_path / "model"
    folder.mkdir(exist_ok=True)
    proto = model([("MatMul", ["x", f(4, width)], "y", {})], (4,))
    external_data_helper.convert_model_to_external_data(
        proto, location="weights.bin", size_threshold=0
    )
    save(proto, folder / "net.onnx")
    proto = onnx.load(folder / "net.onnx", load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        if entry.key in change:
            entry.value = str(change[entry.key])
    (folder / "net.onnx").write_bytes(proto.SerializeToString())
    return folder / "net.onnx"


def test_external_weights_beside_the_file(tmp_path):
    """Claim: they are taken, unless that is not allowed."""
    path = external(tmp_path)
    with pytest.raises(FormatError, match=r"'weights\.bin', which allow_external=False"):
        load(path, allow_external=False)
    x = f(3, 4)
    agree(load(path)(x), run(path, x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"location": "../secret"}, "'../secret' in the model's folder: ValueError"),
        ({"location": "sub/../../secret"}, "in the model's folder"),
        ({"location": "/etc/hostname"}, "'/etc/hostname' in the model's folder: ValueError"),
        ({"location": "link"}, "'link' in the model's folder: ValueError"),
        ({"location": ""}, "in the model's folder"),
        ({"location": "weights.bin\0"}, "in the model's folder: ValueError"),
        ({"location": "missing.bin"}, "in the model's folder: FileNotFoundError"),
        ({"location": "."}, "in the model's folder"),
        ({"length": 10**12}, r"1000000000000, more than the limit file_bytes"),
        ({"length": 10**6}, r"'weights\.bin' in the model's folder"),
        ({"length": -5}, "-5 bytes"),
        ({"offset": 10**12}, r"'weights\.bin' in the model's folder"),
        ({"offset": "x"}, "in the model's folder"),
        ({"length": 8}, "constant_0|not a valid"),
    ],
)
def test_external_weights_stay_in_the_folder(tmp_path, change, message):
    """Claim: no path, link or number in a file reads anything else."""
    (tmp_path / "secret").write_bytes(bytes(1000))
    path = external(tmp_path, **change)
    os.symlink(tmp_path / "secret", path.parent / "link")
    with pytest.raises(FormatError, match=message):
        load(path, allow_external=True)


def test_external_weights_count_together(tmp_path):
    """Claim: many tensors of one file do not add up to more than the limit."""
    path = external(tmp_path, width=100)
    proto = onnx.load(path, load_external_data=False)
    for index in range(50):
        copy = proto.graph.initializer.add()
        copy.CopyFrom(proto.graph.initializer[0])
        copy.name = f"copy_{index}"
    path.write_bytes(proto.SerializeToString())
    assert path.stat().st_size < 10_000
    with pytest.raises(FormatError, match="more than the limit file_bytes"):
        load(path, allow_external=True, limits=Limits(file_bytes=10_000))


# Arguments and limits ---------------------------------------------------------------------------


def test_arguments_of_other_formats(tmp_path):
    """Claim: an argument that a format does not have is not passed over."""
    path = save(dense(), tmp_path / "net.onnx")
    for given in ({"layers": ["a"]}, {"activation": "relu"}, {"head": "tanh"}):
        with pytest.raises(FormatError, match="says itself what its layers are"):
            load(path, **given)
    (tmp_path / "net.npz").write_bytes(b"")
    with pytest.raises(FormatError, match="output: expected it with ONNX files only"):
        load(tmp_path / "net.npz", output="a")
    with pytest.raises(FormatError, match="limit file_bytes=10"):
        load(path, limits=Limits(file_bytes=10))


def test_onnx_is_an_extra(tmp_path, monkeypatch):
    """Claim: without onnx the error names the extra."""
    path = save(dense(), tmp_path / "net.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"preimage\[onnx\]"):
        load(path)
