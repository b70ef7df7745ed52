"""Sources: every form gives the same rows and the same digest, a few at a time."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from preimage.errors import FormatError, InputError
from preimage.io.limits import Limits
from preimage.io.observations import open_observations
from preimage.io.zarr_folder import unpacked_size

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
    source = open_observations(write(tmp_path, form))
    assert source.shape[0] == 11
    for start, stop in ((8, 11), (0, 1), (2, 7)):
        np.testing.assert_array_equal(source.read(start, stop), ROWS[start:stop])
    assert source.digests(4) == open_observations(ROWS).digests(4)
    assert len(source.digests(4)) == 3


def test_bfloat16(tmp_path):
    """Claim: bfloat16 is promoted exactly."""
    torch = pytest.importorskip("torch")
    import safetensors.torch

    values = torch.randn(5, 3).bfloat16()
    safetensors.torch.save_file({"x": values}, tmp_path / "x.safetensors")
    read = open_observations(tmp_path / "x.safetensors").read(1, 4)
    np.testing.assert_array_equal(read, values[1:4].double().numpy())


def test_bad_rows_are_named(tmp_path):
    """Claim: NaN is found when it is read, with the file and the samples."""
    values = ROWS.copy()
    values[6, 2] = np.nan
    np.save(tmp_path / "x.npy", values)
    with pytest.raises(FormatError, match=r"x\.npy: samples 4 to 7.*nan at index \(2, 2\)"):
        open_observations(tmp_path / "x.npy").digests(4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: np.savez(p / "x.npz", a=ROWS, b=ROWS), "named 'observations'"),
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
        open_observations(path)
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
        open_observations(path)


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
    source = open_observations(path, limits=limits)
    np.testing.assert_array_equal(source.read(0, 8), ROWS[:8])
    bomb = np.zeros(2**24, dtype=np.uint8)
    (path / "1.0").write_bytes(codec.encode(bomb) if codec else bomb.tobytes())
    np.testing.assert_array_equal(source.read(0, 4), ROWS[:4])
    tracemalloc.start()
    with pytest.raises(FormatError, match="more than the"):
        source.read(4, 8)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_zstd_that_does_not_say_its_size():
    """Claim: without a size in its header nothing is unpacked."""
    with pytest.raises(FormatError, match="does not say"):
        unpacked_size(b"\x28\xb5\x2f\xfd\x00\x58\x00\x00", "zstd", 100)


def test_no_source():
    """Claim: neither a path nor an array."""
    with pytest.raises(InputError, match="expected a path or an array, got int"):
        open_observations(3)


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_chunks_that_lead_out_of_the_folder(tmp_path, version):
    """Claim: a chunk that is a symbolic link to a file elsewhere is not read; one within is."""
    path = write(tmp_path, f"zarr{version}")
    chunk = path / ("1.0" if version == 2 else "c/1/0")
    moved = chunk.rename(chunk.with_name("moved"))
    chunk.symlink_to(moved)
    np.testing.assert_array_equal(open_observations(path).read(4, 8), ROWS[4:8])
    outside = moved.rename(tmp_path / "outside")
    chunk.unlink()
    chunk.symlink_to(outside)
    source = open_observations(path)
    np.testing.assert_array_equal(source.read(0, 4), ROWS[:4])
    with pytest.raises(FormatError, match="leads out of the folder"):
        source.read(4, 8)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("link", ["absolute", "relative", "through another", "a folder", "broken"])
def test_links_of_zarr_are_not_followed_outside(tmp_path, version, link):
    """Claim: however a link leads out of the folder, nothing of there is read."""
    path = write(tmp_path, f"zarr{version}")
    chunk = path / ("1.0" if version == 2 else "c/1/0")
    outside = chunk.rename(tmp_path / "outside")
    match link:
        case "absolute":
            chunk.symlink_to(outside)
        case "relative":
            chunk.symlink_to(Path(*[".."] * len(chunk.relative_to(tmp_path).parts[:-1]), "outside"))
        case "through another":
            (path / "other").symlink_to(outside)
            chunk.symlink_to(path / "other")
        case "a folder":
            outside.rename(outside.with_name(chunk.name))
            if version == 2:
                chunk.symlink_to(tmp_path / chunk.name)
            else:
                chunk.parent.rmdir()
                chunk.parent.symlink_to(tmp_path)
        case "broken":
            chunk.symlink_to(tmp_path / "nothing")
    source = open_observations(path)
    with pytest.raises(FormatError, match="leads out of the folder"):
        source.read(4, 8)


def test_compressed_archives_are_read_whole(tmp_path):
    """Claim: they are read, and what inflates beyond the limits is refused before it is."""
    np.savez_compressed(tmp_path / "x.npz", ROWS)
    np.testing.assert_array_equal(open_observations(tmp_path / "x.npz").read(2, 7), ROWS[2:7])
    np.savez_compressed(tmp_path / "bomb.npz", np.zeros((2**22, 20)))
    with pytest.raises(FormatError, match=r"inflation|file_bytes"):
        open_observations(tmp_path / "bomb.npz")
