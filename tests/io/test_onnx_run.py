"""ONNX files whose layers are not known: torch runs them, and gives what onnxruntime gives."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from networks import agree, model, run, save
from test_decoders import export
from torch import nn

import preimage
from preimage import FormatError, Generator, TorchNetwork
from preimage.io import load, onnx_functions

RNG = np.random.default_rng(0)


def f(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def i(*values):
    return np.array(values, dtype=np.int64)


FIRST = ("Gemm", ["x", f(4, 24), f(24)], "z", {})
SHAPED = ("Reshape", ["z", i(-1, 6, 2, 2)], "s", {})
LAST = ("MatMul", ["a", f(24, 30)], "y", {})
FLAT = [("Flatten", ["t"], "a", {}), LAST]


def one(kind, *more, opset=21, **attributes):
    """A network with one operator on (batch, 24)."""
    nodes = [FIRST, (kind, ["z", *more], "a", attributes), LAST]
    return pytest.param(nodes, opset, id=f"{kind}-{attributes or ''}")


def shaped(kind, *more, opset=21, entries=24, **attributes):
    """A network with one operator on (batch, 6, 2, 2), which gives (batch, entries)."""
    last = ("MatMul", ["a", f(entries, 30)], "y", {})
    nodes = [FIRST, SHAPED, (kind, ["s", *more], "t", attributes), FLAT[0], last]
    return pytest.param(nodes, opset, id=f"{kind}-{opset}-{attributes or ''}")


NETWORKS = [
    one("Gelu", opset=20),
    one("Gelu", opset=20, approximate="tanh"),
    one("Mish", opset=18),
    one("HardSwish", opset=14),
    one("Swish", opset=24, alpha=1.5),
    one("Softsign"),
    one("Sin"),
    one("Exp"),
    one("Erf"),
    one("Atan"),
    one("Pow", np.float32(3)),
    one("Pow", i(2)),
    one("LayerNormalization", np.ones(24, np.float32), f(24), opset=17),
    one("Softmax", axis=-1),
    one("LogSoftmax", axis=-1),
    one("LpNormalization", axis=1),
    shaped("ReduceL2", i(2), entries=12),
    shaped("ReduceL1", opset=13, entries=12, axes=[2]),
    one("LeakyRelu", alpha=-0.3),
    one("ThresholdedRelu", alpha=0.2),
    shaped("InstanceNormalization", f(6), f(6)),
    shaped("GroupNormalization", f(6), f(6), num_groups=3),
    shaped("LayerNormalization", f(2, 2), f(2, 2), axis=2),
    shaped("RMSNormalization", f(2), opset=23),
    shaped("MeanVarianceNormalization", opset=13, axes=[0, 2, 3]),
    shaped("MeanVarianceNormalization", opset=13),
    shaped("LRN", size=3),
    shaped("Softmax", opset=11, axis=1),
    shaped("LpPool", entries=6, kernel_shape=[2, 2]),
    shaped("ReduceLogSumExp", i(2, 3), entries=6),
    shaped("ReduceProd", i(3), entries=12),
    pytest.param([FIRST, ("Mul", ["z", "z"], "a", {}), LAST], 21, id="square"),
    pytest.param(
        [FIRST, ("Sigmoid", ["z"], "g", {}), ("Mul", ["z", "g"], "a", {}), LAST], 21, id="SiLU"
    ),
    pytest.param(
        [FIRST, ("Tanh", ["z"], "t", {}), ("Add", ["z", "t"], "a", {}), LAST], 21,
        id="smooth residual",
    ),
    pytest.param(
        [FIRST, ("Exp", ["z"], "e", {}), ("Add", ["e", np.float32(1)], "o", {}),
         ("Log", ["o"], "a", {}), LAST], 21, id="softplus by parts",
    ),
    pytest.param(
        [FIRST, ("Abs", ["z"], "p", {}), ("Add", ["p", np.float32(1)], "o", {}),
         ("Sqrt", ["o"], "r", {}), ("Div", ["z", "r"], "a", {}), LAST], 21, id="quotient",
    ),
    pytest.param(
        [FIRST, ("Greater", ["z", np.float32(0)], "c", {}), ("Sinh", ["z"], "e", {}),
         ("Where", ["c", "z", "e"], "a", {}), LAST], 21, id="where",
    ),
    pytest.param(
        [FIRST, ("Reshape", ["z", i(-1, 4, 6)], "s", {}),
         ("Transpose", ["s"], "u", {"perm": [0, 2, 1]}), ("MatMul", ["s", "u"], "l", {}),
         ("Mul", ["l", np.float32(0.4)], "m", {}), ("Softmax", ["m"], "w", {"axis": -1}),
         ("MatMul", ["w", "s"], "t", {}), *FLAT], 21, id="attention by parts",
    ),
    pytest.param(
        [FIRST, ("Reshape", ["z", i(-1, 4, 6)], "s", {}),
         ("Attention", ["s", "s", "s"], "t", {"q_num_heads": 2, "kv_num_heads": 2}), *FLAT], 23,
        id="Attention",
    ),
]  # fmt: skip


def check(path, shape=(4,)):
    """Outputs are onnxruntime's, and a code is found again from its output."""
    network = load(path)
    assert isinstance(network, TorchNetwork)
    x = f(5, *shape)
    expected = np.concatenate([run(path, row[None]) for row in x]).reshape(5, -1)
    agree(network(x.reshape(5, -1)), expected, 3e-5)
    code = 0.5 * f(network.latent_size).astype(np.float64)
    found = preimage.invert(network, network(code))
    assert abs(network(found.latent) - network(code)).max() < 1e-6 * (1 + abs(network(code)).max())
    return network, found.latent - code


