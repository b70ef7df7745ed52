"""What a torch module computes, the network made from it computes: a corpus of modules.

Every case is compared with the module itself, in float64, at latents of several scales. A case
says whether its layers have to be known ("known"), or may be run by torch ("run").
"""

from __future__ import annotations

import contextlib
import copy
import random
import sys
import types
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils import parametrizations

from preimage import Generator, certify, invert
from preimage.activation import Identity, LeakyReLU, PReLU, ReLU, Tanh
from preimage.errors import FormatError, InputError, MissingExtraError
from preimage.io import from_torch
from preimage.torch_network import TorchNetwork

SCALES = (0.0, 0.3, 1.0, 10.0)
IMAGE = (4, 5, 6)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


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


# Modules of torch -------------------------------------------------------------------------------

AFFINE = [
    (nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), (4, 9)),
    (nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 0), (1, 2), bias=False), IMAGE),
    (nn.Conv2d(4, 6, (4, 3), padding="same", dilation=(2, 1)), IMAGE),
    (nn.Conv2d(4, 6, 3, padding="valid"), IMAGE),
    (nn.Conv2d(4, 4, 3, padding=1, groups=4), IMAGE),
    (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), IMAGE),
    (nn.Conv2d(4, 6, 3, padding=(1, 2), padding_mode="circular"), IMAGE),
    (nn.Conv2d(4, 6, 3, padding=1, padding_mode="replicate"), IMAGE),
    (nn.Conv3d(2, 3, 2), (2, 3, 4, 3)),
    (nn.ConvTranspose1d(4, 6, 3, 2, 1, 1), (4, 5)),
    (nn.ConvTranspose2d(4, 6, 4, 2, 1, bias=False), IMAGE),
    (nn.ConvTranspose2d(4, 6, 2, 3), IMAGE),
    (nn.ConvTranspose2d(4, 6, 3, 3, 1, 2, groups=2, dilation=(2, 1)), IMAGE),
    (nn.ConvTranspose2d(4, 6, 3, 1, 2, dilation=3), IMAGE),
    (nn.ConvTranspose3d(2, 3, 2, 2), (2, 2, 3, 2)),
    (nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)), IMAGE),
    (nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, padding=1)), IMAGE),
    (nn.BatchNorm2d(4, affine=False), IMAGE),
    (nn.BatchNorm3d(2, eps=0.1), (2, 2, 2, 3)),
    (nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5)), (4,)),
    (nn.AvgPool2d(2), IMAGE),
    (nn.AvgPool2d((3, 2), 2, 1, ceil_mode=True, count_include_pad=False), IMAGE),
    (nn.AvgPool2d(3, (2, 3), 1, ceil_mode=True), IMAGE),
    (nn.AvgPool2d(2, divisor_override=3), IMAGE),
    (nn.AvgPool1d(2, 1), (4, 5)),
    (nn.AdaptiveAvgPool2d(1), IMAGE),
    (nn.AdaptiveAvgPool2d((2, 4)), IMAGE),
    (nn.AdaptiveAvgPool1d(3), (4, 7)),
    (nn.Upsample(scale_factor=2), IMAGE),
    (nn.Upsample(scale_factor=(1.5, 3)), IMAGE),
    (nn.Upsample(scale_factor=1.7, recompute_scale_factor=True), IMAGE),
    (nn.Upsample(size=(7, 4)), IMAGE),
    (nn.Upsample(size=120), (1, 100)),
    (nn.Upsample(size=49), (1, 41)),
    (nn.Upsample(scale_factor=3, mode="nearest-exact"), (4, 5)),
    (nn.Upsample(scale_factor=1.9, mode="bilinear"), IMAGE),
    (nn.Upsample(size=(9, 8), mode="bilinear", align_corners=True), IMAGE),
    (nn.Upsample(size=13, mode="linear"), (2, 7)),
    (nn.Upsample(scale_factor=2, mode="bicubic"), IMAGE),
    (nn.Upsample(scale_factor=2, mode="trilinear"), (2, 2, 3, 2)),
    (nn.UpsamplingNearest2d(scale_factor=2), IMAGE),
    (nn.UpsamplingBilinear2d(size=(6, 11)), IMAGE),
    (nn.ZeroPad2d((1, 2, 0, 3)), IMAGE),
    (nn.ConstantPad2d((1, -1, 0, 2), 1.5), IMAGE),
    (nn.ReflectionPad2d(2), IMAGE),
    (nn.ReplicationPad1d((2, 1)), (4, 5)),
    (nn.CircularPad2d(1), IMAGE),
    (nn.PixelShuffle(2), IMAGE),
    (nn.PixelUnshuffle(2), (1, 4, 6)),
    (nn.ChannelShuffle(2), IMAGE),
    (nn.Fold((4, 5), (2, 2)), (8, 12)),
    (nn.Unfold(2, stride=2), IMAGE),
    (nn.Sequential(nn.Linear(6, 3), nn.Flatten(2), nn.Linear(15, 2)), IMAGE),
    (nn.Sequential(nn.Linear(3, 8), nn.Unflatten(1, (2, 2, 2)), nn.Identity()), (3,)),
]


def name(value):
    return str(value)[:60].replace("\n", " ") if isinstance(value, nn.Module) else ""


@pytest.mark.parametrize(("module", "shape"), AFFINE, ids=name)
def test_affine_modules(module, shape):
    """Claim: their matrices are found exactly as torch applies them, whatever the attributes."""
    agree(randomised(nn.Sequential(module, nn.Tanh())), shape)


