"""A module that torch runs: its derivatives against differences, and what is refused."""

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import preimage
from preimage.network import Network
from preimage.torch_network import TorchNetwork


class Square(torch.autograd.Function):
    """An operation whose derivative is there in reverse mode only."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 2 * gradient * x


class Wrong(torch.autograd.Function):
    """An operation whose derivatives in forward and in reverse mode differ."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.square()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        return 3 * gradient * ctx.saved_tensors[0]

    @staticmethod
    def jvp(ctx, tangent):
        return 2 * tangent * ctx.saved_tensors[0]


class Straight(torch.autograd.Function):
    """ReLU with the derivative of the identity, in both modes."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.relu()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, gradient):
        return gradient.clone()

    @staticmethod
    def jvp(ctx, tangent):
        return tangent.clone()


def rounded(x, levels):
    """Rounded to so many levels a unit, with the derivative of the identity."""
    return x + (torch.round(x * levels) / levels - x).detach()


class Applied(nn.Module):
    """A function as a module."""

    def __init__(self, function, *parts):
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)

    def forward(self, z):
        return self.function(z, *self.parts)


class Labelled(nn.Module):
    """Of a code, a label, and a noise map that is there unless it is given."""

    def __init__(self):
        super().__init__()
        self.embedding, self.linear = nn.Embedding(3, 2), nn.Linear(6, 8)

    def forward(self, z, label, noise=None, gain=1.0):
        found = self.linear(torch.cat([z, self.embedding(label)], 1)).tanh()
        return gain * (found if noise is None else found + noise)


def in_place(z):
    made = torch.zeros(len(z), 6, dtype=z.dtype)
    made[:, :4] = z
    made[:, 4] = z[:, 0] * z[:, 1]
    return made.sin()


def attention(z, linear, encoder):
    return encoder(linear(z).view(-1, 3, 8))


def warped(z):
    image = z.view(-1, 1, 2, 2)
    place = functional.affine_grid(
        torch.eye(2, 3, dtype=z.dtype).expand(len(z), 2, 3), (len(z), 1, 3, 3), align_corners=False
    )
    return functional.grid_sample(image, place, align_corners=False)


def normalised(module):
    """The running statistics as training leaves them."""
    module.train()
    with torch.no_grad():
        for _ in range(5):
            module(torch.randn(16, 4))
    return module.eval()


def convolutional():
    return normalised(
        nn.Sequential(
            nn.Linear(4, 32), nn.Unflatten(1, (8, 2, 2)), nn.BatchNorm2d(8), nn.ReLU(True),
            nn.ConvTranspose2d(8, 4, 4, 2, 1), nn.BatchNorm2d(4), nn.LeakyReLU(0.2),
            nn.Upsample(size=7), nn.Conv2d(4, 2, 3, dilation=2, padding=2), nn.Tanh(),
        )
    )  # fmt: skip


def modules():
    """Name, a module of four latents."""
    torch.manual_seed(0)
    encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    yield "convolutional", convolutional()
    yield (
        "group norm",
        nn.Sequential(
            nn.Linear(4, 24),
            nn.Unflatten(1, (4, 6)),
            nn.GroupNorm(2, 4),
            nn.SiLU(),
            nn.Conv1d(4, 3, 3),
        ),
    )
    yield "attention", Applied(attention, nn.Linear(4, 24), encoder)
    yield "in place", Applied(in_place)
    yield "reverse mode only", Applied(lambda z, part: Square.apply(part(z)), nn.Linear(4, 5))
    yield "grid sample", Applied(warped)
    yield (
        "bicubic",
        Applied(
            lambda z: functional.interpolate(
                z.view(-1, 1, 2, 2), size=5, mode="bicubic", align_corners=True
            )
        ),
    )
    yield (
        "recurrent",
        Applied(lambda z, part: part(z.view(-1, 2, 2))[0], nn.GRU(2, 3, 1, True, True)),
    )
    yield "weight norm", nn.utils.parametrizations.weight_norm(nn.Linear(4, 5))
    yield "spectral norm", nn.utils.spectral_norm(nn.Linear(4, 5))
    yield "parallel", nn.DataParallel(nn.Linear(4, 5))
    yield "half", nn.Sequential(nn.Linear(4, 9), nn.ELU(), nn.Linear(9, 6)).to(torch.bfloat16)
    yield "constant", Applied(lambda z, part: part(z) + part.plain, with_plain(nn.Linear(4, 5)))


def with_plain(part):
    """With a tensor that is no parameter and no buffer."""
    part.plain = torch.arange(5.0)
    return part


MODULES = {name: module.eval() for name, module in modules()}


def differences(network, z, step=1e-5):
    """Jacobians by central differences, (batch, n, k)."""
    unit = step * np.eye(network.latent_size)
    return np.stack([(network(z + e) - network(z - e)) / (2 * step) for e in unit], axis=2)


@pytest.mark.parametrize("name", MODULES)
def test_the_derivatives_are_those_of_the_module(name):
    """Claim: value, Jacobian, both products and the draft agree with the module's own values."""
    module = MODULES[name]
    network = TorchNetwork(module, 4)
    assert isinstance(network, Network)
    z = np.random.default_rng(1).standard_normal((3, 4))
    value, jacobian = network.linearize(z)
    own = copy.deepcopy(module).double() if name != "constant" else network.module
    with torch.no_grad():
        expected = own(torch.as_tensor(z))
    assert network.observation_shape == expected.shape[1:]
    np.testing.assert_allclose(value, expected.reshape(3, -1), atol=1e-13)
    np.testing.assert_allclose(network(z[0]), network(z)[0], atol=1e-13)
    np.testing.assert_allclose(jacobian, differences(network, z), atol=1e-7)
    t, v = np.ones((3, 4)), np.cos(np.arange(3.0 * value.shape[1])).reshape(value.shape)
    np.testing.assert_allclose(network.jvp(z, t), jacobian @ np.ones(4), atol=1e-12)
    np.testing.assert_allclose(network.vjp(z, v), np.einsum("bn,bnk->bk", v, jacobian), atol=1e-12)
    draft = network.draft
    assert draft.draft is None
    np.testing.assert_allclose(draft.linearize(z)[1], jacobian, atol=1e-4)
    assert draft.linearize(z)[1].dtype == np.float64


