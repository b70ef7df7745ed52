"""Observations in files: every format gives the same rows."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from preimage.errors import FormatError, MissingExtraError
from preimage.io import Limits
from preimage.io.observations import load_observations, read_idx

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 4, 5), dtype=np.uint8)
ROWS = IMAGES.reshape(3, 20) / 255


def idx(array) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_arrays(tmp_path, dtype):
    values = (8 * ROWS).astype(dtype)
    np.save(tmp_path / "x.npy", values)
    np.savez(tmp_path / "x.npz", values)
    np.savez(tmp_path / "named.npz", observations=values, labels=np.arange(3))
    safetensors.numpy.save_file({"x": values}, tmp_path / "x.safetensors")
    for name in ("x.npy", "x.npz", "named.npz", "x.safetensors"):
        read = load_observations(tmp_path / name)
        assert read.dtype == np.float64
        assert np.array_equal(read, values.astype(np.float64))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((20,), (1, 20)), ((3, 4, 5), (3, 20)), ((0, 20), (0, 20)), ((3, 0), (3, 0))],
)
def test_shapes(tmp_path, shape, expected):
    np.save(tmp_path / "x.npy", np.zeros(shape))
    assert load_observations(tmp_path / "x.npy").shape == expected


@pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte", "x.idx3-ubyte", "x.idx"])
def test_idx(tmp_path, name):
    (tmp_path / name).write_bytes(idx(IMAGES))
    assert np.array_equal(load_observations(tmp_path / name), ROWS)
    assert np.array_equal(read_idx(tmp_path / name), IMAGES)


def test_png(tmp_path):
    for image, name in zip(IMAGES, ("a.png", "b.PNG", "c.png"), strict=True):
        Image.fromarray(image).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    assert np.array_equal(load_observations(tmp_path), ROWS)
    assert np.array_equal(load_observations(tmp_path / "b.PNG"), ROWS[1:2])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.npy", b"rubbish", "not an npy file"),
        ("x.npy", b"", "not an npy file"),
        ("x.npz", b"rubbish", "not an archive"),
        ("x.safetensors", b"rubbish", "not a safetensors file"),
        ("x.png", b"rubbish", "not a PNG image"),
        ("x.txt", b"rubbish", "expected npy, npz, safetensors, png, a folder of png, or an IDX"),
        ("x", b"", "or an IDX file"),
        ("x", b"\0\0\x0d\3" + bytes(12), "expected an IDX file of bytes"),
        ("x", b"\0\0\x08\0", "expected an IDX file of bytes"),
        ("x", b"\0\0\x08\3\0\0", "expected an IDX file of bytes"),
        ("x", idx(IMAGES)[:-1], r"expected 60 bytes for shape \(3, 4, 5\), got 59"),
        ("x", idx(IMAGES) + b"\0", "expected 60 bytes .* got 61"),
        ("x", idx(np.arange(3, dtype=np.uint8)), "IDX file of labels"),
    ],
)
def test_rubbish(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError, match=message) as caught:
        load_observations(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_packed_idx(tmp_path):
    (tmp_path / "x.gz").write_bytes(b"\x1f\x8b rubbish")
    with pytest.raises(FormatError, match="unpack it first"):
        read_idx(tmp_path / "x.gz")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            np.array([1.0, np.nan]),
            r"observations: expected finite numbers, got nan at index \(1,\)",
        ),
        (np.array([1j]), "complex128"),
        (np.array(1.0), "got one number"),
        (np.array(["a"]), "expected real numbers"),
    ],
)
def test_refused_arrays(tmp_path, values, message):
    np.save(tmp_path / "x.npy", values)
    with pytest.raises(FormatError, match=message):
        load_observations(tmp_path / "x.npy")


def test_pickles_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object))
    with pytest.raises(FormatError, match="plain array"):
        load_observations(tmp_path / "x.npy")


def test_which_array(tmp_path):
    np.savez(tmp_path / "x.npz", a=ROWS, b=ROWS)
    with pytest.raises(FormatError, match="named 'observations', got a, b"):
        load_observations(tmp_path / "x.npz")


def test_folders(tmp_path):
    with pytest.raises(FormatError, match="found none"):
        load_observations(tmp_path)
    Image.fromarray(IMAGES[0]).save(tmp_path / "a.png")
    Image.fromarray(IMAGES[0].T.copy()).save(tmp_path / "b.png")
    with pytest.raises(FormatError, match=r"b\.png: expected \(4, 5\) pixels as in a\.png"):
        load_observations(tmp_path)
    (tmp_path / "a.png").write_bytes(b"rubbish")
    with pytest.raises(FormatError, match=r"a\.png: not a PNG image"):
        load_observations(tmp_path)
    Image.fromarray(np.full((4, 5), 300, dtype=np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(FormatError, match="of 8 bits"):
        load_observations(tmp_path)


def test_the_door(tmp_path):
    with pytest.raises(FormatError, match="no such file"):
        load_observations(tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", ROWS)
    with pytest.raises(FormatError, match="file_bytes=10;"):
        load_observations(tmp_path / "x.npy", limits=Limits(file_bytes=10))


def test_pillow_is_an_extra(tmp_path, monkeypatch):
    Image.fromarray(IMAGES[0]).save(tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtraError, match=r"preimage\[data\]"):
        load_observations(tmp_path / "a.png")