PIECEWISE = [
    nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(), nn.LeakyReLU(0.2), nn.LeakyReLU(0.0),
    nn.LeakyReLU(1.5), nn.PReLU(6), nn.PReLU(), nn.RReLU(0.1, 0.5), nn.Hardtanh(-0.3, 0.7),
    nn.Hardtanh(0.2, 0.7), nn.Hardsigmoid(), nn.Threshold(0.1, 0.1), nn.Tanh(), nn.Sigmoid(),
    nn.ELU(), nn.ELU(0.4), nn.ELU(1.7), nn.SELU(), nn.CELU(0.3), nn.Softplus(), nn.Softplus(2.5),
    nn.LogSigmoid(),
]  # fmt: skip


@pytest.mark.parametrize("activation", PIECEWISE, ids=repr)
def test_activations(activation):
    """Claim: layers with monotone activations are known, clips and all."""
    agree(randomised(nn.Sequential(nn.Linear(4, 6), activation, nn.Linear(6, 9))), (4,))


RUN = [
    nn.SiLU(), nn.GELU(), nn.Mish(), nn.Hardswish(), nn.Softsign(), nn.Tanhshrink(),
    nn.GroupNorm(2, 6), nn.LayerNorm(6), nn.Softmax(dim=1), nn.LeakyReLU(-0.2), nn.Softplus(1, 2),
    nn.ELU(-0.5),
]  # fmt: skip


@pytest.mark.parametrize("part", RUN, ids=repr)
def test_what_has_no_layers_is_run(part):
    """Claim: torch runs what is no chain of layers."""
    agree(randomised(nn.Sequential(nn.Linear(4, 6), part, nn.Linear(6, 9))), (4,), "run")


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.MaxPool2d(2), IMAGE),
        (nn.MaxPool2d(3, 2, 1), (1, 5, 4)),
        (nn.MaxPool2d(2, 2, ceil_mode=True), (1, 5, 5)),
        (nn.MaxPool2d(2, dilation=2), (1, 4, 5)),
        (nn.MaxPool1d(3), (2, 7)),
        (nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 3, 2)), IMAGE),
    ],
    ids=name,
)
def test_small_max_pooling_is_made_of_relus(module, shape):
    agree(nn.Sequential(module, nn.Flatten(), nn.Identity()).eval(), shape)


# Forwards ---------------------------------------------------------------------------------------


class Function(nn.Module):
    """A forward that is one expression of the input, after a convolution."""

    def __init__(self, function):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        self.function = function

    def forward(self, x):
        return self.function(self.conv(x))


def _statement(change):
    """A change in place whose result is not used."""

    def function(x):
        change(x)
        return x

    return function


