"""The doctor: planted mistakes are named, sound inputs are not accused."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.special import logit
from torch import nn
from typer.testing import CliRunner

import preimage
from preimage import cli, doctor
from preimage.doctor import examine
from preimage.network import Network

GAN = "mnist-20-60-784"


def planted(network, noise=0.02, seed=5):
    rng = np.random.default_rng(seed)
    outputs = network(rng.standard_normal((3, network.latent_size)))
    return outputs + rng.uniform(-noise, noise, outputs.shape)


def zoo(name=GAN):
    network = preimage.zoo.load(name)
    return network, planted(network)


def random(sizes, head, seed=0, gain=1.0):
    """A network with Gaussian weights and biases, and three of its noisy outputs."""
    rng = np.random.default_rng(seed)
    weights = [gain * rng.standard_normal((m, n)) / np.sqrt(n) for n, m in pairwise(sizes)]
    biases = [0.3 * rng.standard_normal(m) for m in sizes[1:]]
    network = preimage.from_arrays(weights, biases, head=head)
    return network, planted(network, 0.01, seed)


def gray(head="sigmoid", gain=2.0):
    """Makes pictures of 10 x 10."""
    return random((5, 60, 100), head, gain=gain)


def colour():
    """Makes pictures of 3 x 8 x 8 on the scale -1..1."""
    return random((6, 30, 192), "tanh")


def digits():
    return preimage.zoo.digits()[0][[3, 25, 71]]


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
    """A sigmoid that is applied twice."""
    network, _ = gray()
    again = preimage.Layer(np.eye(100), np.zeros(100), network.layers[-1].activation)
    return preimage.Generator((*network.layers, again))


def change(make, how):
    network, x = make
    return network, how(x)


MISTAKES = {
    "0..255 for 0..1, sigmoid": ("scale", lambda: change(gray(), lambda x: 255 * x)),
    "0..255 for 0..1, real digits": ("scale", lambda: (zoo()[0], 255 * digits())),
    "0..255 for 0..1, relu": ("scale", lambda: change(zoo(), lambda x: 255 * x)),
    "0..1 for -1..1": ("scale", lambda: change(colour(), lambda x: (x + 1) / 2)),
    "0..255 for -1..1": ("scale", lambda: change(colour(), lambda x: 127.5 * (x + 1))),
    "-1..1 for 0..1": ("scale", lambda: change(gray(), lambda x: 2 * x - 1)),
    "normalised": ("scale", lambda: change(gray(), lambda x: (x - 0.1307) / 0.3081)),
    "negated, sigmoid": ("scale", lambda: change(gray(), lambda x: -x)),
    "negated, relu": ("scale", lambda: change(zoo(), lambda x: -x)),
    "ink on paper": ("scale", lambda: change(gray(), lambda x: 1 - x)),
    "ink on paper in bytes": ("scale", lambda: change(gray(), lambda x: 255 * (1 - x))),
    "16 bits for 0..1": ("scale", lambda: change(gray(), lambda x: 65535 * x)),
    "gamma": ("scale", lambda: change(gray(), lambda x: x.clip(0) ** (1 / 2.2))),
    "logits": ("scale", lambda: change(gray(), lambda x: logit(x.clip(1e-3, 1 - 1e-3)))),
    "integer division": ("scale", lambda: change(gray(), np.zeros_like)),
    "transposed": ("layout", lambda: change(
        zoo(), lambda x: pixels(x, lambda p: p.swapaxes(2, 3)))),
    "upside down": ("layout", lambda: change(
        gray(), lambda x: pixels(x, lambda p: p[:, :, ::-1]))),
    "turned to the right": ("layout", lambda: change(
        gray(), lambda x: pixels(x, lambda p: np.rot90(p, -1, (2, 3))))),
    "NHWC for NCHW": ("layout", lambda: change(
        colour(), lambda x: pixels(x, lambda p: p.transpose(0, 2, 3, 1)))),
    "BGR for RGB": ("layout", lambda: change(colour(), lambda x: pixels(x, lambda p: p[:, ::-1]))),
    "RGB for gray": ("size", lambda: change(gray(), lambda x: np.repeat(x, 3, axis=1))),
    "32 x 32 for 28 x 28": ("size", lambda: (zoo()[0], np.zeros((1, 1024)))),
    "another network's": ("range", lambda: (
        gray()[0], random((5, 60, 100), "sigmoid", seed=9, gain=2.0)[1])),
    "train mode": ("import", lambda: (module(train=True), None)),
    "fresh batch norm": ("import", lambda: (nn.Sequential(
        nn.Linear(4, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 64)).eval(), None)),
    "saturated head": ("head", lambda: (gray(gain=90.0)[0], None)),
    "sigmoid twice": ("head", lambda: (twice(), None)),
    "no sigmoid": ("head", lambda: (gray("identity")[0], gray()[1])),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_planted_mistake_is_named(name):
    topic, make = MISTAKES[name]
    wrong = [one for one in examine(*make(), noise=0.02) if one.wrong]
    assert wrong, "nothing was found"
    assert wrong[0].topic == topic, wrong[0].message


SMALL = (GAN, "mnist-5-60-784-vae")
SOUND = {
    **{f"{name}, own outputs": lambda name=name: zoo(name) for name in SMALL},
    **{f"{name}, real digits": lambda name=name: (preimage.zoo.load(name), digits())
       for name in SMALL},
    **{f"gray {seed}": lambda seed=seed: random((5, 60, 100), "sigmoid", seed, 2.0)
       for seed in range(1, 5)},
    **{f"colour {seed}": lambda seed=seed: random((6, 30, 192), "tanh", seed)
       for seed in range(1, 4)},
    "gray": gray,
    "colour": colour,
    "module": lambda: (module(), None),
    "module, own outputs": lambda: (module(), preimage.from_torch(module())(np.ones((2, 4)))),
    "linear": lambda: random((5, 60), "identity"),
    "deep": lambda: random((4, 30, 60, 100), "relu"),
    "tanh": lambda: random((4, 30, 64), "tanh"),
    "one sample": lambda: (zoo()[0], zoo()[1][0]),
    "no observation": lambda: (gray()[0], None),
}  # fmt: skip


def test_counts():
    """The two tests beside this one are all of it: 28 mistakes, 20 sound inputs."""
    assert (len(MISTAKES), len(SOUND)) == (28, 20)


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_input_is_not_accused(name, monkeypatch):
    monkeypatch.setattr(doctor, "_PATIENCE", 0.2)  # seconds for a proof
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


@pytest.mark.parametrize("name", preimage.zoo.names())
def test_weak_coordinates_of_trained_networks(name, monkeypatch):
    """Claim: coordinates that training left unused are counted, and no others."""
    monkeypatch.setattr(doctor, "_PATIENCE", 0.1)
    weak = {"mnist-20-400-784-vae": 2, "mnist-20-60-784-vae": 2, "mnist-40-60-784-vae": 23}
    found = [one.message for one in examine(preimage.zoo.load(name)) if one.topic == "codes"]
    assert [int(message.split(" of ")[0]) for message in found] == [
        count for network, count in weak.items() if network == name
    ]


@pytest.mark.parametrize("share", [0.001, 0.005, 0.02])
def test_a_planted_weak_coordinate_is_named(share):
    network, _ = gray()
    first = network.layers[0]
    weight = first.dense_weight.copy()
    weight[:, 2] *= share * np.linalg.norm(weight[:, 0]) / np.linalg.norm(weight[:, 2])
    layers = preimage.Layer(weight, first.bias, first.activation), *network.layers[1:]
    found = [one for one in examine(preimage.Generator(layers)) if one.topic == "codes"]
    assert len(found) == 1
    assert "1 of 5 latent coordinates (z2)" in found[0].message


def test_coordinates_that_noise_hides():
    """Claim: with errors of 0.5, z1 has a standard error of 5 by itself, z0 one of 0.5."""
    network = preimage.from_arrays([np.diag([1.0, 0.1])], activation="identity")
    assert not [one for one in examine(network) if one.topic == "codes"]
    (found,) = [one for one in examine(network, noise=0.5) if one.topic == "codes"]
    assert "determines 1 of 2 latent coordinates (z1)" in found.message


def test_the_command_scales_pictures_as_invert_does(tmp_path):
    """A picture of a tanh network is not accused of its scale, nor what ``--levels`` explains."""
    network, x = colour()
    preimage.save(network, tmp_path / "net.npz")
    np.save(tmp_path / "bytes.npy", np.rint(127.5 * (x + 1)).clip(0, 255).astype(np.uint8))
    np.save(tmp_path / "unit.npy", (x + 1) / 2)

    def doctor_(*arguments):
        command = ["doctor", str(tmp_path / "net.npz"), *map(str, arguments), "--noise", "0.02"]
        return CliRunner().invoke(cli.app, command)

    assert doctor_(tmp_path / "bytes.npy").exit_code == 0
    assert doctor_(tmp_path / "unit.npy").exit_code == 1
    assert doctor_(tmp_path / "unit.npy", "--levels", "0,1").exit_code == 0
    np.save(tmp_path / "small.npy", x[:, :48])
    assert "WRONG size" in doctor_(tmp_path / "small.npy").output
