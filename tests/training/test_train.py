"""Training, on a few tiny images."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from preimage.activation import LeakyReLU, ReLU, Sigmoid
from preimage.errors import FormatError, InputError
from preimage.generator import from_arrays
from preimage.io import from_torch, load
from training.__main__ import main
from training.quality import frechet_distance, latent_influence
from training.train import RECIPES, Recipe, _chain, read_digits, save_network, train, train_recipe

TINY = {
    "gan": Recipe("tiny", (3, 8, 64), "relu", "relu", False, "gan", 2),
    "bernoulli": Recipe("tiny", (3, 8, 64), "relu", "sigmoid", True, "vae", 2),
    "gaussian": Recipe(
        "tiny", (3, 8, 64), "leaky_relu(0.1)", "leaky_relu(0.1)", True, "vae", 2, pixel_noise=0.3
    ),
    "images": Recipe("tiny", (3, (2, 4, 4), (1, 8, 8)), "relu", "sigmoid", True, "vae", 2),
    "gan of images": Recipe("tiny", (3, (2, 4, 4), (1, 8, 8)), "relu", "relu", False, "gan", 2),
}
HEADS = {
    "gan": ReLU(),
    "bernoulli": Sigmoid(),
    "gaussian": LeakyReLU(0.1),
    "images": Sigmoid(),
    "gan of images": ReLU(),
}


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.fixture(autouse=True)
def _one_thread():
    """Several threads on networks this small only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def data(tmp_path):
    """Images of 8 x 8 pixels with a bright row, whose number is the label."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 400), ("t10k", 200)):
        labels = rng.integers(0, 8, count)
        images = rng.integers(0, 40, (count, 8, 8))
        images[np.arange(count), labels] += 200
        write_idx(tmp_path / f"{split}-images-idx3-ubyte", images)
        write_idx(tmp_path / f"{split}-labels-idx1-ubyte", labels)
    return tmp_path


@pytest.mark.parametrize("kind", TINY)
def test_train(data, kind):
    before = torch.random.get_rng_state()
    generator, card = train_recipe(TINY[kind], data, seed=3, progress=False)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert generator.sizes == tuple(card["sizes"]) == TINY[kind].units
    images = TINY[kind].sizes[1] != 8
    assert [layer.storage for layer in generator.layers] == [
        "dense",
        "csr" if images else "dense",
    ]
    assert ("convolutions" in card["activation"]) == images
    assert generator.layers[-1].activation == HEADS[kind]
    assert card["command"] == "python -m training tiny --data DIR --seed 3"
    quality = card["quality"]
    assert quality["frechet_distance"] > quality["frechet_distance_of_training_images"]
    assert len(quality["positive_preactivations"]) == 2
    path = data / "tiny.safetensors"
    finished = save_network(generator, card, path)
    assert load(path) == generator
    assert json.loads((data / "tiny.json").read_text(encoding="utf-8")) == finished
    assert finished["file"] == path.name
    assert finished["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert finished["quality"] == quality


@pytest.mark.parametrize("kind", ["gan", "images"])
def test_seeds(data, kind):
    first, again, other = (
        train_recipe(TINY[kind], data, seed=seed, progress=False)[0] for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("kind", ["bernoulli", "images"])
def test_training_brings_samples_closer(data, kind):
    recipe = replace(TINY[kind], learning_rate=1e-2)
    latent = np.random.default_rng(0).standard_normal((1000, 3))
    images = read_digits(data, "t10k")[0]
    distances = [
        frechet_distance(
            train_recipe(recipe, data, epochs=epochs, progress=False)[0](latent), images
        )
        for epochs in (1, 60)
    ]
    assert distances[1] < distances[0] / 2


def test_progress_bar(data, capsys):
    _, card = train_recipe(TINY["gaussian"], data, epochs=1)
    assert "tiny: 100%" in capsys.readouterr().err
    assert card["command"].endswith("--epochs 1")


def test_what_is_refused(data):
    with pytest.raises(InputError, match=r"recipe: expected one of mnist-20-60-784, .* got 'tiny'"):
        train("tiny", data)
    with pytest.raises(InputError, match="draws 784 pixels, got images of 64"):
        train("mnist-20-60-784", data)
    with pytest.raises(InputError, match="epochs: expected at least 1, got 0"):
        train_recipe(TINY["gan"], data, epochs=0)
    with pytest.raises(FormatError, match="train-images-idx3-ubyte: no such file"):
        train("mnist-20-60-784", data / "elsewhere")
    write_idx(data / "t10k-labels-idx1-ubyte", np.zeros(3))
    with pytest.raises(InputError, match="200 t10k images, but 3 labels"):
        train_recipe(TINY["gan"], data)


def test_layers_between_vectors_and_images():
    recipe = replace(TINY["images"], sizes=(3, (2, 4, 4), 5, (3, 2, 2), (2, 4, 4), 7))
    assert recipe.units == (3, 32, 5, 12, 32, 7)
    chain = _chain(recipe.sizes, "relu")
    chain(torch.randn(16, 3))  # or the statistics of its normalisations were never updated
    generator = from_torch(chain.eval())
    assert generator.sizes == recipe.units


def test_recipes_have_their_names():
    assert all(recipe.name == name for name, recipe in RECIPES.items())


def test_latent_influence():
    generator = from_arrays([[[3.0, 0.0, 0.0], [4.0, 0.1, 0.0]]], activation="identity")
    assert latent_influence(generator, np.zeros((2, 3))) == [0.0, 5.0]


def test_frechet_distance_of_gaussians():
    rng = np.random.default_rng(0)
    scale = np.array([1.0, 2.0, 3.0])
    a = rng.standard_normal((100_000, 3))
    b = scale * rng.standard_normal((100_000, 3)) + 1
    # Independent coordinates: squared differences of means and of standard deviations.
    assert frechet_distance(a, b) == pytest.approx(3 + ((scale - 1) ** 2).sum(), rel=0.02)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_the_program_writes_network_and_card(data, tmp_path, monkeypatch):
    monkeypatch.setitem(RECIPES, "tiny", TINY["bernoulli"])
    out = tmp_path / "new" / "mine.safetensors"
    given = ["tiny", "--data", str(data), "--seed", "3", "--epochs", "1", "--out"]
    program = typer.Typer()
    program.command()(main)
    done = CliRunner().invoke(program, [*given, str(out)])
    assert done.exit_code == 0, done.output
    card = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    assert json.loads(done.stdout) == card
    assert (card["file"], card["seed"]) == (out.name, 3)
    assert card["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    refused = CliRunner().invoke(program, [*given, "mine.txt"])
    assert refused.exit_code == 2
    assert ".safetensors" in refused.stderr
