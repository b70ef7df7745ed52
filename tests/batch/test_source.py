"""Sources: every form gives the same rows and the same digest, a few at a time."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from preimage.batch.source import digests, open_source, rows
from preimage.batch.zarr_folder import unpacked_size
from preimage.errors import FormatError, InputError
from preimage.io.guard import Limits

IMAGES = np.random.default_rng(0).integers(0, 256, (11, 4, 5), dtype=np.uint8)
ROWS = IMAGES.reshape(11, 20) / 255


def write(folder, form):
    path = folder / f"x.{form}"
    match form:
        case "npy":
            np.save(path, ROWS)
        case "fortran.npy":
            np.save(path, np.asfortranarray(ROWS))
        case "npz":
            np.savez(path, labels=np.arange(11), observations=ROWS)
        case "safetensors":
            safetensors.numpy.save_file({"observations": ROWS, "z": np.arange(3)}, path)
        case "idx":
            path.write_bytes(b"\0\0\x08\3" + np.array(IMAGES.shape, ">u4").tobytes()
                             + IMAGES.tobytes())  # fmt: skip
        case "png":
            path.mkdir()
            for index, image in enumerate(IMAGES):
                Image.fromarray(image).save(path / f"{index:03}.png")
        case "zarr2" | "zarr3":
            zarr = pytest.importorskip("zarr")
            array = zarr.create_array(
                str(path), shape=ROWS.shape, chunks=(4, 20), dtype="f8", zarr_format=int(form[-1])
            )
            array[:] = ROWS
        case "array":
            return ROWS
    return path


FORMS = ["npy", "fortran.npy", "npz", "safetensors", "idx", "png", "zarr2", "zarr3", "array"]


@pytest.mark.parametrize("form", FORMS)
def test_every_form(tmp_path, form):
    """Claim: rows are the same, whatever they are stored in and in whatever order they are read."""
    source = open_source(write(tmp_path, form))
    assert source.shape[0] == 11
    for start, stop in ((8, 11), (0, 1), (2, 7)):
        np.testing.assert_array_equal(rows(source, start, stop), ROWS[start:stop])
    assert digests(source, 4) == digests(open_source(ROWS), 4)
    assert len(digests(source, 4)) == 3


def test_bfloat16(tmp_path):
    """Claim: bfloat16 is promoted exactly."""
    torch = pytest.importorskip("torch")
    import safetensors.torch

    values = torch.randn(5, 3).bfloat16()
    safetensors.torch.save_file({"x": values}, tmp_path / "x.safetensors")
    read = rows(open_source(tmp_path / "x.safetensors"), 1, 4)
    np.testing.assert_array_equal(read, values[1:4].double().numpy())


def test_bad_rows_are_named(tmp_path):
    """Claim: NaN is found at the door, with the file and the samples."""
    values = ROWS.copy()
    values[6, 2] = np.nan
    np.save(tmp_path / "x.npy", values)
    with pytest.raises(FormatError, match=r"x\.npy: samples 4 to 7.*nan at index \(2, 2\)"):
        digests(open_source(tmp_path / "x.npy"), 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: np.savez_compressed(p / "x.npz", ROWS), "compressed"),
        (lambda p: np.savez(p / "x.npz", a=ROWS, b=ROWS), "named 'observations'"),
        (lambda p: np.save(p / "x.npy", ROWS[0]), "one a row"),
        (lambda p: np.save(p / "x.npy", ROWS[:0]), "one a row"),
        (lambda p: np.save(p / "x.npy", ROWS.astype(object)), "pickled"),
        (lambda p: (p / "x.npy").write_bytes(b"rubbish"), "not an npy file"),
        (lambda p: (p / "x.bin").write_bytes(b"rubbish"), "expected npy, npz"),
        (lambda p: (p / "x.d").mkdir(), "found none"),
    ],
)
def test_what_is_no_source(tmp_path, make, message):
    """Claim: the error names the file and says what was expected."""
    make(tmp_path)
    (path,) = tmp_path.iterdir()
    with pytest.raises(FormatError, match=message) as caught:
        open_source(path)
    assert str(path) in str(caught.value)


def test_zarr_codecs_that_could_unpickle(tmp_path):
    """Claim: a Zarr array is not opened if it names a codec that is not on the list."""
    pytest.importorskip("zarr")
    path = write(tmp_path, "zarr2")
    metadata = path / ".zarray"
    metadata.write_text(
        metadata.read_text().replace('"filters": null', '"filters": [{"id": "pickle"}]')
    )
    with pytest.raises(FormatError, match=r"expected no codecs but .*, got pickle"):
        open_source(path)


@pytest.mark.parametrize(
    "compressor",
    ["zstd", "blosc", "lz4", "gzip", "zlib", None],
)
def test_zarr_chunks_cannot_inflate(tmp_path, compressor):
    """Claim: a chunk that holds far more than its array says is refused before it is unpacked."""
    zarr, numcodecs = pytest.importorskip("zarr"), pytest.importorskip("numcodecs")
    codecs = {
        "zstd": numcodecs.Zstd(), "blosc": numcodecs.Blosc(), "lz4": numcodecs.LZ4(),
        "gzip": numcodecs.GZip(), "zlib": numcodecs.Zlib(), None: None,
    }  # fmt: skip
    path, codec = tmp_path / "x.zarr", codecs[compressor]
    array = zarr.create_array(
        str(path), shape=(8, 20), chunks=(4, 20), dtype="f8", zarr_format=2, compressors=codec
    )
    array[:] = ROWS[:8]
    limits = Limits(file_bytes=2**20)
    source = open_source(path, limits)
    np.testing.assert_array_equal(rows(source, 0, 8), ROWS[:8])
    bomb = np.zeros(2**24, dtype=np.uint8)
    (path / "1.0").write_bytes(codec.encode(bomb) if codec else bomb.tobytes())
    np.testing.assert_array_equal(rows(source, 0, 4), ROWS[:4])
    tracemalloc.start()
    with pytest.raises(FormatError, match="more than the"):
        rows(source, 4, 8)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_zstd_that_does_not_say_its_size():
    """Claim: without a size in its header nothing is unpacked."""
    with pytest.raises(FormatError, match="does not say"):
        unpacked_size(b"\x28\xb5\x2f\xfd\x00\x58\x00\x00", "zstd", 100)


def test_no_source():
    """Claim: neither a path nor an array."""
    with pytest.raises(InputError, match="expected a path or an array, got int"):
        open_source(3)
