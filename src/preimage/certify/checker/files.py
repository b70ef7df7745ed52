"""Read the three files: the certificate, the network (safetensors) and the observation (npy)."""

import ast
import hashlib
import itertools
import json
import math
import re
import struct
from pathlib import Path

from .forms import fields, items, read_json
from .network import INF, Layer, latent_layer, require

FORMATS = {"F64": "d", "F32": "f", "<f8": "d", "<f4": "f", "<i8": "q", "<i4": "i"}
FORMATS |= {"|u1": "B", "|b1": "?", "I16": "h", "I32": "i", "I64": "q"}
SLOPES = {"relu": "0", "identity": "1", "sigmoid": "0", "tanh": "0"}
FORMAT = "preimage certificate 2"
BYTES = 2**30  # largest size of a certificate
ENTRIES = 2**24  # of a sparse weight, zeros included


def read_network(path):
    """The layers of a safetensors file, and the digest of what they hold."""
    data = Path(path).read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header, sha, layers = read_json(data[8:start]), hashlib.sha256(), []

    def tensor(name, count):
        if name not in header:
            return (0.0,) * count  # a bias
        kind, (first, last) = header[name]["dtype"], header[name]["data_offsets"]
        return struct.unpack(f"<{count}{FORMATS[kind]}", data[start + first : start + last])

    def sparse(name, n, k):
        """A weight in CSR form, with its zeros."""
        first, last = header[f"{name}.indices"]["data_offsets"]
        require(n * k <= ENTRIES and n <= len(data), "network: a sparse weight is too large")
        ends = tensor(f"{name}.indptr", n + 1)
        require(ends[0] == 0 and ends == tuple(sorted(ends)) and ends[-1] <= last - first,
                "network: expected rows of a sparse weight")  # fmt: skip
        values, columns = tensor(f"{name}.data", ends[-1]), tensor(f"{name}.indices", ends[-1])
        require(all(0 <= j < k for j in columns), "network: a column that is not there")
        flat = [0.0] * (n * k)
        for i, (low, high) in enumerate(itertools.pairwise(ends)):
            require(len(set(columns[low:high])) == high - low, "network: an entry is there twice")
            for j, value in zip(columns[low:high], values[low:high], strict=True):
                flat[i * k + j] = value
        return flat

    for i, record in enumerate(read_json(header["__metadata__"]["layers"])):
        name, (n, k) = record["activation"], record["shape"]
        weight, stored = f"layers.{i}.weight", record["storage"]
        require(stored in ("dense", "csr"), "network: expected dense or csr weights")
        if stored == "dense":
            require(weight in header and 0 < n * k <= len(data), "network: no weights")
        layers = layers or [latent_layer(k)]
        require(k == layers[-1].count, "network: the layers do not chain")
        flat = tensor(weight, n * k) if stored == "dense" else sparse(weight, n, k)
        bias = tensor(f"layers.{i}.bias", n)
        require(all(map(math.isfinite, (*flat, *bias))), "network: expected finite numbers")
        sha.update(f"{n} {k} {name}".encode() + pack(flat) + pack(bias))
        kind, given, _, repeat = re.fullmatch(r"(\w+)(?:\(([^;)]*)(;(\d+))?\))?", name).groups()
        require(kind in (*SLOPES, "leaky_relu", "prelu"), f"network: unknown activation {kind}")
        slope = SLOPES.get(kind, given)
        each = min(int(repeat or 1), n)  # a shape may not ask for more than the file holds
        slopes = [float(c) for c in slope.split(",") for _ in range(each)] * (1 if repeat else n)
        require(all(0 <= c < INF for c in slopes), "network: expected slopes of at least 0")
        require(len(slopes) == n, "network: expected one slope, or one for each unit")
        smooth = kind if kind in ("sigmoid", "tanh") else None
        layers.append(Layer(flat, (n, k), bias, slopes, smooth))
    hidden = not any(layer.smooth for layer in layers[:-1])
    require(layers and hidden, "network: expected a piecewise linear one, up to its head")
    return layers, sha.hexdigest()


def pack(values):
    return struct.pack(f"<{len(values)}d", *(v + 0.0 for v in values))


def read_array(path, columns):
    """The rows of an npy file."""
    data = Path(path).read_bytes()
    width = 2 if data[6] == 1 else 4
    start = 8 + width + int.from_bytes(data[8 : 8 + width], "little")
    header = ast.literal_eval(data[8 + width : start].decode())
    shape, kind = header["shape"], header["descr"]
    require(data[:6] == b"\x93NUMPY" and not header["fortran_order"], "expected an npy file")
    count = math.prod(shape)
    require(shape and shape[-1] == columns and 0 < count <= len(data), "npy: another size")
    values = struct.unpack(f"<{count}{FORMATS[kind]}", data[start:])
    return [values[i : i + columns] for i in range(0, count, columns)], kind == "|b1"


def seal(content):
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_certificate(path):
    """The samples of a file that is whole."""
    require(Path(path).stat().st_size <= BYTES, "certificate: the file is too large")
    content = read_json(Path(path).read_bytes())
    kind, samples, digest = fields(content, "format", "samples", "digest")
    require(kind == FORMAT, f"certificate: expected {FORMAT}")
    require(digest == seal({"format": kind, "samples": samples}), "certificate: it was changed")
    return items(samples)


def sensing_digest(flat, shape):
    return hashlib.sha256(f"{shape[0]} {shape[1]}".encode() + pack(flat)).hexdigest()
