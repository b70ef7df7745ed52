"""A torch module as a network: value, linearisation and adjoint, evaluated by torch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from preimage import torch_checks as checks
from preimage import torch_modules as modules
from preimage.errors import InputError
from preimage.matrix import Array, as_rows, slices
from preimage.torch_modules import differentiable, torch

Tensor = Any

# Bytes of the largest tensor of a pass: beyond this, memory grows and speed does not.
_PASS_BYTES = 2**23
# Samples of the latents at which a module is checked.
_PROBES = 3


@dataclass(frozen=True, eq=False, repr=False)
class TorchNetwork:
    """A module that torch evaluates and differentiates, as a ``Network``.

    A latent is the flattened input, an observation the flattened output, last dimension fastest.
    The network is a copy in eval mode, on the device of the module's weights; the module itself is
    neither changed nor shared. Two are equal when their digests are.

    Args:
        module: An ``nn.Module``, or a method of one, that takes a batch, and gives one real tensor.
        latent_shape: Of one latent, without the batch: ``(100,)`` or ``(100, 1, 1)``.
        fixed: The other arguments of a forward that takes several, by name or by index. An array
            or a tensor holds the value of one sample behind a leading dimension of 1, such as
            ``[3]`` for a label, and is repeated for every sample; anything else is passed as it is.
        precision: ``"float64"`` or ``"float32"``, in which torch computes. Arrays that come and go
            are float64.

    Raises:
        InputError: Not a module; arguments of its forward that are missing or unknown; a forward
            that fails, is random, mixes the samples of a batch, has no derivative, is not finite,
            or computes something else in training mode, in which the module is.
        MissingExtraError: torch is not installed.

    Warns:
        UserWarning: A batch norm whose running statistics were never updated.
    """

    module: Any
    latent_shape: tuple[int, ...]
    fixed: Mapping[str | int, Any] = field(default_factory=dict)
    precision: str = "float64"
    observation_shape: tuple[int, ...] = field(init=False)  # of one output, without the batch
    _latent: str | int = field(init=False)

    def __post_init__(self) -> None:
        original = modules.unwrapped(self.module)
        checks.check_module(original)
        if self.precision not in ("float64", "float32"):
            raise InputError(f"precision: expected 'float64' or 'float32', got {self.precision!r}")
        shape = checks.as_shape(self.latent_shape, "latent_shape")
        latent, fixed = modules.arguments(original, self.fixed)
        module = modules.frozen(original, getattr(torch, self.precision))
        fixed = {key: self._as_fixed(key, value) for key, value in fixed.items()}
        kept = {"module": module, "latent_shape": shape, "fixed": fixed, "_latent": latent}
        for name, value in kept.items():
            object.__setattr__(self, name, value)
        self._check(original)

    def _as_fixed(self, key: str | int, value: Any) -> Any:
        if isinstance(value, (bool, int, float, str, type(None))):
            return value
        tensor = torch.as_tensor(value).detach().clone().to(self.device)
        if tensor.ndim and len(tensor) != 1:
            raise InputError(
                f"fixed[{key!r}]: expected the value of one sample, with a leading dimension of 1, "
                f"which is repeated for every sample, got shape {tuple(tensor.shape)}"
            )
        return tensor.to(getattr(torch, self.precision)) if tensor.is_floating_point() else tensor

    @property
    def device(self) -> Any:
        """Where the first weight is."""
        first = next(iter([*self.module.parameters(), *self.module.buffers()]), None)
        return "cpu" if first is None else first.device

    @property
    def latent_size(self) -> int:
        """k, the number of latent coordinates."""
        return math.prod(self.latent_shape)

    @property
    def observation_size(self) -> int:
        """n, the number of output entries."""
        return math.prod(self.observation_shape)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what the network computes: the code of its modules, attributes, weights."""
        return modules.digest(
            self.module, self.fixed, self.latent_shape, self.precision, self._latent
        )

    @cached_property
    def draft(self) -> TorchNetwork | None:
        """The same network in float32, for the first steps of a descent; of that one, None."""
        if self.precision == "float32":
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return replace(self, precision="float32")

    def __call__(self, z: ArrayLike) -> Array:
        """``G(z)``.

        Args:
            z: Shape (latent_size,) or (batch, latent_size).

        Returns:
            Shape (observation_size,) or (batch, observation_size), float64.
        """
        latent, single = as_rows(z, self.latent_size, "latent")
        with torch.no_grad(), differentiable():
            outputs = self._in_parts(self.observation_size, self.evaluate, latent)
        return outputs[0] if single else outputs

    def evaluate(self, z: Tensor) -> Tensor:
        """``G(z)`` by torch, for losses of one's own: gradients flow to ``z``.

        Args:
            z: A tensor (batch, latent_size) in the network's precision, on its device.

        Returns:
            (batch, observation_size).
        """
        return self._call(z).reshape(len(z), -1)

    def linearize(self, z: Array) -> tuple[Array, Array]:
        """``G(z)``, (batch, n), and the Jacobians, (batch, n, k), of ``z``, (batch, k).

        Torch pushes the unit tangents of several samples through the module as one batch, in parts
        whose tensors stay small. The Jacobians are a view of (batch, k, n).
        """
        batch, k = z.shape
        outputs = np.empty((batch, self.observation_size))
        columns = np.empty((batch, k, self.observation_size))
        tangents = self._tensor(np.eye(k))[:, None]
        for samples in slices(batch, k, self._rows):
            latent = self._tensor(z[samples])
            for part in slices(k, len(latent), self._rows):
                output, pushed = self._push(latent, tangents[part])
                columns[samples, part] = _as_numpy(pushed.movedim(0, 1))
            outputs[samples] = _as_numpy(output)
        return outputs, np.swapaxes(columns, 1, 2)

    def jvp(self, z: Array, tangent: Array) -> Array:
        """``J(z) t``, (batch, n), for one tangent a sample, (batch, k)."""

        def push(z: Tensor, t: Tensor) -> Tensor:
            return self._push(z, t[None])[1][0]

        return self._in_parts(self.observation_size, push, z, tangent)

    def vjp(self, z: ArrayLike, v: ArrayLike) -> Array:
        """``v^T J(z)``, the gradient of ``v . G`` at z; shapes as in ``Generator.vjp``."""
        latent, single = as_rows(z, self.latent_size, "latent")
        cotangent, _ = as_rows(v, self.observation_size, "v", len(latent))

        def pull(z: Tensor, v: Tensor) -> Tensor:
            start = z.requires_grad_()
            return torch.autograd.grad(self.evaluate(start.clone()), start, v)[0]

        with torch.enable_grad(), differentiable():
            gradient = self._in_parts(self.latent_size, pull, latent, cotangent)
        return gradient[0] if single else gradient

    def _in_parts(self, width: int, run: Callable[..., Tensor], *rows: Array) -> Array:
        """``run`` of rows of arrays, (batch, width), a few at a time."""
        found = np.empty((len(rows[0]), width))
        for part in slices(len(found), 1, self._rows):
            found[part] = _as_numpy(run(*(self._tensor(each[part]) for each in rows)))
        return found

    def _tensor(self, values: Array) -> Tensor:
        dtype = getattr(torch, self.precision)
        return torch.tensor(values, dtype=dtype, device=self.device)

    def _call(self, z: Tensor, module: Any = None) -> Tensor:
        """The module's output for latents (batch, k), in its own shape."""
        given = {key: _repeated(value, len(z)) for key, value in self.fixed.items()}
        given[self._latent] = z.reshape(-1, *self.latent_shape)
        by_index = [given[key] for key in sorted(key for key in given if isinstance(key, int))]
        by_name = {key: value for key, value in given.items() if isinstance(key, str)}
        return (module or self.module)(*by_index, **by_name)

    def _push(self, z: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        """``G(z)``, (batch, n), and ``J(z) t``, (tangents, batch, n).

        ``tangents`` is (tangents, batch, k), or (tangents, 1, k) for all samples.
        """
        push = self._push_forward if self._has_forward else self._push_twice_back
        with differentiable():
            return push(z, tangents)

    def _push_forward(self, z: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        """Forward mode; the samples of all tangents are one batch."""

        def along(tangent: Tensor) -> tuple[Tensor, Tensor]:
            return torch.func.jvp(self.evaluate, (z.clone(),), (tangent.expand_as(z),))

        with torch.no_grad():
            return torch.func.vmap(along, out_dims=(None, 0))(tangents)

    def _push_twice_back(self, z: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        """``v^T J`` is linear in v, and its derivative by v is what pushes tangents forward.

        For modules with an operation whose derivative torch has in reverse mode only.
        """
        with torch.enable_grad():
            start = z.clone().requires_grad_()
            outputs = self.evaluate(start.clone())
            v = torch.zeros_like(outputs, requires_grad=True)
            (pulled,) = torch.autograd.grad(outputs, start, v, create_graph=True)
            pushed = [
                torch.autograd.grad(pulled, v, tangent.expand_as(z), retain_graph=True)[0]
                for tangent in tangents
            ]
        return outputs.detach(), torch.stack(pushed)

    @cached_property
    def _has_forward(self) -> bool:
        """Whether forward mode takes every operation of the module."""
        z = self._tensor(_probe(self.latent_size))
        try:
            with differentiable():
                self._push_forward(z, z[:2, None])
        except (NotImplementedError, RuntimeError, ValueError):
            return False
        return True

    @cached_property
    def _rows(self) -> int:
        """Samples, or tangents of samples, of one pass."""
        with torch.no_grad(), differentiable():
            largest = modules.largest_tensor(
                lambda: self.evaluate(self._tensor(_probe(self.latent_size)))
            )
        return max(_PASS_BYTES * _PROBES // largest, 1)

    def _check(self, original: Any) -> None:
        probes = _probe(self.latent_size)
        z = self._tensor(probes)
        with torch.no_grad(), differentiable():
            found = checks.check_outputs(self._call, z, self.latent_shape)
            object.__setattr__(self, "observation_shape", tuple(found.shape[1:]))
            if modules.is_training(original):
                trained = modules.frozen(original, z.dtype, evaluating=False)
                checks.check_mode(original, self._call(z, trained), found)
        checks.check_statistics(self.module)
        checks.check_derivatives(self, probes, torch.finfo(z.dtype).eps)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TorchNetwork) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        weights = sum(p.numel() for p in self.module.parameters())
        return (
            f"TorchNetwork({self.latent_size} -> {self.observation_size}, "
            f"{type(self.module).__name__}, {weights:,} weights)"
        )


def _probe(k: int) -> Array:
    """Latents from N(0, I), always the same."""
    return np.random.default_rng(0).standard_normal((_PROBES, k))


def _as_numpy(tensor: Tensor) -> Array:
    return tensor.detach().cpu().numpy()


def _repeated(value: Any, batch: int) -> Any:
    """A fixed argument for a batch."""
    if not isinstance(value, torch.Tensor) or not value.ndim:
        return value
    # Tells a trace that it is constant, so that a forward may branch on it, as one_hot does.
    value = torch.ops.aten.lift_fresh.default(value)
    return value.expand(batch, *value.shape[1:])
