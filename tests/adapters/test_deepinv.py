"""The reconstructor beside the real DeepInverse."""

import numpy as np
import pytest
import torch

import preimage

try:
    import torchvision  # noqa: F401
except RuntimeError:
    # The torchvision that registries serve for Linux is compiled for CUDA, and its compiled part
    # of no use to a torch for the CPU. DeepInverse imports it, and nothing here needs it: it is
    # enough that what it lacks has a name.
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for _name in ("nms", "qnms"):
        _library.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import deepinv

from preimage.adapters.deepinv import PreimageReconstructor


@pytest.fixture
def planted():
    rng = np.random.default_rng(0)
    generator = preimage.from_arrays([rng.standard_normal((24, 4)), rng.standard_normal((64, 24))])
    images = torch.as_tensor(generator(rng.standard_normal((3, 4)))).reshape(3, 1, 8, 8)
    return generator, images


def half(images):
    mask = torch.ones(1, 8, 8, dtype=images.dtype)
    mask[:, :4] = 0
    return deepinv.physics.Inpainting(img_size=(1, 8, 8), mask=mask)


@pytest.mark.parametrize("entries", [2**24, 0], ids=["matrix", "operator"])
def test_half_of_an_image_gives_the_rest(planted, monkeypatch, entries):
    """Claim: the images come back, whether the physics becomes a matrix or stays an operator."""
    monkeypatch.setattr("preimage.adapters.deepinv._MATRIX_ENTRIES", entries)
    generator, images = planted
    physics = half(images)
    y = physics(images)
    found = PreimageReconstructor(generator, (1, 8, 8), preimage.GaussNewton())(y, physics)
    assert (found.shape, found.dtype) == (images.shape, torch.float64)
    torch.testing.assert_close(found, images, rtol=0, atol=1e-5)


def test_a_decoder_that_torch_runs():
    """Claim: a convolutional decoder's images come back from half of their pixels, blurred."""
    torch.manual_seed(0)
    nn = torch.nn
    decoder = nn.Sequential(
        nn.Linear(4, 32), nn.Unflatten(1, (8, 2, 2)), nn.GELU(), nn.ConvTranspose2d(8, 4, 4, 2, 1),
        nn.GroupNorm(2, 4), nn.SiLU(), nn.ConvTranspose2d(4, 1, 4, 2, 1),
    )  # fmt: skip
    network = preimage.TorchNetwork(decoder, 4)
    images = torch.as_tensor(network(np.random.default_rng(1).standard_normal((3, 4))))
    images = images.reshape(3, 1, 8, 8)
    blur = deepinv.physics.Blur(filter=torch.ones(1, 1, 3, 3).double() / 9, padding="circular")
    for physics in (half(images), blur):
        found = PreimageReconstructor(network, (1, 8, 8))(physics(images), physics)
        torch.testing.assert_close(found, images, rtol=0, atol=1e-5)


def test_blurred_images_in_single_precision(planted):
    generator, images = planted
    blur = deepinv.physics.Blur(filter=torch.ones(1, 1, 3, 3) / 9, padding="circular")
    y = blur(images.float())
    found = PreimageReconstructor(generator, (1, 8, 8), noise=1e-5)(y, blur)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, images.float(), rtol=0, atol=1e-2)


@pytest.mark.filterwarnings("ignore:non_blocking_transfers:UserWarning")  # its own default
def test_it_runs_where_deepinverse_wants_a_model(planted):
    """Claim: DeepInverse's own evaluation takes it, and finds that the images are the true ones."""
    generator, images = planted
    physics = half(images)
    data = [{"x": x, "y": y} for x, y in zip(images, physics(images), strict=True)]
    model = PreimageReconstructor(generator, (1, 8, 8), preimage.GaussNewton())
    results = deepinv.test(
        model, torch.utils.data.DataLoader(data, batch_size=3), physics, device="cpu",
        metrics=deepinv.metric.MSE(), online_measurements=False, verbose=False,
        show_progress_bar=False, compare_no_learning=False,
    )  # fmt: skip
    assert results["MSE"] < 1e-10


def test_misuse_is_refused(planted):
    generator, images = planted
    physics = half(images)
    with pytest.raises(preimage.InputError, match="64 pixels"):
        PreimageReconstructor(generator, (1, 7, 7))
    model = PreimageReconstructor(generator, (1, 8, 8))
    with pytest.raises(preimage.InputError, match="LinearPhysics"):
        model(images, deepinv.physics.Physics())
    with pytest.raises(preimage.InputError, match="y: expected"):
        model(physics(images)[:, :, :4], physics)
    many = deepinv.physics.Inpainting(img_size=(1, 8, 8), mask=torch.ones(3, 1, 8, 8))
    with pytest.raises(preimage.InputError, match="3 of one image"):
        model(images, many)
    large = deepinv.physics.Inpainting(img_size=(1, 9, 9), mask=torch.ones(1, 9, 9))
    with pytest.raises(preimage.InputError, match="refuses"):
        model(images, large)
