"""An ONNX graph as a torch module of one latent; torch is imported with this module.

Every node is evaluated once, at one latent: those that do not depend on it by onnxruntime or
onnx.reference, whose results are constants, the others by torch. That fixes all shapes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from preimage.errors import FormatError, InputError
from preimage.io.onnx_evaluation import Operators, allowed
from preimage.io.onnx_functions import FUNCTIONS, set_windows, window_sums
from preimage.io.torch_graph import by_sample

if TYPE_CHECKING:
    from preimage.io.onnx_network import OnnxModel


_INTEGER = (
    ": real numbers that depend on the latent are cast to integers or to true and false, a step "
    "function of derivative 0, through which no method finds codes; export without this node"
)
# Only the shape of the result counts beside the first input.
_RESHAPES = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand"})
# Every entry of the output is an entry of the inputs, or a constant.
_MOVES = frozenset(
    {
        "Slice", "Gather", "Split", "Tile", "Pad", "DepthToSpace", "SpaceToDepth", "GatherElements",
        "GatherND", "Trilu", "Compress", "ReverseSequence", "ScatterND", "ScatterElements",
    }
)  # fmt: skip
_SCALED = frozenset({"Resize", "Upsample"})  # by scales that are float32 by definition
_WINDOWS = frozenset({"Conv", "ConvTranspose", "AveragePool", "LpPool", "MaxPool"})


class Step(NamedTuple):
    """One node that depends on the latent."""

    kind: str  # a key of FUNCTIONS
    inputs: tuple[str, ...]  # names of tensors, the empty one for an input that is left out
    output: str
    given: Mapping[str, Any]  # see onnx_functions


class OnnxModule(torch.nn.Module):
    """The nodes of a model behind its output, as a torch module.

    A file may be of several samples: the latent is then repeated, and the first sample is given.

    Args:
        model: The part of a file that its output needs. ``limits.entries`` bounds each array;
            all together may have four times as many.
        samples: That the input of the file holds.

    Raises:
        FormatError: An operator that torch is not known to have; a node that does not fit, or asks
            for more than the limits allow.
    """

    def __init__(self, model: OnnxModel, samples: int) -> None:
        super().__init__()
        self.latent, self.shape, self.samples = model.latent, model.shape, samples
        self.latent_size = math.prod(model.shape) // samples
        z = torch.from_numpy(np.random.default_rng(0).standard_normal(self.latent_size))
        builder = _Builder(model, self._whole(z))
        for node in model.nodes:
            builder.add(node)
        self.output, place = model.output, f"output {model.output!r}"
        value = builder.values.get(self.output)
        if value is None:
            raise FormatError(f"{place}: it does not depend on the latent")
        if not value.numel():
            raise FormatError(f"{place}: it is empty")
        if value.numel() % samples:
            raise FormatError(f"{place}: {value.numel()} entries for {samples} samples")
        if not torch.isfinite(value).all():
            raise FormatError(f"{builder.not_finite}: its values are not finite")
        self.steps = tuple(builder.steps)
        self.names = tuple(builder.taken)
        for index, value in enumerate(builder.taken.values()):
            kind = torch.nn.Parameter if value.is_floating_point() else torch.nn.Buffer
            setattr(self, f"constant_{index}", kind(value).requires_grad_(False))
        self.last = {name: i for i, step in enumerate(self.steps) for name in step.inputs}
        # Beside a path that is not cast, jumps are allowed.
        if builder.rounded and not self._output(z.requires_grad_()).requires_grad:
            raise FormatError(builder.rounded)

    def forward(self, z: Tensor) -> Tensor:
        """The outputs of latents, both with a leading batch dimension."""
        return by_sample(lambda one: self._first(self._output(one)), z)

    def tensors(self, z: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Name and values, of one latent, of each tensor that depends on it, in their order.

        Those that are empty, or not of so many samples, are left out.
        """
        for name, value in self._evaluated(z):
            if value.numel() and value.numel() % self.samples == 0:
                yield name, self._first(value)

    def _output(self, z: Tensor) -> Tensor:
        return next(value for name, value in self._evaluated(z) if name == self.output)

    def _evaluated(self, z: Tensor) -> Iterator[tuple[str, Tensor]]:
        values = {name: getattr(self, f"constant_{i}") for i, name in enumerate(self.names)}
        values[self.latent] = self._whole(z)
        for index, step in enumerate(self.steps):
            values[step.output] = _applied(step, values, z.dtype)
            yield step.output, values[step.output]
            for name in {*step.inputs} - {""}:
                if self.last[name] == index:  # tensors of a batch are large
                    del values[name]

    def _whole(self, z: Tensor) -> Tensor:
        """The input of the file."""
        return z.reshape(1, -1).expand(self.samples, -1).reshape(self.shape)

    def _first(self, value: Tensor) -> Tensor:
        """What belongs to the first sample, without the leading dimension if there is one."""
        if value.ndim > 1 and len(value) == self.samples:
            return value[0]
        return value.reshape(self.samples, -1)[0]


