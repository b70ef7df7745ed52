"""Operators in the package's own form: they come back equal, and hostile records are refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import sparse

from preimage.activation import PReLU
from preimage.errors import FormatError, InputError
from preimage.generator import Generator, Layer
from preimage.io import generators, load, save
from preimage.io.convolution import Convolution
from preimage.io.segment import Chain, Sum

RNG = np.random.default_rng(0)
SUFFIXES = [".safetensors", ".npz"]


def convolution(**change):
    fields = {
        "kernel": RNG.standard_normal((4, 3, 3, 3)), "size": (5, 6), "stride": (2, 1),
        "padding": ((1, 0), (2, 1)), "dilation": (1, 2), **change,
    }  # fmt: skip
    return Convolution(**fields)


def planted() -> Generator:
    """Every kind of part: dense, CSR, convolutions both ways, a sum."""
    down = convolution()
    up = convolution(kernel=RNG.standard_normal((4, 2, 3, 3)), groups=2, transposed=True)
    mask = sparse.random_array((up.shape[1], down.shape[0]), density=0.2, rng=RNG, format="csr")
    branches = Sum((Chain((mask,)), Chain((RNG.standard_normal(mask.shape),))))
    first = Layer(Chain((RNG.standard_normal((90, 4)), down)), activation="leaky_relu(0.1)")
    second = Layer(Chain((branches, up)), RNG.standard_normal(up.shape[0]))
    return Generator((first, second))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trip(tmp_path, suffix):
    """Claim: equal content and storage; the same numbers, to the last bit."""
    generator = planted()
    save(generator, tmp_path / f"net{suffix}")
    again = load(tmp_path / f"net{suffix}")
    assert again == generator
    assert [layer.storage for layer in again.layers] == ["operator", "operator"]
    z = RNG.standard_normal((3, 4))
    assert np.array_equal(again(z), generator(z))
    v = RNG.standard_normal((3, generator.observation_size))
    assert np.array_equal(again.vjp(z, v), generator.vjp(z, v))


def test_budget_of_load(tmp_path):
    """Claim: with a budget the operators that fit become matrices; the others stay."""
    generator = planted()
    save(generator, tmp_path / "net.npz")
    sizes = [8 * layer.input_size * layer.output_size for layer in generator.layers]
    assert sizes[0] < sizes[1]
    found = load(tmp_path / "net.npz", max_matrix_bytes=2**20)
    assert "operator" not in {layer.storage for layer in found.layers}
    z = RNG.standard_normal((3, 4))
    np.testing.assert_allclose(found(z), generator(z), atol=1e-11)
    some = load(tmp_path / "net.npz", max_matrix_bytes=sizes[0])
    assert [layer.storage for layer in some.layers] == ["dense", "operator"]
    with pytest.raises(InputError, match="max_matrix_bytes: expected 0 or more, got -1"):
        load(tmp_path / "net.npz", max_matrix_bytes=-1)


def test_operators_of_others_are_not_written(tmp_path):
    """Claim: an operator that no file can hold is named."""

    class Double:
        shape = (3, 3)

        def matmat(self, X):
            return 2 * X

        rmatmat = matmat

    with pytest.raises(InputError, match=r"layers\.0\.weight: a Double cannot be written"):
        save(Generator((Layer(Double()),)), tmp_path / "net.npz")


def part(record, *path):
    """A part of a layer's record."""
    for step in path:
        record = record[step]
    return record


def deep(record, levels):
    for _ in range(levels):
        record = {"storage": "sum", "shape": record["shape"], "terms": [[record], [record]]}
    return record


