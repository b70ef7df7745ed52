"""The store: what is read is what was written, or an error."""

from __future__ import annotations

import json
import pickle
import shutil
import warnings
from collections import Counter

import numpy as np
import pytest
from jobs import content, problem
from troublesome import QUICK

import preimage
from preimage.batch import writer
from preimage.batch.store import COLUMNS, METADATA, chunk_path
from preimage.errors import InputError, StoreError

SIZE = 7  # of a shard: 40 samples are five shards of 7 and one of 5


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished store, and what one call of ``invert`` says of the same samples."""
    generator, x, _ = problem()
    folder = tmp_path_factory.mktemp("finished") / "store"
    preimage.invert_dataset(generator, x, folder, QUICK, shard_size=SIZE)
    return folder, preimage.invert(generator, x, QUICK)


@pytest.fixture
def copy(finished, tmp_path):
    """A copy that may be damaged."""
    shutil.copytree(finished[0], tmp_path / "store")
    return tmp_path / "store"


def again(folder, method=QUICK, *, size=SIZE, noise=0.0, change=0.0, seed=0, sensing=None):
    generator, x, _ = problem(seed=seed)
    x = problem()[1] + change
    return preimage.invert_dataset(
        generator, x, folder, method, shard_size=size, noise=noise, sensing=sensing
    )


def test_the_same_as_one_call(finished):
    """Claim: shards hold what ``invert`` finds for all samples at once, to rounding."""
    folder, expected = finished
    store = preimage.open_store(folder)
    store.verify()
    assert store.complete
    assert len(store) == 40
    for name in ("latent", "residual", "residual_max", "standard_error"):
        np.testing.assert_allclose(getattr(store, name), getattr(expected, name), rtol=1e-9)
    for name in ("rank", "status"):
        np.testing.assert_array_equal(np.asarray(getattr(store, name)), getattr(expected, name))
    assert isinstance(store.status[0], preimage.Status)
    assert store.counts() == dict(Counter(expected.status))
    assert store.quarantined == {}


@pytest.mark.parametrize(
    "index",
    [
        0, -1, 39, slice(None), slice(5, 9), slice(30, 2, -3), slice(0, 0), [3, 3, 38, 0],
        np.array([[1, 39], [7, 6]]), np.arange(40) % 3 == 0, (slice(2, 20), 1), (5, 2),
        (slice(None), slice(0, 2)), (..., 0), np.int64(6), ([1, 39], [0, 2]), ([[1], [39]], [0, 2]),
        (slice(3, 6), [0, 2]), (np.arange(40) % 20 == 0, [0, 2]),
    ],
    ids=str,
)  # fmt: skip
def test_columns_are_indexed_as_arrays_are(finished, index):
    """Claim: an index means what it means to NumPy."""
    store = preimage.open_store(finished[0])
    np.testing.assert_array_equal(store.latent[index], np.asarray(store.latent)[index])


def test_a_store_travels_to_other_processes(finished):
    """Claim: a store can be pickled, whatever was read of it."""
    store = preimage.open_store(finished[0])
    latent = store.latent[:]
    again = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(again.latent[:], latent)
    np.testing.assert_array_equal(again.inverted, np.arange(40))


@pytest.mark.parametrize("index", [40, -41, [0, 40], "x", 1.5])
def test_wrong_indices(finished, index):
    """Claim: what is no sample is an IndexError, as with an array."""
    with pytest.raises(IndexError):
        preimage.open_store(finished[0]).latent[index]


def test_only_what_is_asked_for_is_read(copy):
    """Claim: a slice reads the chunks that it needs, and no other."""
    store = preimage.open_store(copy)
    for index in (0, 2, 3, 4, 5):
        chunk_path(copy, "latent", index).unlink()
    assert store.latent[SIZE : 2 * SIZE].shape == (SIZE, 3)
    with pytest.raises(StoreError, match="chunk is missing"):
        store.latent[0]


@pytest.mark.parametrize("name", ["latent", "residual", "rank", "status"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped", "longer", "empty"])
def test_damage_is_found_and_mended(finished, copy, damage, name):
    """Claim: no damaged chunk is ever read; running the job again redoes it, to the bit."""
    path = chunk_path(copy, name, 3)
    data = bytearray(path.read_bytes())
    path.unlink()
    if damage == "truncated":
        path.write_bytes(data[:-9])
    elif damage == "longer":
        path.write_bytes(data + b"\0")
    elif damage == "flipped":
        data[len(data) // 2] ^= 4
        path.write_bytes(data)
    elif damage == "empty":
        path.write_bytes(b"")
    with pytest.raises(StoreError, match=r"shard|store"):
        preimage.open_store(copy).verify()
    with pytest.raises(StoreError, match=r"chunk|not inverted yet"):
        getattr(preimage.open_store(copy), name)[3 * SIZE]
    again(copy).verify()
    assert content(copy) == content(finished[0])


def test_unfinished_samples_are_an_error(finished, copy):
    """Claim: a sample that is not inverted yet is not NaN, it is an error."""
    for index in (3, 4, 5):
        chunk_path(copy, "status", index).unlink()
    store = preimage.open_store(copy)
    assert not store.complete
    assert store.latent[: 3 * SIZE].shape == (21, 3)
    with pytest.raises(StoreError, match=r"samples 21 to 27 are not inverted yet \(3 of 6 shards"):
        store.latent[3 * SIZE]
    with pytest.raises(StoreError, match="3 of 6 shards are finished"):
        store.verify()
    again(copy).verify()
    assert content(copy) == content(finished[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "another network"),
        ({"change": 1e-12}, "other observations"),
        ({"method": preimage.GradientDescent()}, "another method"),
        ({"noise": 1e-3}, "another noise"),
        ({"size": 8}, "another shard size"),
        ({"noise": np.r_[1e-3, np.zeros(19)]}, "another noise"),
        ({"sensing": np.arange(20) > 2}, "another noise or sensing"),
        ({"sensing": np.eye(20)}, "another noise or sensing"),
    ],
)
def test_another_job_is_refused(finished, copy, change, message):
    """Claim: a store belongs to one network, source, method, noise and shard size."""
    with pytest.raises(InputError, match=message):
        again(copy, **change)
    assert content(copy) == content(finished[0])


def test_methods_with_arrays_are_told_apart(tmp_path):
    """Claim: settings that NumPy prints alike are still different."""
    from preimage.batch.job import _settings_digest
    from preimage.methods import GaussNewton

    low = np.full(2000, -1.0)
    other = low.copy()
    other[1000] -= 1e-12
    first, second = (GaussNewton(box=(part, -part)) for part in (low, other))
    assert repr(first) == repr(second) or _settings_digest(first) != _settings_digest(second)


def test_the_lock(copy):
    """Claim: a second job on one store fails at once, and the first one does not notice."""
    from preimage.batch.writer import writing

    job = preimage.open_store(copy).job
    with writing(copy, job), pytest.raises(StoreError, match="another job is writing"):
        again(copy)
    again(copy).verify()


@pytest.mark.parametrize(
    "change",
    [
        lambda job: job.clear(),
        lambda job: job.pop("noise"),
        lambda job: job.update(samples=-40),
        lambda job: job.update(samples="40"),
        lambda job: job.update(samples=True),
        lambda job: job.update(noise="no"),
        lambda job: job.update(more=1),
    ],
)
def test_broken_descriptions(copy, change):
    """Claim: whatever is in a description, the error is ours and names its file."""
    whole = json.loads((copy / METADATA).read_text())
    described = whole["attributes"]["preimage"]
    change(described["job"])
    (copy / METADATA).write_text(json.dumps(whole))
    with pytest.raises(StoreError, match=r"zarr\.json"):
        preimage.open_store(copy)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "{}", '{"attributes": {}}', "null"])
def test_what_is_no_description(copy, text):
    (copy / METADATA).write_text(text)
    with pytest.raises(StoreError, match=r"zarr\.json"):
        preimage.open_store(copy)


def test_altered_arrays_are_not_read(copy):
    """Claim: an array whose own description was changed is an error, not other numbers."""
    path = copy / "latent" / METADATA
    text = path.read_text()
    for old, new in (("float64", "int64"), ("40", "39"), ("crc32c", "pickle")):
        assert old in text
        path.write_text(text.replace(old, new))
        with pytest.raises(StoreError, match="latent"):
            preimage.open_store(copy).latent[0]


def test_links_out_of_the_store_are_not_followed(copy, tmp_path):
    """Claim: a chunk that is a symbolic link to a file elsewhere is not read."""
    chunk = chunk_path(copy, "latent", 2)
    chunk.rename(tmp_path / "outside")
    chunk.symlink_to(tmp_path / "outside")
    with pytest.raises(StoreError, match="leads out of the folder"):
        preimage.open_store(copy).latent[2 * SIZE]


def test_zarr_and_xarray_read_a_store(finished):
    """Claim: other programs read it as it is, without warnings, with names of its dimensions."""
    zarr, xarray = pytest.importorskip("zarr"), pytest.importorskip("xarray")
    folder, expected = finished
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open(str(folder), mode="r")
        assert sorted(group.array_keys()) == sorted(COLUMNS)
        np.testing.assert_allclose(group["latent"][:], expected.latent, rtol=1e-9)
        data = xarray.open_zarr(folder)
    assert data.latent.dims == ("sample", "coordinate")
    assert data.residual.dims == ("sample",)
    np.testing.assert_allclose(data.residual.values, expected.residual, rtol=1e-9)
    meanings = data.status.attrs["flag_meanings"].split()
    assert [meanings[code] for code in data.status.values] == [str(s) for s in expected.status]


def test_no_store(tmp_path):
    """Claim: a folder that is no store is said to be none, and is left alone."""
    with pytest.raises(StoreError, match="not a store"):
        preimage.open_store(tmp_path)
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match=r"not empty and holds no store: mine\.txt"):
        again(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_what_was_left_by_a_kill_is_removed(finished, copy):
    """Claim: half-written files do not stay, and a store that was only begun is begun again."""
    (copy / "latent" / "c" / "3" / "0.123.partial").write_bytes(b"half")
    again(copy)
    assert content(copy) == content(finished[0])
    (copy / METADATA).unlink()
    again(copy).verify()
    assert content(copy) == content(finished[0])
    (copy / METADATA).unlink()
    again(copy, seed=1)  # another network, of which nothing is finished
    again(copy.parent / "other", seed=1)
    assert content(copy) == content(copy.parent / "other") != content(finished[0])


def test_a_creation_that_is_cut_off_is_begun_again(finished, tmp_path, monkeypatch):
    """Claim: wherever creation ends, no half of it is taken for a store, and the next job is whole.

    What a kill leaves of the file that is being written lies beside it under another name.
    """
    whole = writer.write_bytes
    for last in range(len(COLUMNS) + 1):
        folder, written = tmp_path / str(last), []

        def write(path, data, last=last, written=written):
            if len(written) == last:
                path.with_name(f".{path.name}.123.partial").write_bytes(data[:9])
                raise KeyboardInterrupt
            written.append(path)
            whole(path, data)

        monkeypatch.setattr(writer, "write_bytes", write)
        with pytest.raises(KeyboardInterrupt):
            again(folder)
        monkeypatch.undo()
        assert not (folder / METADATA).exists()
        again(folder)
        assert content(folder) == content(finished[0])
