"""Generators from torch modules. torch is imported by the functions, never by this module."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

from preimage.errors import FormatError, InputError
from preimage.generator import Generator
from preimage.io.graph import Graph, Sizes
from preimage.io.lowering import check_budget, lower
from preimage.io.segment import MAX_MATRIX_BYTES
from preimage.io.sketch import Ref, Sketch
from preimage.io.torch_calls import MODULES, functions
from preimage.io.torch_in_place import check_in_place
from preimage.io.torch_tensor import as_array, import_torch


def from_torch(
    module: Any,
    input_shape: Sequence[int] | None = None,
    *,
    max_matrix_bytes: int = MAX_MATRIX_BYTES,
) -> Generator:
    """Turn a torch module into a generator.

    The module's ``forward`` is followed by ``torch.fx``, so it may be any straight line of what is
    supported: Linear; convolutions, plain and transposed; BatchNorm and Dropout in eval mode;
    average pooling, nearest upsampling, padding, reshapes, slices, sums and products with
    constants; ReLU, LeakyReLU, PReLU, Tanh and Sigmoid. All that is affine between two activations
    becomes one layer. The latent and the observation are the flattened input and output, last
    dimension fastest. Weights of any float type are promoted exactly to float64; the module is not
    changed, nor shared with.

    Args:
        module: An ``nn.Module``.
        input_shape: Of one latent, without the batch: ``(100,)`` or ``(100, 1, 1)``. None infers it
            from the first Linear or ConvTranspose.
        max_matrix_bytes: A layer whose matrix, dense or CSR, would take more stays an operator
            (unless its weights take as much): it has a forward and an adjoint, and no matrix.

    Raises:
        InputError: Not an ``nn.Module``, or a shape that is none.
        FormatError: What is not understood, with its place in the module.
        MissingExtraError: torch is not installed.
    """
    torch = import_torch()
    if not isinstance(module, torch.nn.Module):
        raise InputError(f"module: expected a torch.nn.Module, got {type(module).__name__}")
    check_budget(max_matrix_bytes)
    if input_shape is not None:
        whole = all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in input_shape)
        if not whole or not len(input_shape):
            raise InputError(f"input_shape: expected positive integers, got {input_shape!r}")
    _check(module)
    return lower(_translated(module, input_shape), max_matrix_bytes)


def _check(module: Any) -> None:
    """Refuse what changes a module's meaning without showing in its code."""
    parameter = import_torch().nn.parameter
    for name, part in module.named_modules():
        path = f"model.{name}" if name else "model"
        kind = type(part).__name__
        if any(parameter.is_lazy(p) for p in part.parameters(recurse=False)):
            raise FormatError(f"{path}: {kind} has no weights yet; run it once")
        if part._forward_hooks or part._forward_pre_hooks:
            raise FormatError(
                f"{path}: {kind} has forward hooks, which may change what it computes; "
                "remove them first"
            )


def _known(module: Any) -> str | None:
    """Which of the supported modules this is: an heir counts if it computes the same."""
    nn = import_torch().nn
    for name in MODULES:
        known = getattr(nn, name)
        if isinstance(module, known) and type(module).forward is known.forward:
            return name
    return None


def _traced(module: Any) -> tuple[list[Any], Any, dict[str, Any], str]:
    """The fx nodes on which the output depends, the root of their names, tensors, a prefix."""
    torch = import_torch()
    fx = torch.fx

    class Tracer(fx.Tracer):  # type: ignore[name-defined]
        def is_leaf_module(self, part: Any, name: str) -> bool:
            return _known(part) is not None or super().is_leaf_module(part, name)

        def to_bool(self, proxy: Any) -> bool:
            # ``if x.is_cuda and gpus > 1`` is how many generators choose to run in parallel.
            if proxy.node.target is getattr and proxy.node.args[1] == "is_cuda":
                return False
            return super().to_bool(proxy)

    tracer, prefix = Tracer(), "model."
    if tracer.is_leaf_module(module, ""):  # it has no code to follow
        alone, module, prefix = module, torch.nn.Sequential(), ""
        module.add_module("model", alone)
    before = set(vars(module))
    try:
        graph = tracer.trace(module)
    except Exception as error:  # the code of a forward can raise anything
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise FormatError(
            f"model: torch.fx cannot follow the forward of {type(module).__name__} ({reason}); "
            "without branches and loops that depend on the input it can, or export to ONNX"
        ) from error
    constants = {name: vars(module)[name] for name in set(vars(module)) - before}
    for name in constants:  # fx leaves the tensors that a forward makes on the module
        delattr(module, name)
    nodes = list(graph.nodes)
    wanted = {node for node in graph.nodes if node.op == "output"}
    for node in reversed(nodes):
        if node in wanted:
            wanted.update(node.all_input_nodes)
    _check_in_place(nodes, dict(module.named_modules()))
    return [node for node in nodes if node in wanted], module, constants, prefix


