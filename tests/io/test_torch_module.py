"""Torch modules: the outputs agree, and what is not understood is named with its place."""

from __future__ import annotations

import sys
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from preimage.activation import Identity, LeakyReLU, ReLU, Tanh
from preimage.errors import FormatError, InputError, MissingExtraError
from preimage.io import from_torch


def agree(module: nn.Module, latent_size: int = 3) -> None:
    generator = from_torch(module)
    z = torch.randn(11, latent_size, dtype=torch.float64)
    expected = module.double()(z).detach().reshape(11, -1).numpy()
    np.testing.assert_allclose(generator(z.numpy()), expected, rtol=1e-12, atol=1e-12)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize(
    "activation",
    [nn.ReLU(), nn.LeakyReLU(0.2), nn.Tanh(), nn.Sigmoid(), nn.Identity()],
    ids=lambda module: type(module).__name__,
)
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_agree(activation, bias):
    agree(nn.Sequential(nn.Linear(3, 6, bias=bias), activation, nn.Linear(6, 8, bias=bias)))


def test_nested_with_reshapes_and_dropout():
    module = nn.Sequential(
        nn.Unflatten(1, (3, 1)),
        nn.Flatten(),
        nn.Sequential(OrderedDict(fc=nn.Linear(3, 6), act=nn.ReLU())),
        nn.Dropout(0.5),
        nn.Sequential(nn.Linear(6, 8), nn.Identity(), nn.LeakyReLU(0.3)),
        nn.Unflatten(1, (2, 2, 2)),
        nn.Flatten(),
        nn.Linear(8, 12),
        nn.Sigmoid(),
        nn.Unflatten(-1, (3, 4)),
    ).eval()
    agree(module)
    assert from_torch(module).sizes == (3, 6, 8, 12)


def test_linears_in_a_row_are_one_layer():
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 6))
    assert from_torch(module).sizes == (3, 5, 6)
    assert [layer.activation for layer in from_torch(module).layers] == [ReLU(), Identity()]
    agree(module)


def test_one_linear_and_heirs():
    class Head(nn.Tanh):
        pass

    agree(nn.Linear(3, 4))
    agree(nn.Sequential(nn.Linear(3, 4), Head()))
    assert from_torch(nn.Sequential(nn.Linear(3, 4), Head())).layers[0].activation == Tanh()


def test_heirs_with_a_forward_of_their_own_are_followed():
    agree(nn.Sequential(Doubled(3, 4), nn.ReLU(), Doubled(4, 6)))


def test_linear_on_the_last_of_several_dimensions():
    agree(nn.Sequential(nn.Linear(3, 4), nn.Unflatten(1, (2, 2)), nn.Linear(2, 5), nn.ReLU()))


def test_slope_is_exact():
    module = nn.Sequential(nn.Linear(3, 4), nn.LeakyReLU(1 / 3))
    assert from_torch(module).layers[0].activation == LeakyReLU(1 / 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_promotion_is_exact_and_nothing_is_shared(dtype):
    module = nn.Linear(3, 4).to(dtype)
    expected = module.weight.detach().double().numpy().copy()
    generator = from_torch(module)
    assert np.array_equal(generator.layers[0].weight, expected)
    with torch.no_grad():
        module.weight.zero_()
    assert np.array_equal(generator.layers[0].weight, expected)


def hooked() -> nn.Module:
    linear = nn.Linear(3, 4)
    linear.register_forward_hook(lambda module, args, output: 2 * output)
    return linear


class Doubled(nn.Linear):
    def forward(self, input):
        return 2 * super().forward(input)


def not_finite() -> nn.Module:
    linear = nn.Linear(3, 4)
    with torch.no_grad():
        linear.weight[1, 2] = torch.nan
    return linear


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            nn.Sequential(
                nn.Linear(3, 4), nn.ReLU(), nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 1, 3)))
            ),
            r"model\.2\.conv: Conv2d: expected a tensor of shape .*got shape \(1, 4\)",
        ),
        (
            nn.Sequential(nn.Linear(3, 4), nn.GELU()),
            r"model\.1: GELU is not supported; .*Sequential, Linear",
        ),
        (nn.Sequential(nn.ReLU(), nn.Linear(3, 4)), r"model\.0: ReLU is not preceded by a Linear"),
        (
            nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Tanh()),
            r"model\.2: Tanh is not preceded by a Linear of its own",
        ),
        (nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.1)), r"model\.1: .*call \.eval\(\)"),
        (
            nn.Sequential(nn.Linear(3, 4), nn.Flatten(0)),
            r"model\.1: Flatten: the first dimension is the batch",
        ),
        (nn.Sequential(nn.Linear(3, 4), nn.Unflatten(0, (1, 1))), "expected one of dimension 1"),
        (nn.Sequential(nn.Linear(3, 4), nn.Unflatten(1, (3, 2))), r"\(3, 2\) does not fit 4"),
        (nn.Sequential(nn.Linear(3, 4), nn.Linear(5, 6)), r"model\.1: Linear: expected 4 inputs"),
        (nn.Sequential(nn.Linear(3, 4), nn.LeakyReLU(0.0)), r"model\.1: LeakyReLU: slope"),
        (nn.Sequential(nn.Identity()), "at least one Linear"),
        (nn.Sequential(), "at least one Linear"),
        (nn.Sequential(hooked()), r"model\.0: Linear has forward hooks"),
        (nn.Sequential(nn.LazyLinear(4)), r"model\.0: LazyLinear has no weights yet"),
        (nn.Linear(3, 4, dtype=torch.complex64), r"model\.weight: .*complex64"),
        (nn.Sequential(not_finite()), r"model\.0\.weight: .*index \(1, 2\)"),
    ],
)
def test_what_is_not_understood(module, message):
    with pytest.raises(InputError, match=message):
        from_torch(module)


def test_dropout_of_nothing_may_train():
    agree(nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.0)))


def test_not_a_module():
    with pytest.raises(InputError, match=r"expected a torch\.nn\.Module, got list"):
        from_torch([nn.Linear(3, 4)])
    assert issubclass(FormatError, ValueError)


def test_torch_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"preimage\[torch\]"):
        from_torch(None)
