"""ONNX operators: what is known of them, and their evaluation by onnx.reference or onnxruntime."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from preimage.activation import ELU, Activation, ReLU, Sigmoid, Softplus, Tanh
from preimage.errors import FormatError
from preimage.io.chain import increasing
from preimage.io.limits import Limits

Array = NDArray[Any]

# Every entry of the output is an entry of the inputs, or a constant.
MOVES = frozenset(
    {
        "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Gather", "Concat",
        "Split", "Expand", "Tile", "Pad", "DepthToSpace", "SpaceToDepth", "Identity", "Dropout",
        "GatherElements", "GatherND", "Trilu", "Compress", "Where", "ReverseSequence",
        "ScatterND", "ScatterElements",
    }
)  # fmt: skip
# The first dimension is a batch, so that many samples are evaluated at once.
_BATCHED = frozenset(
    {
        "Conv", "ConvTranspose", "AveragePool", "GlobalAveragePool", "BatchNormalization", "LpPool",
    }
)  # fmt: skip
# Affine in all inputs but those at these places, which must be constant.
AFFINE: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(MOVES, (1, 2, 3, 4)), "Concat": (), "Where": (0,), "ScatterND": (1,),
    "ScatterElements": (1,), "Add": (), "Sub": (), "Sum": (), "Mean": (), "Neg": (), "Cast": (),
    "Div": (1,), "ReduceSum": (1,), "ReduceMean": (1,), "CumSum": (1,), "AveragePool": (),
    "GlobalAveragePool": (), "BatchNormalization": (1, 2, 3, 4), "Upsample": (1,),
    "Resize": (1, 2, 3), "CastLike": (), "GridSample": (1,), "Col2Im": (1, 2),
}  # fmt: skip
# Affine if at most one of the inputs at these places depends on the latent.
PRODUCTS: dict[str, tuple[int, ...]] = {
    "Mul": (0, 1), "MatMul": (0, 1), "Gemm": (0, 1), "Conv": (0, 1), "ConvTranspose": (0, 1),
    "Einsum": tuple(range(9)),
}  # fmt: skip
# The constants at these places do not multiply: without them the operator is linear.
_ADDED: dict[str, tuple[int, ...]] = {
    "Gemm": (2,), "Conv": (2,), "ConvTranspose": (2,), "BatchNormalization": (2, 3),
    "Pad": (2,), "Where": (1, 2), "ScatterND": (0, 2), "ScatterElements": (0, 2),
    **dict.fromkeys(("Add", "Sub", "Sum", "Mean", "Concat"), tuple(range(64))),
}  # fmt: skip
# Neither evaluated nor followed: control flow, randomness, text, sequences.
_REFUSED = ("Random", "String", "Sequence", "Optional", "ConcatFromSequence")
_REFUSED_NAMES = frozenset(
    {
        "If", "Loop", "Scan", "Bernoulli", "Multinomial", "TfIdfVectorizer", "ImageDecoder",
        "RegexFullMatch", "SplitToSequence", "LabelEncoder",
    }
)  # fmt: skip
# Those that the reference evaluates slowly, entry by entry.
_HEAVY = frozenset({"Conv", "ConvTranspose", "Resize", "Upsample", "AveragePool", "GridSample"})
# Their sizes have to be constants for onnxruntime.
_SIZED = frozenset({"Resize", "Upsample"})
_SMALL = 1024  # entries of an input whose values matter for the shape of an output


class Shaped(NamedTuple):
    """An operator with its constant inputs."""

    node: Any
    opset: int


def allowed(node: Any) -> bool:
    """Whether a node may be evaluated at all."""
    own = node.domain in ("", "ai.onnx")
    kind = node.op_type
    return own and kind not in _REFUSED_NAMES and not kind.startswith(_REFUSED)


def attributes(node: Any) -> dict[str, Any]:
    """The attributes of a node by name."""
    from onnx import helper

    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


# Evaluation -------------------------------------------------------------------------------------


def evaluate(operator: Shaped, inputs: Sequence[Array | None], limits: Limits) -> list[Array]:
    """The outputs of a node; heavy ones by onnxruntime in float32, if it is installed.

    Raises:
        FormatError: An output would have more entries than the limit, or it does not fit.
    """
    _check_sizes(operator, inputs, limits)
    return _evaluate(operator, inputs)


def _evaluate(operator: Shaped, inputs: Sequence[Array | None]) -> list[Array]:
    wide = any(v is not None and v.dtype == np.float64 for v in inputs)
    kind = operator.node.op_type
    if kind == "Pad" and _runtime() is not None:  # the reference has no negative pads
        return _run(operator, inputs, runtime=True)
    if kind in _HEAVY and _runtime() is not None:
        narrow = [
            v.astype(np.float32) if v is not None and v.dtype == np.float64 else v for v in inputs
        ]
        found = _run(operator, narrow, runtime=True)
    else:
        found = _run(operator, inputs, runtime=False)
    return [v.astype(np.float64) if wide and v.dtype == np.float32 else v for v in found]


@functools.cache
def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        return None
    onnxruntime.set_default_logger_severity(4)
    return onnxruntime


_sessions: dict[Any, Any] = {}
_MOST_SESSIONS = 256


def _run(operator: Shaped, inputs: Sequence[Array | None], runtime: bool) -> list[Array]:
    names = [f"i{i}" if value is not None else "" for i, value in enumerate(inputs)]
    given = {n: np.asarray(v) for n, v in zip(names, inputs, strict=True) if v is not None}
    fixed = {}
    if operator.node.op_type in _SIZED:
        fixed = {n: given.pop(n) for n in names[1:] if n}
    types = tuple((n, v.dtype.name, v.ndim) for n, v in given.items())
    sizes = tuple((n, v.tobytes()) for n, v in fixed.items())
    key = (operator.node.SerializeToString(), operator.opset, types, sizes, runtime)
    if key not in _sessions:
        if len(_sessions) >= _MOST_SESSIONS:
            _sessions.clear()
        _sessions[key] = _session(operator, names, given, fixed, runtime)
    return [np.asarray(v) for v in _sessions[key].run(None, given)]


def _session(
    operator: Shaped,
    names: list[str],
    given: Mapping[str, Array],
    fixed: Mapping[str, Array],
    runtime: bool,
) -> Any:
    """A model of one node, with some of its inputs as constants."""
    from onnx import helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    node = operator.node
    outputs = [f"o{i}" for i, name in enumerate(node.output) if name]
    single = helper.make_node(node.op_type, names, outputs, domain=node.domain)
    single.attribute.extend(node.attribute)
    opset = operator.opset
    if node.op_type == "BatchNormalization" and opset < 15:
        # The reference takes an older one for training. What is left is the same function.
        opset = 15
        del single.attribute[:]
        single.attribute.extend(a for a in node.attribute if a.name == "epsilon")
    infos = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(value.dtype), [None] * value.ndim
        )
        for name, value in given.items()
    ]
    results = [helper.make_empty_tensor_value_info(name) for name in outputs]
    constants = [numpy_helper.from_array(value, name) for name, value in fixed.items()]
    graph = helper.make_graph([single], "node", infos, results, constants)
    imports = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    if not runtime:
        return ReferenceEvaluator(model)
    return open_session(model.SerializeToString())


def open_session(data: bytes) -> Any:
    """An onnxruntime session of one thread without optimisations; None without onnxruntime."""
    runtime = _runtime()
    if runtime is None:
        return None
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _check_sizes(operator: Shaped, inputs: Sequence[Array | None], limits: Limits) -> None:
    """Compare the sizes that a node asks for with the limits, before anything is allocated."""
    from onnx import defs, helper, numpy_helper, shape_inference

    node = operator.node
    types, data = {}, {}
    for name, value in zip(node.input, inputs, strict=True):
        if value is None:
            continue
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        types[name] = helper.make_tensor_type_proto(kind, value.shape)
        if value.size <= _SMALL:
            data[name] = numpy_helper.from_array(value, name)
    schema = defs.get_schema(node.op_type, operator.opset, "")
    imports = [helper.make_opsetid("", operator.opset)]
    found = shape_inference.infer_node_outputs(
        schema, node, types, data, opset_imports=imports, ir_version=8
    )
    for kind in found.values():
        dims = kind.tensor_type.shape.dim
        limits.check_shape(d.dim_value for d in dims if d.HasField("dim_value"))


# Linear parts -----------------------------------------------------------------------------------

Linear = Callable[[Sequence[Array]], Array]


def linear_part(
    operator: Shaped,
    inputs: Sequence[Array | None],
    dependent: Sequence[int],
    output: int,
) -> tuple[Linear, Array]:
    """The linear part of an affine node, of many samples at once, and its bias.

    Args:
        operator: The node.
        inputs: Values, of those that depend on the latent one with the right shape.
        dependent: Places of the inputs that depend on the latent.
        output: Which of the outputs.

    Returns:
        A function from arrays (samples, entries), one a dependent input, to (samples, entries),
        and the flattened value where the dependent inputs are 0.
    """
    kind = operator.node.op_type
    added = _ADDED.get(kind, ())
    shapes = [inputs[place].shape for place in dependent]  # type: ignore[union-attr]
    bare: list[Array | None] = [
        np.zeros_like(v) if v is not None and i in added and i not in dependent else v
        for i, v in enumerate(inputs)
    ]

    def at(values: Sequence[Array], others: Sequence[Array | None] = bare) -> Array:
        given = list(others)
        for place, value in zip(dependent, values, strict=True):
            given[place] = value
        return np.asarray(_evaluate(operator, given)[output], dtype=np.float64)

    zeros = [np.zeros(shape) for shape in shapes]
    bias = at(zeros, inputs).reshape(-1)
    if kind in MOVES:
        return _move(at, shapes), bias
    if kind in _BATCHED and tuple(dependent) == (0,):

        def batched(parts: Sequence[Array]) -> Array:
            samples = len(parts[0])
            return at([parts[0].reshape(-1, *shapes[0][1:])]).reshape(samples, -1)

        return batched, bias
    if kind in ("Add", "Sub", "Sum", "Neg", "Mul", "Div", "MatMul") and _broadcasts(kind, shapes):
        return _arithmetic(kind, bare, dependent, shapes), bias
    origin = at(zeros).reshape(-1)

    def one_by_one(parts: Sequence[Array]) -> Array:
        rows = zip(*parts, strict=True)
        found = [at([r.reshape(s) for r, s in zip(row, shapes, strict=True)]) for row in rows]
        return np.stack([value.reshape(-1) for value in found]) - origin

    return one_by_one, bias


def _broadcasts(kind: str, shapes: Sequence[tuple[int, ...]]) -> bool:
    return kind != "MatMul" or len(shapes[0]) >= 2


def _move(at: Callable[[Sequence[Array]], Array], shapes: Sequence[tuple[int, ...]]) -> Linear:
    """Entries are numbered, and where the numbers go is where the entries go; 0 is none."""
    sizes = [int(np.prod(shape)) for shape in shapes]
    starts = np.cumsum([1, *sizes])
    numbers = [
        np.arange(start, start + size, dtype=np.float64).reshape(shape)
        for start, size, shape in zip(starts, sizes, shapes, strict=False)
    ]
    # What is left at 0 is the value of a padding.
    places = (at(numbers) - at([np.zeros(s) for s in shapes])).reshape(-1).astype(np.intp)

    def move(parts: Sequence[Array]) -> Array:
        return np.concatenate([np.zeros((len(parts[0]), 1)), *parts], axis=1)[:, places]

    return move


def _arithmetic(
    kind: str, bare: Sequence[Array | None], dependent: Sequence[int], shapes: Sequence[Any]
) -> Linear:
    """Arithmetic by NumPy, whose broadcasting is that of ONNX."""
    rank = max(v.ndim for v in bare if v is not None)
    steps = {"Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "MatMul": np.matmul}

    def arithmetic(parts: Sequence[Array]) -> Array:
        samples = len(parts[0])
        values: list[Any] = list(bare)
        for place, part, shape in zip(dependent, parts, shapes, strict=True):
            values[place] = part.reshape(samples, *(1,) * (rank - len(shape)), *shape)
        if kind == "Neg":
            return -parts[0]
        step: Any = steps.get(kind, np.add)
        return np.asarray(functools.reduce(step, values)).reshape(samples, -1)

    return arithmetic


# Activations ------------------------------------------------------------------------------------


def activation(node: Any, inputs: Sequence[Array | None]) -> Activation:
    """The activation that a node is.

    Raises:
        FormatError: It is not increasing.
    """
    found = ACTIVATIONS[node.op_type](attributes(node), *inputs)
    if found is None:
        raise FormatError("it is not increasing, so that a layer with it cannot be inverted")
    return found


def _prelu(given: Mapping[str, Any], value: Array, slope: Any) -> Activation | None:
    return increasing(np.broadcast_to(np.asarray(slope, dtype=np.float64), value.shape).reshape(-1))


def _elu(given: Mapping[str, Any], value: Array) -> Activation | None:
    alpha = float(given.get("alpha", 1.0))
    return ELU(alpha) if alpha > 0 else None


# By attributes, and the values of the inputs; None if it is not increasing.
ACTIVATIONS: dict[str, Callable[..., Activation | None]] = {
    "Relu": lambda given, value: ReLU(),
    "Tanh": lambda given, value: Tanh(),
    "Sigmoid": lambda given, value: Sigmoid(),
    "LeakyRelu": lambda given, value: _prelu(given, value, given.get("alpha", 0.01)),
    "PRelu": _prelu,
    "Elu": _elu,
    "Softplus": lambda given, value: Softplus(),
}
