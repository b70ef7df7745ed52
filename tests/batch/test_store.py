"""The store: what is read is what was written, or an error."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import numpy as np
import pytest
from jobs import content, problem
from troublesome import QUICK

import preimage
from preimage.batch.store import MANIFEST, sealed, shard_path
from preimage.errors import InputError, StoreError

SIZE = 7  # of a shard: 40 samples are five shards of 7 and one of 5


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished store, and what one call of ``invert`` says of the same samples."""
    generator, x, _ = problem()
    folder = tmp_path_factory.mktemp("finished") / "store"
    preimage.invert_dataset(generator, x, folder, QUICK, shard_size=SIZE, workers=2)
    return folder, preimage.invert(generator, x, QUICK)


@pytest.fixture
def copy(finished, tmp_path):
    """A copy that may be damaged."""
    shutil.copytree(finished[0], tmp_path / "store")
    return tmp_path / "store"


def again(folder, method=QUICK, *, size=SIZE, noise=0.0, change=0.0, seed=0):
    generator, x, _ = problem(seed=seed)
    x = problem()[1] + change
    return preimage.invert_dataset(
        generator, x, folder, method, shard_size=size, noise=noise, workers=1
    )


def test_the_same_as_one_call(finished):
    """Claim: shards hold, bit by bit, what ``invert`` finds for all samples at once."""
    folder, expected = finished
    store = preimage.open_store(folder)
    store.verify()
    assert store.complete
    assert len(store) == 40
    for name in ("latent", "residual", "residual_max", "rank", "status"):
        np.testing.assert_array_equal(np.asarray(getattr(store, name)), getattr(expected, name))
    assert isinstance(store.status[0], preimage.Status)
    assert store.counts() == dict(Counter(expected.status))
    assert store.quarantined == {}


@pytest.mark.parametrize(
    "index",
    [
        0, -1, 39, slice(None), slice(5, 9), slice(30, 2, -3), slice(0, 0), [3, 3, 38, 0],
        np.array([[1, 39], [7, 6]]), np.arange(40) % 3 == 0, (slice(2, 20), 1), (5, 2),
        (slice(None), slice(0, 2)), (..., 0), np.int64(6),
    ],
    ids=str,
)  # fmt: skip
def test_columns_are_indexed_as_arrays_are(finished, index):
    """Claim: an index means what it means to NumPy."""
    store = preimage.open_store(finished[0])
    np.testing.assert_array_equal(store.latent[index], np.asarray(store.latent)[index])


@pytest.mark.parametrize("index", [40, -41, [0, 40], "x", 1.5])
def test_wrong_indices(finished, index):
    """Claim: what is no sample is an IndexError, as with an array."""
    with pytest.raises(IndexError):
        preimage.open_store(finished[0]).latent[index]


def test_only_what_is_asked_for_is_read(copy):
    """Claim: a slice reads the shards that it needs, and no other."""
    store = preimage.open_store(copy)
    for index in (0, 2, 3, 4, 5):
        shard_path(copy, index).unlink()
    assert store.latent[SIZE : 2 * SIZE].shape == (SIZE, 3)
    with pytest.raises(StoreError, match="shard is missing"):
        store.latent[0]


@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped", "longer", "swapped"])
def test_damage_is_found_and_mended(finished, copy, damage):
    """Claim: no damaged shard is ever read; running the job again redoes it, to the bit."""
    path = shard_path(copy, 3)
    data = bytearray(path.read_bytes())
    path.unlink()
    if damage == "truncated":
        path.write_bytes(data[:-9])
    elif damage == "longer":
        path.write_bytes(data + b"\0")
    elif damage == "flipped":
        data[len(data) // 2] ^= 4
        path.write_bytes(data)
    elif damage == "swapped":
        path.write_bytes(shard_path(copy, 2).read_bytes())
    with pytest.raises(StoreError, match=r"shard|store"):
        preimage.open_store(copy).verify()
    with pytest.raises(StoreError, match=r"shard|store"):
        preimage.open_store(copy).latent[3 * SIZE]
    again(copy).verify()
    assert content(copy) == content(finished[0])


def test_unfinished_samples_are_an_error(finished, copy):
    """Claim: a sample that is not inverted yet is not NaN, it is an error."""
    lines = (copy / MANIFEST).read_bytes().splitlines(keepends=True)
    (copy / MANIFEST).write_bytes(sealed(b"".join(lines[1:5])))
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
    from preimage.batch.writer import Writer

    job = preimage.open_store(copy).job
    with Writer(copy, job), pytest.raises(StoreError, match="another job is writing"):
        again(copy)
    again(copy).verify()


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [],
        lambda lines: lines[1:],
        lambda lines: [lines[0], "{"],
        lambda lines: [lines[0], lines[1], lines[1]],
        lambda lines: [lines[0], lines[1].replace('"shard": 0', '"shard": 99')],
        lambda lines: [lines[0].replace('"samples": 40', '"samples": -40'), *lines[1:]],
        lambda lines: [lines[0].replace('"samples": 40', '"samples": "40"'), *lines[1:]],
        lambda lines: [lines[0].replace('"noise": 0.0', '"noise": "no"'), *lines[1:]],
        lambda lines: [json.dumps({**json.loads(lines[0]), "more": 1}), *lines[1:]],
        lambda lines: ["[" * 100_000],
    ],
)
def test_broken_manifests(copy, change):
    """Claim: whatever is in a manifest, the error is ours and names it."""
    _, *lines = (copy / MANIFEST).read_text().splitlines()
    (copy / MANIFEST).write_bytes(sealed("\n".join(change(lines)).encode()))
    with pytest.raises(StoreError, match=r"manifest\.jsonl"):
        preimage.open_store(copy)


def test_altered_manifests(copy):
    """Claim: not a bit of a manifest changes unnoticed."""
    data = (copy / MANIFEST).read_bytes()
    for place in range(0, len(data), 7):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        for damaged in (changed, data[:place]):
            (copy / MANIFEST).write_bytes(damaged)
            with pytest.raises(StoreError, match=r"manifest\.jsonl"):
                preimage.open_store(copy)


def test_no_store(tmp_path):
    """Claim: a folder that is no store is said to be none, and is left alone."""
    with pytest.raises(StoreError, match="not a whole store"):
        preimage.open_store(tmp_path)
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match="has shards, but no manifest"):
        again(tmp_path)
    assert (tmp_path / "shards" / "mine.txt").exists()