@pytest.mark.parametrize(("nodes", "opset"), NETWORKS)
def test_operators_that_are_run(tmp_path, nodes, opset):
    """Claim: smooth operators and products give onnxruntime's outputs, and are inverted."""
    batch = 1 if nodes[2][0] == "MeanVarianceNormalization" else "batch"
    check(save(model(nodes, (4,), opset=opset, batch=batch), tmp_path / "net.onnx"))


class Attention(nn.Module):
    """A latent as four tokens, which attend to each other."""

    def __init__(self):
        super().__init__()
        self.start, self.head = nn.Linear(4, 32), nn.Linear(32, 40)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True)

    def forward(self, z):
        return self.head(self.block(self.start(z).view(-1, 4, 8)).flatten(1))


class Styled(nn.Module):
    """A convolutional decoder with group norm, SiLU, and features scaled by the latent."""

    def __init__(self):
        super().__init__()
        self.start, self.style = nn.Linear(4, 8 * 9), nn.Linear(4, 8)
        self.norm, self.conv = nn.GroupNorm(2, 8), nn.Conv2d(8, 6, 3, padding=1)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear")
        self.last = nn.ConvTranspose2d(6, 2, 4, 2, 1)

    def forward(self, z):
        x = self.start(z).view(-1, 8, 3, 3) * self.style(z)[:, :, None, None]
        x = self.up(nn.functional.silu(self.norm(x)))
        return torch.tanh(self.last(nn.functional.mish(self.conv(x))))


