"""Observations in files: every format gives the same rows."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

import preimage
from preimage.errors import FormatError, InputError, MissingExtraError
from preimage.io import Limits
from preimage.io.observations import load_observations, open_observations, read_idx

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
        # Floats keep their precision, which tells invert how they were rounded.
        assert read.dtype == (values.dtype if values.dtype.kind == "f" else np.float64)
        assert np.array_equal(read, values)


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
        ("x.npz", b"rubbish", "not an npz file of plain arrays"),
        ("x.safetensors", b"rubbish", "not a safetensors file"),
        ("x.png", b"rubbish", "expected a picture"),
        ("x.txt", b"rubbish", "expected npy, npz, safetensors, PNG, JPEG, IDX, a folder"),
        ("x", b"", "IDX, a folder"),
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
            r"samples 0 to 0.*: expected finite numbers, got nan at index \(0, 1\)",
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
    with pytest.raises(FormatError, match=r"a\.png: expected a picture"):
        load_observations(tmp_path)
    Image.fromarray(np.full((4, 5), 300, dtype=np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(FormatError, match="of 8 bits"):
        load_observations(tmp_path)


def test_files_are_checked_before_they_are_read(tmp_path):
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


# Pictures and the range of the network's head

RANGES = {"sigmoid": (0, 1), "tanh": (-1, 1), "relu": (0, 1), "identity": (0, 1)}
COLOURS = np.random.default_rng(1).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)


def network(size=20, head="sigmoid"):
    weight = np.random.default_rng(0).standard_normal((size, 3))
    return preimage.from_arrays([weight], head=head)


def scaled(pixels, head):
    low, high = RANGES[head]
    return low + pixels / 255 * (high - low)


def write_pictures(folder, form):
    match form:
        case "png" | "bmp":
            for i, image in enumerate(IMAGES):
                Image.fromarray(image).save(folder / f"{i}.{form}")
        case "idx":
            (folder / "x").write_bytes(idx(IMAGES))
            return folder / "x"
        case "npy":
            np.save(folder / "x.npy", IMAGES)
            return folder / "x.npy"
        case "channel":
            np.savez(folder / "x.npz", IMAGES[:, None])
            return folder / "x.npz"
        case "safetensors":
            safetensors.numpy.save_file({"x": IMAGES}, folder / "x.safetensors")
            return folder / "x.safetensors"
    return folder


@pytest.mark.parametrize("head", RANGES)
@pytest.mark.parametrize("form", ["png", "idx", "npy", "channel", "safetensors"])
def test_pixels_become_the_range_of_the_head(tmp_path, form, head):
    """0 is black and 255 white, in the network's own units; the notes say so."""
    path = write_pictures(tmp_path, form)
    found = open_observations(path, network(head=head))
    rows = found.read(0, 3)
    if form not in ("png", "idx") and head in ("relu", "identity"):
        assert np.array_equal(rows, IMAGES.reshape(3, 20))  # numbers, whose unit nothing tells
        assert found.notes == ()
        return
    np.testing.assert_allclose(rows, scaled(IMAGES.reshape(3, 20), head), atol=1e-15)
    low, high = RANGES[head]
    assert f"0 to 255 were scaled to [{low}, {high}]" in found.notes[-1]


@pytest.mark.parametrize("head", ["sigmoid", "tanh"])
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.float32, np.float64])
def test_whole_numbers_beyond_the_range_are_pixels(head, dtype):
    found = open_observations(IMAGES.astype(dtype), network(head=head))
    np.testing.assert_allclose(found.read(0, 3), scaled(IMAGES.reshape(3, 20), head), atol=1e-15)
    assert found.notes


def test_numbers_are_left_alone():
    for values in (ROWS, 300 * ROWS, -ROWS, 200 * ROWS + 0.5, 1000 * np.rint(ROWS)):
        found = open_observations(values, network())
        assert np.array_equal(found.read(0, 3), values)
        assert found.notes == ()


def test_levels_from_0_to_1_are_offered_for_tanh():
    """Values in [0, 1] are possible outputs of tanh, so that only a hint is given."""
    found = open_observations(ROWS, network(head="tanh"))
    assert np.array_equal(found.read(0, 3), ROWS)
    assert "pass levels 0,1" in found.notes[0]
    told = open_observations(ROWS, network(head="tanh"), levels=(0.0, 1.0))
    np.testing.assert_allclose(told.read(0, 3), 2 * ROWS - 1)
    with pytest.raises(InputError, match="black < white"):
        open_observations(ROWS, network(), levels=(1.0, 0.0))


