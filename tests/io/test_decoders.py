"""Whole decoders: from torch, from both of torch's exporters, through files."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
import warnings
from itertools import pairwise

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from preimage import Generator, ReLU
from preimage.io import from_torch, load, save
from preimage.torch_network import TorchNetwork


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def randomised(module):
    """Running statistics as after training; in eval mode."""
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.running_mean.normal_(0, 0.2)
            part.running_var.uniform_(0.5, 2.0)
            nn.init.normal_(part.weight, 1.0, 0.2)
            nn.init.normal_(part.bias, 0.0, 0.2)
    return module.eval()


def mlp():
    return nn.Sequential(
        nn.Linear(6, 20), nn.BatchNorm1d(20), nn.LeakyReLU(0.1), nn.Linear(20, 30), nn.PReLU(),
        nn.Dropout(0.3), nn.Linear(30, 50), nn.Sigmoid(),
    )  # fmt: skip


class Decoder(nn.Module):
    """A small one for 28 x 28 images, with a forward of its own; contracts in its last layer."""

    def __init__(self, channels=8):
        super().__init__()
        self.channels = channels
        self.start = nn.Linear(6, 2 * channels * 49)
        self.norm = nn.BatchNorm1d(2 * channels * 49)
        self.up = nn.ConvTranspose2d(2 * channels, channels, 4, 2, 1)
        self.norm2 = nn.BatchNorm2d(channels)
        self.slopes = nn.PReLU(channels)
        self.wide = nn.Upsample(scale_factor=2)
        self.smooth = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, z):
        x = torch.relu(self.norm(self.start(z)))
        x = x.view(x.size(0), 2 * self.channels, 7, 7)
        x = self.slopes(self.norm2(self.up(x)))
        return torch.tanh(self.smooth(self.wide(x)))


def dcgan(width=64, latent=100):
    """The generator of Radford et al. 2016, as the examples of torch have it."""
    sizes = [latent, 8 * width, 4 * width, 2 * width, width]
    layers = []
    for index, (before, after) in enumerate(pairwise(sizes)):
        step = (1, 0) if index == 0 else (2, 1)
        layers += [nn.ConvTranspose2d(before, after, 4, *step, bias=False)]
        layers += [nn.BatchNorm2d(after), nn.ReLU(True)]
    return nn.Sequential(*layers, nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False), nn.Tanh())


class Skips(nn.Module):
    """A residual block and a concatenation of the latent, with a clip between."""

    def __init__(self):
        super().__init__()
        self.start, self.block, self.head = nn.Linear(5, 20), nn.Linear(20, 20), nn.Linear(25, 40)

    def forward(self, z):
        x = torch.relu(self.start(z))
        x = nn.functional.relu6(x + torch.relu(self.block(x)))
        return torch.sigmoid(self.head(torch.cat([x, z], 1)))


DECODERS = {
    "skips": (Skips, (5,)),
    "mlp": (mlp, (6,)),
    "decoder": (Decoder, (6,)),
    "dcgan": (lambda: dcgan(4, 12), (12, 1, 1)),
}


def export(module, shape, path, new):
    """By torch's old exporter, or by the new one, which puts the weights into another file."""
    example = torch.randn(2, *shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if new:
            logging.disable(logging.WARNING)
            shapes = ({0: torch.export.Dim("batch")},)
            torch.onnx.export(
                module, (example,), path, dynamo=True, dynamic_shapes=shapes, verbose=False
            )
            logging.disable(logging.NOTSET)
        else:
            torch.onnx.export(
                module, (example,), path, dynamo=False, input_names=["z"],
                dynamic_axes={"z": {0: "batch"}}, opset_version=17,
            )  # fmt: skip
    return path


def compare(generator, module, shape, tolerance):
    """Outputs and vector-Jacobian products are those of torch, relative to the largest."""
    module = module.double()
    z = torch.randn(3, *shape, dtype=torch.float64, requires_grad=True)
    expected = module(z)
    cotangent = torch.randn_like(expected)
    (gradient,) = torch.autograd.grad(expected, z, cotangent)
    flat = z.detach().reshape(3, -1).numpy()
    x, wanted = generator(flat), expected.detach().reshape(3, -1).numpy()
    assert abs(x - wanted).max() <= tolerance * abs(wanted).max()
    found = generator.vjp(flat, cotangent.reshape(3, -1).numpy())
    wanted = gradient.reshape(3, -1).numpy()
    assert abs(found - wanted).max() <= tolerance * abs(wanted).max()


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("max_matrix_bytes", [0, 10**9], ids=["run", "known"])
def test_from_torch(name, max_matrix_bytes):
    """Claim: a module's outputs and vector-Jacobian products, to the rounding of float64."""
    make, shape = DECODERS[name]
    module = randomised(make())
    network = from_torch(module, max_matrix_bytes=max_matrix_bytes)
    assert isinstance(network, Generator if max_matrix_bytes else TorchNetwork)
    compare(network, module, shape, 1e-12)


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("new", [False, True], ids=["old", "new"])
def test_exported(tmp_path, name, new):
    """Claim: what either exporter of torch writes is the same network, to 1e-5."""
    make, shape = DECODERS[name]
    module = randomised(make())
    path = export(module, shape, tmp_path / "net.onnx", new)
    generator = load(path)
    assert generator.sizes == from_torch(module).sizes
    assert load(path) == generator
    compare(generator, module, shape, 1e-5)


def test_cut_at_a_tensor(tmp_path):
    """Claim: ``output`` names the tensor that is observed; what comes after is left out."""
    module = randomised(dcgan(4, 12))
    path = export(module, (12, 1, 1), tmp_path / "net.onnx", new=False)
    names = [node.output[0] for node in onnx.load(path).graph.node if node.op_type == "Relu"]
    generator = load(path, output=names[1])
    assert [layer.activation for layer in generator.layers] == [ReLU(), ReLU()]
    compare(generator, module[:6], (12, 1, 1), 1e-5)


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_files_round_trip(tmp_path, name, suffix):
    """Claim: an equal generator comes back, with the same numbers to the last bit."""
    make, _ = DECODERS[name]
    generator = from_torch(randomised(make()))
    path = tmp_path / f"net{suffix}"
    save(generator, path)
    again = load(path)
    assert again == generator
    assert [a.storage for a in again.layers] == [b.storage for b in generator.layers]
    z = np.random.default_rng(0).standard_normal((2, generator.latent_size))
    assert np.array_equal(again(z), generator(z))


def test_a_decoder_loads_without_torch_and_onnx(tmp_path):
    """Claim: the package's own form needs NumPy and SciPy only."""
    generator = from_torch(randomised(Decoder()))
    save(generator, tmp_path / "net.safetensors")
    code = (
        "import sys, preimage\n"
        "generator = preimage.load(sys.argv[1])\n"
        "print(generator([0.5] * 6).sum(), *{m.split('.')[0] for m in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "net.safetensors"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    value, *modules = done.stdout.split()
    assert float(value) == pytest.approx(generator([0.5] * 6).sum())
    assert not {"torch", "onnx"} & set(modules)


def test_the_standard_dcgan():
    """Claim: 3.6 million weights are found too large for matrices in seconds, and are run."""
    module = randomised(dcgan())
    start = time.process_time()
    network = from_torch(module)
    assert time.process_time() - start < 60
    assert isinstance(network, TorchNetwork)
    assert (network.latent_size, network.observation_size) == (100, 12288)
    compare(network, module, (100, 1, 1), 1e-12)
