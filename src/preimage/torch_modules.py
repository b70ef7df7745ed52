"""torch modules: frozen copies, arguments of a forward, content, sizes; torch comes when needed."""

from __future__ import annotations

import hashlib
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from typing import Any

from preimage.errors import InputError, extra

# Attributes of these types are part of what a module computes.
_PLAIN = (bool, int, float, str, tuple, type(None))


class _Torch:
    """torch, which is imported when something of it is needed."""

    def __getattr__(self, name: str) -> Any:
        with extra("torch", "torch"):
            import torch
        return getattr(torch, name)


torch: Any = _Torch()


def unwrapped(module: Any) -> Any:
    """The module within ``DataParallel`` and ``torch.compile``, or whose forward is the method."""
    while True:
        if inspect.ismethod(module) and isinstance(module.__self__, torch.nn.Module):
            return _of_method(module)
        if isinstance(module, (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)):
            module = module.module
        elif hasattr(module, "_orig_mod"):
            module = module._orig_mod
        else:
            return module


def _of_method(method: Any) -> Any:
    """A module whose forward is a method of another one."""
    module = torch.nn.Module()
    module.owner, module.forward = method.__self__, method
    module.method = method.__name__  # for the digest
    module.training = method.__self__.training
    return module


def is_training(module: Any) -> bool:
    """Whether any part is in training mode; TorchScript that is frozen has none."""
    return any(getattr(part, "training", False) for part in module.modules())


def frozen(module: Any, dtype: Any, *, evaluating: bool = True) -> Any:
    """A copy in eval mode whose weights, promoted or rounded to ``dtype``, need no gradient."""
    memo = {
        # The results of old-style weight norm are attributes that ``deepcopy`` refuses.
        id(value): value.detach().clone()
        for part in module.modules()
        for value in vars(part).values()
        if isinstance(value, torch.Tensor) and not value.is_leaf
    }
    with torch.no_grad():  # TorchScript copies weights by operations
        copy = deepcopy(module, memo)
    for parameter in copy.parameters():
        parameter.requires_grad_(False)
    copy.to(dtype)
    for part in copy.modules():
        for name, value in vars(part).items():
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                setattr(part, name, value.detach().to(dtype))
    if evaluating and is_training(copy):
        with suppress(NotImplementedError):  # an exported program has one mode
            copy.eval()
    return copy


def arguments(
    module: Any, fixed: Mapping[str | int, Any]
) -> tuple[str | int, dict[str | int, Any]]:
    """Which argument of a forward is the latent, and the fixed ones by name or by index.

    Raises:
        InputError: An argument is unknown or given twice, or more than one is left.
    """
    if not isinstance(fixed, Mapping):
        raise InputError(
            f"fixed: expected a dictionary such as {{'label': [3]}}, got {type(fixed).__name__}"
        )
    named = _parameters(module)
    # Those of forward(*args) have indices alone.
    names: list[str | int] = [p.name for p in named] or list(range(len(fixed) + 1))
    given: dict[str | int, Any] = {}
    for key, value in fixed.items():
        if key not in (*names, *range(len(names))):
            raise InputError(f"fixed: the forward has no argument {key!r}; it has {_listed(names)}")
        name = names[key] if isinstance(key, int) else key
        if name in given:
            raise InputError(f"fixed: the argument {name!r} was given twice")
        given[name] = value
    left = [name for name in names if name not in given]
    optional = {p.name for p in named if p.default is not inspect.Parameter.empty}
    needed = [name for name in left if name not in optional]
    if len(needed) > 1:
        raise InputError(
            f"fixed: the forward takes {_listed(needed)}; give all but the latent a value, "
            f"such as fixed={{{needed[1]!r}: ...}}"
        )
    if not left:
        raise InputError("fixed: every argument of the forward has a value; leave the latent out")
    return (needed or left)[0], given


def _parameters(module: Any) -> list[inspect.Parameter]:
    """Those of a forward that have names."""
    kinds = inspect.Parameter
    try:
        parameters = list(inspect.signature(module.forward).parameters.values())
    except ValueError:  # TorchScript
        names = [argument.name for argument in module.forward.schema.arguments[1:]]
        parameters = [kinds(name, kinds.POSITIONAL_OR_KEYWORD) for name in names]
    return [p for p in parameters if p.kind not in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)]


def _listed(names: Sequence[str | int]) -> str:
    return ", ".join(map(repr, names))


@contextmanager
def differentiable() -> Iterator[None]:
    """Within, attention consists of operations that torch differentiates in both modes."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        kernel = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
        with kernel, warnings.catch_warnings():
            # Of operations that torch evaluates one sample at a time.
            warnings.filterwarnings("ignore", message="There is a performance drop")
            # Of torch's own rules for derivatives.
            warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def largest_tensor(run: Callable[[], Any]) -> int:
    """Bytes of the largest result of an operation in ``run()``; at least 1."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    sizes = [1]

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(
            self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            found = operation(*args, **(kwargs or {}))
            tensors = (v for v in tree_leaves(found) if isinstance(v, torch.Tensor))
            sizes.extend(t.numel() * t.element_size() for t in tensors)
            return found

    with Watch():
        run()
    return max(sizes)


def digest(module: Any, fixed: Mapping[str | int, Any], *about: Any) -> str:
    """SHA-256 of what a module computes: code, attributes and weights of its parts.

    ``fixed`` are arguments of its forward, ``about`` is what else tells networks apart by its repr.
    """
    sha = hashlib.sha256(repr(about).encode())
    for name, part in module.named_modules():
        plain = {key: value for key, value in vars(part).items() if isinstance(value, _PLAIN)}
        sha.update(f"{name} {part.extra_repr()} {sorted(plain.items())}".encode())
        sha.update(_code(part))
        attributes = {k: v for k, v in vars(part).items() if isinstance(v, torch.Tensor)}
        for key, value in sorted({**part._parameters, **part._buffers, **attributes}.items()):
            if value is not None:
                _add_tensor(sha, f"{name}.{key}", value)
    for key, value in sorted(fixed.items(), key=lambda item: str(item[0])):
        if isinstance(value, torch.Tensor):
            _add_tensor(sha, repr(key), value)
        else:
            sha.update(f"{key!r} {value!r}".encode())
    return sha.hexdigest()


def _add_tensor(sha: Any, name: str, value: Any) -> None:
    sha.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
    sha.update(value.detach().cpu().contiguous().numpy().tobytes())


def _code(part: Any) -> bytes:
    """The source of a module's class; where there is none, as in a console, its bytecode."""
    kind = type(part)
    about = f"{kind.__module__}.{kind.__qualname__}".encode()
    if isinstance(getattr(part, "code", None), str):  # TorchScript, torch.fx
        return about + part.code.encode()
    if kind.__module__.startswith("torch."):
        return about
    try:
        return about + inspect.getsource(kind).encode()
    except (OSError, TypeError):
        code = getattr(getattr(kind, "forward", None), "__code__", None)
        return about + (b"" if code is None else code.co_code)