FUNCTIONS = {
    "relu": lambda x: F.relu(x),
    "relu minus": lambda x: torch.relu(x) - 0.5,
    "slope": lambda x: F.leaky_relu(x, negative_slope=0.3, inplace=False),
    "scaled sigmoid": lambda x: torch.sigmoid(x) * 2,
    "view size": lambda x: x.view(x.size(0), -1),
    "view": lambda x: x.view(-1, 20, 6),
    "reshape shape": lambda x: x.reshape(x.shape[0], x.shape[1], -1),
    "flatten": lambda x: x.flatten(start_dim=2),
    "unflatten": lambda x: x.unflatten(1, (2, 2)),
    "permute": lambda x: x.permute((0, 3, 1, 2)).contiguous(),
    "transpose": lambda x: x.transpose(1, -1),
    "slices": lambda x: x[:, 1, ..., ::2],
    "new axis": lambda x: x[..., None, -1, :],
    "list index": lambda x: x[:, [0, 2, 2]],
    "mask index": lambda x: x[:, torch.tensor([True, False, True, False])],
    "cat": lambda x: torch.cat([x, 2 * x[:, :2]], dim=1),
    "constants": lambda x: 1 - x / 4 + torch.tensor([[[[2.0]]]]),
    "alpha": lambda x: torch.add(x, x[:, :, :1], alpha=2),
    "mean": lambda x: x.mean(dim=3, keepdim=True) + x,
    "cumsum": lambda x: x.cumsum(1),
    "matmul": lambda x: x @ torch.arange(12.0).double().reshape(6, 2),
    "mm": lambda x: torch.mm(x.flatten(1), torch.ones(120, 3).double()),
    "addmm": lambda x: torch.addmm(x.new_ones(3), x.flatten(1), x.new_ones(120, 3)),
    "einsum": lambda x: torch.einsum("bchw,cd->bdhw", x, x.new_ones(4, 3)),
    "chunk": lambda x: sum(torch.chunk(x, 2, 1)),
    "split": lambda x: torch.cat(torch.split(x, [1, 3], 1)[::-1], 1),
    "stack": lambda x: torch.stack([x, -x], 1),
    "flip": lambda x: torch.flip(x, [1]),
    "repeat": lambda x: x.repeat(1, 2, 1, 1),
    "roll": lambda x: torch.roll(x, 1, 2),
    "expand": lambda x: x[:, :1].expand(-1, 3, -1, -1),
    "interpolate from shapes": lambda x: F.interpolate(x, size=(x.shape[2] * 2, 7)),
    "bilinear": lambda x: F.interpolate(x, scale_factor=1.3, mode="bilinear"),
    "antialias": lambda x: F.interpolate(x, size=(3, 4), mode="bilinear", antialias=True),
    "pad": lambda x: F.pad(x, (1, 2, 1, 1), mode="reflect"),
    "linear": lambda x: F.linear(x, torch.arange(12.0).double().reshape(2, 6)),
    "where constant": lambda x: torch.where(torch.arange(6) > 2, x, 0.5 * x),
    "masked fill": lambda x: x.masked_fill(torch.arange(6) > 2, 1.5),
    "embedding": lambda x: x + F.embedding(torch.tensor(1), torch.arange(18.0).reshape(3, 6)),
    "grid": lambda x: F.grid_sample(
        x, F.affine_grid(torch.eye(2, 3)[None], (1, 1, 4, 4), align_corners=False)
        .double().expand(len(x), -1, -1, -1), align_corners=False,
    ),
    "attribute of a tensor": lambda x: x.to(x.dtype).type_as(x).clone(),
    "assert and if": lambda x: x * 2 if x.dim() == 4 and x.shape[1] == 4 else -x,
    "clamp": lambda x: x.clamp(-0.2, 0.9),
    "clamp tensor": lambda x: torch.clamp(x, min=torch.zeros(6).double(), max=None),
    "minimum": lambda x: torch.minimum(x, torch.tensor(0.3).double()),
    "maximum": lambda x: torch.maximum(x[:, :2], x[:, 2:]),
    "abs": lambda x: x.abs() + 1,
    "clamp_": _statement(lambda x: x.clamp_(0, 1)),
    "clamp_min_": _statement(lambda x: x.clamp_min_(0.1)),
    "abs_": _statement(lambda x: x.abs_()),
    "masked_fill_": _statement(lambda x: x.masked_fill_(torch.arange(6) > 2, 1.5)),
    "slice zero_": _statement(lambda x: x[:, :2].zero_()),
    "slice fill_": _statement(lambda x: x[:, :, 1].fill_(3.0)),
    "slice copy_": _statement(lambda x: x[:, :2].copy_(x[:, 2:])),
    "slice assigned": _statement(lambda x: x.__setitem__((slice(None), 0), x[:, 1] * 2)),
    "relu6 in place": _statement(lambda x: F.relu6(x, inplace=True)),
    "module in place": _statement(lambda x: nn.Hardtanh(inplace=True)(x)),
    "neg_": _statement(lambda x: x.neg_()),
    "sub_ of itself": _statement(lambda x: x.sub_(x[:, :1] * 1)),
    "lerp_": _statement(lambda x: x.lerp_(torch.ones_like(x), 0.3)),
    "scatter_": _statement(
        lambda x: x.scatter_(3, torch.zeros(len(x), 4, 5, 1, dtype=torch.long), 2.0)
    ),
    "index_copy_": _statement(lambda x: x.index_copy_(1, torch.tensor([0]), x[:, 1:2] * 2)),
    "select copy_": _statement(lambda x: x.select(1, 0).copy_(x.select(1, 1))),
    "narrow mul_": _statement(lambda x: x.narrow(1, 0, 2).mul_(3)),
    "diagonal zero_": _statement(lambda x: x.diagonal(dim1=2, dim2=3).zero_()),
    "copy_ of a flip": _statement(lambda x: x.copy_(x.flip(1))),
    "bmm": lambda x: torch.bmm(x.new_ones(len(x), 2, 4), x.flatten(2)),
    "tensordot": lambda x: torch.tensordot(x, x.new_ones(4, 3), dims=([1], [0])),
    "unfold": lambda x: x.unfold(3, 2, 1),
    "gather": lambda x: x.gather(3, torch.ones(len(x), 4, 5, 2, dtype=torch.long)),
    "repeat_interleave": lambda x: x.repeat_interleave(2, 3),
    "rot90": lambda x: torch.rot90(x, 1, (2, 3)),
    "triu": lambda x: x.triu(1),
    "view changed": lambda x: (x, x.view(len(x), -1).mul_(2))[0],
}  # fmt: skip
IN_PLACE_SMOOTH = {
    "pow_": _statement(lambda x: x.pow_(2)),
    "exp_": _statement(lambda x: x.exp_()),
    "celu_": _statement(lambda x: F.celu_(x)),
    "threshold_": _statement(lambda x: F.threshold_(x, 0.1, -0.2)),
    "masked_fill_ by value": _statement(lambda x: x.masked_fill_(x < 0, 0)),
    "assigned by value": _statement(lambda x: x.__setitem__(x > 1, 1.0)),
    "where": lambda x: torch.where(x > 0, x, 0.2 * x),
    "times a mask of values": lambda x: x * (x > 0),
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_forwards(function):
    """Claim: the forms in which people write a forward are taken as torch means them."""
    agree(Function(function).double().eval(), IMAGE)


@pytest.mark.parametrize("function", IN_PLACE_SMOOTH.values(), ids=IN_PLACE_SMOOTH)
def test_changes_in_place_that_are_not_affine_are_run(function):
    agree(Function(function).eval(), IMAGE, "run")


class WithKeywords(nn.Module):
    """A module that is called with keyword arguments, on 2 x 5 x 5 values."""

    def __init__(self, part, **keywords):
        super().__init__()
        self.a, self.part, self.keywords = nn.Linear(4, 50), part, keywords

    def forward(self, z):
        return self.part(torch.relu(self.a(z)).view(-1, 2, 5, 5), **self.keywords)


class Gain(nn.Module):
    def forward(self, x, gain=1.0, *, flip=False):
        return gain * (x.flip(-1) if flip else x)


@pytest.mark.parametrize(
    ("module", "size"),
    [
        (WithKeywords(nn.ConvTranspose2d(2, 1, 3, 2, 1), output_size=[10, 10]), 100),
        (WithKeywords(nn.ConvTranspose2d(2, 1, 3, 2, 1), output_size=[9, 10]), 90),
        (WithKeywords(nn.ConvTranspose2d(2, 1, 3, 3), output_size=(17, 16)), 272),
        (WithKeywords(nn.Sequential(nn.Conv2d(2, 3, 3))), 27),
        (WithKeywords(Gain(), gain=2.5), 50),
        (WithKeywords(Gain(), flip=True), 50),
        (WithKeywords(Gain(), gain=-0.5, flip=True), 50),
    ],
)
def test_keyword_arguments_of_modules(module, size):
    """Claim: they count, whatever they are called."""
    assert agree(module.eval()).observation_size == size


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.dec = nn.Linear(9, 4), nn.Linear(4, 9)

    def forward(self, x):
        return self.decode(self.encoder(x))

    def decode(self, z):
        return torch.sigmoid(self.dec(z))

    def again(self, z):
        return self.decode(z)


class Scaled(nn.Conv2d):
    def _conv_forward(self, x, w, b):
        return F.conv2d(x, w * 0.5, b, self.stride, self.padding)


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def replaced_forward():
    module = Autoencoder()
    module.forward = module.decode
    return module


def tiling():
    module = nn.Sequential(nn.ConvTranspose2d(4, 3, 4), nn.ReLU(), nn.Conv2d(3, 1, 3, padding=1))
    conv = module[2]

    def tiled(self, x, w, b):
        return F.conv2d(F.pad(x, (1,) * 4, mode="circular"), w, b)

    conv._conv_forward = types.MethodType(tiled, conv)
    return module


def patched_child():
    module = nn.Sequential(nn.Linear(4, 9), nn.ReLU())
    child = module[0]
    child.forward = types.MethodType(lambda self, x: 2 * F.linear(x, self.weight, self.bias), child)
    return module


def hooked():
    linear = nn.Linear(4, 9)
    linear.register_forward_hook(lambda module, args, output: 2 * output)
    return nn.Sequential(linear, nn.ReLU())


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (replaced_forward, (4,)), (patched_child, (4,)), (tiling, (4, 1, 1)), (hooked, (4,)),
        (lambda: nn.Sequential(nn.Conv2d(4, 3, 1), nn.ReLU(), Scaled(3, 1, 3, padding=1)), IMAGE),
        (lambda: nn.Sequential(Doubled(4, 5), nn.ReLU(), Doubled(5, 6)), (4,)),
    ],
)  # fmt: skip
def test_what_computes_is_what_is_read(make, shape):
    """Claim: replaced forwards, overridden methods and hooks count."""
    agree(make().eval(), shape)


