"""Networks from torch modules. torch is imported by the functions, never by this module."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from preimage.errors import FormatError, InputError
from preimage.generator import Generator
from preimage.io.comparison import MAX_MATRIX_BYTES, NotKnownError, differs, probes
from preimage.io.limits import check_whole
from preimage.network import Network
from preimage.torch_checks import ForwardError, as_shape, check_module
from preimage.torch_modules import is_training, torch, unwrapped
from preimage.torch_network import TorchNetwork

# Relative rounding errors of a whole network, by the precision in which torch evaluates it.
_ROUNDING = {"float64": 1e-9, "float32": 1e-4}
_OWN_ROUNDING, _SMALL_SCALE = 1e-3, 3.0  # when compared in the module's own precision
_MOST_CANDIDATES = 24  # input shapes that are tried


def from_torch(
    module: Any,
    input_shape: Sequence[int] | int | None = None,
    *,
    fixed: Mapping[str | int, Any] | None = None,
    max_matrix_bytes: int = MAX_MATRIX_BYTES,
) -> Network:
    """Turn a torch module into a network.

    Where the module is piecewise affine, with smooth activations between at most, and its matrices
    are small, its layers become known: the result is a ``Generator``, which every method takes.
    All that is affine between two activations becomes one layer; torch itself computes the
    matrices, in float64. Residual sums and concatenations pass activations in rows of slope 1.
    Any other module that torch can differentiate is run by torch: the result is a
    ``TorchNetwork``, which joint and gradient methods take. Either is compared with the module at
    latents of several scales. The module is neither changed nor shared with.

    The latent and the observation are the flattened input and output, last dimension fastest.

    Args:
        module: An ``nn.Module``, or a method of one: ``vae``, ``vae.decode``.
        input_shape: Of one latent, without the batch: ``(100,)``, ``100`` or ``(100, 1, 1)``. None
            finds it from the first weights.
        fixed: Values of the other inputs of the module, by name or index, each with a leading
            dimension of 1: ``{"label": torch.tensor([3])}``.
        max_matrix_bytes: A module with a layer whose matrix, dense or CSR, would take more is run.

    Raises:
        InputError: Not an ``nn.Module``, a shape that is none, or a module that cannot be run: its
            output is random or no tensor, it is in train mode, or it has no derivative.
        FormatError: The layers found and the module differ.
        MissingExtraError: torch is not installed.
    """
    module = unwrapped(module)
    check_module(module)
    check_whole("max_matrix_bytes", max_matrix_bytes, 0)
    network = _runnable(module, input_shape, fixed or {})
    weights = [w for w in (*module.parameters(), *module.buffers()) if w.is_floating_point()]
    # In training mode both modes were compared.
    if not is_training(module) and all(w.dtype == torch.float32 for w in weights):
        _compare_with_draft(network)
    return with_layers(network, max_matrix_bytes)


def with_layers(network: TorchNetwork, max_matrix_bytes: int) -> Network:
    """A network as its layers where they are known, else as it is.

    Raises:
        FormatError: The layers found and the network differ.
    """
    try:
        return known_layers(network, max_matrix_bytes)
    except NotKnownError:
        return network


def known_layers(network: TorchNetwork, max_matrix_bytes: int = MAX_MATRIX_BYTES) -> Generator:
    """The layers of a network that torch runs.

    Raises:
        NotKnownError: It has none that are known; the message says why.
        FormatError: The layers found and the network differ.
    """
    from preimage.io.torch_graph import as_chain

    latent = torch.zeros((1, network.latent_size), dtype=getattr(torch, network.precision))
    generator = as_chain(network.evaluate, latent.to(network.device), max_matrix_bytes)
    z = probes(network.latent_size)
    stages = generator.preactivations(z)
    size = np.max([np.abs(a).max(axis=1, initial=0.0) for a in stages], axis=0)
    if differs(generator(z), network(z), size, _ROUNDING[network.precision]):
        raise FormatError(
            "module: the layers that torch traces differ from what it computes; please report this"
        )
    return generator


def _runnable(
    module: Any, input_shape: Sequence[int] | int | None, fixed: Mapping[str | int, Any]
) -> TorchNetwork:
    from preimage.io.torch_graph import BySample

    if input_shape is None:
        tried = [(module, shape) for shape in _candidates(module)]
    else:
        shape = as_shape(input_shape, "input_shape")
        tried = [(module, shape)]
        if not fixed:  # it may take one latent at a time
            tried += [(BySample(module, one), shape) for one in ((1, *shape), shape)]
    first: ForwardError | None = None
    for each, shape in tried:
        for precision in ("float64", "float32"):  # to which a forward may convert by itself
            try:
                return TorchNetwork(each, shape, fixed, precision)
            except ForwardError as error:
                first = first or error
            except InputError:
                if precision == "float64":
                    raise
    if input_shape is not None and first is not None:
        raise first
    raise FormatError(
        "model: the shape of a latent cannot be inferred; pass input_shape, for example "
        "input_shape=(100,)" + (f" ({first})" if first else "")
    )


def _candidates(module: Any) -> list[tuple[int, ...]]:
    """Shapes that a latent may have, from the weights, in the order of the modules."""
    nn = torch.nn
    found: list[tuple[int, ...]] = []
    for part in module.modules():
        if isinstance(part, nn.Linear):
            found.append((part.in_features,))
        if isinstance(part, nn.Unflatten) and part.dim == 1:
            found.append((math.prod(part.unflattened_size),))
        if isinstance(part, nn.modules.conv._ConvTransposeNd):
            found += [(part.in_channels, *(1,) * len(part.kernel_size)), (part.in_channels,)]
    for parameter in [*module.parameters(), *module.buffers()]:
        if parameter.ndim == 2:
            found += [(parameter.shape[1],), (parameter.shape[0],)]
    return [shape for shape in dict.fromkeys(found) if 0 not in shape][:_MOST_CANDIDATES]


def _compare_with_draft(network: TorchNetwork) -> None:
    """Compare a network with its draft, whose precision is that of the module it was made from."""
    if network.draft is None:
        return
    z = probes(network.latent_size, most=_SMALL_SCALE)
    found, expected = network(z), network.draft(z)
    size = np.abs(found).max(axis=1, initial=0.0) + 1.0
    if differs(found, expected, size, _OWN_ROUNDING):
        raise FormatError(
            "module: in float64 it computes something else than in its own precision, so that it "
            "depends on rounding, or on its type of numbers"
        )
