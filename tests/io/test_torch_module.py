"""What ``from_torch`` infers, leaves to torch and refuses."""

from __future__ import annotations

import random
import sys
from functools import partial

import numpy as np
import pytest
import torch
from agreement import IMAGE, Function, agree, randomised, statement
from torch import nn
from torch.nn import functional as F  # noqa: N812

from preimage import Generator
from preimage.activation import Identity, LeakyReLU, PReLU, ReLU, Tanh
from preimage.errors import FormatError, InputError, MissingExtraError
from preimage.io import from_torch
from preimage.torch_network import TorchNetwork


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


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
    (partial(Pair()), "Module, got partial; pass the module, and the arguments of the partial"),
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
        from_torch(Function(statement(change)).eval(), IMAGE)


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