def _applied(step: Step, values: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
    inputs = [values[name] if name else None for name in step.inputs]
    found: Tensor = FUNCTIONS[step.kind](step.given, *inputs)
    return found.to(dtype) if found.is_floating_point() else found


class _Builder:
    """Turns nodes into steps, one after the other."""

    def __init__(self, model: OnnxModel, z: Tensor) -> None:
        self.steps: list[Step] = []
        self.arrays: dict[str, NDArray[Any]] = dict(model.constants)
        self.taken: dict[str, Tensor] = {}  # constants that steps take
        self.values: dict[str, Tensor] = {model.latent: z}  # what depends on it, at one latent
        self.not_finite = ""  # the first place whose values are not
        self.rounded = ""  # what to say of the first cast of real numbers to integers
        self._operators, self._asked = Operators(model.opset, model.limits), 0

    def add(self, node: Any) -> None:
        """Evaluate one node."""
        place = f"{node.name or f'the node of {node.output[0]!r}'}: {node.op_type}"
        for name in node.input:
            if name and name not in self.arrays and name not in self.values:
                raise FormatError(f"{place}: nothing gives its input {name!r}")
        try:
            self._operators.limits.check(
                "entries", self._asked // 4, "a quarter of the entries of all arrays"
            )
            self._add_checked(node, place)
        except InputError as error:
            raise FormatError(f"{place}: {error}") from error
        except Exception as error:  # what an evaluator raises where sizes do not fit
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            reason += f"; {self.rounded}" if self.rounded else ""
            raise FormatError(f"{place}: it does not fit: {reason}") from error

    def _add_checked(self, node: Any, place: str) -> None:
        if not allowed(node):
            raise _refused("" if node.domain in ("", "ai.onnx") else f" (domain {node.domain})")
        depends = [name in self.values for name in node.input]
        inputs = [
            self.values[name].numpy() if dependent else self.arrays[name] if name else None
            for name, dependent in zip(node.input, depends, strict=True)
        ]
        if not any(depends) or node.op_type in ("Shape", "Size"):
            found = self._operators.evaluate(node, inputs)
            for name, array in zip((n for n in node.output if n), found, strict=False):
                self.arrays[name] = array
                self._asked += array.size
            return
        inputs = [_promoted(value) for value in inputs] if node.op_type not in _SCALED else inputs
        shapes = self._operators.shapes(node, inputs)
        if shapes[0] is None:
            shapes = [value.shape for value in self._operators.evaluate(node, inputs)]
        for step in self._steps(node, inputs, shapes, place):
            value = _applied(step, self._tensors(step), torch.float64)
            self._operators.limits.check_shape(value.shape)
            self._asked += value.numel()
            self.values[step.output] = value
            if not self.not_finite and not torch.isfinite(value).all():
                self.not_finite = place
            self.steps.append(step)

    def _tensors(self, step: Step) -> dict[str, Tensor]:
        """Inputs of a step; constants become tensors when a step takes them."""
        for name in step.inputs:
            if name and name not in self.values and name not in self.taken:
                self.taken[name] = _tensor(self.arrays[name])
        return {**self.taken, **self.values}

    def _constant(self, value: Any) -> str:  # the name of a new one
        name = f"constant:{len(self.arrays)}"
        self.arrays[name] = np.asarray(value)
        self._asked += self.arrays[name].size
        return name

    # From a node to steps -----------------------------------------------------------------------

    def _steps(self, node: Any, inputs: list[Any], shapes: list[Any], place: str) -> Iterator[Step]:
        kind, opset = node.op_type, self._operators.opset
        given = {**self._operators.attributes(node), "opset": opset, "shape": shapes[0]}
        names, outputs = list(node.input), [name for name in node.output if name]
        depends = [name in self.values for name in names]
        if given.get("reduction", "none") != "none":
            raise _refused(" with these inputs or attributes")
        if kind in _MOVES:
            for index, output in enumerate(outputs):
                yield self._move(node, inputs, depends, index, output)
            return
        if kind.startswith("Reduce") or kind in ("CumSum", "Dropout"):
            if any(depends[1:]):
                raise _refused(" where another input than its first depends on the latent")
            settings = [() if v is None else tuple(v.reshape(-1).tolist()) for v in inputs[1:]]
            given.update(zip(("axes", "training"), settings, strict=False))
            names = names[:1]
        if kind in _RESHAPES:
            kind, names = "Expand" if kind == "Expand" else "Reshape", names[:1]
        elif kind in _SCALED:
            given["axes"], maps = self._along_axes(node, inputs, depends, shapes[0])
            kind, names = "Resize", [names[0], *map(self._constant, maps)]
        elif kind in _WINDOWS:
            size, kernel = inputs[0].shape, given.get("kernel_shape") or inputs[1].shape[2:]
            if len(size) not in (3, 4, 5) or len(kernel) != len(size) - 2:
                raise _refused(f" for inputs of {len(size)} dimensions")
            set_windows(given, kind == "ConvTranspose", tuple(kernel), size, self._operators.limits)
            if kind == "AveragePool":
                names.append(self._constant(self._shares(node, given, size)))
        elif kind == "Cast":
            given["to"] = _torch_type(given["to"])
            if not given["to"].is_floating_point and inputs[0].dtype.kind == "f":
                self.rounded = self.rounded or place + _INTEGER
        elif (
            given.get("training_mode")
            or any(given.get("training", ()))
            or (kind == "BatchNormalization" and len(outputs) > 1)
        ):
            raise FormatError("it is in training mode; export the network in eval mode")
        if kind not in FUNCTIONS:
            raise _refused()
        yield Step(kind, tuple(names), outputs[0], given)

    def _move(
        self, node: Any, inputs: Sequence[Any], depends: Sequence[bool], index: int, output: str
    ) -> Step:
        """Entries are numbered, and where the numbers go is where the entries go."""
        numbers, names, start = list(inputs), [], 1
        for at, (name, value) in enumerate(zip(node.input, inputs, strict=True)):
            if depends[at]:
                numbers[at] = np.arange(start, start + value.size, dtype=np.float64)
                numbers[at] = numbers[at].reshape(value.shape)
                start += value.size
                names.append(name)
        zeros = [np.zeros_like(n) if d else n for n, d in zip(numbers, depends, strict=True)]
        found, constant = (
            np.asarray(self._operators.evaluate(node, each)[index], dtype=np.float64)
            for each in (numbers, zeros)
        )
        moved = found != constant
        if not np.isin(found[moved], np.arange(1, start)).all():
            raise _refused(" where an index depends on the latent")
        places = np.where(moved, found, 0).astype(np.int64).reshape(-1)
        rest = np.where(moved, 0.0, constant)
        given = {"shape": tuple(found.shape)}
        added = self._constant(rest) if rest.any() else ""
        return Step("Move", (self._constant(places), added, *names), output, given)

    def _along_axes(
        self, node: Any, inputs: list[Any], depends: Sequence[bool], shape: Sequence[int]
    ) -> tuple[tuple[int, ...], list[NDArray[Any]]]:
        """How values are resized along each axis: places (outputs,) or a matrix (inputs, outputs).

        Operators that resize act on each axis alone, so that rows of one axis say all.
        """
        from onnx import helper

        how, x, old = self._operators.attributes(node), inputs[0], self._operators.opset < 11
        if (
            any(depends[1:])
            or how.get("coordinate_transformation_mode") == "tf_crop_and_resize"
            or how.get("keep_aspect_ratio_policy", "stretch") != "stretch"
        ):
            raise _refused(" with these inputs or attributes")
        scales = how.pop("scales") if len(inputs) == 1 else inputs[1 if old else 2]
        by = "sizes" if scales is None or not len(scales) else "scales"
        skipped = [""] * (0 if old else 1 if by == "scales" else 2)
        axes = [axis % x.ndim for axis in how.pop("axes", range(x.ndim))]
        single = helper.make_node(node.op_type, ["x", *skipped, by], ["y"], **how)
        newer = self._operators._replace(opset=max(self._operators.opset, 9))
        nearest, maps = how["mode"] == "nearest", {}
        for at, axis in enumerate(axes):
            size, found = x.shape[axis], shape[axis]
            if (found if by == "sizes" else size * scales[at]) == size:
                continue
            self._operators.limits.check_shape((1 if nearest else size, max(size, found)))
            rows = np.arange(size)[None] if nearest else np.eye(size)
            given = [rows[None, None].astype(np.float32), *[None] * len(skipped)]
            if by == "sizes":
                given.append(np.array((1, 1, len(rows), found)))
            else:
                given.append(np.array((1, 1, 1, scales[at]), np.float32))
            image = newer.evaluate(single, given)[0][0, 0]
            maps[axis] = image[0].astype(np.int64) if nearest else image
        return tuple(maps), list(maps.values())

    def _shares(self, node: Any, given: dict[str, Any], size: tuple[int, ...]) -> Any:
        """What the sums of windows are multiplied with to give means."""
        one = {**given, "shape": (1, 1, *given["shape"][2:])}
        ones = np.ones((1, 1, *size[2:]), np.float32)
        sums = window_sums(one, torch.from_numpy(ones)).numpy()
        return self._operators.evaluate(node, [ones])[0] / np.where(sums, sums, 1.0)


def _refused(where: str = "") -> FormatError:
    """What to say of an operator that torch is not known to have."""
    return FormatError(
        f"not supported{where}; if you have the torch module, preimage.from_torch runs it as it is"
    )


def _promoted(value: Any) -> Any:
    """Numbers of any float type in float64."""
    return value if value is None or value.dtype.kind not in "fV" else value.astype(np.float64)


def _tensor(array: NDArray[Any]) -> Tensor:
    """Floats in float64, integers in int64; torch lacks some types of NumPy."""
    kind = {"f": np.float64, "b": np.bool_}.get(array.dtype.kind, np.int64)
    return torch.from_numpy(np.array(array, dtype=kind))


def _torch_type(number: int) -> torch.dtype:
    """One that stands for a type of ONNX."""
    from onnx import helper

    kind = np.dtype(helper.tensor_dtype_to_np_dtype(number))
    if kind.kind in "fV":
        return torch.float64
    if kind.kind not in "iub":
        raise _refused(f" for {kind}")
    return torch.bool if kind.kind == "b" else torch.int64
