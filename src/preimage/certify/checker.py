"""Check a certificate: ``python -m preimage.certify.checker CERTIFICATE NETWORK OBSERVATION``.

This file needs the Python standard library only. It trusts nothing in the certificate: first the
form of the file is checked, then every claim is proven again, in exact arithmetic. NETWORK is a
safetensors file as ``preimage.save`` writes it, OBSERVATION an npy file. The questions that were
answered are printed; ``--noise``, ``--box`` and ``--resolution`` say what they have to be. The exit
code is 0 if every verdict is proven, and 1 if one is not, or is ``undecided``.

The network is ``a_i = W_i z_{i-1} + b_i``, ``z_i = s_i(a_i)``, where each ``s`` has slope 1 above 0
and slope ``c`` below. For any multipliers rho_i and ``g_{i-1} = W_i' rho_i``, every latent obeys

    0 = sum_i rho_i b_i + sum_ij (g_ij s_i(a_ij) - rho_ij a_ij) + sum_j g_0j z_j.

Each term has a least value over an interval. Where these sum to more than 0, there is no latent.

Numbers are integers that count units of 2^-1074, the smallest float, or of 2^-e where an exponent e
is kept beside them. Layer 0 stands for the latent; the numbers of layer i are at index i.
"""

import argparse
import ast
import decimal
import functools
import hashlib
import json
import math
import operator
import re
import struct
import sys
import time
from fractions import Fraction
from pathlib import Path

INF, UNIT, TINY = math.inf, 1074, Fraction(1, 10**70)
FORMATS = {"F64": "d", "F32": "f", "<f8": "d", "<f4": "f", "<i8": "q", "<i4": "i"}
FORMATS |= {"|u1": "B", "|b1": "?"}
FORMAT = "preimage certificate 2"
VERDICTS = {"unique": 1, "ambiguous": 2, "infeasible": 0, "undecided": 1}  # most witnesses
FLOAT = re.compile(r"-?(inf|0x[01]\.[0-9a-f]{1,13}p[+-][0-9]{1,4})")
DEPTH, BYTES = 200, 2**30  # largest depth of a proof, largest size of a certificate


def require(condition, message):
    if not condition:
        raise ValueError(message)


def exact(value):
    """A float in units of 2^-1074."""
    if math.isinf(value):
        return value
    numerator, denominator = value.as_integer_ratio()
    return numerator << (UNIT + 1 - denominator.bit_length())


def rational(value):
    return value if value in (INF, -INF) else Fraction(value, 1 << UNIT)


def number(text, finite=True):
    require(type(text) is str and FLOAT.fullmatch(text), "expected a hexadecimal float")
    value = float.fromhex(text)
    require(math.isfinite(value) or not finite, "expected a finite number")
    return exact(value)


def numbers(texts, size, finite=True):
    return [number(text, finite) for text in items(texts, size)]


def items(value, size=None):
    require(type(value) is list and size in (None, len(value)), f"expected {size or 'a'} list")
    return value


def fields(value, *names):
    require(type(value) is dict and set(value) == set(names), f"expected the fields {names}")
    return [value[name] for name in names]


def index(value, below):
    require(type(value) is int and 0 <= value < below, f"expected an integer below {below}")
    return value


def read_json(data):
    """Strict JSON: no key twice, and no number but integers of at most 4300 digits."""

    def record(pairs):
        require(len({key for key, _ in pairs}) == len(pairs), "a field stands twice")
        return dict(pairs)

    def refuse(text):
        raise ValueError(f"expected no number like {text[:20]}")

    return json.loads(data, object_pairs_hook=record, parse_float=refuse, parse_constant=refuse)


def reduced(values):
    """The same numbers as integers in units of 2^-exponent, the exponent as small as possible."""
    common = functools.reduce(operator.or_, values, 0)
    shift = min((common & -common).bit_length() - 1, UNIT) if common else UNIT
    return [value >> shift for value in values], UNIT - shift


def scaled(values):
    """Floats as integers in units of 2^-exponent, and the smallest such exponent of at least 0."""
    ratios = [value.as_integer_ratio() for value in values]
    top = max((below.bit_length() for _, below in ratios), default=1)
    return [above << (top - below.bit_length()) for above, below in ratios], top - 1


