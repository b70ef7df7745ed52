"""Untrusted files: each is made to run code, to exhaust the machine, or to deceive.

``FILES`` holds a function for each, which writes it into a folder; the name before the first dash
is the suffix. What would run code makes a file called ``canary`` in the folder.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import safetensors.numpy
import torch
from networks import model
from onnx import TensorProto, external_data_helper, helper, numpy_helper

Writer = Callable[[Path], Path]
FILES: dict[str, Writer] = {}
HUGE = 10**12


def hostile(name: str) -> Callable[[Callable[[Path], bytes | Path]], Any]:
    """List a function that returns the bytes of a file, or writes it and returns its path."""

    def listed(make: Callable[[Path], bytes | Path]) -> Any:
        def write(folder: Path) -> Path:
            made = make(folder)
            if isinstance(made, Path):
                return made
            path = folder / f"net.{name.partition('-')[0]}"
            path.write_bytes(made)
            return path

        assert name not in FILES
        FILES[name] = write
        return make

    return listed


def listed(name: str, data: bytes | Callable[[], bytes]) -> None:
    """List bytes, or what makes them when they are wanted, if that takes long."""
    hostile(name)(lambda folder: data if isinstance(data, bytes) else data())


# torch: pickles that run code -------------------------------------------------------------------


class Canary:
    """Unpickled by Python, or by torch without ``weights_only``, it runs a command."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def canaries(folder: Path) -> dict[str, Any]:
    path = str(folder / "canary")
    return {
        "system": Canary(os.system, f"touch {path}"),
        "exec": Canary(exec, f"open({path!r}, 'w')"),
        "open": Canary(open, path, "w"),
        "getattr": Canary(getattr, Canary(__import__, "os"), "system"),
    }


def torch_bytes(content: Any, *, new: bool = True, protocol: int = 2) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=new, pickle_protocol=protocol)
    return buffer.getvalue()


CANARIES = ("system", "exec", "open", "getattr", "inst", "pickled", "call")

for kind in CANARIES[:4]:
    for protocol in (2, 4):
        hostile(f"pth-zip-{kind}-{protocol}")(
            lambda f, k=kind, p=protocol: torch_bytes({"a": canaries(f)[k]}, protocol=p)
        )
    hostile(f"pth-legacy-{kind}")(lambda f, k=kind: torch_bytes({"a": canaries(f)[k]}, new=False))
    hostile(f"pt-raw-{kind}")(lambda f, k=kind: pickle.dumps({"a": canaries(f)[k]}, 2))
    hostile(f"npy-object-{kind}")(lambda f, k=kind: npy(np.array([canaries(f)[k]], dtype=object)))
    hostile(f"npz-object-{kind}")(lambda f, k=kind: npz(a=np.array([canaries(f)[k]], dtype=object)))


@hostile("pth-inst-opcode")
def _(folder: Path) -> bytes:
    return zipped({"net/data.pkl": f"(S'touch {folder}/canary'\nios\nsystem\n.".encode()})


@hostile("npz-pickled-metadata")
def _(folder: Path) -> bytes:
    return npz(metadata=np.array(canaries(folder)["open"], dtype=object), a=np.ones(3))


# torch: sizes -----------------------------------------------------------------------------------


