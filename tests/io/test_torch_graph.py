"""What computes is what is read: replaced forwards, skips, wrappers, other inputs."""

from __future__ import annotations

import contextlib
import types
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from agreement import IMAGE, agree, randomised
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils import parametrizations

from preimage import Generator, certify, invert
from preimage.errors import InputError
from preimage.io import from_torch
from preimage.torch_network import TorchNetwork


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


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


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Linear(4, 6)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, z):
        self.calls += 1
        return torch.relu(self.f(z))


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


def test_buffers_that_a_forward_changes_stay():
    """Claim: the forward of the module itself is never run."""
    module = Counting().eval()
    agree(module, (4,), "run" if isinstance(from_torch(module), TorchNetwork) else "known")
    assert module.calls == 0


@pytest.mark.parametrize("finish", [lambda module: module, torch.jit.freeze])
def test_scripts(finish):
    """Claim: TorchScript is followed like any other code, with its weights or constants."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = finish(torch.jit.script(nn.Sequential(nn.Linear(4, 9), nn.ReLU()).eval()))
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
