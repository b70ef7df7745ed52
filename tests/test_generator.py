import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from planted import gaussian_generator
from scipy import sparse
from scipy.sparse.linalg import aslinearoperator

from preimage import Generator, InputError, Layer, LeakyReLU, from_arrays
from preimage.network import Network

ACTIVATIONS = ["relu", "leaky_relu(0.1)", "identity", "tanh", "sigmoid"]


def torch_twin(generator, z):
    """The same network in torch, for an independent forward pass and gradient."""
    value = torch.tensor(z, requires_grad=True)
    functions = {
        "ReLU": torch.relu,
        "Identity": lambda a: a,
        "Tanh": torch.tanh,
        "Sigmoid": torch.sigmoid,
        "LeakyReLU": lambda a: torch.nn.functional.leaky_relu(a, 0.1),
    }
    out = value
    for layer in generator.layers:
        weight = torch.tensor(np.array(layer.dense_weight))
        out = functions[type(layer.activation).__name__](
            out @ weight.T + torch.tensor(np.array(layer.bias))
        )
    return value, out


@pytest.mark.parametrize("activation", ACTIVATIONS)
@given(seed=st.integers(0, 10**6), batch=st.integers(1, 4))
def test_forward_vjp_and_jacobian_agree_with_torch(activation, seed, batch):
    rng = np.random.default_rng(seed)
    generator = gaussian_generator((3, 7, 5), rng, activation, bias=True)
    z, v = rng.normal(size=(batch, 3)), rng.normal(size=(batch, 5))
    value, out = torch_twin(generator, z)
    out.backward(torch.tensor(v))
    np.testing.assert_allclose(generator(z), out.detach().numpy(), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(generator.vjp(z, v), value.grad.numpy(), rtol=1e-10, atol=1e-13)
    jacobian = generator.jacobian(z)
    image, slopes = generator.linearize(z)
    np.testing.assert_array_equal(image, generator(z))
    np.testing.assert_array_equal(slopes, jacobian)
    along = np.einsum("bnk,bk->bn", jacobian, z)
    np.testing.assert_allclose(generator.jvp(z, z), along, rtol=1e-10, atol=1e-13)
    assert jacobian.shape == (batch, 5, 3)
    np.testing.assert_allclose(
        np.einsum("bn,bnk->bk", v, jacobian), value.grad.numpy(), rtol=1e-10, atol=1e-13
    )


def test_sparse_weights_compute_what_dense_ones_do():
    rng = np.random.default_rng(0)
    dense = gaussian_generator((4, 9, 6), rng, "relu", bias=True)
    thin = Generator(
        tuple(Layer(sparse.coo_array(la.weight), la.bias, la.activation) for la in dense.layers)
    )
    z, v = rng.normal(size=(5, 4)), rng.normal(size=(5, 6))
    np.testing.assert_allclose(thin(z), dense(z), rtol=1e-13)
    np.testing.assert_allclose(thin.jacobian(z), dense.jacobian(z), rtol=1e-13)
    np.testing.assert_allclose(thin.vjp(z, v), dense.vjp(z, v), rtol=1e-12)
    assert thin.jacobian(z[:0]).shape == (0, 6, 4)


def test_a_generator_is_a_network():
    generator = gaussian_generator((4, 9), np.random.default_rng(0))
    assert isinstance(generator, Network)
    assert generator.draft is None


def test_a_single_vector_is_squeezed():
    generator = gaussian_generator((4, 9), np.random.default_rng(0))
    assert generator(np.zeros(4)).shape == (9,)
    assert generator.jacobian(np.zeros(4)).shape == (9, 4)
    assert generator.vjp(np.zeros(4), np.zeros(9)).shape == (4,)
    assert generator(np.zeros((0, 4))).shape == (0, 9)


def test_no_latent_coordinates_is_a_constant():
    generator = from_arrays([np.zeros((3, 0))], [[1.0, -1.0, 0.0]])
    np.testing.assert_array_equal(generator(np.zeros((2, 0))), [[1, 0, 0]] * 2)
    assert generator.jacobian(np.zeros((2, 0))).shape == (2, 3, 0)


def test_equality_and_hash_follow_the_content():
    def make():
        return gaussian_generator((3, 5), np.random.default_rng(1), bias=True)

    layer = make().layers[0]
    assert make() == make()
    assert hash(make()) == hash(make())
    assert make() != from_arrays([layer.weight], [layer.bias], LeakyReLU(0.1))
    assert make() != from_arrays([layer.weight])
    assert Layer([[0.0]]) == Layer([[-0.0]])
    assert len({make(), make()}) == 1


def test_arrays_are_copied_and_frozen():
    weight = np.eye(2)
    generator = from_arrays([weight])
    weight[0, 0] = 7
    assert generator.layers[0].weight[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        generator.layers[0].weight[0, 0] = 3


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int8, bool])
def test_narrow_numbers_are_promoted_exactly(dtype):
    weight = np.array([[0.1, 1.0]]).astype(dtype)
    layer = Layer(weight)
    assert layer.weight.dtype == np.float64
    assert (layer.weight.astype(dtype) == weight).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Generator(()), "at least one layer"),
        (lambda: from_arrays([]), "at least one layer"),
        (lambda: Generator(("relu",)), r"layers\[0\]: expected a Layer, got str"),
        (lambda: from_arrays([np.eye(2), np.eye(3)]), r"layers\[1\]: expected 2 inputs"),
        (lambda: Layer([[1.0, np.nan]]), r"weight: .*finite.*nan at index \(0, 1\)"),
        (lambda: Layer([[1.0]], [np.inf]), r"bias: .*inf at index \(0,\)"),
        (lambda: Layer(sparse.csr_array([[np.nan, 1.0]])), r"weight.*nan"),
        (lambda: Layer([[1j]]), "weight: expected real numbers.*complex"),
        (lambda: Layer(np.array([[None]])), "weight: expected real numbers.*object"),
        (lambda: Layer([[1.0], [1.0, 2.0]]), "weight: expected an array"),
        (lambda: Layer([["a"]]), "weight: expected real numbers"),
        (lambda: Layer(np.ones(3)), r"weight: expected shape \(outputs, inputs\)"),
        (lambda: Layer(np.ones((2, 3)), np.ones(3)), r"bias: expected shape \(2,\)"),
        (lambda: from_arrays([np.eye(2)], []), "biases: expected 1, one a weight, got 0"),
        (lambda: from_arrays([np.eye(2), [[np.nan] * 2]]), "layer 1: weight"),
        (lambda: from_arrays([np.eye(2)], head="gelu"), "head: expected one of"),
        (lambda: from_arrays([np.eye(2)])(np.ones(3)), r"latent: expected shape \(2,\)"),
        (lambda: from_arrays([np.eye(2)])(np.ones((1, 1, 2))), "latent: expected shape"),
        (lambda: from_arrays([np.eye(2)]).vjp(np.ones(2), np.ones(3)), "v: expected shape"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("as_csr", [False, True])
def test_fixed_coordinates_become_a_bias(as_csr):
    """Claim: exact, to the rounding of one sum; the other coordinates keep their order."""
    rng = np.random.default_rng(5)
    first = rng.standard_normal((6, 4))
    weights = [sparse.csr_array(first) if as_csr else first, rng.standard_normal((7, 6))]
    generator = from_arrays(weights, [rng.standard_normal(6), None], "leaky_relu(0.2)")
    z = rng.standard_normal((5, 4))
    z[:, [0, 2]] = 0.5, -1.5
    fixed = generator.fix({2: -1.5, 0: 0.5})
    assert fixed(z[:, [1, 3]]) == pytest.approx(generator(z), abs=1e-14)
    assert generator.fix({}) == generator
    for bad in ({4: 1.0}, {-1: 1.0}, {0.5: 1.0}, {0: np.nan}, dict.fromkeys(range(4), 0.0)):
        with pytest.raises(InputError):
            generator.fix(bad)


def test_a_layer_takes_no_operator():
    """Claim: what has no matrix is refused where layers are made, and says what to do."""
    with pytest.raises(InputError, match=r"expected a dense or sparse matrix.*from_torch"):
        Layer(aslinearoperator(np.eye(3)))
