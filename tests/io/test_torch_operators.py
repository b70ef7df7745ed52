"""What torch's modules, functions and methods compute, a generator computes."""

from __future__ import annotations

import operator

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from preimage.activation import LeakyReLU, PReLU
from preimage.errors import FormatError, InputError
from preimage.io import from_torch


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
    return module.double().eval()


def agree(module, shape, input_shape="given"):
    """Outputs and vector-Jacobian products are torch's, as matrices and as operators."""
    module = randomised(module)
    z = torch.randn(3, *shape, dtype=torch.float64, requires_grad=True)
    expected = module(z)
    cotangent = torch.randn_like(expected)
    (gradient,) = torch.autograd.grad(expected, z, cotangent)
    flat = z.detach().reshape(3, -1).numpy()
    for budget in (0, 10**9):
        given = shape if input_shape == "given" else input_shape
        generator = from_torch(module, given, max_matrix_bytes=budget)
        np.testing.assert_allclose(
            generator(flat), expected.detach().reshape(3, -1).numpy(), atol=1e-11
        )
        v = cotangent.reshape(3, -1).numpy()
        np.testing.assert_allclose(
            generator.vjp(flat, v), gradient.reshape(3, -1).numpy(), atol=1e-11
        )
    return generator


IMAGE = (4, 5, 6)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), (4, 9)),
        (nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 0), (1, 2), bias=False), IMAGE),
        (nn.Conv2d(4, 6, (4, 3), padding="same", dilation=(2, 1)), IMAGE),
        (nn.Conv2d(4, 6, 3, padding="valid"), IMAGE),
        (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), IMAGE),
        (nn.Conv2d(4, 6, 3, padding=(1, 2), padding_mode="circular"), IMAGE),
        (nn.Conv3d(2, 3, 2), (2, 3, 4, 3)),
        (nn.ConvTranspose1d(4, 6, 3, 2, 1, 1), (4, 5)),
        (nn.ConvTranspose2d(4, 6, 4, 2, 1, bias=False), IMAGE),
        (nn.ConvTranspose2d(4, 6, 3, 3, 1, 2, groups=2, dilation=(2, 1)), IMAGE),
        (nn.ConvTranspose2d(4, 6, 3, 1, 2, 1, dilation=3), IMAGE),
        (nn.ConvTranspose3d(2, 3, 2, 2), (2, 2, 3, 2)),
        (nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)), IMAGE),
        (nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, padding=1)), IMAGE),
        (nn.BatchNorm2d(4, affine=False), IMAGE),
        (nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5)), (4,)),
        (nn.AvgPool2d(2), IMAGE),
        (nn.AvgPool2d((3, 2), 2, 1, ceil_mode=True, count_include_pad=False), IMAGE),
        (nn.AvgPool2d(3, (2, 3), 1, ceil_mode=True), IMAGE),
        (nn.AvgPool1d(2, 1), (4, 5)),
        (nn.AdaptiveAvgPool2d(1), IMAGE),
        (nn.AdaptiveAvgPool2d((1, 1)), IMAGE),
        (nn.Upsample(scale_factor=2), IMAGE),
        (nn.Upsample(scale_factor=(1.5, 3)), IMAGE),
        (nn.Upsample(size=(7, 4)), IMAGE),
        (nn.Upsample(scale_factor=3, mode="nearest-exact"), (4, 5)),
        (nn.UpsamplingNearest2d(scale_factor=2), IMAGE),
        (nn.ZeroPad2d((1, 2, 0, 3)), IMAGE),
        (nn.ConstantPad2d((1, -1, 0, 2), 1.5), IMAGE),
        (nn.ReflectionPad2d(2), IMAGE),
        (nn.ReplicationPad1d((2, 1)), (4, 5)),
        (nn.PixelShuffle(2), IMAGE),
        (nn.Sequential(nn.Linear(6, 3), nn.Flatten(2), nn.Linear(15, 2)), IMAGE),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, nn.Module) else "",
)
def test_modules(module, shape):
    """Claim: outputs and vector-Jacobian products agree, in float64 to its own rounding."""
    agree(nn.Sequential(module, nn.Tanh()), shape)