DOWN, UP, BRANCHES = (0, "parts", 1), (1, "parts", 1), (1, "parts", 0)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, r: part(r, *DOWN).pop("stride"), "malformed: KeyError"),
        (lambda t, r: part(r, *DOWN).update(stride=[2]), "convolution: sizes do not fit"),
        (lambda t, r: part(r, *DOWN).update(stride=[2, 0]), "convolution: sizes do not fit"),
        (lambda t, r: part(r, *DOWN).update(stride=[2, 1.0]), "malformed: .*whole numbers"),
        (lambda t, r: part(r, *DOWN).update(stride="22"), "malformed: .*whole numbers"),
        (lambda t, r: part(r, *DOWN).update(stride=[True, 1]), "malformed: .*whole numbers"),
        (lambda t, r: part(r, *DOWN).update(stride=None), "malformed: TypeError"),
        (lambda t, r: part(r, *DOWN).update(stride=[2, 2]), "expected shape .*got shape"),
        (lambda t, r: part(r, *DOWN).update(size=[5, 10**9]), "convolution: sizes do not fit"),
        (lambda t, r: part(r, *DOWN).update(size=[10**5, 10**4]), "entries between kernel"),
        (lambda t, r: part(r, *DOWN).update(size=[10**400, 4]), "convolution: sizes do not fit"),
        (lambda t, r: part(r, *DOWN).update(padding=[[1, 0]]), "convolution: sizes do not fit"),
        (lambda t, r: part(r, *DOWN).update(padding=[1, 0]), "malformed: TypeError"),
        (lambda t, r: part(r, *DOWN).update(padding=[[1, 0], [2, -1]]), "sizes do not fit"),
        (lambda t, r: part(r, *DOWN).update(dilation=[9, 9]), "does not fit into"),
        (lambda t, r: part(r, *DOWN).update(groups=0), "convolution: sizes do not fit"),
        (lambda t, r: part(r, *DOWN).update(groups=3), "convolution: sizes do not fit"),
        (lambda t, r: part(r, *DOWN).update(transposed=1), "malformed: .*true or false"),
        (lambda t, r: part(r, *DOWN).update(shape=[7, 90]), r"expected shape \(7, 90\), got"),
        (lambda t, r: part(r, *DOWN).update(shape=[10**12, 90]), "more than the limit entries"),
        (lambda t, r: part(r, *DOWN).update(storage="python"), "csr, convolution or sum, got 'py"),
        (lambda t, r: part(r, *DOWN).update(storage="operator"), "got 'operator'"),
        (lambda t, r: part(r, *DOWN).update(storage=["sum"]), "csr, convolution or sum, got"),
        (lambda t, r: r[0].update(storage="convolution"), "dense, csr or operator, got 'conv"),
        (lambda t, r: r[0].update(parts=[]), "parts: expected at least one"),
        (lambda t, r: r[0].update(parts=3), "malformed: TypeError"),
        (lambda t, r: r[0].update(parts=[3]), "malformed: TypeError"),
        (lambda t, r: r[0].pop("parts"), "malformed: KeyError"),
        (lambda t, r: r[0]["parts"].reverse(), "expected a tensor|expected shape"),
        (lambda t, r: r[0].update(shape=[1, 1]), r"expected shape \(1, 1\), got shape"),
        (lambda t, r: part(r, *BRANCHES).update(terms=[]), "two or more of the same shape"),
        (lambda t, r: part(r, *BRANCHES).update(terms=[[], []]), "expected at least one"),
        (lambda t, r: part(r, *BRANCHES)["terms"].pop(), "two or more of the same shape"),
        (lambda t, r: r[1]["parts"].__setitem__(0, deep(part(r, *BRANCHES), 9)), "got 'sum'"),
        (lambda t, r: t.pop("layers.0.weight.1.kernel"), "expected a tensor .*1.kernel'"),
        (lambda t, r: t.update({"layers.0.weight.1.kernel": np.ones(3)}), "kernel: expected shape"),
        (lambda t, r: t.update({"layers.0.weight.1.kernel": np.full((4, 3, 3, 3), np.inf)}),
         "1.kernel': expected finite"),
        (lambda t, r: r[1].update(activation="prelu(0.1,0.2;7)"), "slopes for 120 outputs, got 14"),
        (lambda t, r: r[1].update(activation="prelu(0.1;999999999999)"), "slopes for 120 outputs"),
        (lambda t, r: r[1].update(activation="prelu(0.1,0;30)"), "slopes must be positive"),
        (lambda t, r: r[1].update(activation="prelu(,;30)"), r"layers\.1: "),
        (lambda t, r: r[1].update(activation="leaky_relu(--)"), r"layers\.1: "),
    ],
)  # fmt: skip
def test_damaged_records(tmp_path, suffix, change, message):
    """Claim: nothing that a record says is taken on trust; the file is named."""
    path = tmp_path / f"net{suffix}"
    save(planted(), path)
    tensors, metadata = generators._READERS[suffix](path)
    records = json.loads(metadata["layers"])
    change(tensors, records)
    metadata["layers"] = json.dumps(records)
    path.write_bytes(generators._WRITERS[suffix](tensors, metadata))
    with pytest.raises(FormatError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_nesting_that_exhausts_the_parser(tmp_path):
    """Claim: brackets without end are an error of ours."""
    save(planted(), tmp_path / "net.npz")
    tensors, metadata = generators._READERS[".npz"](tmp_path / "net.npz")
    metadata["layers"] = "[" * 100_000
    (tmp_path / "net.npz").write_bytes(generators._WRITERS[".npz"](tensors, metadata))
    with pytest.raises(FormatError, match="layers: expected a JSON array"):
        load(tmp_path / "net.npz")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_slopes_are_kept_exactly(tmp_path, suffix):
    """Claim: PReLU slopes come back as they were, one a channel."""
    slopes = (1 / 3, 2.5, 1e-300)
    layer = Layer(RNG.standard_normal((6, 2)), activation=PReLU(slopes, repeat=2))
    save(Generator((layer,)), tmp_path / f"net{suffix}")
    again = load(tmp_path / f"net{suffix}")
    assert again == Generator((layer,))
    assert again.layers[0].activation == PReLU(slopes, repeat=2)
