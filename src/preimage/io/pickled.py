"""What ``torch.save`` pickles, read as data.

A pickle is a program, and unpickling runs it: it may name any function and call it. Nothing here
calls anything. The few opcodes that ``torch.save`` writes move plain values on a stack; a name
stays a name, and a call is looked up among the few that mean a tensor, a storage or a dict.
"""

from __future__ import annotations

import pickletools
from typing import Any, BinaryIO, NamedTuple

from preimage.errors import FormatError
from preimage.io.guard import Limits

# Opcodes that one tensor of a state dict takes, with a margin.
_OPCODES_A_TENSOR = 64


class Name(NamedTuple):
    """A function or class that a pickle names, as "module name"."""

    text: str


class Storage(NamedTuple):
    """Entries of one type that stand elsewhere in the file."""

    kind: str
    key: str
    entries: int


class Tensor(NamedTuple):
    """A strided view of a storage, in entries."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Mark(NamedTuple):
    """Where a run of values begins."""


_MARK = _Mark()
_LITERALS = {
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "BININT", "BININT1", "BININT2",
    "INT", "LONG", "LONG1", "LONG4", "BINFLOAT", "FLOAT", "BINSTRING", "SHORT_BINSTRING", "STRING",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
}  # fmt: skip
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_PUT, _GET = {"PUT", "BINPUT", "LONG_BINPUT"}, {"GET", "BINGET", "LONG_BINGET"}
# Functions whose first argument is all that matters here.
_PASS_ON = {
    "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_parameter_with_state",
    "torch Size",
    "torch device",
}


def read(file: BinaryIO, limits: Limits) -> Any:
    """The value of one pickle, which the file is left behind.

    Raises:
        FormatError: Not a pickle of plain values and tensors, or one beyond the limits.
    """
    machine = _Machine()
    most = _OPCODES_A_TENSOR * limits.tensors
    try:
        for count, (code, argument, _) in enumerate(pickletools.genops(file)):
            if count > most:
                limits.check("tensors", limits.tensors + 1, "tensors, to judge by the pickle")
            if code.name == "STOP":
                (value,) = machine.stack
                return value
            machine.step(code.name, argument)
    except FormatError:
        raise
    except Exception as error:  # a broken pickle fails wherever its reader finds out
        raise FormatError(f"a broken pickle: {error!r:.200}") from error
    raise FormatError("a broken pickle: it has no end")


class _Machine:
    """The stack and the memo of a pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, code: str, argument: Any) -> None:
        """Do what an opcode says."""
        stack, memo = self.stack, self.memo
        if code in _LITERALS:
            stack.append(argument)
        elif code in _PUT:
            memo[int(argument)] = stack[-1]
        elif code in _GET:
            stack.append(memo[int(argument)])
        elif code in _CONSTANTS:
            stack.append(_CONSTANTS[code])
        elif code in ("TUPLE1", "TUPLE2", "TUPLE3"):
            self._join(int(code[-1]))
        else:
            self._rarer(code, argument)

    def _rarer(self, code: str, argument: Any) -> None:
        stack = self.stack
        match code:
            case "PROTO" | "FRAME":
                pass
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "MARK":
                stack.append(_MARK)
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "TUPLE":
                stack.append(tuple(self._run()))
            case "APPEND" | "APPENDS":
                run = [stack.pop()] if code == "APPEND" else self._run()
                _as(list, stack[-1]).extend(run)
            case "SETITEM" | "SETITEMS":
                run = [stack.pop() for _ in "kv"][::-1] if code == "SETITEM" else self._run()
                self._set(run)
            case "GLOBAL":
                stack.append(_known(argument))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_known(f"{module} {name}"))
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
            case "REDUCE":
                arguments, function = _as(tuple, stack.pop()), _as(Name, stack.pop())
                stack.append(_called(function.text, arguments))
            case "BUILD":
                # Attributes, such as the versions of a state dict's modules: nothing of use.
                stack.pop()
                _as(dict, stack[-1])
            case _:
                raise _not_plain(f"the opcode {code}")

    def _join(self, count: int) -> None:
        taken = tuple(self.stack[-count:])
        if len(taken) < count:
            raise IndexError("the stack is empty")
        self.stack[-count:] = [taken]

    def _run(self) -> list[Any]:
        """What was pushed since the last mark."""
        run = []
        while (value := self.stack.pop()) is not _MARK:
            run.append(value)
        return run[::-1]

    def _set(self, run: list[Any]) -> None:
        """Names and values into the dict below them; a name once."""
        target = _as(dict, self.stack[-1])
        for name, value in zip(run[::2], run[1::2], strict=True):
            if not isinstance(name, (str, int)):
                raise _not_plain(f"a dict with keys of type {type(name).__name__}")
            if name in target:
                raise FormatError(f"{name!r:.200} is there twice")
            target[name] = value


def _as(kind: type, value: Any) -> Any:
    if not isinstance(value, kind) or (kind is tuple and type(value) is not tuple):
        raise TypeError(f"expected a {kind.__name__}, got a {type(value).__name__}")
    return value


def _not_plain(what: str) -> FormatError:
    return FormatError(
        f"it is not a dict of plain tensors: it has {what:.200}; if it holds a whole module that "
        "you trust, load it with torch and pass it to preimage.from_torch"
    )


def _known(text: str) -> Name:
    """A name that may stand in a file; all others are refused as soon as they come."""
    module, _, name = text.partition(" ")
    storage = module in ("torch", "torch.storage") and name.endswith("Storage")
    fixed = ("collections OrderedDict", "torch._utils _rebuild_tensor_v2", *_PASS_ON)
    if not storage and text not in fixed:
        raise _not_plain(f"the name {text!r}")
    return Name(text)


def _storage(value: Any) -> Storage:
    """The persistent id ("storage", type, key, device, entries), or an older one with a None."""
    tag, kind, key, _, entries, *view = _as(tuple, value)
    if tag != "storage" or any(part is not None for part in view):
        raise _not_plain("a storage that is a view of another")
    return Storage(_as(Name, kind).text.split()[-1], str(_as(str, key)), _as(int, entries))


def _called(function: str, arguments: tuple[Any, ...]) -> Any:
    if function == "collections OrderedDict" and not arguments:
        return {}
    if function in _PASS_ON and arguments:
        return arguments[0]
    if function == "torch._utils _rebuild_tensor_v2":
        storage, offset, shape, stride = arguments[:4]
        numbers = (offset, *_as(tuple, shape), *_as(tuple, stride))
        if not all(type(n) is int and n >= 0 for n in numbers):
            raise FormatError(f"a tensor with sizes {numbers!r:.200}")
        return Tensor(_as(Storage, storage), offset, shape, stride)
    raise _not_plain(f"a call of {function!r}")