class Function(nn.Module):
    """A forward that is one expression of the input, after a convolution."""

    def __init__(self, function):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        self.function = function

    def forward(self, x):
        return self.function(self.conv(x))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.relu(x),
        lambda x: torch.relu(x) - 0.5,
        lambda x: x.tanh(),
        lambda x: F.leaky_relu(x, 0.3),
        lambda x: F.leaky_relu(x, negative_slope=0.3, inplace=False),
        lambda x: torch.sigmoid(x) * 2,
        lambda x: x.view(x.size(0), -1),
        lambda x: x.view(-1, 20, 6),
        lambda x: x.reshape(x.shape[0], x.shape[1], -1),
        lambda x: x.reshape((len_of(x), 120)),
        lambda x: torch.flatten(x, 1),
        lambda x: x.flatten(start_dim=2),
        lambda x: x.flatten(1, 2),
        lambda x: x.flatten(-2),
        lambda x: x.unflatten(1, (2, 2)),
        lambda x: x.permute(0, 2, 3, 1),
        lambda x: x.permute((0, 3, 1, 2)).contiguous(),
        lambda x: x.transpose(1, -1),
        lambda x: x[:, 1:3],
        lambda x: x[:, 1, ..., ::2],
        lambda x: x[..., None, -1, :],
        lambda x: x[:, :, 1:-1, 2:],
        lambda x: x[:, 1].unsqueeze(1).squeeze(1),
        lambda x: torch.cat([x, 2 * x[:, :2], torch.ones(1, 1, 5, 6).expand(1, 1, 5, 6)], 1)
        if False else torch.cat([x, 2 * x[:, :2]], dim=1),
        lambda x: 1 - x / 4 + torch.tensor([[[[2.0]]]]),
        lambda x: -x + x * 3 - (x - 1),
        lambda x: torch.add(x, x[:, :, :1], alpha=2),
        lambda x: x.mean((2, 3)),
        lambda x: x.mean(dim=3, keepdim=True) + x,
        lambda x: F.interpolate(x, scale_factor=2),
        lambda x: F.interpolate(x, size=(3, 9), mode="nearest"),
        lambda x: F.pad(x, (1, 2, 0, 1)),
        lambda x: F.pad(x, (1, 2), value=0.5),
        lambda x: F.pad(x, (1, 2, 1, 1), mode="reflect"),
        lambda x: F.avg_pool2d(x, 2),
        lambda x: F.adaptive_avg_pool2d(x, 1),
        lambda x: F.dropout(x, 0.5, training=False),
        lambda x: F.conv2d(x, torch.arange(8.0).double().reshape(2, 4, 1, 1), padding=1),
        lambda x: F.linear(x, torch.arange(12.0).double().reshape(2, 6)),
        lambda x: F.pixel_shuffle(x, 2),
        lambda x: x.to(torch.float64).double().clone(),
        lambda x: operator.iadd(x, 1.0),
    ],
)  # fmt: skip
def test_functions(function):
    """Claim: so do the forms in which people write a forward."""
    agree(Function(function), IMAGE)


def len_of(x):
    return x.size(0)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.start = nn.Linear(5, 4 * 3 * 3)
        self.wide = nn.Conv2d(4, 6, 3, padding=1)
        self.narrow = nn.Conv2d(4, 6, 1)
        self.head = nn.ConvTranspose2d(6, 2, 4, 2, 1)

    def forward(self, z):
        x = self.start(z).view(-1, 4, 3, 3)
        x = torch.relu(self.wide(x) + self.narrow(x))
        return torch.tanh(self.head(x))