def test_a_method_of_a_module_is_imported():
    """Claim: a method is a network, known or run, with its own digest."""
    whole = Autoencoder().eval()
    codes = np.random.default_rng(1).standard_normal((3, 4))
    expected = whole.decode(torch.tensor(codes, dtype=torch.float32)).detach().numpy()
    network = from_torch(whole.decode)
    assert isinstance(network, Generator)
    assert network.latent_size == 4
    np.testing.assert_allclose(network(codes), expected, atol=1e-6)
    run = TorchNetwork(whole.decode, 4)
    np.testing.assert_allclose(run(codes), expected, atol=1e-6)
    assert run.digest != TorchNetwork(whole.again, 4).digest


# Skips, norms, wrappers -------------------------------------------------------------------------


class Residual(nn.Module):
    def __init__(self, width=20, depth=3, activation=torch.relu):
        super().__init__()
        self.start, self.head = nn.Linear(5, width), nn.Linear(width, 60)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.activation = activation

    def forward(self, z):
        x = self.activation(self.start(z))
        for block in self.blocks:
            x = x + self.activation(block(x))
        return self.head(x)


class Concatenated(Residual):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(25, 20) for _ in range(3))

    def forward(self, z):
        x = torch.relu(self.start(z))
        for block in self.blocks:
            x = F.leaky_relu(block(torch.cat([x, z], 1)), 0.1)
        return torch.tanh(self.head(x))


class ConvolutionalBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.start = nn.Linear(5, 36)
        self.wide, self.narrow = nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(4, 6, 1)
        self.head, self.norm = nn.ConvTranspose2d(6, 2, 4, 2, 1), nn.BatchNorm2d(6)

    def forward(self, z):
        x = self.start(z).view(-1, 4, 3, 3)
        x = torch.relu(self.norm(self.wide(torch.relu(x)))) + self.narrow(x)
        return torch.sigmoid(self.head(x))


class Branches(Residual):
    """Two branches of different depths and activations."""

    def forward(self, z):
        x = self.start(z)
        long = torch.relu(self.blocks[1](F.leaky_relu(self.blocks[0](x), 0.3)))
        return self.head(long - F.relu(x))


@pytest.mark.parametrize("make", [Residual, Concatenated, ConvolutionalBlock, Branches])
def test_skips_become_layers(make):
    """Claim: residual sums and concatenations pass activations in rows of slope 1."""
    agree(randomised(make()))