MODULES = {
    "attention": Attention,
    "styled": Styled,
    "norms": lambda: nn.Sequential(
        nn.Linear(4, 48), nn.Unflatten(1, (3, 4, 4)), nn.InstanceNorm2d(3, affine=True), nn.GELU(),
        nn.Flatten(), nn.LayerNorm(48), nn.GELU("tanh"), nn.Linear(48, 30), nn.Hardswish(),
        nn.Linear(30, 20), nn.Softmax(1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("new", [False, True], ids=["old", "new"])
def test_exported_modules_that_are_run(tmp_path, name, new):
    """Claim: what torch exports is the network that ``from_torch`` runs."""
    torch.manual_seed(0)
    module = MODULES[name]().eval()
    path = export(module, (4,), tmp_path / "net.onnx", new)
    network, error = check(path)
    z = f(3, 4).astype(np.float64)
    agree(network(z), preimage.from_torch(module)(z))
    assert name == "norms" or abs(error).max() < 1e-3
    same = load(path)
    assert same == network
    assert same.digest == network.digest


def test_batches(tmp_path):
    """Claim: a sample does not depend on its batch, nor do its derivatives."""
    nodes = [
        FIRST, ("Reshape", ["z", i(1, 6, 2, 2)], "s", {}),
        ("InstanceNormalization", ["s", f(6), f(6)], "t", {}), ("Sin", ["t"], "u", {}),
        ("Reshape", ["u", i(1, 24)], "a", {}), LAST,
    ]  # fmt: skip
    network = load(save(model(nodes, (4,), batch=1), tmp_path / "net.onnx"))
    z = f(7, 4).astype(np.float64)
    x, jacobian = network.linearize(z)
    for row, output, derivative in zip(z, x, jacobian, strict=True):
        assert np.allclose(network(row), output, rtol=0, atol=1e-12)
        alone = network.linearize(row[None])[1][0]
        assert np.allclose(alone, derivative, rtol=0, atol=1e-11)
        step = (network(row + 1e-6) - network(row - 1e-6)) / 2e-6
        assert np.allclose(alone.sum(axis=1), step, rtol=0, atol=1e-6)


def test_several_samples_that_are_run(tmp_path):
    """Claim: a network that was exported for a batch of 3 is the same network."""
    nodes = [FIRST, ("Sin", ["z"], "b", {}), ("Reshape", ["b", i(3, 4, 6)], "y", {})]
    path = save(model(nodes, (4,), batch=3), tmp_path / "net.onnx")
    network, x = load(path), f(3, 4)
    assert isinstance(network, TorchNetwork)
    agree(network(x), run(path, x))


def test_a_first_dimension_that_is_no_batch(tmp_path):
    """Claim: where rows depend on each other, all of them are one latent."""
    nodes = [FIRST, ("Softmax", ["z"], "y", {"axis": 0})]
    path = save(model(nodes, (4,), batch=3), tmp_path / "net.onnx")
    network, x = load(path), f(3, 4)
    assert network.latent_size == 12
    agree(network(x.reshape(-1)), run(path, x).reshape(-1))


def test_a_layer_that_is_too_large_is_run(tmp_path):
    """Claim: ``max_matrix_bytes`` decides whether layers become known."""
    path = save(model([FIRST, ("Relu", ["z"], "y", {})], (4,)), tmp_path / "net.onnx")
    known, ran = load(path), load(path, max_matrix_bytes=100)
    assert isinstance(known, Generator)
    assert isinstance(ran, TorchNetwork)
    z = f(3, 4)
    agree(known(z), ran(z))


def test_a_difference_from_the_file_is_an_error(tmp_path, monkeypatch):
    """Claim: a network that is not what the file computes is never handed out."""
    nodes = [FIRST, ("Tanh", ["z"], "b", {}), ("Gelu", ["b"], "a", {}), LAST]
    path = save(model(nodes, (4,)), tmp_path / "net.onnx")
    wrong = lambda a, x: nn.functional.gelu(x, approximate="tanh")  # noqa: E731
    monkeypatch.setitem(onnx_functions.FUNCTIONS, "Gelu", wrong)
    with pytest.raises(FormatError, match="something else than the file, first at the tensor 'a'"):
        load(path)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([("TopK", ["z", i(3)], ["a", "n"], {"axis": 1})], "node_1: TopK: not supported.*from_tor"),
        ([("ScatterND", ["z", i([[0, 1]]), np.float32([2])], "a", {"reduction": "mul"})],
         "node_1: ScatterND: not supported with these inputs or attributes"),
        ([("Reshape", ["z", i(-1, 4, 6, 1)], "b", {}),
          ("Resize", ["b", "", "", i(3, 3)], "a",
           {"axes": [2, 3], "mode": "linear", "keep_aspect_ratio_policy": "not_larger"})],
         "Resize: not supported with these inputs or attributes"),
        ([("Floor", ["z"], "a", {})], "its derivative is 0, though its output depends"),
        ([("Sub", ["z", np.float32(99)], "b", {}), ("Log", ["b"], "a", {})],
         "node_2: Log: its values are not finite"),
        ([("Reshape", ["z", i([-1, 3, 2, 2])], "b", {}),
          ("Conv", ["b", np.ones((2, 3, 3, 2), np.float32)], "a", {"strides": [2, 1]})],
         "cannot be run|does not fit"),
    ],
)  # fmt: skip
def test_what_cannot_be_run(tmp_path, nodes, message):
    """Claim: the error names the node, or says what is wrong with the whole."""
    path = save(model([FIRST, *nodes, LAST], (4,)), tmp_path / "net.onnx")
    with pytest.raises(FormatError, match=message):
        load(path)


@pytest.mark.parametrize("to", ["INT64", "INT32", "INT16", "UINT8", "BOOL"])
@pytest.mark.parametrize("behind", [("Cast", ["c"], "a", {"to": 1}), ("Identity", ["c"], "y", {})])
def test_real_numbers_cast_to_integers_are_refused(tmp_path, to, behind):
    """Claim: the error names the node, and says why and what to do."""
    cast = ("Cast", ["z"], "c", {"to": getattr(onnx.TensorProto, to)})
    nodes = [FIRST, cast, behind] + ([LAST] if behind[2] == "a" else [])
    path = save(model(nodes, (4,)), tmp_path / "net.onnx")
    with pytest.raises(FormatError, match=r"node_1: Cast: real numbers.*derivative 0.*; export"):
        load(path)


def test_a_cast_to_integers_beside_another_path_is_run(tmp_path):
    """Claim: a sum of steps and of something else has a derivative, and the file's outputs."""
    nodes = [FIRST, ("Cast", ["z"], "c", {"to": 7}), ("Cast", ["c"], "d", {"to": 1}),
             ("Add", ["d", "z"], "a", {}), LAST]  # fmt: skip
    path, z = save(model(nodes, (4,)), tmp_path / "net.onnx"), f(3, 4)
    agree(load(path)(z.astype(np.float64)), run(path, z), 1e-5)


def test_masks_may_be_cast_to_integers(tmp_path):
    """Claim: whether an entry is positive may be counted: the network is piecewise linear still."""
    nodes = [FIRST, ("Greater", ["z", np.float32(0)], "m", {}), ("Cast", ["m"], "i", {"to": 7}),
             ("Cast", ["i"], "c", {"to": 1}), ("Mul", ["z", "c"], "a", {}), LAST]  # fmt: skip
    path, z = save(model(nodes, (4,)), tmp_path / "net.onnx"), f(3, 4)
    agree(load(path)(z.astype(np.float64)), run(path, z), 1e-5)


def test_float16_that_is_run(tmp_path):
    """Claim: a file in half precision is run in double precision, with its own weights."""
    w, v = f(4, 24).astype(np.float16), f(24, 30).astype(np.float16)
    nodes = [("MatMul", ["x", w], "z", {}), ("Sin", ["z"], "a", {}), ("MatMul", ["a", v], "y", {})]
    proto = model(nodes, (4,))
    proto.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    network = load(save(proto, tmp_path / "net.onnx"))
    z = f(3, 4).astype(np.float64)
    agree(network(z), np.sin(z @ w.astype(float)) @ v.astype(float), 1e-12)


def test_the_command_takes_such_a_file(tmp_path):
    """Claim: inspect, invert and batch with workers run it; what needs layers says so."""
    from typer.testing import CliRunner

    from preimage.cli import app

    path = save(model([FIRST, ("Sin", ["z"], "y", {})], (4,)), tmp_path / "net.onnx")
    np.save(tmp_path / "x.npy", load(path)(0.3 * f(3, 4)))
    runner, x = CliRunner(), str(tmp_path / "x.npy")
    shown = runner.invoke(app, ["inspect", str(path)])
    assert shown.exit_code == 0, shown.output
    assert "gauss_newton" in shown.output
    assert "sin" in shown.output
    out = str(tmp_path / "out")
    done = runner.invoke(app, ["invert", str(path), x, "--out", out])
    assert done.exit_code == 0, done.output
    shards = ["--workers", "2", "--shard-size", "2"]
    stored = runner.invoke(app, ["batch", str(path), x, str(tmp_path / "store"), *shards])
    assert stored.exit_code == 0, stored.output
    assert np.isfinite(preimage.open_store(tmp_path / "store").latent[:]).all()
    report = runner.invoke(app, ["report", out, "--network", str(path)])
    assert report.exit_code == 0, report.output
    proven = runner.invoke(
        app, ["certify", str(path), x, "--noise", "0.1", "--out", str(tmp_path / "c.json")]
    )
    assert proven.exit_code != 0
    assert "net.onnx is run by torch" in " ".join(proven.output.split())