def test_residual_sums_of_one_segment():
    """Claim: branches that meet before an activation are one layer."""
    assert agree(Residual(), (5,), None).sizes == (5, 54, 72)


def test_skips_around_an_activation_are_named():
    """Claim: what is no chain is refused, and the node named."""

    class Skip(Residual):
        def forward(self, z):
            x = self.start(z).view(-1, 4, 3, 3)
            return torch.relu(self.wide(torch.relu(x))) + self.narrow(x)

    class Branch(Residual):
        def forward(self, z):
            x = self.start(z)
            return torch.relu(x), torch.tanh(x)

    class Both(Branch):
        def forward(self, z):
            return torch.add(*super().forward(z))

    with pytest.raises(FormatError, match=r"model: add: add: .* branch around an activation"):
        from_torch(Skip().eval())
    with pytest.raises(FormatError, match=r"model: tanh: tanh: .*from the latent, but relu at"):
        from_torch(Both().eval())
    with pytest.raises(FormatError, match="one tensor as output, got tuple"):
        from_torch(Branch().eval())


class Generator(nn.Module):
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


class FromVector(Generator):
    def forward(self, z):
        return self.main(z[:, :, None, None]) if self.gpus else self.main(z.view(-1, 10, 1, 1))


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (Generator(), (10, 1, 1)),
        (FromVector(), (10,)),
        (FromVector(0), (10,)),
        (nn.Sequential(nn.Linear(5, 7), nn.ReLU()), (5,)),
        (nn.Sequential(nn.Unflatten(1, (2, 3, 3)), nn.Conv2d(2, 3, 3), nn.ReLU()), (18,)),
        (nn.ConvTranspose2d(5, 2, 3), (5, 1, 1)),
    ],
)
def test_the_shape_of_a_latent_is_inferred(module, shape):
    """Claim: from the first Linear, ConvTranspose or reshape."""
    generator = agree(module, shape, None)
    assert generator.latent_size == int(np.prod(shape))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.relu_(x),
        lambda x: x.add_(1.0).relu_(),
        lambda x: F.relu(x.view(-1, 120), True),
        lambda x: F.leaky_relu(x, 0.1, inplace=True) + 1,
        lambda x: nn.functional.relu(x, inplace=True).view(-1, 120),
    ],
)
def test_in_place(function):
    """Claim: what changes its input in place is the same as what does not, if only used once."""
    agree(Function(function), IMAGE)


def unused(x):
    x.relu_()
    return x


def view_changed(x):
    x.view(-1, 120).mul_(2.0)
    return x + 1


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (unused, "model: relu_ changes conv in place, and output uses it after"),
        (view_changed, "model: mul_ changes conv in place, and add uses it after"),
        (lambda x: F.relu(x, True) + x, "model: relu changes conv in place, and add uses"),
        (lambda x: F.relu(x, inplace=True) + x[:, :1], "relu changes conv in place, and getitem"),
    ],
)
def test_values_that_were_changed_in_place(function, message):
    """Claim: a value that torch has changed before it is used again is refused, not misread."""
    with pytest.raises(FormatError, match=message):
        from_torch(Function(function).eval(), IMAGE)


def test_modules_in_place():
    """Claim: modules count as functions do."""

    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.start, self.relu = nn.Linear(3, 4), nn.ReLU(inplace=True)

        def forward(self, x):
            x = self.start(x)
            return self.relu(x) + x

    with pytest.raises(FormatError, match="relu changes start in place, and add uses it after"):
        from_torch(Skip())