def test_skips_around_smooth_activations_are_run():
    agree(Residual(activation=torch.tanh).eval(), kind="run")


def test_a_residual_network_is_inverted():
    """Claim: the chain of a network with skips is one like any other for the methods."""
    network = from_torch(Residual().eval())
    z = np.random.default_rng(3).standard_normal((4, 5))
    found = invert(network, network(z))
    solved = found.status == "solved"
    assert solved.sum() >= 3
    assert np.abs(found.latent - z)[solved].max() < 1e-6


class OfLabel(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.f = nn.Embedding(10, 3), nn.Linear(7, 12)

    def forward(self, z, label, scale: float = 1.0):
        return scale * torch.relu(self.f(torch.cat([z, self.table(label)], 1)))


def test_other_inputs_are_fixed():
    """Claim: a conditional decoder is a network of its latent once its label is fixed."""
    module = OfLabel().eval()
    network = from_torch(module, (4,), fixed={"label": torch.tensor([3]), "scale": 2.0})
    z = torch.randn(5, 4)
    expected = module(z, torch.tensor([3]).expand(5), 2.0).detach().numpy()
    assert isinstance(network, Generator)
    assert network(z.numpy()) == pytest.approx(expected, abs=1e-5)
    assert from_torch(module, (4,), fixed={1: [3]})(z.numpy()) == pytest.approx(
        expected / 2, abs=1e-5
    )
    with pytest.raises(InputError, match="fixed"):
        from_torch(module, (4,))


def spectral(old, training):
    wrap = nn.utils.spectral_norm if old else parametrizations.spectral_norm
    module = nn.Sequential(wrap(nn.Linear(4, 12)), nn.ReLU(), wrap(nn.Linear(12, 9)))
    module(torch.randn(2, 4))
    return module.train(training)


def weight_normed(old):
    if not old:
        return nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 12)), nn.ReLU())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 12)), nn.ReLU())


@pytest.mark.parametrize(
    "make",
    [
        lambda: spectral(False, False), lambda: spectral(True, False), lambda: weight_normed(False),
        lambda: weight_normed(True),
        lambda: nn.DataParallel(nn.Sequential(nn.Linear(4, 9), nn.ReLU())),
        lambda: torch.compile(nn.Sequential(nn.Linear(4, 9), nn.ReLU()), backend="eager"),
    ],
)  # fmt: skip
def test_reparametrised_and_wrapped(make):
    """Claim: spectral and weight norm, old and new, and wrappers are taken as they compute."""
    module = make().eval()
    network = from_torch(module, (4,))
    z = torch.randn(5, 4)
    assert isinstance(network, Generator)
    assert network(z.numpy()) == pytest.approx(module(z).detach().numpy(), abs=1e-5)


CHANGING = {
    "spectral norm": lambda: spectral(False, True),
    "old spectral norm": lambda: spectral(True, True),
    "batch norm": lambda: nn.Sequential(nn.Linear(4, 9), nn.BatchNorm1d(9)),
    "batch norm of a mean": lambda: nn.Sequential(
        nn.Linear(4, 9), nn.BatchNorm1d(9, momentum=None), nn.ReLU()
    ),
    "instance norm": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 2)), nn.InstanceNorm1d(2, track_running_stats=True), nn.Flatten()
    ),
    "a count of calls": lambda: Counting(),
    "weight norm": lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 9))),
}


