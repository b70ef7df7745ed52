"""Weights in the package's own form: hostile records are refused, slopes are kept."""

from __future__ import annotations

import json

import numpy as np
import pytest

from preimage.activation import PReLU
from preimage.errors import FormatError
from preimage.generator import Generator, Layer
from preimage.io import generators, load, save

RNG = np.random.default_rng(0)
SUFFIXES = [".safetensors", ".npz"]


def planted() -> Generator:
    return Generator((Layer(RNG.standard_normal((6, 2)), activation=PReLU((0.1, 0.2), 3)),))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(shape=[10**12, 90]), "more than the limit entries"),
        (lambda r: r.update(shape=[6, 2.0]), "malformed: .*whole numbers"),
        (lambda r: r.update(shape=[True, 2]), "malformed: .*whole numbers"),
        (lambda r: r.update(shape=3), "malformed: TypeError"),
        (lambda r: r.update(storage="operator"), "expected storage dense or csr, got .operator"),
        (lambda r: r.update(storage=["csr"]), "expected storage dense or csr"),
        (lambda r: r.update(activation="prelu(0.1,0.2;7)"), "slopes for 6 outputs, got 14"),
        (lambda r: r.update(activation="prelu(0.1;999999999999)"), "slopes for 6 outputs"),
        (lambda r: r.update(activation="prelu(0.1,-1;3)"), "slopes must not be negative"),
        (lambda r: r.update(activation="prelu(,;30)"), r"layers\.0: "),
        (lambda r: r.update(activation="leaky_relu(--)"), r"layers\.0: "),
        (lambda r: r.update(activation="elu(-1)"), r"layers\.0: .*positive"),
        (lambda r: r.pop("activation"), "malformed: KeyError"),
    ],
)  # fmt: skip
def test_damaged_records(tmp_path, suffix, change, message):
    """Claim: nothing that a record says is taken on trust; the file is named."""
    path = tmp_path / f"net{suffix}"
    save(planted(), path)
    tensors, metadata = generators._READERS[suffix](path)
    records = json.loads(metadata["layers"])
    change(records[0])
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
