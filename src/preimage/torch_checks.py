"""What a torch module must be to be run as a network; each check says what to do."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from preimage.errors import FormatError, InputError
from preimage.matrix import Array
from preimage.network import Network
from preimage.torch_modules import torch

Tensor = Any

# Errors of rounding that are accepted, in units of the precision.
_ROUNDING = 1e3
# Steps of differences, for modules that round more than their precision says, and the relative
# error that is accepted.
_STEPS, _DIFFERENCE = (1e-4, 1e-2), 0.05


class ForwardError(InputError):
    """A forward does not take latents of this shape, or not in a batch."""


class UntrainedWarning(UserWarning):
    """A batch norm has the running statistics of a new module."""


def check_module(module: Any) -> None:
    """Check that something is a torch module with weights.

    Raises:
        InputError: It is not.
    """
    if not isinstance(module, torch.nn.Module):
        remedies = {
            "ExportedProgram": "; pass its module()",
            "function": "; pass a module, or a method of one, such as vae.decode",
            "partial": "; pass the module, and the arguments of the partial by `fixed`",
        }
        remedy = remedies.get(type(module).__name__, "")
        if isinstance(module, Mapping):
            remedy = "; load the weights into the module first, by module.load_state_dict"
        raise InputError(f"module: expected a torch.nn.Module, got {type(module).__name__}{remedy}")
    for name, part in module.named_modules():
        if any(torch.nn.parameter.is_lazy(p) for p in part.parameters(recurse=False)):
            kind = type(part).__name__
            raise FormatError(f"{_path(name)}: {kind} has no weights yet; run it once")
    if any(p.is_meta for p in (*module.parameters(), *module.buffers())):
        raise FormatError("model: its weights are on the meta device; load them first")


def as_shape(shape: Any, argument: str) -> tuple[int, ...]:
    """A shape of positive integers; a number is a shape of one dimension."""
    sizes = tuple(shape) if isinstance(shape, Iterable) else (shape,)
    whole = all(isinstance(n, (int, np.integer)) and n > 0 and n is not True for n in sizes)
    if not sizes or not whole:
        raise InputError(f"{argument}: expected positive integers, got {shape!r}")
    return tuple(int(n) for n in sizes)


def check_outputs(call: Callable[[Tensor], Any], z: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The outputs at latents z, (batch, k), if they are those of a function of one latent.

    Raises:
        ForwardError: The forward fails, or gives another shape.
        InputError: It is random, mixes the samples of a batch, or does not give one tensor of
            finite real numbers.
    """

    def run(z: Tensor) -> Any:
        try:
            return call(z)
        except Exception as error:  # the code of a forward can raise anything
            raise ForwardError(
                f"module: its forward failed at a batch of {len(z)} latents of shape {shape} in "
                f"{z.dtype}: {type(error).__name__}: {error}"
            ) from error

    found, again = run(z), run(z)
    if not isinstance(found, torch.Tensor) or found.dtype not in (torch.float32, torch.float64):
        kind = found.dtype if isinstance(found, torch.Tensor) else type(found).__name__
        raise InputError(
            f"module: expected one tensor of real numbers as output, got {kind}; "
            "wrap the module in one that returns what is observed, as float32 or float64"
        )
    if not found.ndim or len(found) != len(z) or not found.numel():
        raise ForwardError(
            f"module: expected an output of shape ({len(z)}, ...) for a batch of {len(z)} "
            f"latents of shape {shape}, got {tuple(found.shape)}"
        )
    if not torch.isfinite(found).all():
        raise InputError("module: its output is not finite at latents from N(0, I)")
    if not torch.equal(found, again):
        raise InputError(
            "module: two evaluations at the same latents differ; switch off what is random in it, "
            "such as noise, or give the random values by `fixed`"
        )
    # Of both signs, as a forward may branch on the sum or the largest value of a batch.
    signed = torch.cat([z, -2 * z])
    singles = zip(run(signed).split(1), signed.split(1), strict=False)
    for expected, part in ((found[1:], z[1:]), *singles):
        alone = run(part)
        if alone.shape != expected.shape:
            raise ForwardError(
                f"module: expected an output of shape {tuple(expected.shape)} for a batch of "
                f"{len(part)}, got {tuple(alone.shape)}; a forward that ends in squeeze() drops "
                "the batch, too: name the dimension, as in squeeze(1)"
            )
        if not _close(expected, alone):
            raise InputError(
                "module: the output of a sample depends on the others of its batch, as with a "
                "batch norm without running statistics; each must depend on its own latent alone"
            )
    return found


