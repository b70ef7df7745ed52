"""A torch module and the network that is made of it, compared."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn

from preimage import Generator
from preimage.io import from_torch
from preimage.torch_network import TorchNetwork

SCALES = (0.0, 0.3, 1.0, 10.0)
IMAGE = (4, 5, 6)


def randomised(module):
    """In eval mode, with running statistics that are not those of a fresh module."""
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2.0)
            if part.affine:
                nn.init.normal_(part.weight, 1.0, 0.5)
                nn.init.normal_(part.bias)
    return module.eval()


def agree(module, shape=None, kind="known", dtype=torch.float64, **options):
    """The network of a module has the outputs and derivatives of the module; returns it."""
    network = from_torch(module, shape, **options)
    assert isinstance(network, Generator if kind == "known" else TorchNetwork), network
    draws = np.random.default_rng(1).standard_normal((3, network.latent_size))
    truth = copy.deepcopy(module).to(dtype).eval()
    for scale in SCALES:
        z = torch.tensor(draws * scale, dtype=dtype)
        given = z.reshape(3, *shape) if shape else z
        expected = truth(given).detach().reshape(3, -1).double().numpy()
        allowed = (1e-9 if dtype == torch.float64 else 1e-5) * (1 + np.abs(expected).max())
        np.testing.assert_allclose(network(draws * scale), expected, rtol=0, atol=allowed)
    if dtype == torch.float64:
        z = torch.tensor(draws, requires_grad=True)
        output = truth(z.reshape(3, *shape) if shape else z).reshape(3, -1)
        v = torch.randn_like(output)
        (gradient,) = torch.autograd.grad(output, z, v)
        np.testing.assert_allclose(network.vjp(draws, v.numpy()), gradient.numpy(), atol=1e-9)
    return network


class Function(nn.Module):
    """A forward that is one expression of the input, after a convolution."""

    def __init__(self, function):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        self.function = function

    def forward(self, x):
        return self.function(self.conv(x))


def statement(change):
    """A change in place whose result is not used."""

    def function(x):
        change(x)
        return x

    return function