def _check_in_place(nodes: list[Any], parts: dict[str, Any]) -> None:
    known = functions()

    def meaning(node: Any) -> tuple[Any, Any]:
        if node.op == "call_module":
            part = parts[node.target]
            name = _known(part)
            return (MODULES[name][0] if name else None), part
        called = node.op in ("call_function", "call_method")
        return (known.get(node.target) if called else None), None

    check_in_place(nodes, meaning)


def _translated(module: Any, input_shape: Sequence[int] | None) -> Graph:
    torch = import_torch()
    nodes, root, made, prefix = _traced(module)
    parts = dict(root.named_modules())
    sketch = Sketch("latent")
    known = functions()
    values: dict[Any, Any] = {}
    output: Any = None
    for node in nodes:
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
        if node.op == "placeholder":
            if sketch.latent in values.values():
                raise FormatError(
                    f"model: expected a forward with one input, got another, {node.target!r}"
                )
            values[node] = sketch.latent
        elif node.op == "get_attr":
            name = f"{prefix}{node.target}"
            values[node] = _tensor(sketch, made, root, node.target, name)
        elif node.op == "call_module":
            values[node] = _module_call(sketch, parts[node.target], f"{prefix}{node.target}", args)
        elif node.op == "output":
            output = args[0]
        else:
            name = getattr(node.target, "__name__", str(node.target))
            sketch.at(f"model: {node.name}", name)
            if node.target not in known:
                raise sketch.error(f"is not supported; supported are {_supported()}")
            values[node] = _call(sketch, known[node.target], args, kwargs)
    if not isinstance(output, Ref):
        raise FormatError(f"model: expected one tensor as output, got {type(output).__name__}")
    shape = _input_shape(sketch) if input_shape is None else tuple(input_shape)
    return sketch.graph(shape, output)


def _supported() -> str:
    return ", ".join(("Sequential", *MODULES))


def _tensor(sketch: Sketch, made: dict[str, Any], root: Any, target: str, name: str) -> Ref:
    value = made[target] if target in made else functools.reduce(getattr, target.split("."), root)
    if not isinstance(value, import_torch().Tensor):
        raise FormatError(f"{name}: expected a tensor, got {type(value).__name__}")
    return sketch.constant(as_array(value, name), name)


def _module_call(sketch: Sketch, part: Any, path: str, args: Any) -> Ref:
    kind = _known(part)
    sketch.at(path, type(part).__name__)
    if kind is None:
        raise sketch.error(f"is not supported; supported are {_supported()}")
    handler, names = MODULES[kind]
    given: dict[str, Any] = {}
    for name in names:
        attribute, argument = (name, name) if isinstance(name, str) else name
        value = getattr(part, attribute)
        if isinstance(value, import_torch().Tensor):
            name = f"{path}.{attribute}"
            value = sketch.constant(as_array(value, name), name)
        given[argument] = value
    return _call(sketch, handler, args, given)


def _call(sketch: Sketch, handler: Any, args: Any, kwargs: Any) -> Ref:
    try:
        return handler(sketch, *args, **kwargs)
    except FormatError:
        raise
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise sketch.error(f"is not supported with these arguments: {error}") from error


def _input_shape(sketch: Sketch) -> Sizes:
    """The shape of a latent, from the first operation that fixes it."""
    vector = False  # whether dimensions are added before the first weight is applied
    for node in sketch.nodes:
        weight = sketch.constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
        if node.operator == "Gemm" and weight is not None:
            return (weight.shape[1],)
        if node.operator == "ConvTranspose" and weight is not None:
            return (weight.shape[0], *(1,) * (0 if vector else weight.ndim - 2))
        if node.operator == "Reshape":
            target = node.attributes.get("target", ())
            if target and all(isinstance(n, int) and n > 0 for n in target):
                return (math.prod(target),)
        if node.operator in ("Conv", "MatMul"):
            break
        vector = vector or node.operator == "Unsqueeze"
    if not any(node.operator in ("Conv", "MatMul", "BatchNormalization") for node in sketch.nodes):
        raise FormatError("model: expected at least one Linear or ConvTranspose, got none")
    raise FormatError(
        "model: the shape of a latent cannot be inferred; pass input_shape, for example "
        "input_shape=(100,)"
    )
