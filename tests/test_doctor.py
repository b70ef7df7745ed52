"""The doctor: planted mistakes are named, sound inputs are not accused."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import preimage
from preimage.doctor import examine
from preimage.network import Network

VAE, GAN, WIDE = "mnist-20-400-784-vae", "mnist-20-60-784", "mnist-32-256-512-784"


def planted(network, noise=0.02, seed=5):
    rng = np.random.default_rng(seed)
    outputs = network(rng.standard_normal((3, network.latent_size)))
    return outputs + rng.uniform(-noise, noise, outputs.shape)


def zoo(name):
    network = preimage.zoo.load(name)
    return network, planted(network)


def colour():
    """A network with a tanh head that makes pictures of 3 x 8 x 8."""
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((30, 6)), 0.2 * rng.standard_normal((192, 30))]
    network = preimage.from_arrays(weights, activation="relu", head="tanh")
    return network, planted(network)


def digits():
    return preimage.zoo.digits()[0][[3, 25, 71]]


def with_head(name, head=None, scale=1.0):
    """A network of the zoo with another head, or with its last weights scaled."""
    *hidden, last = preimage.zoo.load(name).layers
    activation = last.activation if head is None else preimage.from_arrays(
        [np.eye(1)], head=head).layers[0].activation  # fmt: skip
    changed = preimage.Layer(scale * last.weight, scale * last.bias, activation)
    return preimage.Generator((*hidden, changed))


def module(train=False, seed=0):
    torch.manual_seed(seed)
    made = nn.Sequential(nn.Linear(4, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 64),
                         nn.Sigmoid())  # fmt: skip
    made(torch.randn(256, 4))
    return made.train(train)


def pixels(x, how):
    """Pictures of three channels or one, changed."""
    channels = 3 if x.shape[1] == 192 else 1
    side = int(np.sqrt(x.shape[1] // channels))
    return how(x.reshape(len(x), channels, side, side)).reshape(len(x), -1)


def twice():
    """A sigmoid that is applied twice: the second by an identity layer."""
    vae = preimage.zoo.load(VAE)
    again = preimage.Layer(np.eye(784), np.zeros(784), vae.layers[-1].activation)
    return preimage.Generator((*vae.layers, again))


def change(make, how):
    network, x = make
    return network, how(x)


MISTAKES = {
    "0..255 for 0..1, sigmoid": ("scale", lambda: change(zoo(VAE), lambda x: 255 * x)),
    "0..255 for 0..1, real digits": ("scale", lambda: (zoo(VAE)[0], 255 * digits())),
    "0..255 for 0..1, relu": ("scale", lambda: change(zoo(GAN), lambda x: 255 * x)),
    "0..1 for -1..1": ("scale", lambda: change(colour(), lambda x: (x + 1) / 2)),
    "0..255 for -1..1": ("scale", lambda: change(colour(), lambda x: 127.5 * (x + 1))),
    "-1..1 for 0..1": ("scale", lambda: change(zoo(VAE), lambda x: 2 * x - 1)),
    "normalised": ("scale", lambda: change(zoo(VAE), lambda x: (x - 0.1307) / 0.3081)),
    "negated, sigmoid": ("scale", lambda: change(zoo(VAE), lambda x: -x)),
    "negated, relu": ("scale", lambda: change(zoo(GAN), lambda x: -x)),
    "ink on paper": ("scale", lambda: change(zoo(VAE), lambda x: 1 - x)),
    "ink on paper in bytes": ("scale", lambda: change(zoo(WIDE), lambda x: 255 * (1 - x))),
    "integer division": ("scale", lambda: change(zoo(VAE), np.zeros_like)),
    "transposed": ("layout", lambda: change(
        zoo(GAN), lambda x: pixels(x, lambda p: p.swapaxes(2, 3)))),
    "upside down": ("layout", lambda: change(
        zoo(VAE), lambda x: pixels(x, lambda p: p[:, :, ::-1]))),
    "NHWC for NCHW": ("layout", lambda: change(
        colour(), lambda x: pixels(x, lambda p: p.transpose(0, 2, 3, 1)))),
    "BGR for RGB": ("layout", lambda: change(colour(), lambda x: pixels(x, lambda p: p[:, ::-1]))),
    "RGB for gray": ("size", lambda: change(zoo(VAE), lambda x: np.repeat(x, 3, axis=1))),
    "32 x 32 for 28 x 28": ("size", lambda: (zoo(VAE)[0], np.zeros((1, 1024)))),
    "another network's": ("range", lambda: (zoo(VAE)[0], planted(preimage.from_arrays(
        [np.random.default_rng(1).standard_normal((784, 20))], head="sigmoid")))),
    "train mode": ("import", lambda: (module(train=True), None)),
    "fresh batch norm": ("import", lambda: (nn.Sequential(
        nn.Linear(4, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 64)).eval(), None)),
    "saturated head": ("head", lambda: (with_head(VAE, scale=255.0), None)),
    "sigmoid twice": ("head", lambda: (twice(), None)),
    "no sigmoid": ("head", lambda: (with_head(VAE, head="identity"), zoo(VAE)[1])),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_planted_mistake_is_named(name):
    topic, make = MISTAKES[name]
    wrong = [one for one in examine(*make(), noise=0.02) if one.wrong]
    assert wrong, "nothing was found"
    assert wrong[0].topic == topic, wrong[0].message


def random(sizes, head, seed=0):
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal((m, n)) / np.sqrt(n) for n, m in pairwise(sizes)]
    network = preimage.from_arrays(weights, head=head)
    return network, planted(network, 0.01, seed)


SOUND = {
    **{f"{name}, own outputs": lambda name=name: zoo(name) for name in preimage.zoo.names()},
    **{f"{name}, real digits": lambda name=name: (preimage.zoo.load(name), digits())
       for name in preimage.zoo.names()},
    "colour": colour,
    "module": lambda: (module(), None),
    "module, own outputs": lambda: (module(), preimage.from_torch(module())(np.ones((2, 4)))),
    "linear": lambda: random((5, 60), "identity"),
    "deep": lambda: random((4, 30, 60, 100), "relu"),
    "tanh": lambda: random((4, 30, 64), "tanh"),
    "one sample": lambda: (zoo(GAN)[0], zoo(GAN)[1][0]),
    "no observation": lambda: (zoo(WIDE)[0], None),
}  # fmt: skip


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_input_is_not_accused(name):
    found = examine(*SOUND[name](), noise=0.05)
    assert [one.message for one in found if one.wrong] == []
    assert found[-1].topic == "time"


def test_what_is_out_of_range_is_proven():
    """Claim: a picture that no code makes is no mistake, and the doctor says what is proven."""
    network, _ = random((2, 12, 16), "relu")
    far = network(np.array([[1.0, 1.0]])) + 0.5 * np.eye(16)[0]
    (found,) = [one for one in examine(network, far, noise=1e-3) if one.topic == "range"]
    assert "proven that no code" in found.message
    assert not found.wrong


def test_unused_coordinates_and_bad_arguments():
    network = preimage.from_arrays([np.array([[1.0, 0.0], [2.0, 0.0], [-1.0, 0.0]])])
    found = {one.topic: one.message for one in examine(network)}
    assert "z1" in found["codes"]
    with pytest.raises(preimage.InputError, match="Module"):
        examine(3)
    assert isinstance(network, Network)