@pytest.mark.parametrize(
    "shape", [(3, 20), (3, 4, 5), (3, 1, 4, 5), (3, 20, 1), (3, 4, 5, 1), (3, 1, 1, 20)]
)
def test_samples_of_any_shape_are_flattened(tmp_path, shape):
    np.save(tmp_path / "x.npy", ROWS.reshape(shape))
    assert np.array_equal(load_observations(tmp_path / "x.npy", network()), ROWS)


@pytest.mark.parametrize("shape", [(20,), (4, 5), (1, 4, 5), (1, 1, 4, 5), (20, 1), (4, 5, 1)])
def test_one_sample_of_any_shape_is_a_batch_of_one(tmp_path, shape):
    np.save(tmp_path / "x.npy", ROWS[0].reshape(shape))
    assert np.array_equal(load_observations(tmp_path / "x.npy", network()), ROWS[:1])


@pytest.mark.parametrize("shape", [(60,), (3, 5, 5), (20, 3), (5, 4, 3), (0,)])
def test_samples_of_another_size_are_named(tmp_path, shape):
    np.save(tmp_path / "x.npy", np.zeros(shape))
    with pytest.raises(FormatError, match=r"20 entries.*got shape"):
        load_observations(tmp_path / "x.npy", network())


def test_colours_come_channel_by_channel(tmp_path):
    for i, image in enumerate(COLOURS):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    expected = np.moveaxis(COLOURS, -1, 1).reshape(2, 60) / 255
    assert np.array_equal(load_observations(tmp_path), expected)
    found = open_observations(tmp_path, network(60, "tanh"))
    np.testing.assert_allclose(found.read(0, 2), 2 * expected - 1, atol=1e-15)
    gray = open_observations(tmp_path, network(20))
    assert "colours were turned into gray" in gray.notes[0]
    mixed = COLOURS @ np.array([0.299, 0.587, 0.114]) / 255
    np.testing.assert_allclose(gray.read(0, 2), mixed.reshape(2, 20))


def test_gray_pictures_are_repeated_for_colours(tmp_path):
    Image.fromarray(IMAGES[0]).save(tmp_path / "a.png")
    found = open_observations(tmp_path / "a.png", network(60))
    assert "repeated" in found.notes[0]
    np.testing.assert_allclose(found.read(0, 1), np.tile(ROWS[:1], 3))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1"])
def test_modes_of_a_gray_picture(tmp_path, mode):
    image = IMAGES[0] if mode != "1" else 255 * (IMAGES[0] > 127).astype(np.uint8)
    Image.fromarray(image).convert(mode).save(tmp_path / "x.png")
    read = load_observations(tmp_path / "x.png", network())
    np.testing.assert_allclose(read, image.reshape(1, 20) / 255)


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "JPG"])
def test_jpeg(tmp_path, suffix):
    Image.fromarray(np.full((4, 5), 128, np.uint8)).save(tmp_path / f"x.{suffix}", "JPEG")
    read = load_observations(tmp_path / f"x.{suffix}", network())
    np.testing.assert_allclose(read, 128 / 255, atol=2 / 255)


@pytest.mark.parametrize("pixels", [(60, 20), (4, 6), (1, 1), (20, 20)])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_pictures_of_another_size_are_named(tmp_path, pixels, mode):
    rng = np.random.default_rng(0)
    shape = pixels if mode == "L" else (*pixels, 3)
    Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), mode).save(tmp_path / "x.png")
    with pytest.raises(FormatError, match=r"expected 16 values a sample \(4 x 4 pixels\).* resize"):
        load_observations(tmp_path / "x.png", network(16))


def test_transparent_pixels_are_refused(tmp_path):
    image = np.zeros((4, 5, 4), np.uint8)
    image[..., 3] = 200
    Image.fromarray(image).save(tmp_path / "x.png")
    with pytest.raises(FormatError, match="opaque picture"):
        load_observations(tmp_path / "x.png", network())


def test_a_decoders_own_pictures_are_found(tmp_path):
    """A tanh decoder's output, written as a picture, is explained to half a level."""
    generator = preimage.from_arrays(
        [np.random.default_rng(0).standard_normal((64, 3))], head="tanh"
    )
    output = generator(np.array([0.3, -0.2, 0.5]))
    Image.fromarray(np.rint((output + 1) / 2 * 255).astype(np.uint8).reshape(8, 8)).save(
        tmp_path / "x.png"
    )
    row = load_observations(tmp_path / "x.png", generator)
    found = preimage.invert(generator, row, noise=1 / 255)
    assert found.status[0] == "solved"
    np.testing.assert_allclose(found.latent, [[0.3, -0.2, 0.5]], atol=0.01)