@settings(max_examples=8, deadline=None)
@given(batch=st.integers(0, 9), bytes_=st.sampled_from([1, 700, 2**24]))
def test_the_cut_into_passes_changes_nothing(batch, bytes_):
    """Claim: whatever fits into a pass, down to one tangent, samples and columns come out right."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("preimage.torch_network._PASS_BYTES", bytes_)
        network = TorchNetwork(MODULES["convolutional"], 4)
        z = np.random.default_rng(batch).standard_normal((batch, 4))
        value, jacobian = network.linearize(z)
        v = np.ones((batch, network.observation_size))
        assert jacobian.shape == (batch, network.observation_size, 4)
        for i in range(batch):
            own, column = network.linearize(z[i : i + 1])
            np.testing.assert_allclose(value[i], own[0], rtol=0, atol=1e-12)
            np.testing.assert_allclose(jacobian[i], column[0], rtol=0, atol=1e-12)
        np.testing.assert_allclose(network.vjp(z, v), jacobian.sum(axis=1), atol=1e-11)
        np.testing.assert_allclose(network(z), value, atol=1e-12)


def test_the_module_is_neither_changed_nor_shared():
    module = convolutional()
    before = copy.deepcopy(module.state_dict())
    network = TorchNetwork(module, 4)
    z = np.ones(4)
    value = network(z)
    assert next(module.parameters()).dtype == torch.float32
    assert next(module.parameters()).requires_grad
    with torch.no_grad():
        next(module.parameters()).zero_()
    np.testing.assert_array_equal(network(z), value)
    assert before.keys() == module.state_dict().keys()


def test_a_digest_is_of_the_content():
    """Claim: equal copies are equal, after a trip through pickle too; any difference shows."""
    torch.manual_seed(3)
    module = nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(0.2), nn.Linear(8, 9))
    network = TorchNetwork(module, 4)
    assert TorchNetwork(copy.deepcopy(module), (4,)) == network
    assert pickle.loads(pickle.dumps(network)) == network
    others = [copy.deepcopy(module) for _ in range(2)]
    with torch.no_grad():
        others[0][2].bias[3] += 1e-6
    others[1][1].negative_slope = 0.3
    labelled = Labelled()
    networks = [network, *(TorchNetwork(other, 4) for other in others)]
    networks += [TorchNetwork(labelled, 4, {"label": [i]}) for i in range(2)]
    networks += [TorchNetwork(labelled, 4, {"label": [0], "gain": 2.0}), network.draft]
    assert len({each.digest for each in networks}) == len(networks)


def test_arguments_are_fixed_by_name_or_by_index():
    torch.manual_seed(4)
    module = Labelled().double()
    noise = torch.linspace(0, 1, 8).double()[None]
    network = TorchNetwork(module, 4, {1: [2], "noise": noise, "gain": 3.0})
    z = np.random.default_rng(5).standard_normal((5, 4))
    with torch.no_grad():
        expected = module(torch.as_tensor(z), torch.full((5,), 2), noise, 3.0)
    np.testing.assert_allclose(network(z), expected, atol=1e-14)
    np.testing.assert_allclose(network.linearize(z)[1], differences(network, z), atol=1e-7)


@pytest.mark.parametrize(
    ("fixed", "message"),
    [
        ({}, "takes 'z', 'label'.*fixed={'label'"),
        ({"labels": [0]}, "no argument 'labels'; it has 'z', 'label', 'noise', 'gain'"),
        ({7: [0]}, "no argument 7"),
        ({1: [0], "label": [0]}, "'label' was given twice"),
        ({"label": [0, 1]}, r"leading dimension of 1.*\(2,\)"),
        ({"label": 0}, "its forward failed"),
        ([0], "a dictionary"),
        ({"z": [[0.0]], "label": [0], "noise": [[0.0]], "gain": 1.0}, "leave the latent out"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(fixed, message):
    with pytest.raises(preimage.InputError, match=message):
        TorchNetwork(Labelled(), 4, fixed)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5)), r"model.1 \(BatchNorm1d\) is in train"),
        (nn.Sequential(nn.Linear(4, 50), nn.Dropout()), r"model.1 \(Dropout\) is in training mode"),
        (nn.BatchNorm1d(4, track_running_stats=False).eval(), "depends on the others"),
        (Applied(lambda z: z + torch.randn_like(z)), "two evaluations"),
        (Applied(lambda z: functional.dropout(z.repeat(1, 9))), "two evaluations"),
        (Applied(lambda z: (z, z)), "one tensor of real numbers as output, got tuple"),
        (Applied(lambda z: z > 0), "got torch.bool"),
        (Applied(lambda z: z.bfloat16()), "got torch.bfloat16; wrap .* as float32 or float64"),
        (Applied(lambda z: z.sum(0)), r"output of shape \(3, ...\)"),
        (Applied(lambda z: z / 0), "not finite"),
        (Applied(lambda z: (z @ z.new_ones(4, 3)).squeeze()), r"squeeze\(\) drops the batch"),
        (Applied(lambda z: z.detach().square()), "derivative|differentiate"),
        (Applied(lambda z: z.round() * 3), "its derivative is 0"),
        (Applied(Wrong.apply), "in forward and in reverse mode differ"),
        (Applied(Straight.apply), "not those of its outputs"),
        (Applied(lambda z: rounded(z, 1)), "straight-through estimator"),
        (Applied(lambda z: rounded(z, 8)), "straight-through estimator"),
        (Applied(lambda z: rounded(z.sin(), 255)), "straight-through estimator"),
        (Applied(lambda z: z + z.abs().detach()), "not those of its outputs"),
        (
            Applied(lambda z: torch.cat(list(z.squeeze()))[None].view(len(z), 4)),
            "a batch of 1 latents",
        ),
        (nn.Linear(5, 3), r"forward failed at a batch of 3 latents of shape \(4,\)"),
        (lambda z: z, "expected a torch.nn.Module"),
    ],
)
def test_what_is_no_function_of_a_latent_is_refused(module, message):
    with pytest.raises(preimage.InputError, match=message):
        TorchNetwork(module, 4)


@pytest.mark.parametrize("shape", [(), 0, (4, -1), (2.0, 2)])
def test_latent_shapes_are_checked(shape):
    with pytest.raises(preimage.InputError, match="latent_shape"):
        TorchNetwork(nn.Linear(4, 3), shape)


def test_statistics_that_were_never_updated_are_said():
    module = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5)).eval()
    with pytest.warns(UserWarning, match=r"model.1 \(BatchNorm1d\) were never updated"):
        network = TorchNetwork(module, 4)
    assert network.draft is not None  # the draft does not say it again


def test_latents_of_any_shape_are_flat_vectors():
    torch.manual_seed(6)
    module = nn.ConvTranspose2d(3, 2, 3)
    network = TorchNetwork(module, (3, 2, 1))
    z = np.random.default_rng(0).standard_normal((2, 6))
    with torch.no_grad():
        expected = module(torch.as_tensor(z.reshape(2, 3, 2, 1)).float())
    assert (network.latent_size, network.observation_size) == (6, 24)
    np.testing.assert_allclose(network(z), expected.reshape(2, -1), atol=1e-6)
    with pytest.raises(preimage.InputError, match=r"latent: expected shape \(6,\)"):
        network(np.zeros((2, 5)))
    with pytest.raises(preimage.InputError, match="v: expected shape"):
        network.vjp(z, z)


def test_a_module_explains_its_own_outputs_in_float32():
    """Claim: no descent ends at a code that leaves an entry above the rounding of float32."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(32, 512), nn.LayerNorm(512), nn.GELU(), nn.Linear(512, 784), nn.Sigmoid()
    )
    codes = torch.tensor(np.random.default_rng(98765).standard_normal((40, 32))).float()
    found = preimage.invert(TorchNetwork(module, 32), module(codes))
    assert set(found.status) == {"solved"}
    np.testing.assert_allclose(found.latent, codes, rtol=0, atol=1e-4)


def test_codes_of_a_convolutional_decoder_are_found():
    """Claim: on its own outputs, whole, masked or measured, the planted codes come back."""
    network = TorchNetwork(convolutional(), 4)
    codes = np.random.default_rng(7).standard_normal((4, 4))
    x = network(codes)
    rng = np.random.default_rng(8)
    mask = rng.random(x.shape) < 0.5
    matrix = rng.standard_normal((20, x.shape[1]))
    for values, sensing in ((x, None), (x, mask), (x @ matrix.T, matrix)):
        found = preimage.invert(network, values, sensing=sensing)
        np.testing.assert_allclose(found.latent, codes, rtol=0, atol=1e-6)
        assert set(found.status) == {"solved"}
        np.testing.assert_allclose(found.reconstruct(network), x, rtol=0, atol=1e-6)