def test_slopes_of_channels():
    """Claim: PReLU is exact a channel, and the simplest activation that is the same."""
    module = nn.Sequential(nn.Conv2d(4, 3, 1), nn.PReLU(3))
    with torch.no_grad():
        module[1].weight.copy_(torch.tensor([0.1, 0.5, 1.5]))
    expected = tuple(module[1].weight.detach().double().tolist())
    assert agree(module, IMAGE).layers[0].activation == PReLU(expected, repeat=30)
    assert agree(nn.Sequential(nn.Linear(4, 3), nn.PReLU()), (4,)).layers[
        0
    ].activation == LeakyReLU(0.25)
    with torch.no_grad():
        module[1].weight[1] = 0.0
    with pytest.raises(
        FormatError, match=r"model\.1: PReLU: expected slopes that are all positive"
    ):
        from_torch(module, IMAGE)


def test_weights_may_be_shared_tied_or_parametrized():
    """Claim: a weight is what the module computes with, whatever it is made from."""
    linear = nn.Linear(4, 4)
    agree(nn.Sequential(linear, nn.ReLU(), linear), (4,))
    agree(nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 3, 2))), IMAGE)


def test_the_module_is_not_changed():
    """Claim: neither its tensors nor its attributes."""
    module = Function(lambda x: x + torch.tensor(2.0)).double().eval()
    before = set(vars(module))
    from_torch(module, IMAGE)
    assert set(vars(module)) == before


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.BatchNorm2d(4), r"model: BatchNorm2d in training mode .*call \.eval\(\)"),
        (nn.BatchNorm2d(4, track_running_stats=False).eval(), "model: BatchNorm2d in training"),
        (Function(lambda x: F.dropout(x)), r"model: dropout: dropout in training mode"),
        (Function(lambda x: F.gelu(x)), r"model: gelu: gelu is not supported; .*ConvTranspose2d"),
        (Function(lambda x: x.cumsum(1)), "model: cumsum: cumsum is not supported"),
        (Function(lambda x: x * x), "model: mul: mul: .*depends on the latent"),
        (Function(lambda x: 1 / x), "model: truediv: truediv: .*depends on the latent"),
        (Function(lambda x: x if x.sum() > 0 else -x), r"torch\.fx cannot follow the forward"),
        (Function(lambda x: x.dtype), "attribute 'dtype' of a tensor is not supported"),
        (Function(lambda x: x.permute(1, 0, 2, 3)), "first dimension is the batch"),
        (Function(lambda x: x.reshape(-1, 6)), "first dimension is the batch"),
        (Function(lambda x: x[0]), "first dimension is the batch"),
        (Function(lambda x: torch.cat([x, x])), "first dimension is the batch"),
        (Function(lambda x: x.mean()), "first dimension is the batch"),
        (Function(lambda x: x[:, [0, 1]]), "with index .* is not supported"),
        (Function(lambda x: x.to(torch.int64)), "to torch.int64 is not supported"),
        (Function(lambda x: F.interpolate(x, scale_factor=2, mode="bilinear")), "'bilinear' is"),
        (Function(lambda x: F.pad(x, (9, 9), mode="median")), "mode 'median' is not supported"),
        (Function(lambda x: F.adaptive_avg_pool2d(x, 2)), "to 2 is not supported, only to 1"),
        (Function(lambda x: torch.add(input=x, other=x)), "add is not supported with these"),
        (Function(lambda x: torch.ones(3)), "does not depend on the latent"),
        (nn.Conv2d(3, 4, 1), r"model: Conv2d: expected 4 channels, .*got .*\(4, 3, 1, 1\)"),
        (nn.Conv2d(4, 4, 9), r"model: Conv2d: convolution: a window of \(9, 9\)"),
        (nn.Linear(5, 4), r"model: Linear: expected 6 inputs"),
        (nn.MaxPool2d(2), "model: MaxPool2d is not supported"),
    ],
)
def test_what_is_not_understood(module, message):
    """Claim: an error that names the place, the operator and what is supported."""
    with pytest.raises(FormatError, match=message):
        from_torch(module, IMAGE)


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

    class Two(nn.Module):
        def forward(self, x, y):
            return x + y

    with pytest.raises(FormatError, match="a forward with one input, got another, 'y'"):
        from_torch(Two())
