"""What visitors give becomes an observation, or a message."""

import io

import numpy as np
import pytest
from PIL import Image

import preimage
from preimage.app import question


@pytest.fixture
def network():
    """Makes pictures of 6 x 6."""
    rng = np.random.default_rng(0)
    return preimage.from_arrays([rng.standard_normal((12, 3)), rng.standard_normal((36, 12))])


def saved(tmp_path, image, name):
    path = tmp_path / name
    image.save(path)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.gif"])
def test_a_picture_is_scaled_to_fit(network, tmp_path, name):
    """Claim: each pixel is the mean of those it stands for."""
    gray = np.random.default_rng(1).integers(0, 256, (12, 18), dtype=np.uint8)
    found = question.read_upload(saved(tmp_path, Image.fromarray(gray), name), network)
    means = gray.reshape(6, 2, 6, 3).mean(axis=(1, 3)) / 255
    np.testing.assert_allclose(found.reshape(6, 6), means, atol=1 / 255)


def test_colour_stays_where_the_network_makes_colour(tmp_path):
    colourful = preimage.from_arrays([np.ones((3 * 16, 2))], activation="tanh")
    image = Image.new("RGB", (8, 8), (255, 0, 51))
    found = question.read_upload(saved(tmp_path, image, "a.png"), colourful)
    np.testing.assert_allclose(found.reshape(3, 16), np.array([[1], [-1], [-0.6]]) * np.ones(16))
    np.testing.assert_allclose(question.to_gray(colourful, found).reshape(3, 16)[2], 0.2)


def test_what_is_transparent_is_black(network, tmp_path):
    image = Image.new("RGBA", (6, 6), (255, 255, 255, 0))
    assert not question.read_upload(saved(tmp_path, image, "a.png"), network).any()


def test_arrays_are_taken_as_they_are(network, tmp_path):
    values = np.random.default_rng(1).standard_normal((2, 36))
    np.save(tmp_path / "x.npy", values)
    np.testing.assert_array_equal(question.read_upload(tmp_path / "x.npy", network), values[0])


def cut_off():
    whole = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(whole, "PNG")
    return whole.getvalue()[:500]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.png", b"", "expected a picture"),
        ("a.png", b"no picture", "expected a picture"),
        ("a.png", cut_off(), "cut off"),
        ("a.svg", b"<svg/>", "expected a picture"),
        ("a.npy", b"no array", "npy"),
    ],
)
def test_a_bad_upload_is_a_message(network, tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(preimage.FormatError, match=words):
        question.read_upload(tmp_path / name, network)


def test_limits_and_sizes_are_checked(network, tmp_path, monkeypatch):
    np.save(tmp_path / "wide.npy", np.zeros((1, 35)))
    with pytest.raises(preimage.FormatError, match="36 entries"):
        question.read_upload(tmp_path / "wide.npy", network)
    large = saved(tmp_path, Image.new("L", (40, 40)), "large.png")
    monkeypatch.setattr(question, "UPLOAD", preimage.Limits(entries=1599))
    with pytest.raises(preimage.FormatError, match="1600"):
        question.read_upload(large, network)
    monkeypatch.setattr(question, "UPLOAD", preimage.Limits(file_bytes=50))
    with pytest.raises(preimage.FormatError, match="bytes"):
        question.read_upload(large, network)


def test_noise_is_added_within_its_bound_and_what_is_hidden_is_not_seen(network):
    image = network(question.random_code(network, 4))
    canvas = question.canvas_value(network, image)
    canvas["hidden"][7] = 1
    asked = question.ask(network, canvas, 0.05)
    error = np.abs(asked.observation - image)
    assert 0.04 < error.max() <= 0.05 + 1e-6  # the canvas has six digits
    assert np.flatnonzero(~asked.seen).tolist() == [7]
    same = question.again(network, {"observation": asked.observation.tolist(),
                                    "seen": asked.seen.tolist(), "noise": asked.noise})  # fmt: skip
    np.testing.assert_array_equal(same.observation, asked.observation)
    np.testing.assert_array_equal(same.seen, asked.seen)


def test_nonsense_from_a_browser_is_refused(network):
    good = question.canvas_value(network, np.zeros(36))
    for name, bad in [("picture", None), ("picture", [0.0] * 35), ("hidden", ["a"] * 36),
                      ("picture", [float("nan")] * 36), ("hidden", {})]:  # fmt: skip
        with pytest.raises(preimage.InputError, match=name):
            question.ask(network, good | {name: bad}, 0.1)
    for noise in (-0.1, 2, None, "much", [0.1], float("nan")):
        with pytest.raises(preimage.InputError, match="noise"):
            question.ask(network, good, noise)
    with pytest.raises(preimage.InputError, match="hidden"):
        question.ask(network, good | {"hidden": [1] * 36}, 0.1)
    with pytest.raises(preimage.InputError, match="picture"):
        question.ask(network, "text", 0.1)
    with pytest.raises(preimage.InputError, match="hidden"):
        question.again(network, {"observation": [0] * 36, "seen": [0] * 36, "noise": 0})
