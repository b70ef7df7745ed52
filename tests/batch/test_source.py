"""Sources: every form gives the same rows and the same digest, a few at a time."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from preimage.batch.source import digests, open_source, rows
from preimage.errors import FormatError, InputError

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


def test_no_source():
    """Claim: neither a path nor an array."""
    with pytest.raises(InputError, match="expected a path or an array, got int"):
        open_source(3)
