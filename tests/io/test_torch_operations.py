"""What a torch module computes, the network made from it computes: a corpus of operations.

Every case is compared with the module itself, in float64, at latents of several scales. A case
says whether its layers have to be known ("known"), or may be run by torch ("run").
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from agreement import IMAGE, Function, agree, randomised, statement
from torch import nn
from torch.nn import functional as F  # noqa: N812

from preimage import Generator
from preimage.io import from_torch


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


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
    "clamp_": statement(lambda x: x.clamp_(0, 1)),
    "clamp_min_": statement(lambda x: x.clamp_min_(0.1)),
    "abs_": statement(lambda x: x.abs_()),
    "masked_fill_": statement(lambda x: x.masked_fill_(torch.arange(6) > 2, 1.5)),
    "slice zero_": statement(lambda x: x[:, :2].zero_()),
    "slice fill_": statement(lambda x: x[:, :, 1].fill_(3.0)),
    "slice copy_": statement(lambda x: x[:, :2].copy_(x[:, 2:])),
    "slice assigned": statement(lambda x: x.__setitem__((slice(None), 0), x[:, 1] * 2)),
    "relu6 in place": statement(lambda x: F.relu6(x, inplace=True)),
    "module in place": statement(lambda x: nn.Hardtanh(inplace=True)(x)),
    "neg_": statement(lambda x: x.neg_()),
    "sub_ of itself": statement(lambda x: x.sub_(x[:, :1] * 1)),
    "lerp_": statement(lambda x: x.lerp_(torch.ones_like(x), 0.3)),
    "scatter_": statement(
        lambda x: x.scatter_(3, torch.zeros(len(x), 4, 5, 1, dtype=torch.long), 2.0)
    ),
    "index_copy_": statement(lambda x: x.index_copy_(1, torch.tensor([0]), x[:, 1:2] * 2)),
    "select copy_": statement(lambda x: x.select(1, 0).copy_(x.select(1, 1))),
    "narrow mul_": statement(lambda x: x.narrow(1, 0, 2).mul_(3)),
    "diagonal zero_": statement(lambda x: x.diagonal(dim1=2, dim2=3).zero_()),
    "copy_ of a flip": statement(lambda x: x.copy_(x.flip(1))),
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
    "pow_": statement(lambda x: x.pow_(2)),
    "exp_": statement(lambda x: x.exp_()),
    "celu_": statement(lambda x: F.celu_(x)),
    "threshold_": statement(lambda x: F.threshold_(x, 0.1, -0.2)),
    "masked_fill_ by value": statement(lambda x: x.masked_fill_(x < 0, 0)),
    "assigned by value": statement(lambda x: x.__setitem__(x > 1, 1.0)),
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


# Moves and labels --------------------------------------------------------------------------------


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
