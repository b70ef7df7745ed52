"""The networks and digits that ship."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from preimage import invert, zoo
from preimage.activation import LeakyReLU, ReLU, Sigmoid
from preimage.errors import FormatError, InputError

EXPECTED = {
    "mnist-20-60-784": [ReLU()] * 2,
    "mnist-5-60-784-vae": [ReLU()] * 2,
    "mnist-10-60-784-vae": [ReLU()] * 2,
    "mnist-20-60-784-vae": [ReLU()] * 2,
    "mnist-40-60-784-vae": [ReLU()] * 2,
    "mnist-20-400-784-vae": [ReLU(), Sigmoid()],
    "mnist-20-200-500-784": [LeakyReLU(0.1)] * 3,
    "mnist-32-256-512-784": [ReLU(), ReLU(), Sigmoid()],
    "mnist-conv-20": [ReLU(), ReLU(), Sigmoid()],
}
SIZES = {"mnist-conv-20": (20, 1568, 3136, 784)}


def test_names():
    assert zoo.names() == tuple(sorted(EXPECTED))


@pytest.mark.parametrize("name", EXPECTED)
def test_networks(name):
    generator, card = zoo.load(name), zoo.card(name)
    sizes = SIZES.get(name) or tuple(map(int, name.split("-vae")[0].split("-")[1:]))
    assert generator.sizes == card.sizes == sizes
    assert [layer.activation for layer in generator.layers] == EXPECTED[name]
    assert (card.name, card.file) == (name, f"{name}.safetensors")
    assert (zoo._DATA / card.file).stat().st_size <= 3 * 2**20
    assert card.command == f"python -m training {name} --data DIR --seed {card.seed}"
    assert any(layer.bias.any() for layer in generator.layers) == ("no bias" not in card.activation)
    samples = generator(np.random.default_rng(0).standard_normal((200, generator.latent_size)))
    assert np.isfinite(samples).all()
    # Digits are dark with some light, and differ from one another.
    assert 0.03 < np.clip(samples, 0, 1).mean() < 0.3
    assert np.clip(samples, 0, 1).std(axis=0).max() > 0.2


@pytest.mark.parametrize("name", EXPECTED)
def test_quality_is_measured(name):
    quality = zoo.card(name).quality
    assert quality["frechet_distance_of_training_images"] < quality["frechet_distance"] < 400
    assert "Fréchet" in quality["meaning"]
    shares = quality["positive_preactivations"] + quality["draws_with_enough_positive"]
    assert all(0 <= share <= 1 for share in shares)


def test_the_gan_of_the_paper_can_be_inverted_layer_by_layer():
    assert zoo.card("mnist-20-60-784").quality["draws_with_enough_positive"][0] > 0.9


def test_the_convolutional_network_contracts_and_can_be_inverted():
    generator = zoo.load("mnist-conv-20")
    assert [layer.storage for layer in generator.layers] == ["dense", "csr", "csr"]
    assert generator.layers[-1].output_size < generator.layers[-1].input_size
    latent = np.random.default_rng(0).standard_normal((10, 20))
    found = invert(generator, generator(latent), "gauss_newton").latent
    error = np.linalg.norm(found - latent, axis=1) / np.linalg.norm(latent, axis=1)
    assert error.max() < 1e-6


def test_networks_load_without_torch_and_onnx():
    code = (
        "import sys; sys.modules.update(torch=None, onnx=None)\n"
        "from preimage import zoo\n"
        "for name in zoo.names(): zoo.load(name)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_digits():
    images, labels = zoo.digits()
    assert images.shape == (100, 784)
    assert images.dtype == np.float64
    assert images.min() == 0
    assert images.max() == 1
    assert labels.tolist() == [digit for digit in range(10) for _ in range(10)]
    assert (zoo._DATA / "LICENSE-MNIST").read_text().count("CC BY-SA 3.0") == 1


def test_unknown_name():
    for function in (zoo.load, zoo.card):
        with pytest.raises(InputError, match=r"one of mnist-10-60-784-vae, .* got 'mnist'"):
            function("mnist")


def test_another_file_is_refused(tmp_path, monkeypatch):
    name = zoo.names()[0]
    (tmp_path / f"{name}.safetensors").write_bytes(b"another")
    card = json.loads((zoo._DATA / f"{name}.json").read_text(encoding="utf-8"))
    (tmp_path / f"{name}.json").write_text(json.dumps(card), encoding="utf-8")
    monkeypatch.setattr(zoo, "_DATA", tmp_path)
    with pytest.raises(FormatError, match="expected SHA-256"):
        zoo.load(name)


def test_import_needs_no_torch():
    code = "import sys, preimage.zoo; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
