"""Generators in files: round trips, exact promotion, state dicts, and what is refused."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from preimage.activation import ELU, Identity, LeakyReLU, ReLU, Sigmoid, Softplus, Tanh
from preimage.errors import FormatError, InputError, MissingExtraError
from preimage.generator import Generator, Layer, from_arrays
from preimage.io import Limits, generators, load, save

SUFFIXES = [".safetensors", ".npz"]
ACTIVATIONS = [
    ReLU(), LeakyReLU(0.1), LeakyReLU(1 / 3), Identity(), Tanh(), Sigmoid(), ELU(0.7), Softplus(2.0)
]  # fmt: skip


def planted(activation=ReLU(), *, storage="dense", dtype=np.float64) -> Generator:
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal(shape).astype(dtype) for shape in ((5, 3), (7, 5))]
    if storage == "csr":
        weights = [sparse.csr_array(np.where(w > 0, w, 0)) for w in weights]
    return from_arrays(weights, [rng.standard_normal(5), None], activation)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("storage", ["dense", "csr"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
def test_round_trip(tmp_path, suffix, storage, dtype, activation):
    generator = planted(activation, storage=storage, dtype=dtype)
    save(generator, tmp_path / f"net{suffix}")
    again = load(tmp_path / f"net{suffix}")
    assert again == generator
    assert again.digest == generator.digest
    assert [layer.storage for layer in again.layers] == [storage] * 2


@given(
    weight=hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=4),
        elements=st.floats(allow_nan=False, allow_infinity=False),
    ),
    slope=st.floats(0, 1, exclude_min=True, exclude_max=True),
    suffix=st.sampled_from(SUFFIXES),
    as_csr=st.booleans(),
)
def test_any_numbers_survive(tmp_path_factory, weight, slope, suffix, as_csr):
    path = tmp_path_factory.mktemp("net") / f"net{suffix}"
    layer = Layer(sparse.csr_array(weight) if as_csr else weight, activation=LeakyReLU(slope))
    generator = Generator((layer,))
    save(generator, path)
    assert load(path) == generator


def test_float32_where_exact(tmp_path):
    save(planted(dtype=np.float32), tmp_path / "net.safetensors")
    tensors = safetensors.numpy.load_file(tmp_path / "net.safetensors")
    assert {name: str(values.dtype) for name, values in tensors.items()} == {
        "layers.0.weight": "float32",
        "layers.1.weight": "float32",
        "layers.0.bias": "float64",
    }


def test_save_replaces_whole_files_only(tmp_path, monkeypatch):
    path = tmp_path / "net.npz"
    save(planted(), path)
    save(planted(Tanh()), path)
    assert load(path) == planted(Tanh())

    def fail(self, target):
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save(planted(), path)
    assert load(path) == planted(Tanh())
    assert [p.name for p in tmp_path.iterdir()] == ["net.npz"]


def test_save_refuses(tmp_path):
    with pytest.raises(InputError, match=r"ending in \.safetensors, \.npz, got 'net.pth'"):
        save(planted(), tmp_path / "net.pth")
    with pytest.raises(InputError, match="expected a Generator, got int"):
        save(3, tmp_path / "net.npz")


# Bare state dicts ------------------------------------------------------------------------------


def state_dict(dtype=torch.float32):
    torch.manual_seed(0)
    return {
        "fc3.weight": torch.randn(5, 3).to(dtype),
        "fc3.bias": torch.randn(5).to(dtype),
        "fc4.weight": torch.randn(7, 5).to(dtype),
        "steps": torch.tensor(3),
    }


def write_state_dict(path, tensors):
    if path.suffix == ".safetensors":
        import safetensors.torch

        safetensors.torch.save_file(dict(tensors), path, metadata={"format": "pt"})
    elif path.suffix == ".npz":
        np.savez(path, **{name: values.numpy() for name, values in tensors.items()})
    else:
        torch.save(tensors, path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pth", ".pt"])
@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str
)
def test_promotion_is_exact(tmp_path, suffix, dtype):
    if suffix == ".npz" and dtype == torch.bfloat16:
        pytest.skip("NumPy has no bfloat16")
    tensors = state_dict(dtype)
    # Subnormals, the largest number and a negative zero are promoted as exactly as the rest.
    limits = torch.finfo(dtype)
    extremes = [limits.smallest_normal / 2, limits.max, -0.0]
    tensors["fc3.weight"][0] = torch.tensor(extremes, dtype=torch.float64).to(dtype)
    path = write_state_dict(tmp_path / f"net{suffix}", tensors)
    generator = load(path, layers=["fc3", "fc4"], activation="relu", head="tanh")
    assert np.array_equal(generator.layers[0].weight, tensors["fc3.weight"].double().numpy())
    assert np.array_equal(generator.layers[0].bias, tensors["fc3.bias"].double().numpy())
    assert np.array_equal(generator.layers[1].weight, tensors["fc4.weight"].double().numpy())
    assert not generator.layers[1].bias.any()
    assert [layer.activation for layer in generator.layers] == [ReLU(), Tanh()]


def test_nested_state_dict(tmp_path):
    torch.save({"epoch": 3, "model": state_dict()}, tmp_path / "net.pth")
    generator = load(tmp_path / "net.pth", layers=["model.fc3", "model.fc4"], activation="relu")
    assert generator.sizes == (3, 5, 7)


def test_bare_file_errors(tmp_path):
    path = write_state_dict(tmp_path / "net.safetensors", state_dict())
    with pytest.raises(FormatError, match=r"pass for example layers=.*matrices for fc3, fc4"):
        load(path)
    with pytest.raises(FormatError, match="activation='relu'"):
        load(path, layers=["fc3"])
    with pytest.raises(FormatError, match=r"expected a tensor 'fc5.weight'; .* fc3, fc4"):
        load(path, layers=["fc3", "fc5"], activation="relu")
    with pytest.raises(FormatError, match="list of prefixes"):
        load(path, layers="fc3", activation="relu")
    with pytest.raises(FormatError, match=r"net.safetensors: .*got 'gelu'"):
        load(path, layers=["fc3"], activation="gelu")
    with pytest.raises(FormatError, match="expected 7 inputs"):
        load(path, layers=["fc4", "fc3"], activation="relu")
    with pytest.raises(FormatError, match="at least one layer"):
        load(path, layers=[], activation="relu")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pth"])
def test_not_finite_names_the_tensor(tmp_path, suffix, value):
    tensors = state_dict()
    tensors["fc4.weight"][2, 1] = value
    path = write_state_dict(tmp_path / f"net{suffix}", tensors)
    with pytest.raises(FormatError, match=r"tensor 'fc4.weight': .*at index \(2, 1\)"):
        load(path, layers=["fc3", "fc4"], activation="relu")


# The own form, damaged -------------------------------------------------------------------------


def rewrite(path, change):
    """Save a sparse generator, change its tensors and records, and write the file again."""
    tensors, metadata = generators._READERS[path.suffix](
        (save(planted(storage="csr"), path), path)[1]
    )
    records = json.loads(metadata["layers"])
    change(tensors, metadata, records)
    if metadata["layers"] is not None:
        metadata["layers"] = json.dumps(records)
    else:
        del metadata["layers"]
    path.write_bytes(generators._WRITERS[path.suffix](tensors, metadata))
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, m, r: m.update(version="2"), "expected version 1 .* got '2'"),
        (lambda t, m, r: m.update(layers=None), "metadata of the layers is malformed"),
        (lambda t, m, r: r[0].pop("shape"), "metadata of the layers is malformed"),
        (lambda t, m, r: r[0].update(shape="wide"), "metadata of the layers is malformed"),
        (lambda t, m, r: r[0].update(shape=[4, 3]), "not a csr matrix"),
        (lambda t, m, r: r[0].update(shape=[5, -3]), "sizes that are not negative"),
        (lambda t, m, r: r[0].update(storage="coo"), "expected storage dense or csr, got 'coo'"),
        (lambda t, m, r: r[0].update(activation="gelu"), r"layers\.0: .*got 'gelu'"),
        (lambda t, m, r: r[0].update(activation="leaky_relu(2)"), r"layers\.0: .*slope"),
        (lambda t, m, r: r.clear(), "at least one layer"),
        (lambda t, m, r: r[1].update(storage="dense"), "expected a tensor 'layers.1.weight'"),
        (lambda t, m, r: t.pop("layers.0.weight.indices"), "expected a tensor .*indices'"),
        (
            lambda t, m, r: t.update({"layers.0.weight.indices": np.array([99] * 7)}),
            "not a csr matrix",
        ),
        (
            lambda t, m, r: t.update({"layers.0.weight.indptr": np.array([0, 9, 2, 3, 4, 5])}),
            "not a csr matrix",
        ),
        (lambda t, m, r: t.update({"layers.0.bias": np.zeros(6)}), "bias: expected shape"),
    ],
)
def test_damaged_own_form(tmp_path, suffix, change, message):
    path = rewrite(tmp_path / f"net{suffix}", change)
    with pytest.raises(FormatError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_dense_shape_must_match(tmp_path):
    path = tmp_path / "net.npz"
    records = json.dumps([{"activation": "relu", "storage": "dense", "shape": [2, 3]}])
    metadata = json.dumps({"format": "preimage", "version": "1", "layers": records})
    np.savez(path, **{"layers.0.weight": np.ones((3, 2)), "metadata": np.array(metadata)})
    with pytest.raises(FormatError, match=r"expected shape \(2, 3\), got shape \(3, 2\)"):
        load(path)


def test_own_form_takes_no_layers(tmp_path):
    save(planted(), tmp_path / "net.npz")
    for given_ in ({"layers": ["fc3"]}, {"activation": "relu"}, {"head": "tanh"}):
        with pytest.raises(FormatError, match="says itself what its layers are"):
            load(tmp_path / "net.npz", **given_)


# Files that are none ---------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pth"])
@pytest.mark.parametrize(
    "content", [b"", b"rubbish", b"PK\3\4 rubbish", b"\x80\2." * 9, b"\0" * 99]
)
def test_rubbish(tmp_path, suffix, content):
    path = tmp_path / f"net{suffix}"
    path.write_bytes(content)
    with pytest.raises(FormatError, match="net"):
        load(path, layers=["a"], activation="relu")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_truncated(tmp_path, suffix):
    path = tmp_path / f"net{suffix}"
    save(planted(), path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(FormatError, match=r"not an? "):
        load(path)


def test_whole_torch_modules_are_not_unpickled(tmp_path):
    torch.save(torch.nn.Linear(2, 3), tmp_path / "net.pth")
    with pytest.raises(FormatError, match=r"preimage\.from_torch"):
        load(tmp_path / "net.pth", layers=["a"], activation="relu")


def test_npz_pickles_are_refused(tmp_path):
    np.savez(tmp_path / "net.npz", a=np.array([{}], dtype=object))
    with pytest.raises(FormatError, match="plain array"):
        load(tmp_path / "net.npz")
    np.savez(tmp_path / "net.npz", metadata=np.array("[1]"))
    with pytest.raises(FormatError, match="expected a JSON object"):
        load(tmp_path / "net.npz")


def test_other_content_is_left_out(tmp_path):
    """Claim: what torch.load(weights_only=True) reads does not refuse the weights beside it."""
    weights = state_dict()
    module = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [10, 20])
    beside = {
        "mask": torch.ones(3, dtype=torch.bool), "phase": torch.ones(3, dtype=torch.complex64),
        "epoch": 3, "dtype": torch.float32, "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(), "sparse": torch.eye(3).to_sparse(),
        "parameter": torch.nn.Parameter(torch.ones(2)), "best": None,
    }  # fmt: skip
    for name in ("net.pth", "net.pt", "net.ckpt"):
        torch.save({"net": weights, **beside}, tmp_path / name)
        generator = load(tmp_path / name, layers=["net.fc3", "net.fc4"], activation="relu")
        assert np.array_equal(generator.layers[0].weight, weights["fc3.weight"].numpy())
    safetensors.numpy.save_file(
        {"a.weight": np.ones((3, 3)), "mask": np.ones(3, dtype=bool)}, tmp_path / "net.safetensors"
    )
    assert load(tmp_path / "net.safetensors", layers=["a"], activation="relu").sizes == (3, 3)
    np.savez(tmp_path / "net.npz", **{"a.weight": np.ones((2, 2), dtype=complex)})
    with pytest.raises(FormatError, match=r"tensor 'a.weight': .*complex128"):
        load(tmp_path / "net.npz", layers=["a"], activation="relu")


@pytest.mark.parametrize("suffix", [".pth", ".npz", ".safetensors"])
@pytest.mark.parametrize(
    "names", [("net.0", "net.1", "net.3"), ("fc1", "bn1", "fc2"), ("dec.fc3", "dec.bn3", "dec.fc4")]
)
def test_a_batch_norm_between_layers_is_not_left_out(tmp_path, suffix, names):
    """Claim: layers named around a batch norm are an error, others beside one are not."""
    before, norm, after = names
    tensors = {
        f"{before}.weight": torch.randn(5, 3), f"{norm}.weight": torch.ones(5),
        f"{norm}.running_mean": torch.ones(5), f"{norm}.running_var": torch.ones(5),
        f"{after}.weight": torch.randn(7, 5),
    }  # fmt: skip
    path = write_state_dict(tmp_path / f"net{suffix}", tensors)
    with pytest.raises(FormatError, match=f"batch norm '{norm}' may stand between '{before}' and"):
        load(path, layers=[before, after], activation="relu")
    assert load(path, layers=[after], activation="relu").sizes == (5, 7)


def test_files_of_old_torch_say_what_to_do(tmp_path):
    torch.save(state_dict(), tmp_path / "net.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(FormatError, match=r"not a file of torch\.save in its present form"):
        load(tmp_path / "net.pth", layers=["fc3"], activation="relu")


def test_files_and_limits_are_checked_first(tmp_path):
    with pytest.raises(FormatError, match="no such file"):
        load(tmp_path / "net.npz")
    with pytest.raises(FormatError, match="expected a regular file"):
        load(tmp_path)
    save(planted(), tmp_path / "net.npz")
    size = (tmp_path / "net.npz").stat().st_size
    with pytest.raises(FormatError, match=rf"limit file_bytes=100; .*Limits.file_bytes={size}"):
        load(tmp_path / "net.npz", limits=Limits(file_bytes=100))
    load(tmp_path / "net.npz", limits=Limits(file_bytes=size))
    for bad in (0, -1, 1.5, True, None):
        with pytest.raises(InputError, match="file_bytes: expected a positive integer"):
            Limits(file_bytes=bad)
    with pytest.raises(InputError, match=r"limits: expected preimage\.Limits"):
        load(tmp_path / "net.npz", limits=100)
    (tmp_path / "net.bin").write_bytes(b"")
    with pytest.raises(FormatError, match=r"ending in \.safetensors, \.npz, \.pth, \.pt"):
        load(tmp_path / "net.bin")


def test_torch_files_need_torch(tmp_path, monkeypatch):
    """Claim: without torch the error names the extra."""
    torch.save(state_dict(), tmp_path / "net.pth")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"preimage\[torch\]"):
        load(tmp_path / "net.pth", layers=["fc3"], activation="relu")


def test_files_of_whole_modules_say_what_to_do(tmp_path):
    """Claim: a file that could run code is refused with the call that reads it."""
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU()).eval()
    torch.save(module, tmp_path / "whole.pt")
    with pytest.raises(FormatError, match=r"pass torch.load\(path, weights_only=False\)") as found:
        load(tmp_path / "whole.pt")
    assert "\x1b" not in str(found.value)  # torch's own message is coloured
    torch.jit.script(module).save(tmp_path / "script.pt")
    with pytest.raises(FormatError, match=r"TorchScript .* pass torch.jit.load\(path\)"):
        load(tmp_path / "script.pt")
