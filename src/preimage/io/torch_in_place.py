"""Operations that change their input in place: fine, unless the old value is wanted again.

A graph has no memory: it takes every tensor as it was made. ``y = relu_(x); y + x`` means something
else to torch, for which x has become y, as have all views of x. (``x += 1`` is not seen here: fx
reads it as ``x = x + 1``.)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from preimage.errors import FormatError
from preimage.io import torch_layers as layers
from preimage.io import torch_shapes as shapes

_VIEWS = (
    shapes.reshape, shapes.flatten, shapes.unflatten, shapes.permute, shapes.transpose,
    shapes.squeeze, shapes.unsqueeze, shapes.item, shapes.same, layers.dropout,
)  # fmt: skip


def check_in_place(nodes: Sequence[Any], meaning: Callable[[Any], tuple[Any, Any]]) -> None:
    """Refuse a chain of fx nodes in which a value is used after it was changed in place.

    Args:
        nodes: In their order, before those are left out whose results are not used.
        meaning: Gives a node's handler, and its module if it is the call of one.

    Raises:
        FormatError: Naming the operation that changes and the one that uses.
    """
    memory: dict[Any, Any] = {}  # the node that made what a node shares its memory with
    place = {node: index for index, node in enumerate(nodes)}
    changed: dict[Any, Any] = {}  # by memory, the latest operation in place
    for node in nodes:
        for used in node.all_input_nodes:
            changer = changed.get(memory[used])
            if changer is not None and place[used] < place[changer]:
                raise FormatError(
                    f"model: {changer.name} changes {used.name} in place, and {node.name} uses it "
                    "after; write the first without inplace=True or the underscore"
                )
        handler, module = meaning(node)
        first = node.args[0] if node.args else None
        in_place = handler is not None and _in_place(node, handler, module)
        shares = in_place or handler in _VIEWS or type(module).__name__ == "Identity"
        memory[node] = memory[first] if shares and first in memory else node
        if in_place:
            changed[memory[node]] = node


def _in_place(node: Any, handler: Any, module: Any) -> bool:
    name = getattr(node.target, "__name__", str(node.target))
    if module is not None:
        return bool(getattr(module, "inplace", False))
    if name.endswith("_") or name in ("iadd", "isub", "imul", "itruediv"):
        return True
    if "inplace" not in inspect.signature(handler).parameters:
        return False
    try:
        given = inspect.signature(handler).bind(None, *node.args, **node.kwargs)
    except TypeError:
        return False  # its translation will say what is wrong
    return bool(given.arguments.get("inplace", False))