def zipped(members: dict[str, bytes], kind: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def number(n: int) -> bytes:
    data = n.to_bytes(9, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def tensor(shape: Any, stride: Any, *, entries: int = 4, offset: int = 0, key: str = "0") -> bytes:
    """Opcodes of a tensor, whose storage says that it has so many entries."""
    storage = (
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu")
        + number(entries) + b"tQ"
    )  # fmt: skip
    sizes = (b"(" + b"".join(map(number, values)) + b"t" for values in (shape, stride))
    arguments = (
        b"(" + storage + number(offset) + b"".join(sizes) + b"\x89ccollections\nOrderedDict\n)Rt"
    )
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"


def state(*items: tuple[str, bytes]) -> bytes:
    """Opcodes of a dict of tensors."""
    pairs = b"".join(text(name) + value for name, value in items)
    return b"\x80\x02}(" + pairs + b"u."


def pth(*items: tuple[str, bytes], stored: int = 16) -> bytes:
    return zipped({"net/data.pkl": state(*items), "net/data/0": bytes(stored)})


listed("pth-stride-0", pth(("a.weight", tensor([10**6, 10**6], [0, 0]))))
listed("pth-stride-0-one-axis", pth(("a.weight", tensor([4, HUGE], [1, 0]))))
listed("pth-more-entries-than-stored", pth(("a.weight", tensor([1, 10**9], [1, 1], entries=10**9))))
listed("pth-offset-beyond", pth(("a.weight", tensor([2, 2], [2, 1], offset=HUGE))))
listed("pth-negative-offset", pth(("a.weight", tensor([2, 2], [2, 1], offset=-4))))
listed("pth-negative-dims", pth(("a.weight", tensor([-2, -2], [2, 1]))))
listed("pth-negative-stride", pth(("a.weight", tensor([2, 2], [-2, 1]))))
listed("pth-negative-storage", pth(("a.weight", tensor([2, 2], [2, 1], entries=-4))))
listed("pth-empty-but-huge", pth(("a.weight", tensor([0, 2**62], [1, 1]))))
listed("pth-missing-storage", pth(("a.weight", tensor([2, 2], [2, 1], key="../../etc/passwd"))))
listed("pth-duplicate-keys", pth(*[("a.weight", tensor([2, 2], [2, 1]))] * 2))
listed("pth-memo-index", zipped({"net/data.pkl": b"\x80\x02Nr\xff\xff\xff\x7f0" * 9 + b"."}))
listed("pth-long-string", zipped({"net/data.pkl": b"\x80\x02X\xff\xff\xff\x7fabc."}))
listed("pth-opcodes", lambda: zipped({"net/data.pkl": b"\x80\x02" + b"N0" * 2_000_000 + b"N."}))
listed("pth-dict-in-itself", zipped({"net/data.pkl": b"\x80\x02}q\0" + text("a") + b"h\0s."}))
listed("pth-deep", lambda: zipped({"net/data.pkl": b"\x80\x02" + b"]" * 9999 + b"a" * 9998 + b"."}))
listed("pth-two-pickles", zipped({"a/data.pkl": state(), "b/data.pkl": state()}))
listed("pth-empty-stack", zipped({"net/data.pkl": b"\x80\x02R."}))
listed("pth-tar", b"net/data" + bytes(600))
listed("pth-big-endian", zipped({"net/data.pkl": state(), "net/byteorder": b"big"}))
listed("pth-inflates", lambda: zipped({"net/data.pkl": state(), "net/data/0": bytes(2 * 10**8)},
                              zipfile.ZIP_DEFLATED))  # fmt: skip


@hostile("pth-dicts-that-double")
def _(folder: Path) -> bytes:
    """Forty levels, each with the one below twice: 2^40 tensors, in 1 KB."""
    code = b"\x80\x02}q\0"
    for level in range(1, 41):
        below, this = bytes([level - 1]), bytes([level])
        code += b"}q" + this + b"(" + text("a") + b"h" + below + text("b") + b"h" + below + b"u"
    return zipped({"net/data.pkl": code + b"."})


@hostile("pth-tuples-that-double")
def _(folder: Path) -> bytes:
    """Sixty levels of pairs, each of the one below twice: an error must not print them."""
    code = b"\x80\x02)q\0"
    for level in range(1, 61):
        below = b"h" + bytes([level - 1])
        code += below + below + b"\x86q" + bytes([level])
    return zipped({"net/data.pkl": code + b"."})


listed(
    "pth-tuples-as-a-storage",
    zipped(
        {
            "net/data.pkl": b"\x80\x02"
            + b")q\0"
            + b"".join(
                b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(60)
            )
            + b"Q."
        }
    ),
)
listed("pth-long-integer", zipped({"net/data.pkl": b"\x80\x02\x8b" + struct.pack("<I", 10_000)
                                   + b"\x7f" * 10_000 + b"Q."}))  # fmt: skip


@hostile("pth-legacy-entries")
def _(folder: Path) -> bytes:
    """A storage of 4 TB, in a file of the older form."""
    whole = torch_bytes({"a.weight": torch.ones(2, 2)}, new=False)
    return whole.replace(b"K\x04N", number(HUGE) + b"N").replace(b"K\x04t", number(HUGE) + b"t")


@hostile("pth-nan")
def _(folder: Path) -> bytes:
    return torch_bytes({"a.weight": torch.full((2, 2), torch.nan)})


# safetensors ------------------------------------------------------------------------------------


def st(header: Any, data: bytes = b"") -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


def entry(shape: Any, start: Any, stop: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


listed("safetensors-900000-tensors", lambda: st({f"{i:06}": entry([], i, i + 1, "U8")
                                         for i in range(900_000)}, bytes(900_000)))  # fmt: skip
listed("safetensors-5000-tensors", lambda: st({str(i): entry([0], 0, 0) for i in range(5000)}))
listed("safetensors-header-length", struct.pack("<Q", 2**63) + b"{}")
listed("safetensors-header-beyond", struct.pack("<Q", 1000) + b"{}")
listed("safetensors-deep-header", st(b'{"a":' * 100_000))
listed("safetensors-brackets", lambda: st(b"[" * 1_000_000))
listed("safetensors-lists", lambda: st(b'{"a":[' + b"[]," * 1_300_000 + b"[]]}"))
listed("safetensors-duplicate-keys", st(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
                                        b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
                                        bytes(4)))  # fmt: skip
listed("safetensors-overlap", st({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(12)))
listed("safetensors-gap", st({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, bytes(12)))
listed("safetensors-hidden-tail", st({"a": entry([1], 0, 4)}, bytes(99)))
listed("safetensors-huge-shape", st({"a": entry([10**6, 10**6], 0, 4)}, bytes(4)))
listed("safetensors-overflowing-shape", st({"a": entry([2**32, 2**32], 0, 0)}))
listed("safetensors-negative-dims", st({"a": entry([-1, -4], 0, 16)}, bytes(16)))
listed("safetensors-negative-offsets", st({"a": entry([1], -4, 0)}, bytes(4)))
listed("safetensors-offsets-beyond", st({"a": entry([HUGE], 0, 4 * HUGE)}, bytes(4)))
listed("safetensors-float-offsets", st({"a": entry([1], 0.0, 4.0)}, bytes(4)))
listed("safetensors-true-dims", st({"a": entry([True], 0, 4)}, bytes(4)))
listed("safetensors-list-dtype", st({"a": entry([1], 0, 4, ["F32"])}, bytes(4)))
listed("safetensors-metadata-numbers", st({"__metadata__": {"format": 1}}))
listed("safetensors-long-digits", st(b'{"a":' + b"9" * 100_000 + b"}"))
listed("safetensors-nan", safetensors.numpy.save({"a.weight": np.full((2, 2), np.nan)}))
listed("safetensors-infinity", safetensors.numpy.save({"a.weight": np.full((2, 2), np.inf)}))


def own(records: Any, **tensors: np.ndarray) -> bytes:
    """A file that says that it is of ``preimage.save``."""
    layers = records if isinstance(records, str) else json.dumps(records)
    return safetensors.numpy.save(
        tensors, metadata={"format": "preimage", "version": "1", "layers": layers}
    )


listed("safetensors-own-shape", own([{"activation": "relu", "storage": "dense",
                                      "shape": [HUGE, HUGE]}]))  # fmt: skip
listed("safetensors-own-csr", own(
    [{"activation": "relu", "storage": "csr", "shape": [2**22, 2**22]}],
    **{f"layers.0.weight.{part}": np.zeros(1, kind)
       for part, kind in (("data", "f4"), ("indices", "i4"), ("indptr", "i4"))},
))  # fmt: skip
listed("safetensors-own-convolution", own(
    [{"activation": "relu", "storage": "operator", "shape": [2**22, 2**22], "parts": [{
        "storage": "convolution", "shape": [2**22, 2**22], "size": [2**11, 2**11],
        "stride": [1, 1], "dilation": [1, 1], "padding": [[2**20, 2**20]] * 2, "groups": 1,
        "transposed": False}]}],
    **{"layers.0.weight.0.kernel": np.ones((1, 1, 1, 1), "f4")},
))  # fmt: skip
listed("safetensors-own-brackets", own("[" * 100_000))
listed("safetensors-own-slopes", own([{"activation": "prelu(0.5;999999999999)", "storage": "dense",
                                       "shape": [2, 2]}],
                                     **{"layers.0.weight": np.ones((2, 2), "f4")}))  # fmt: skip


# npy and npz ------------------------------------------------------------------------------------


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def raw_npy(shape: str, dtype: str = "'<f8'", data: bytes = b"") -> bytes:
    header = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + data


listed("npy-huge-shape", raw_npy("(1000000, 1000000)"))
listed("npy-overflowing-shape", raw_npy("(4294967296, 4294967296)"))
listed("npy-negative-dims", raw_npy("(-1, -2)", data=bytes(16)))
listed("npy-no-bytes-an-entry", raw_npy("(1000000000000,)", "'V0'"))
listed("npy-structured", raw_npy("(1,)", "[('a', '<f8', (1000000, 1000000))]"))
listed("npy-expression", raw_npy("(" * 2000 + ")" * 2000))
listed("npy-call", raw_npy("__import__('os').system('touch canary')"))
listed("npy-nan", npy(np.full((2, 2), np.nan)))
listed("npy-header-length", b"\x93NUMPY\2\0\xff\xff\xff\x7f{")
listed("npz-inflates", lambda: zipped({"a.npy": raw_npy("(25000000,)", data=bytes(2 * 10**8))},
                              zipfile.ZIP_DEFLATED))  # fmt: skip
listed("npz-huge-shape", zipped({"a.npy": raw_npy("(1000000, 1000000)")}))
listed("npz-5000-members", lambda: zipped({f"{i}.npy": b"" for i in range(5000)}))
listed("npz-100000-members", lambda: zipped({f"{i:040}.npy": b"" for i in range(100_000)}))
listed("npz-twice", zipped({"a.npy": npy(np.ones(3)), "a": npy(np.zeros(3))}))
listed("npz-lzma", zipped({"a.npy": npy(np.ones(3))}, zipfile.ZIP_LZMA))
listed("npz-long-metadata", lambda: npz(metadata=np.array("[" * 2_000_000)))
listed("npz-nan", npz(**{"a.weight": np.full((2, 2), np.nan)}))


@hostile("npz-same-name")
def _(folder: Path) -> bytes:
    return zipped({"a.npy": npy(np.ones(3)), "b.npy": npy(np.zeros(3))}).replace(b"b.npy", b"a.npy")


@hostile("npz-larger-than-it-says")
def _(folder: Path) -> bytes:
    """A member of 100 MB whose directory says 104 bytes."""
    data = raw_npy("(12500000,)", data=bytes(10**8))
    small, large = struct.pack("<I", 104), struct.pack("<I", len(data))
    return zipped({"a.npy": data}, zipfile.ZIP_DEFLATED).replace(large, small)


@hostile("npz-one-member-many-times")
def _(folder: Path) -> bytes:
    """A directory whose entries all point at one stored member of 1 MB, a thousand times."""
    whole = zipped({"0000.npy": raw_npy("(131072,)", data=bytes(2**20))})
    at = whole.index(b"PK\1\2")
    end = whole.index(b"PK\5\6")
    entries = b"".join(whole[at:end].replace(b"0000.", b"%04d." % i) for i in range(1000))
    tail = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 1000, 1000, len(entries), at, 0)
    return whole[:at] + entries + tail


# ONNX -------------------------------------------------------------------------------------------

RNG = np.random.default_rng(0)


def dense(*nodes: Any, **options: Any) -> onnx.ModelProto:
    weight = RNG.standard_normal((4, 6)).astype(np.float32)
    return model([("MatMul", ["x", weight], "a", {}), *nodes], (4,), **options)


def onnx_nodes(name: str, *nodes: Any, **options: Any) -> None:
    listed(f"onnx-{name}", dense(*nodes, **options).SerializeToString())


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


onnx_nodes("constant-of-shape", ("ConstantOfShape", [ints(2**20, 2**20)], "b", {}),
           ("Add", ["a", "b"], "y", {}))  # fmt: skip
onnx_nodes("constants-together",
           *[("ConstantOfShape", [ints(2**22)], f"b{i}", {}) for i in range(40)],
           ("Concat", [f"b{i}" for i in range(40)], "c", {"axis": 0}),
           ("Add", ["a", "c"], "y", {}))  # fmt: skip
onnx_nodes("expand", ("Expand", ["a", ints(1, 2**40, 6)], "y", {}))
onnx_nodes("expand-negative", ("ConstantOfShape", [ints(-4, -4)], "b", {}),
           ("Add", ["a", "b"], "y", {}))  # fmt: skip
onnx_nodes("pad", ("Pad", ["a", ints(0, 0, 0, 2**50)], "y", {}))
onnx_nodes("resize", ("Reshape", ["a", ints(1, 1, 2, 3)], "b", {}),
           ("Resize", ["b", "", np.float32([1, 1, 1e6, 1e6])], "y", {}))  # fmt: skip
onnx_nodes("outer", ("Mul", [np.ones((2**20, 1), np.float32), np.ones(2**20, np.float32)], "b", {}),
           ("Add", ["a", "b"], "y", {}))  # fmt: skip
onnx_nodes("doubling", *[("Concat", [f"b{i}"] * 2, f"b{i + 1}", {"axis": 0}) for i in range(60)],
           ("Add", ["a", "b60"], "y", {}), constants={"b0": np.ones(2, np.float32)})  # fmt: skip
onnx_nodes("gather",
           ("Gather", ["a", np.zeros((2**11, 2**11 + 1), np.int32)], "y", {"axis": 1}))  # fmt: skip
onnx_nodes("kernel", ("Reshape", ["a", ints(1, 1, 2, 3)], "b", {}),
           ("ConvTranspose", ["b", np.ones((1, 1, 2, 2), np.float32)], "y",
            {"strides": [2**24, 2**24]}))  # fmt: skip
onnx_nodes("kernel-cut-off", ("Reshape", ["a", ints(1, 1, 6)], "b", {}),
           ("ConvTranspose", ["b", np.ones((1, 1, 1), np.float32)], "y",
            {"strides": [2**25], "pads": [2**26, 2**26 + 2**25 - 5]}))  # fmt: skip
onnx_nodes("nan", ("Add", ["a", np.full(6, np.nan, np.float32)], "y", {}))
onnx_nodes("loop", ("Loop", ["a"], "y", {}))
onnx_nodes("unknown-operator", ("Shell", ["a"], "y", {}))
onnx_nodes("text", ("Constant", [], "b", {"value_string": "a"}), ("Add", ["a", "b"], "y", {}))


def changed(name: str, change: Callable[[onnx.ModelProto], object]) -> None:
    proto = dense(("Relu", ["a"], "y", {}))
    change(proto)
    listed(f"onnx-{name}", proto.SerializeToString())


changed("negative-dims", lambda p: p.graph.initializer[0].dims.__setitem__(0, -4))
changed("huge-dims", lambda p: p.graph.initializer[0].dims.__setitem__(0, HUGE))
changed("zero-dims", lambda p: p.graph.initializer[0].dims.extend([0, HUGE]))
changed("huge-latent", lambda p: setattr(p.graph.input[0].type.tensor_type.shape.dim[1],
                                         "dim_value", HUGE))  # fmt: skip
changed("duplicate-weights", lambda p: p.graph.initializer.append(p.graph.initializer[0]))
changed("cycle", lambda p: p.graph.node[0].input.__setitem__(0, "y"))
changed("no-such-type", lambda p: setattr(p.graph.initializer[0], "data_type", 99))
listed("onnx-empty-nodes", lambda: whole("onnx") + b"\x3a\x80\xad\xe2\x04"
       + b"\x0a\x00" * 5_000_000)  # fmt: skip
listed("onnx-packed-numbers", lambda:
       b"\x3a\x87\xb5\xaf\x1d\x2a\x82\xb5\xaf\x1d\x3a\xfe\xb4\xaf\x1d"
       + bytes(61594238))  # fmt: skip
listed("onnx-nested", b"".join([b"\x3a\x01"] * 2000))


@hostile("onnx-deep")
def _(folder: Path) -> bytes:
    """Subgraphs within subgraphs."""
    body = b""
    for _ in range(3000):
        for field in (b"\x0a", b"\x2a", b"\x32"):  # graph.node, node.attribute, attribute.g
            length, size = b"", len(body)
            while size > 127:
                length, size = length + bytes([size & 127 | 128]), size >> 7
            body = field + length + bytes([size]) + body
    return b"\x3a" + b"\xff\xff\xff\x7f" + body


@hostile("onnx-functions-that-double")
def _(folder: Path) -> bytes:
    """Forty functions, each of which calls the one before twice: 2^40 nodes, in 5 KB."""
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    proto = dense(("f40", ["a"], "y", {}))
    proto.graph.node[1].domain = "own"
    proto.opset_import.append(imports[1])
    for level in range(1, 41):
        inner = (f"f{level - 1}", "own") if level > 1 else ("Neg", "")
        body = [
            helper.make_node(inner[0], ["i"], ["t"], domain=inner[1]),
            helper.make_node(inner[0], ["t"], ["o"], domain=inner[1]),
        ]
        proto.functions.append(
            helper.make_function("own", f"f{level}", ["i"], ["o"], body, imports)
        )
    return proto.SerializeToString()


@hostile("onnx-function-of-itself")
def _(folder: Path) -> bytes:
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    proto = dense(("f", ["a"], "y", {}))
    proto.graph.node[1].domain = "own"
    proto.opset_import.append(imports[1])
    body = [helper.make_node("f", ["i"], ["o"], domain="own")]
    proto.functions.append(helper.make_function("own", "f", ["i"], ["o"], body, imports))
    return proto.SerializeToString()


def external(location: str) -> Writer:
    def write(folder: Path) -> Path:
        inside = folder / "model"
        inside.mkdir()
        (folder / "secret").write_bytes(bytes(96))
        os.symlink(folder / "secret", inside / "link")
        proto = dense(("Relu", ["a"], "y", {}))
        weight = proto.graph.initializer[0]
        external_data_helper.set_external_data(weight, location.replace("FOLDER", str(folder)))
        weight.ClearField("raw_data")
        (inside / "net.onnx").write_bytes(proto.SerializeToString())
        return inside / "net.onnx"

    return write


# The reader is told to allow other files for all but the first.
for name, location in {
    "by-default": "link", "parent": "../secret", "absolute": "FOLDER/secret", "symlink": "link",
    "device": "/dev/zero", "within": "x/../../secret",
}.items():  # fmt: skip
    hostile(f"onnx-external-{name}")(external(location))


@hostile("onnx-text-weights")
def _(folder: Path) -> bytes:
    proto = dense(("Relu", ["a"], "y", {}))
    proto.graph.initializer[0].CopyFrom(
        helper.make_tensor("constant_0", TensorProto.STRING, [4, 6], [b"a"] * 24)
    )
    return proto.SerializeToString()


@hostile("onnx-sparse")
def _(folder: Path) -> bytes:
    """A sparse weight of 10^12 entries, one of which is there."""
    proto = dense(("Add", ["a", "s"], "y", {}))
    values = numpy_helper.from_array(np.ones(1, np.float32), "s")
    index = numpy_helper.from_array(ints(0), "i")
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, index, [HUGE]))
    return proto.SerializeToString()


# Images -----------------------------------------------------------------------------------------


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def pixels(count: int) -> bytes:
    return chunk(b"IDAT", zlib.compress(bytes(count)))


def png(width: int, height: int, *more: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + chunk(b"IEND", b"")


listed(
    "png-30000-by-30000", lambda: png(30000, 30000, chunk(b"IDAT", zlib.compress(bytes(9 * 10**6))))
)
listed("png-largest", png(2**31 - 1, 2**31 - 1))
listed("png-no-size", png(0, 0))
listed(
    "png-text-that-inflates",
    lambda: png(2, 2, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8)))),
)
listed("png-no-pixels", png(2, 2))
listed("idx-huge", b"\0\0\x08\3" + struct.pack(">3I", *[2**32 - 1] * 3))
listed("idx-255-dimensions", b"\0\0\x08\xff" + struct.pack(">255I", *[2] * 255))
listed("idx-short", b"\0\0\x08\3" + struct.pack(">3I", 2, 2, 2) + bytes(7))


# Cut off ----------------------------------------------------------------------------------------


def whole(kind: str) -> bytes:
    """A good file."""
    weight = np.arange(24, dtype=np.float32).reshape(6, 4)
    match kind:
        case "safetensors":
            record = {"activation": "relu", "storage": "dense", "shape": [6, 4]}
            return own([record], **{"layers.0.weight": weight})
        case "npz":
            return npz(**{"a.weight": weight})
        case "pth" | "pt":
            return torch_bytes({"a.weight": torch.from_numpy(weight)})
        case "npy":
            return npy(weight)
        case "idx":
            return b"\0\0\x08\3" + struct.pack(">3I", 6, 2, 2) + bytes(range(24))
        case "png":
            rows = b"".join(b"\0" + bytes(range(16)) for _ in range(16))
            return png(16, 16, chunk(b"IDAT", zlib.compress(rows)))
        case _:
            return dense(("Relu", ["a"], "y", {})).SerializeToString()


KINDS = ("safetensors", "npz", "pth", "pt", "npy", "idx", "png", "onnx")
for kind in KINDS:
    for part in range(16):
        data = whole(kind)
        listed(f"{kind}-cut-{part}", data[: len(data) * part // 16])