class Layer:
    """Weights in units of 2^-shift, biases, slopes below 0 in units of 2^-bend.

    ``smooth`` names the activation of a tanh or sigmoid head; ``given`` are the arguments.
    """

    def __init__(self, flat, shape, bias, slopes, smooth=None):
        self.given, self.smooth = (flat, shape, bias, slopes, smooth), smooth
        (self.count, self.columns), self.packed = shape, {}
        values, self.shift = scaled(flat)
        self.bias, starts = list(map(exact, bias)), range(0, len(flat), self.columns)
        self.rows = [values[at : at + self.columns] for at in starts]
        (*self.slopes, self.one), self.bend = scaled((*slopes, 1.0))
        self.size = max((abs(w).bit_length() for w in values), default=0)

    def image(self, z):
        return [sum(map(operator.mul, row, z)) for row in self.rows]

    def adjoint(self, rho):
        """``rho W``, whose sums over rows are formed for all columns in one integer."""
        used = [(j, y) for j, y in enumerate(rho) if y]
        need = self.size + max((abs(y).bit_length() for _, y in used), default=0)
        width = -(-(need + len(used).bit_length() + 1) // 128) * 16  # bytes
        half = 1 << (8 * width - 1)
        if width not in self.packed:
            shift = int.from_bytes(half.to_bytes(width, "little") * self.columns, "little")
            self.packed[width] = shift, {}
        shift, rows = self.packed[width]
        total = shift
        for j, y in used:
            if j not in rows:
                data = b"".join((w + half).to_bytes(width, "little") for w in self.rows[j])
                rows[j] = int.from_bytes(data, "little") - shift
            total += y * rows[j]
        data = total.to_bytes(width * self.columns, "little")
        starts = range(0, len(data), width)
        return [int.from_bytes(data[at : at + width], "little") - half for at in starts]

    def output(self, a):
        """A smooth head's output at a, from below and above, as fractions."""
        t = (2 if self.smooth == "tanh" else 1) * a
        near = max(min(t, Fraction(700)), Fraction(-700))
        with decimal.localcontext() as context:
            context.prec = 90  # of the quotient and of exp, which Decimal rounds correctly
            e = Fraction((-decimal.Decimal(near.numerator) / near.denominator).exp())
        low = 1 / (1 + e * (1 + TINY)) if t >= -700 else Fraction(0)
        high = 1 / (1 + e * (1 - TINY)) if t <= 700 else Fraction(1)
        return (2 * low - 1, 2 * high - 1) if self.smooth == "tanh" else (low, high)

    def observed(self, x, noise, claimed):
        """The pre-activations whose outputs are within noise of x."""
        found = []
        for j, (v, c) in enumerate(zip(x, self.slopes, strict=True)):
            if v is None:  # not seen
                found.append([-INF, INF])
                continue
            low, high = v - noise, v + noise
            if self.smooth:
                ends = [side[j] for side in claimed]
                outputs = [self.output(rational(end)) for end in ends]
                require(ends[0] == -INF or outputs[0][1] <= rational(low), "head: low end")
                require(ends[1] == INF or outputs[1][0] >= rational(high), "head: high end")
            elif c == 0:
                ends = [low if low > 0 else -INF, high if high >= 0 else -INF]
            else:  # divided by the slope, and rounded outward
                ends = [low if low >= 0 else (low << self.bend) // c,
                        high if high >= 0 else -((-high << self.bend) // c)]  # fmt: skip
            found.append(ends)
        return found


def explains(layers, x, noise, box, z):
    """Whether ``|G(z) - x| <= noise`` and z lies in the box."""
    if not all(low <= v <= high for (low, high), v in zip(box, z, strict=True)):
        return False
    z, scale = reduced(z)
    for layer in layers[1:]:
        (bias, fine), scale = reduced(layer.bias), scale + layer.shift
        top = max(scale, fine)
        pairs = zip(layer.image(z), bias, strict=True)
        a = [(v << (top - scale)) + (b << (top - fine)) for v, b in pairs]
        z = [v * (layer.one if v >= 0 else c) for v, c in zip(a, layer.slopes, strict=True)]
        scale = top + layer.bend
    if layers[-1].smooth:
        pairs = zip(x, (layers[-1].output(Fraction(v, 1 << top)) for v in a), strict=True)
        seen = [(rational(v - noise), p, rational(v + noise)) for v, p in pairs if v is not None]
        return all(low <= p[0] and p[1] <= high for low, p, high in seen)
    lift = max(UNIT - scale, 0)
    more = scale + lift - UNIT
    seen = [(v << lift, w << more) for v, w in zip(z, x, strict=True) if w is not None]
    return all(abs(v - w) <= noise << more for v, w in seen)


def least(below, above, low, high):
    """The least value over an interval of the function with these slopes below and above 0."""
    found = [0] if low <= 0 <= high else []
    for end in (low, high):
        slope = above if end >= 0 else below
        if slope and (end == INF or end == -INF):
            require((slope > 0) == (end > 0), "a step is not proven: a term is unbounded")
        else:
            found.append(slope * end if slope else 0)
    require(found, "a step is not proven: it uses an empty interval")
    return min(found)


class State:
    """Intervals of the latent (layer 0) and of the pre-activations of every layer."""

    def __init__(self, layers, intervals, deadline=INF):
        self.layers, self.deadline = layers, deadline
        self.intervals = [[list(ends) for ends in row] for row in intervals]

    def empty(self):
        pairs = [ends for row in self.intervals for ends in row]
        return any(low > high or low == INF or high == -INF for low, high in pairs)

    def backward(self, start, multipliers, clipped):
        """The least values above layer ``start``, summed; g there; the exponent of g.

        ``rho_ij`` is the given multiplier, plus ``g_ij`` times the slope of a unit of known sign.
        """
        total, g, scale = 0, None, 0
        for i in range(start + len(multipliers), start, -1):
            layer, (own, fine) = self.layers[i], multipliers[i - start - 1]
            new = max(scale + layer.bend, fine)
            g = [v << (new - scale) for v in g] if g else [0] * layer.count
            total <<= new - scale
            rho = []
            for j, (up, c, (low, high)) in enumerate(
                zip(g, layer.slopes, self.intervals[i], strict=True)
            ):
                below = (up * c) >> layer.bend if c else 0  # nothing is lost
                y = own[j] << (new - fine) if j in own else 0
                if up:
                    y += up if low >= 0 or c == layer.one else below if high <= 0 else 0
                rho.append(y)
                if up or y:
                    low, high = clipped.get((i, j), (low, high))
                    total += layer.bias[j] * y + least(below - y, up - y, low, high)
            g, scale = layer.adjoint(rho), new + layer.shift
            total <<= layer.shift
        return total, g, scale

    def cuts(self, claims):
        """Prove that no latent lies beyond some ends, or on them, and keep the rest."""
        rest = []
        for layer, unit, upper, value, start, multipliers in claims:
            require(time.perf_counter() < self.deadline, "the time is up")
            low, high = self.intervals[layer][unit]
            clip = {(layer, unit): (max(low, value), high) if upper else (low, min(high, value))}
            total, g, _ = self.backward(start, multipliers, clip)
            below = self.layers[start]
            total <<= below.bend
            for j, (v, c) in enumerate(zip(g, below.slopes, strict=True)):
                low, high = clip.get((start, j), self.intervals[start][j])
                total += least(c * v, below.one * v, low, high)
            require(total > 0, "a cut is not proven")
            rest.append((self.intervals[layer][unit], upper, value))
        for ends, upper, value in rest:
            ends[upper] = min(ends[1], value) if upper else max(ends[0], value)

    def radius(self, start, value, proofs):
        """Prove that no output of a layer that has an infinite end is above ``value`` in size.

        Let t be the largest size of these. Some entry has it, and the proof for that entry's end
        shows that t > value is impossible while all others are at most t in size.
        """
        ends, layer = self.intervals[start], self.layers[start]
        slopes, one, bend = layer.slopes, layer.one, layer.bend

        def output(a, c, side):  # rounded outward
            if a >= 0 or c == one or a == -INF:
                return a if a >= 0 or c else 0
            return -(-a * c >> bend) if side else a * c >> bend

        ranges = [[output(p[s], c, s) for s in (0, 1)] for p, c in zip(ends, slopes, strict=True)]
        wanted = {(j, s) for j, pair in enumerate(ranges) for s in (0, 1) if pair[s] in (-INF, INF)}
        loose = {j for j, _ in wanted}
        require(wanted <= {(unit, side) for unit, side, _ in proofs}, "a radius has gaps")
        finite = [v for j in loose for s, v in enumerate(ranges[j]) if (j, s) not in wanted]
        require(all(abs(v) <= value for v in finite), "a radius is too small")
        for unit, side, multipliers in proofs:
            total, g, _ = self.backward(start, multipliers, {})
            rate = g[unit] if side else -g[unit]
            for j, v in enumerate(g):
                if v and j != unit and (j, v < 0) in wanted:
                    rate -= abs(v)
                elif v and j != unit:
                    total += v * ranges[j][v < 0]
            require(rate >= 0 and total + rate * value > 0, "a radius is not proven")
        for j in loose:
            low = (-value << bend) // slopes[j] if slopes[j] else -INF
            ends[j] = [max(ends[j][0], low), min(ends[j][1], value)]


def read_multipliers(record, layers):
    """For each of some layers, units with their multipliers, and the exponent of these."""
    found = []
    require(0 < len(items(record)) <= len(layers), "multipliers: expected some layers")
    for part, layer in zip(record, layers, strict=False):
        units, values, exponent = items(part, 3)
        both = items(units) + items(values, len(units))
        require(set(map(type, both)) <= {int}, "multipliers: expected integers")
        require(len(set(units)) == len(units), "a unit has two multipliers")
        require(not units or 0 <= min(units) <= max(units) < layer.count, "no such unit")
        found.append((dict(zip(units, values, strict=True)), index(exponent, 5000)))
    return found


def read_steps(record, layers):
    """The steps of a node, typed and in their ranges."""
    found, depth = [], len(layers)
    for kind, *rest in map(items, items(record)):
        require(kind in ("cuts", "radius"), "expected cuts or a radius")
        claims = []
        for claim in rest if kind == "cuts" else ():
            layer, unit, upper, value, start, mu = items(claim, 6)
            index(unit, layers[index(layer, depth)].count), index(start, min(layer + 1, depth - 1))
            end = number(value, finite=False)
            require(end != (INF if index(upper, 2) else -INF), "cuts: an end moves outward")
            mu = read_multipliers(mu, layers[start + 1 :])
            claims.append((layer, unit, upper, end, start, mu))
        if kind == "radius":
            start, value, parts = items(rest, 3)
            layer, above = layers[index(start, depth - 1)], layers[start + 1 :]
            for unit, side, mu in (items(part, 3) for part in items(parts)):
                index(unit, layer.count), index(side, 2)
                claims.append((unit, side, read_multipliers(mu, above)))
            require(number(value) >= 0, "a radius is negative")
            claims = [start, number(value), claims]
        found.append((kind, claims))
    return found


def read_tree(record, layers, depth=0):
    """A node: its steps, and ``"box"``, ``"empty"`` or a split with two nodes."""
    require(depth <= DEPTH, "proof: the tree is too deep")
    if type(record) is dict and "end" in record:
        steps, end = fields(record, "steps", "end")
        require(end in ("box", "empty"), "proof: expected a box or empty")
        return read_steps(steps, layers), end, []
    steps, split, children = fields(record, "steps", "split", "children")
    layer, unit, value = items(split, 3)
    place = layer, index(unit, layers[index(layer, len(layers))].count), number(value)
    children = [read_tree(child, layers, depth + 1) for child in items(children, 2)]
    return read_steps(steps, layers), place, children


def read_rows(record, n):
    """Rows of multipliers of the outputs, each as units and numbers."""
    rows = [items(row, 2) for row in items(record)]
    return [([index(j, n) for j in items(at)], numbers(values, len(at))) for at, values in rows]


def read_boxes(tokens, k, n):
    """Boxes in preorder: a split, a cut with rows, empty with rows, or one that may hold some."""
    found, waiting = [], [0]  # depths of the boxes to come
    for token in items(tokens):
        require(waiting and waiting[-1] <= DEPTH, "subdivision: too many boxes, or too deep")
        depth = waiting.pop()
        kind, *rest = items(token) or [None]
        if kind == "split":
            found.append((kind, index(items(rest, 2)[0], k), number(rest[1])))
            waiting += [depth + 1] * 2
        elif kind == "cut":
            ends = [numbers(side, k) for side in items(rest, 3)[:2]]
            found.append((kind, *ends, read_rows(rest[2], n)))
            waiting.append(depth + 1)
        elif kind == "empty":
            found.append((kind, read_rows(items(rest, 1)[0], n)))
        else:
            require(kind == "box" and not rest, "subdivision: expected a box")
            found.append((kind,))
    require(not waiting, "subdivision: a box is missing")
    return found


def leaves(state, node):
    """Go through a proof; yields the latent's intervals in each part that may hold latents."""
    steps, end, children = node
    for kind, claims in steps:
        state.cuts(claims) if kind == "cuts" else state.radius(*claims)
    for side, child in enumerate(children):
        (layer, unit, value), part = end, State(state.layers, state.intervals, state.deadline)
        pair = part.intervals[layer][unit]
        pair[1 - side] = max(pair[0], value) if side else min(pair[1], value)
        yield from leaves(part, child)
    if not children and not state.empty():
        require(end == "box", "a branch is not empty")
        yield state.intervals[0]


def read_sample(record, layers):
    """One sample's question, claims and proof, typed; nothing is proven yet."""
    names = "question verdict reason lower upper witnesses distance enclosed_noise head proof"
    given, verdict, reason, low, high, found, distance, wide, head, proof = fields(
        record, *names.split()
    )
    _, _, seen, noise, box, resolution = fields(
        given, "network", "sensing", "observation", "noise", "box", "resolution"
    )
    k, n, last = layers[0].count, layers[-1].count, layers[-1]
    x = [None if text is None else number(text) for text in items(seen, n)]
    noise, wide, resolution = map(number, (noise, wide, resolution))
    require(0 <= noise <= wide and resolution > 0, "a noise or resolution is out of its range")
    ends = [numbers(side, k, False) for side in items(box, 2)] if box is not None else None
    box = list(zip(*ends, strict=True)) if ends else [(-INF, INF)] * k
    require(all(p[0] <= p[1] and p[0] < INF and p[1] > -INF for p in box), "box: no interval")
    require(type(verdict) is str and verdict in VERDICTS, "expected a verdict")
    require(type(reason) is str, "reason: expected text")
    witnesses = [numbers(z, k) for z in items(found)]
    fewest = 0 if verdict == "undecided" else VERDICTS[verdict]
    require(fewest <= len(witnesses) <= VERDICTS[verdict], "witnesses: another number is needed")
    empty, apart = verdict == "infeasible", verdict in ("unique", "ambiguous")
    require(not empty or low is high is None, "intervals: expected none")
    claimed = [] if empty else [numbers(side, k, False) for side in (low, high)]
    require(apart or distance is None, "distance: expected none")
    distance = number(distance) if apart else None
    require(last.smooth or head is None, "head: expected none")
    head = [numbers(side, n, False) for side in items(head, 2)] if last.smooth else None
    if type(proof) is dict and "subdivision" in proof:
        tree, tokens = None, read_boxes(*fields(proof, "subdivision"), k, n)
    else:
        tree, tokens = read_tree(proof, layers), None
    question = x, noise, box, resolution
    return question, (verdict, distance, claimed, witnesses), (wide, head, tree, tokens)


def prove(layers, sample, boxes=None, deadline=INF):
    """Prove one sample's claims, as ``read_sample`` gives them.

    ``boxes`` verifies subdivisions, in outward-rounded floats; see ``preimage.certify.boxes``.
    ``deadline`` is when to give up, a time of ``time.perf_counter``.
    """
    (x, noise, box, resolution), (verdict, distance, ends, witnesses), proof = sample
    wide, head, tree, tokens = proof
    known = all(explains(layers, x, noise, box, z) for z in witnesses)
    require(known, "a witness does not explain the observation")
    observed = layers[-1].observed(x, wide, head)
    if tokens is None:
        free = [[(-INF, INF)] * layer.count for layer in layers[1:-1]]
        parts = list(leaves(State(layers, [box, *free, observed], deadline), tree))
    else:
        require(boxes, "a subdivision: only `preimage check` can prove it")
        parts = boxes([layer.given for layer in layers[1:]], observed, box, tokens)
    if verdict == "infeasible":
        require(not parts, "there may be a latent")
    for low, high, *held in zip(*ends, *parts, strict=True) if ends else ():
        require(all(low <= p[0] and p[1] <= high for p in held), "a latent may lie elsewhere")
    if verdict == "unique":
        pairs = [pair for part in parts for pair in zip(part, witnesses[0], strict=True)]
        far = [abs(v - w) for ends, w in pairs for v in ends]
        require(far and max(far) <= distance <= resolution, "a latent may be far from the witness")
    elif verdict == "ambiguous":
        apart = max(abs(v - w) for v, w in zip(*witnesses, strict=True))
        require(apart >= distance > resolution, "the witnesses are near each other")


def latent_layer(k):
    return Layer([0.0] * k, (k, 1), [0.0] * k, [1.0] * k)


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

    for i, record in enumerate(read_json(header["__metadata__"]["layers"])):
        name, (n, k) = record["activation"], record["shape"]
        require(record["storage"] == "dense", "network: expected dense weights")
        require(f"layers.{i}.weight" in header and 0 < n * k <= len(data), "network: no weights")
        layers = layers or [latent_layer(k)]
        require(k == layers[-1].count, "network: the layers do not chain")
        flat, bias = tensor(f"layers.{i}.weight", n * k), tensor(f"layers.{i}.bias", n)
        require(all(map(math.isfinite, (*flat, *bias))), "network: expected finite numbers")
        sha.update(f"{n} {k} {name}".encode() + pack(flat) + pack(bias))
        kind, given, _, repeat = re.fullmatch(r"(\w+)(?:\(([^;)]*)(;(\d+))?\))?", name).groups()
        slope = {"relu": "0", "identity": "1", "sigmoid": "0", "tanh": "0"}.get(kind, given)
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


def check(certificate, network, observation, sensing=None, expected=None, boxes=None):
    """Prove every verdict; returns the samples' records, whose questions and claims then hold.

    ``sensing`` is an npy file: a mask (bool), one for all samples or one each, or a matrix.
    ``expected`` gives what ``noise``, ``box`` (its largest size) and ``resolution`` have to be.
    """
    (layers, digest), sensed = read_network(network), None
    masks, is_mask = read_array(sensing, layers[-1].count) if sensing else ([], True)
    if not is_mask:
        flat, shape = [float(v) for row in masks for v in row], (len(masks), layers[-1].count)
        require(not layers[-1].smooth, "sensing: expected a piecewise linear head")
        layers.append(Layer(flat, shape, [0.0] * shape[0], [1.0] * shape[0]))
        masks, sensed = [], sensing_digest(flat, shape)
    rows, _ = read_array(observation, layers[-1].count)
    records = items(read_certificate(certificate), len(rows))
    samples = [read_sample(record, layers) for record in records]
    masks = (
        masks * len(rows) if len(masks) == 1 else masks or [[True] * layers[-1].count] * len(rows)
    )
    for row, mask, record, sample in zip(rows, masks, records, samples, strict=True):
        x = [exact(float(v)) if seen else None for v, seen in zip(row, mask, strict=True)]
        question = record["question"]
        require(question["network"] == digest, "it is about another network")
        require(question["sensing"] == sensed, "it is about another sensing")
        require(sample[0][0] == x, "it is about another observation or mask")
        for name, value in (expected or {}).items():
            if value is not None:
                require(matches(question[name], float(value)), f"it is about another {name}")
        prove(layers, sample, boxes)
    return records


def matches(found, value):
    """Whether a number is this, or a box has all ends at it."""
    if type(found) is list:
        low, high = found
        return set(low) == {(-value).hex()} and set(high) == {value.hex()}
    return found == value.hex()


def describe(record):
    """Lines that say what is proven of a sample, and of which question."""

    def shown(text):
        return "none" if text is None else repr(float.fromhex(text))

    def pairs(ends):
        found = [f"[{shown(a)}, {shown(b)}]" for a, b in zip(*ends, strict=True)]
        return found if len(set(found)) > 1 else found[:1]

    question = record["question"]
    noise, resolution = shown(question["noise"]), shown(question["resolution"])
    box = " ".join(pairs(question["box"])) if question["box"] else "none"
    unseen, sensing = question["observation"].count(None), question["sensing"] or "none"
    exactly = "outward-rounded floats" if "subdivision" in record["proof"] else "exact arithmetic"
    yield f"verdict: {record['verdict']}, distance {shown(record['distance'])} ({exactly})"
    yield f"  noise {noise}, resolution {resolution}, box {box}"
    yield f"  network {question['network']}, sensing {sensing}, {unseen} entries unseen"
    if record["lower"]:
        yield "  latent in " + " ".join(pairs((record["lower"], record["upper"])))


def main(arguments):
    parser = argparse.ArgumentParser(description="Prove a certificate again.")
    for name in ("certificate", "network", "observation"):
        parser.add_argument(name)
    parser.add_argument("--sensing", help="npy file: a mask of bools, or a matrix")
    for name in ("noise", "box", "resolution"):
        parser.add_argument(f"--{name}", type=float, help="what it has to be")
    paths = vars(parser.parse_args(arguments))
    expected = {name: paths.pop(name) for name in ("noise", "box", "resolution")}
    try:
        records = check(**paths, expected=expected)
    except Exception as error:  # whatever goes wrong, nothing is proven
        return f"not proven: {type(error).__name__}: {error}"
    for i, record in enumerate(records):
        sys.stdout.write(f"sample {i}: " + "\n".join(describe(record)) + "\n")
    return 0 if records and all(r["verdict"] != "undecided" for r in records) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