@pytest.mark.parametrize("make", CHANGING.values(), ids=CHANGING)
@pytest.mark.filterwarnings("ignore:module. the running statistics")
def test_the_module_never_changes(make):
    """Claim: not even one whose forward in train mode changes its buffers (spectral norm)."""
    module = make()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with contextlib.suppress(InputError):  # it is in training mode
        from_torch(module, (4,))
    assert module.training
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_scripts():
    """Claim: TorchScript is followed like any other code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.jit.script(nn.Sequential(nn.Linear(4, 9), nn.ReLU()).eval())
    z = torch.randn(5, 4)
    found = from_torch(module, (4,))(z.numpy())
    assert found == pytest.approx(module(z).detach().numpy(), abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_promotion_is_exact_and_nothing_is_shared(dtype):
    """Claim: weights of every type are promoted exactly; the network does not change with them."""
    module = nn.Linear(3, 4).to(dtype)
    expected = module.weight.detach().double().numpy().copy()
    generator = from_torch(module)
    assert np.array_equal(generator.layers[0].weight, expected)
    with torch.no_grad():
        module.weight.zero_()
    assert np.array_equal(generator.layers[0].weight, expected)


class ToFloat(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Linear(4, 9)

    def forward(self, z):
        return torch.relu(self.f(z.float())).float()


def test_a_forward_that_converts_its_numbers():
    network = from_torch(ToFloat().eval())
    assert isinstance(network, Generator)
    agree(ToFloat().eval(), dtype=torch.float32)


# Shapes, limits, refusals -----------------------------------------------------------------------


class Example(nn.Module):
    """As in the examples of torch."""

    def __init__(self, gpus=1):
        super().__init__()
        self.gpus = gpus
        self.main = nn.Sequential(
            nn.ConvTranspose2d(10, 8, 4, 1, 0, bias=False), nn.BatchNorm2d(8), nn.ReLU(True),
            nn.ConvTranspose2d(8, 3, 4, 2, 1, bias=False), nn.Tanh(),
        )  # fmt: skip

    def forward(self, input):
        if input.is_cuda and self.gpus > 1:
            return nn.parallel.data_parallel(self.main, input, range(self.gpus))
        return self.main(input)


class FromVector(Example):
    def forward(self, z):
        return self.main(z[:, :, None, None]) if self.gpus else self.main(z.view(-1, 10, 1, 1))


@pytest.mark.parametrize(
    ("module", "size"),
    [
        (Example(), 10), (FromVector(), 10), (FromVector(0), 10),
        (nn.Sequential(nn.Linear(5, 7), nn.ReLU()), 5),
        (nn.Sequential(nn.Unflatten(1, (2, 3, 3)), nn.Conv2d(2, 3, 3), nn.ReLU()), 18),
        (nn.ConvTranspose2d(5, 2, 3), 5),
    ],
)  # fmt: skip
def test_the_shape_of_a_latent_is_inferred(module, size):
    """Claim: from the first Linear, ConvTranspose or Unflatten that fits."""
    assert from_torch(randomised(module)).latent_size == size


def test_large_matrices_are_left_to_torch():
    """Claim: a layer beyond ``max_matrix_bytes`` makes a network that is run, and equal."""
    module = randomised(Example())
    assert isinstance(agree(module, (10, 1, 1)), Generator)
    agree(module, (10, 1, 1), "run", max_matrix_bytes=1000)


def test_sparse_weights_stay_sparse():
    module = nn.Sequential(nn.ConvTranspose1d(1, 1, 3), nn.ReLU()).eval()
    assert from_torch(module, (1, 50)).layers[0].storage == "csr"


def test_activations_are_the_simplest():
    kinds = [
        (nn.LeakyReLU(1 / 3), LeakyReLU(1 / 3)), (nn.LeakyReLU(0.0), ReLU()), (nn.Tanh(), Tanh()),
        (nn.LeakyReLU(1.0), Identity()), (nn.PReLU(4, 0.2).double(), PReLU((0.2,), 4)),
    ]  # fmt: skip
    for module, expected in kinds:
        layer = from_torch(nn.Sequential(nn.Linear(3, 4), module).double().eval()).layers[0]
        if isinstance(expected, PReLU):
            expected = LeakyReLU(expected.negative_slopes[0])
        assert repr(layer.activation)[:12] == repr(expected)[:12]
        below = layer.activation.slopes(4)
        if below is not None:
            assert below[0] == pytest.approx(expected.slopes(4)[0], abs=1e-7)


class Random(nn.Module):
    def __init__(self, draw):
        super().__init__()
        self.a, self.draw = nn.Linear(4, 6), draw

    def forward(self, z):
        return self.a(z) + 0.5 * self.draw(self.a(z))


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 6)

    def forward(self, z):
        return self.a(z), torch.relu(self.a(z))


class Constant(Pair):
    def forward(self, z):
        return torch.ones(len(z), 3)


def not_finite() -> nn.Module:
    linear = nn.Linear(3, 4)
    with torch.no_grad():
        linear.weight[1, 2] = torch.nan
    return linear


REFUSED = [
    (Random(lambda x: torch.randn(1, 6)), "two evaluations at the same latents differ"),
    (Random(torch.randn_like), "two evaluations at the same latents differ"),
    (Random(lambda x: x.clone().normal_()), "two evaluations at the same latents differ"),
    (Random(lambda x: torch.tensor([[random.gauss(0, 1)] * 6])), "two evaluations .* differ"),
    (
        Random(lambda x: torch.as_tensor(np.random.normal(size=(1, 6))).to(x)),  # noqa: NPY002
        "two evaluations at the same latents differ",
    ),
    (Random(lambda x: torch.bernoulli(torch.full((1, 6), 0.5))), "two evaluations .* differ"),
    (Random(lambda x: F.dropout(x, 0.5)), "two evaluations at the same latents differ"),
    (Pair(), "expected one tensor of real numbers as output, got tuple"),
    (nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.1)).train(), "(?s)training mode.*eval"),
    (
        nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).train(),
        "(?s)training mode.*eval|depends on",
    ),
    (nn.Sequential(nn.LazyLinear(4)), r"model\.0: LazyLinear has no weights yet"),
    (not_finite(), "not finite"),
    (nn.Sequential(nn.Linear(3, 4), nn.Linear(5, 6)), "cannot be inferred; pass input_shape"),
]


@pytest.mark.parametrize(("module", "message"), REFUSED)
@pytest.mark.filterwarnings("ignore:module. the running statistics")
def test_refusals_say_why(module, message):
    """Claim: what is random, in train mode, or gives no single tensor is refused."""
    with pytest.raises(InputError, match=message):
        from_torch(module.eval() if isinstance(module, (Random, Pair)) else module)


OUT = {
    "mul": lambda x: torch.mul(x, 2, out=x),
    "clamp": lambda x: torch.clamp(x, -0.1, 0.5, out=x),
    "abs": lambda x: torch.abs(x, out=x),
    "add": lambda x: torch.add(x, 1.0, out=x),
    "exp": lambda x: torch.exp(x, out=x),
    "cat": lambda x: torch.cat([x[:, 2:], x[:, :2]], 1, out=x.new_empty(x.shape)),
}


@pytest.mark.parametrize("change", OUT.values(), ids=OUT)
def test_results_written_by_out_are_refused(change):
    """Claim: torch cannot differentiate them; none is dropped in silence."""
    with pytest.raises(InputError, match=r"cannot differentiate it: .*out="):
        from_torch(Function(_statement(change)).eval(), IMAGE)


class OneSample(nn.Module):
    """Forwards that take one latent at a time."""

    def __init__(self, form):
        super().__init__()
        self.w, self.form = nn.Parameter(torch.randn(9, 6)), form

    def forward(self, z):
        return self.form(self.w, z)


@pytest.mark.parametrize(
    "form",
    [
        lambda w, z: torch.relu(F.linear(z, w)).view(1, 3, 3),
        lambda w, z: torch.relu(F.linear(z, w)).squeeze(),
        lambda w, z: torch.relu(w @ z),
    ],
)
def test_forwards_without_a_batch(form):
    """Claim: what cannot be run in batches is known, where its layers are."""
    module = OneSample(form).eval()
    network, z = from_torch(module, (6,)), torch.randn(6)
    try:
        expected = module(z[None])
    except RuntimeError:
        expected = module(z)
    assert network(z.numpy()) == pytest.approx(expected.detach().reshape(-1).numpy(), abs=1e-5)


def test_a_smooth_forward_without_a_batch_is_run():
    """Claim: what takes one latent at a time is run in batches, with its derivatives."""
    module = OneSample(lambda w, z: torch.relu(w @ z) * torch.sin(w @ z)).eval()
    network, z = from_torch(module, (6,)), torch.randn(5, 6)
    assert isinstance(network, TorchNetwork)
    expected = torch.stack([module(row) for row in z]).detach().numpy()
    assert network(z.numpy()) == pytest.approx(expected, abs=1e-5)
    values, jacobian = network.linearize(z.double().numpy())
    step = network(z.double().numpy() + 1e-7 * np.eye(6)[0]) - values
    assert jacobian[:, :, 0] == pytest.approx(step / 1e-7, abs=1e-4)


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Linear(4, 6)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, z):
        self.calls += 1
        return torch.relu(self.f(z))


def test_buffers_that_a_forward_changes_stay():
    """Claim: the forward of the module itself is never run."""
    module = Counting().eval()
    agree(module, (4,), "run" if isinstance(from_torch(module), TorchNetwork) else "known")
    assert module.calls == 0


def test_what_depends_on_the_precision_is_refused():
    """Claim: a module that computes something else in float64 than in float32 is no network."""
    module = Function(lambda x: x if x.dtype == torch.float32 else 2 * x).eval()
    with pytest.raises(FormatError, match="something else than in its own precision"):
        from_torch(module, IMAGE)


def branching(z):
    return z if z.abs().max() < 2 else 2 * z


MIXED = {
    "branch": branching,
    "branch on a sum": lambda x: x if (x - x.mean() + x[:1, :1, :1, :1]).sum() > 0 else -x,
    "mean of the batch": lambda x: x - x.mean(0, keepdim=True),
    "flip of the batch": lambda x: x.flip(0),
    "sum along the batch": lambda x: x.cumsum(0),
    "the first sample": lambda x: x - x[:1],
    "largest value": lambda x: x / x.abs().max(),
    "a number of the batch": lambda x: x * x.mean().item(),
    "softmax of the batch": lambda x: x.softmax(0),
}


@pytest.mark.parametrize("function", MIXED.values(), ids=MIXED)
def test_outputs_that_depend_on_the_batch_are_refused(function):
    """Claim: a forward that branches on or mixes the samples of a batch is never a chain."""
    module = Function(function).eval()
    with pytest.raises(InputError, match="depends on the others"):
        from_torch(module, IMAGE)


def test_a_constant_is_refused():
    with pytest.raises(InputError, match=r"latent|differentiate"):
        from_torch(Constant().eval(), (4,))


def test_arguments():
    """Claim: misuse is told as such."""
    with pytest.raises(FormatError, match="shape of a latent cannot be inferred; pass input_shape"):
        from_torch(nn.Conv2d(4, 4, 1))
    for shape in ((), (0,), (2.5,), (True,)):
        with pytest.raises(InputError, match="input_shape: expected positive integers"):
            from_torch(nn.Linear(3, 4), shape)
    for budget in (-1, 2.5, None, True):
        with pytest.raises(InputError, match="max_matrix_bytes: expected"):
            from_torch(nn.Linear(3, 4), max_matrix_bytes=budget)
    with pytest.raises(InputError, match=r"expected a torch\.nn\.Module, got list"):
        from_torch([nn.Linear(3, 4)])


def test_torch_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"preimage\[torch\]"):
        from_torch(None)


def test_a_latent_size_is_a_shape():
    module = nn.Linear(4, 9).eval()
    z = np.ones((2, 4))
    expected = from_torch(module, (4,))(z)
    for shape in (4, np.int64(4), [4]):
        np.testing.assert_array_equal(from_torch(module, shape)(z), expected)
    for shape in (4.0, "4", True, ()):
        with pytest.raises(InputError, match="input_shape: expected positive integers, got"):
            from_torch(module, shape)


def test_what_is_no_module_with_weights_is_told_what_to_do():
    module = nn.Linear(4, 9).eval()
    with pytest.raises(InputError, match=r"OrderedDict; load the weights into the module"):
        from_torch(module.state_dict(), 4)
    with pytest.raises(InputError, match=r"got function; pass a module, or a method of one"):
        from_torch(lambda z: module(z), 4)
    exported = torch.export.export(module, (torch.zeros(2, 4),))
    with pytest.raises(InputError, match=r"ExportedProgram; pass its module\(\)"):
        from_torch(exported, 4)
    with torch.device("meta"):
        bare = nn.Linear(4, 9)
    with pytest.raises(FormatError, match="on the meta device; load them"):
        from_torch(bare, 4)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("head", [nn.Tanh(), nn.ReLU(), nn.PReLU(6), nn.Sigmoid()])
@pytest.mark.parametrize(
    "move",
    [
        lambda x: x.permute(0, 2, 3, 1),
        lambda x: x.flip(2),
        lambda x: x[:, :, 1:-1, 1:3],
        lambda x: x[:, [5, 0, 2]],
        lambda x: x.roll(1, 3),
    ],
)
def test_outputs_that_are_moved_are_no_layer(move, head, sparse):
    """Claim: a permutation or a crop behind the last activation moves its units, no more."""
    first = nn.ConvTranspose2d(3, 6, (4, 5)) if sparse else nn.Linear(12, 120)
    shape = (3, 2, 2) if sparse else (12,)

    class Moved(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.head = first, head

        def forward(self, z):
            return move(self.head(self.first(z).reshape(len(z), 6, -1, 5 if not sparse else 6)))

    module = Moved().eval()
    network = from_torch(module, shape)
    assert isinstance(network, Generator)
    assert len(network.layers) == 1
    z = np.random.default_rng(0).normal(size=(5, 12))
    with torch.no_grad():
        expected = module.double()(torch.tensor(z).reshape(5, *shape)).reshape(5, -1).numpy()
    np.testing.assert_allclose(network(z), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_labels_may_be_one_hot(kind):
    """Claim: a forward may branch on what is fixed, as one_hot does, and its layers are known."""

    class Labelled(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = nn.Sequential(nn.Linear(14, 20), nn.ReLU(), nn.Linear(20, 9))

        def forward(self, z, label):
            hot = F.one_hot(label, 10).to(z.dtype)
            return self.part(torch.cat([z, hot], 1)) * (2 if label[0].item() == 3 else 1)

    module = Labelled().to(kind).eval()
    network = from_torch(module, 4, fixed={"label": [3]})
    assert isinstance(network, Generator)
    z = np.random.default_rng(0).normal(size=(5, 4))
    with torch.no_grad():
        expected = module.double()(torch.tensor(z), torch.tensor([3] * 5)).numpy()
    np.testing.assert_allclose(network(z), expected, rtol=0, atol=1e-12)


REAL = {
    "dense": lambda: nn.Sequential(nn.Linear(2, 20), nn.ReLU(), nn.Linear(20, 12)),
    "leaky": lambda: nn.Sequential(nn.Linear(2, 20), nn.LeakyReLU(0.1), nn.Linear(20, 12)),
    "batch norm": lambda: nn.Sequential(nn.Linear(2, 20), nn.BatchNorm1d(20), nn.ReLU()),
    "convolution": lambda: nn.Sequential(
        nn.Linear(2, 8), nn.ReLU(), nn.Unflatten(1, (1, 8)), nn.ConvTranspose1d(1, 2, 3, 2)
    ),
    "pooling": lambda: nn.Sequential(
        nn.Linear(2, 20), nn.ReLU(), nn.Unflatten(1, (1, 20)), nn.AvgPool1d(3)
    ),
    "residual": Residual,
}


def in_rationals(network, z):
    """The outputs of its layers in exact arithmetic, as fractions."""
    value = [Fraction(entry) for entry in z]
    for layer in network.layers:
        slope = layer.activation.slopes(layer.output_size)[0]
        rows = zip(np.asarray(layer.dense_weight), layer.bias, slope, strict=True)
        a = [
            (
                sum(Fraction(w) * v for w, v in zip(row, value, strict=True)) + Fraction(b),
                Fraction(s),
            )
            for row, b, s in rows
        ]
        value = [entry if entry >= 0 else below * entry for entry, below in a]
    return value


@pytest.mark.parametrize("make", REAL.values(), ids=REAL)
def test_the_network_is_that_of_real_arithmetic(make):
    """Claim: G is the network of the float32 weights in real arithmetic, not torch's float32 one.

    Exact fractions are the oracle. What torch gives differs by its rounding; that is no output of
    G, and a certificate whose noise is below that rounding says so.
    """
    module = randomised(make()).float()
    network = from_torch(module)
    z = np.random.default_rng(3).uniform(-1, 1, network.latent_size)
    exact, value = in_rationals(network, z), network(z)
    with torch.no_grad():
        given = module(torch.tensor(z[None], dtype=torch.float32)).double().numpy().ravel()
    pairs = list(zip(exact, value, given, strict=True))
    assert all(abs(own - Fraction(real)) <= Fraction(1, 10**14) for own, real, _ in pairs)
    assert any(abs(own - Fraction(rounded)) > Fraction(1, 10**9) for own, _, rounded in pairs)
    verdicts = [certify(network, x, noise=1e-12, box=3.0).verdict for x in (value, given)]
    assert verdicts == ["unique", "infeasible"]


@pytest.mark.parametrize("width", [1, 2, 5])
def test_units_that_are_idle_at_the_probes_are_no_step_function(width):
    """Claim: small networks are taken, whichever of their units are active where they are tried."""
    for seed in range(20):
        torch.manual_seed(seed)
        agree(
            randomised(
                nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width), nn.ReLU())
            ).double()
        )
