"""Which network made a picture: planted pictures, hard negatives, and bad input."""

import json

import numpy as np
import pytest
from planted import gaussian_generator
from typer.testing import CliRunner

import preimage
from preimage import InputError, provenance
from preimage.certify import checker
from preimage.cli import app
from preimage.io.observations import load_observations


def _decoders(head, count=3):
    """Networks of one recipe that differ only in their seed, with pictures mostly in [0, 1]."""
    found = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        plain = gaussian_generator((3, 24, 36), rng, bias=True, head=head)
        last = plain.layers[-1]
        bias = last.bias + (0.5 if head in ("identity", "relu") else 0.0)
        found.append(preimage.Generator((plain.layers[0],
                                         preimage.Layer(last.weight, bias, head))))  # fmt: skip
    return found


def _file(generator, z):
    y = generator(z)
    y = (y + 1) / 2 if preimage.Tanh() == generator.layers[-1].activation else y
    return np.round(255 * np.clip(y, 0, 1)).astype(np.uint8)


@pytest.mark.parametrize("head", ["relu", "identity", "sigmoid", "tanh"])
def test_pictures_are_told_apart(head):
    """Claim: the maker is found with a code that gives the file, all others are excluded."""
    decoders = _decoders(head)
    for maker, generator in enumerate(decoders):
        rng = np.random.default_rng(10 + maker)
        picture = _file(generator, 1.5 * rng.normal(size=3))
        found = provenance(picture, decoders, box=6.0)
        for index, one in enumerate(found):
            assert one.verdict == ("made" if index == maker else "not made")
            assert str(one.certificate.verdict) != "undecided"
        made = found[maker]
        assert np.abs(_file(generator, made.latent).astype(int) - picture).max() <= 1
        assert np.abs(255 * made.reconstruction - picture).max() == pytest.approx(made.error)
        assert made.error <= 0.51


def test_saturated_pixels_exclude_nothing_by_themselves():
    """Claim: a picture whose network left [0, 1] far behind is still its own."""
    decoders = _decoders("identity")
    picture = _file(decoders[0], np.array([4.0, -4.0, 4.0]))
    assert (picture == 255).sum() + (picture == 0).sum() > 9
    assert provenance(picture, decoders[:1], box=6.0)[0].verdict == "made"


def test_a_changed_pixel_is_not_made():
    """Claim: three gray levels in a few pixels are enough to exclude a network."""
    [generator] = _decoders("sigmoid", 1)
    picture = _file(generator, np.array([0.3, -0.2, 0.5]))
    picture[::5] += 3
    [found] = provenance(picture, [generator])
    assert found.verdict == "not made"
    assert np.isnan(found.error)


def test_floats_and_colour_planes_are_taken():
    """Claim: floats in [0, 1], and pixels with the channels last, are the same picture."""
    rng = np.random.default_rng(0)
    plain = gaussian_generator((2, 30, 48), rng, bias=True, head="sigmoid")
    picture = _file(plain, np.array([0.5, -0.5]))
    planes = picture.reshape(3, 4, 4)
    for image in (picture / 255, planes, planes.transpose(1, 2, 0)):
        assert provenance(image, {"plain": plain})[0].verdict == "made"


def test_bad_input():
    [generator] = _decoders("sigmoid", 1)
    for image in (np.full(36, 256), np.full(36, -1), np.full(36, np.nan), np.full(36, 1.5), []):
        with pytest.raises(InputError):
            provenance(image, [generator])
    with pytest.raises(InputError, match="outputs"):
        provenance(np.zeros(35), [generator])
    with pytest.raises(InputError, match="levels"):
        provenance(np.zeros(36), [generator], levels=0.0)


def test_the_command(tmp_path):
    decoders = _decoders("sigmoid", 2)
    paths = [str(tmp_path / f"{i}.safetensors") for i in range(2)]
    for path, generator in zip(paths, decoders, strict=True):
        preimage.save(generator, path)
    np.save(tmp_path / "x.npy", _file(decoders[1], np.array([0.3, 0.1, -0.4])))
    line = ["provenance", str(tmp_path / "x.npy"), *paths, "--out", str(tmp_path / "out")]
    ran = CliRunner().invoke(app, line)
    assert ran.exit_code == 0, ran.output
    assert "not made" in ran.output
    assert (tmp_path / "out" / "0.json").exists()
    assert (tmp_path / "out" / "1.png").exists()
    assert not (tmp_path / "out" / "0.png").exists()
    ran = CliRunner().invoke(app, [*line, "--json"])
    assert [one["verdict"] for one in json.loads(ran.output)["networks"]] == ["not made", "made"]


@pytest.mark.parametrize("head", ["sigmoid", "tanh"])
def test_the_checker_proves_what_was_excluded_from_the_picture_alone(head, tmp_path):
    """Claim: the observation that is certified is, to the bit, the one read from a picture."""
    maker, other = _decoders(head, 2)
    picture = _file(maker, np.random.default_rng(3).normal(size=3))
    [found] = provenance(picture, [other], box=6.0)
    assert found.verdict == "not made"
    paths = [str(tmp_path / name) for name in ("c.json", "n.safetensors", "x.npy", "p.npy")]
    found.certificate.save(paths[0])
    preimage.save(other, paths[1])
    np.save(paths[3], picture)
    np.save(paths[2], load_observations(paths[3], other))
    assert checker.check(*paths[:3])[0]["verdict"] == "infeasible"