def check_mode(original: Any, training: Tensor, found: Tensor) -> None:
    """Check that a module, parts of which are in training mode, computes the same in eval mode.

    ``training`` and ``found`` are its outputs in either; InputError if they differ.
    """
    if _close(training, found):
        return
    kinds = torch.nn.modules.batchnorm._NormBase, torch.nn.modules.dropout._DropoutNd
    parts = [(name, part) for name, part in original.named_modules() if part.training]
    name, part = next((pair for pair in parts if isinstance(pair[1], kinds)), parts[0])
    raise InputError(
        f"module: {_path(name)} ({type(part).__name__}) is in training mode, in which the module "
        "computes something else than in use; call module.eval() first"
    )


def check_statistics(module: Any) -> None:
    """Warn of a batch norm whose running statistics are those of a new module."""
    for name, part in module.named_modules():
        mean: Any = getattr(part, "running_mean", None)
        variance: Any = getattr(part, "running_var", None)
        if mean is not None and not mean.any() and not (variance - 1).any():
            warnings.warn(
                f"module: the running statistics of {_path(name)} ({type(part).__name__}) were "
                "never updated; was the module trained, and were its weights loaded?",
                UntrainedWarning,
                stacklevel=5,
            )


def check_derivatives(network: Network, z: Array, rounding: float) -> None:
    """Check ``v . (J t) = (v^T J) . t`` at latents z, (batch, k), and that J is not 0 by mistake.

    Raises:
        InputError: At a relative rounding error ``rounding`` of an operation, torch cannot
            differentiate the module, or its derivatives are not those of its outputs.
    """
    random = np.random.default_rng(1)
    t = random.standard_normal(z.shape)
    v = random.standard_normal((len(z), network.observation_size))
    try:
        forward, back = network.jvp(z, t), network.vjp(z, v)
    except Exception as error:  # what torch raises depends on the operation
        raise InputError(
            f"module: torch cannot differentiate it: {type(error).__name__}: {error}"
        ) from error
    left, right = (forward * v).sum(axis=1), (back * t).sum(axis=1)
    size = np.linalg.norm(forward, axis=1) * np.linalg.norm(v, axis=1)
    size += np.linalg.norm(back, axis=1) * np.linalg.norm(t, axis=1)
    # A derivative near 0 may be what is left of parts as large as the outputs.
    left_over = _ROUNDING * rounding * np.linalg.norm(network(z), axis=1)
    allowed = np.sqrt(rounding) * size + left_over * np.linalg.norm(v, axis=1)
    if not np.all(np.abs(left - right) <= allowed):
        raise InputError(
            "module: its derivatives in forward and in reverse mode differ, so that one is wrong; "
            "an autograd function of its own, or autocast, may be the cause"
        )
    # Units may all be inactive at z, but not at z + t as well if the outputs differ.
    flat = not forward.any() and not network.jvp(z + t, t).any()
    if flat and not np.allclose(network(z), network(z + t)):
        raise InputError("module: its derivative is 0, though its output depends on the latent")
    if not any(_is_derivative(network, z, t, forward, h) for h in (rounding ** (1 / 3), *_STEPS)):
        raise InputError(
            "module: its derivatives are not those of its outputs, as where outputs are rounded "
            "and the derivative is not (a straight-through estimator); leave that part out"
        )


def _is_derivative(network: Network, z: Array, t: Array, forward: Array, h: float) -> bool:
    """Whether ``J t`` is the central difference of step h at one latent at least.

    The others may have a kink of the network within the step.
    """
    difference = (network(z + h * t) - network(z - h * t)) / (2 * h)
    error = np.linalg.norm(difference - forward, axis=1)
    return bool((error <= _DIFFERENCE * np.linalg.norm(forward, axis=1)).any())


def _close(a: Tensor, b: Tensor) -> bool:
    """Equal but for the rounding of products of another size."""
    rounding = _ROUNDING * torch.finfo(a.dtype).eps
    return a.shape == b.shape and torch.allclose(a, b, rounding, rounding)


def _path(name: str) -> str:
    return f"model.{name}" if name else "model"
