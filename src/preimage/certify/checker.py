"""Check a certificate: ``python -m preimage.certify.checker CERTIFICATE NETWORK OBSERVATION``.

Needs this file and Python only. It trusts nothing that the certificate says: all numbers are exact
rationals, all claims are proven anew. NETWORK is a safetensors file as ``preimage.save`` writes it,
OBSERVATION an npy file. Exit code 0: every verdict is proven. 1: not so, or one is ``undecided``.

With ``a_i = W_i z_{i-1} + b_i``, ``z_i = s_i(a_i)`` and any multipliers rho_i, every code gives

    0 = sum_i rho_i b_i + sum_ij (g_ij s_i(a_ij) - rho_ij a_ij) + sum_j g_0j z_j, g_i-1 = W_i'rho_i

Each term has a least value over an interval. Where these sum to more than 0, there is no code.
"""

import ast
import decimal
import hashlib
import json
import math
import re
import struct
import sys
from fractions import Fraction
from pathlib import Path

INF, PRIME, TINY = math.inf, 2**61 - 1, Fraction(1, 10**70)
FORMATS = {"F64": "d", "F32": "f", "<f8": "d", "<f4": "f", "<i8": "q", "<i4": "i", "|u1": "B"}


def require(condition, message):
    if not condition:
        raise ValueError(message)


def number(text):
    value = float.fromhex(text)
    return value if math.isinf(value) else Fraction(value)  # NaN raises


def integers(values):
    scale = math.lcm(*(v.denominator for v in values))
    return [v.numerator * (scale // v.denominator) for v in values], scale


def bend(a, slope):
    return a if a >= 0 or slope == 1 else slope * a if slope else Fraction(0)


class Layer:
    """Weights as integers over ``scale``, biases, slopes below 0; ``smooth`` names another head."""

    def __init__(self, flat, shape, bias, slopes, smooth):
        values, self.scale = integers([Fraction(w) for w in flat])
        self.columns, self.slopes, self.smooth = shape[1], slopes, smooth
        self.rows = [values[j * shape[1] : (j + 1) * shape[1]] for j in range(shape[0])]
        self.bias = [Fraction(b) for b in bias]

    def image(self, z):
        values, scale = integers(z)
        total = [sum(map(int.__mul__, row, values)) for row in self.rows]
        return [Fraction(t, scale * self.scale) for t in total]

    def adjoint(self, rho):
        values, scale = integers(rho)
        total = [0] * self.columns
        for row, y in zip(self.rows, values, strict=True):
            if y:
                total = [t + y * w for t, w in zip(total, row, strict=True)]
        return [Fraction(t, scale * self.scale) for t in total]

    def output(self, j, a):
        if not self.smooth:
            return (bend(a, self.slopes[j]),) * 2
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
            low, high = v - noise, v + noise
            if self.smooth:
                ends = [number(side[j]) for side in claimed]
                require(ends[0] == -INF or self.output(j, ends[0])[1] <= low, "head: low end")
                require(ends[1] == INF or self.output(j, ends[1])[0] >= high, "head: high end")
            elif c == 0:
                ends = [low if low > 0 else -INF, high if high >= 0 else -INF]
            else:
                ends = [end if end >= 0 else end / c for end in (low, high)]
            found.append(ends)
        return found


def forward(layers, z):
    """The code, then the pre-activations of every layer."""
    found = [z]
    for layer in layers:
        found.append([a + b for a, b in zip(layer.image(z), layer.bias, strict=True)])
        z = [bend(a, c) for a, c in zip(found[-1], layer.slopes, strict=True)]
    return found


def explains(layers, x, noise, box, z):
    """Whether ``|G(z) - x| <= noise`` and z lies in the box."""
    outputs = [layers[-1].output(j, a) for j, a in enumerate(forward(layers, z)[-1])]
    near = all(v - noise <= p[0] and p[1] <= v + noise for v, p in zip(x, outputs, strict=True))
    return near and all(low <= v <= high for (low, high), v in zip(box, z, strict=True))


def escapes(layers, z, ray):
    """Whether the output is the same on all of z + s ray, s >= 0."""
    for layer, a in zip(layers, forward(layers, z)[1:], strict=True):
        moves = list(zip(a, layer.image(ray), layer.slopes, strict=True))
        if not layer.smooth and any(v * d < 0 for v, d, c in moves if c != 1):
            return False
        ray = [d if layer.smooth or v > 0 or (v == 0 and d > 0) else c * d for v, d, c in moves]
    return not any(ray)


def least(below, above, ends):
    """The least value over an interval of the function with these slopes below and above 0."""
    values = [Fraction(0)] if ends[0] <= 0 <= ends[1] else []
    for end in ends:
        slope = above if end >= 0 else below
        infinite = INF if (slope > 0) == (end > 0) else -INF
        values.append((infinite if math.isinf(end) else slope * end) if slope else Fraction(0))
    return min(values)


class State:
    """Intervals of the code (layer 0) and of the pre-activations of every layer."""

    def __init__(self, layers, intervals):
        self.layers, self.intervals = layers, [[list(ends) for ends in row] for row in intervals]
        self.slopes = [[Fraction(1)] * len(intervals[0]), *(layer.slopes for layer in layers)]

    def empty(self):
        pairs = [ends for row in self.intervals for ends in row]
        return any(low > high or low == INF or high == -INF for low, high in pairs)

    def backward(self, start, multipliers, clipped):
        """The least values above layer ``start``, summed, and g there.

        ``rho_ij`` is the given multiplier, plus ``g_ij`` times the slope of a unit of known sign.
        """
        require(0 <= start < len(self.layers), "a step starts nowhere")
        total, g = Fraction(0), None
        for i in range(start + len(multipliers), start, -1):
            layer, mu = self.layers[i - 1], dict(zip(*multipliers[i - start - 1], strict=True))
            rho = []
            for j, (c, (low, high)) in enumerate(zip(layer.slopes, self.intervals[i], strict=True)):
                up, own = g[j] if g else 0, number(mu[j]) if j in mu else Fraction(0)
                rho.append(own + up * (1 if low >= 0 or c == 1 else c if high <= 0 else 0))
                if up or rho[j]:
                    ends = clipped.get((i, j), (low, high))
                    total += layer.bias[j] * rho[j] + least(c * up - rho[j], up - rho[j], ends)
            g = layer.adjoint(rho)
        return total, g

    def cuts(self, *claims):
        """Prove that no code lies beyond some ends, or on them, and keep the rest."""
        rest = []
        for layer, unit, upper, value, start, multipliers in claims:
            (low, high), value = self.intervals[layer][unit], number(value)
            clip = {(layer, unit): (max(low, value), high) if upper else (low, min(high, value))}
            total, g = self.backward(start, multipliers, clip)
            for j, (v, c) in enumerate(zip(g, self.slopes[start], strict=True)):
                ends = clip.get((start, j), self.intervals[start][j])
                total += least(c * v, v, ends)
            require(total > 0, "a cut is not proven")
            rest.append((self.intervals[layer][unit], upper, value))
        for ends, upper, value in rest:
            ends[upper] = min(ends[1], value) if upper else max(ends[0], value)

    def radius(self, start, value, proofs):
        """Prove that no output of a layer that has an infinite end is above ``value`` in size.

        Let t be the largest size of these. Some entry has it, and the proof for that entry's end
        shows that t > value is impossible while all others are at most t in size.
        """
        value, ends = number(value), self.intervals[start]
        ranges = [[bend(v, c) for v in p] for p, c in zip(ends, self.slopes[start], strict=True)]
        loose = {j for j, pair in enumerate(ranges) if any(map(math.isinf, pair))}
        wanted = {(j, side) for j in loose for side in (0, 1) if math.isinf(ranges[j][side])}
        require(wanted <= {(unit, side) for unit, side, _ in proofs}, "a radius has gaps")
        finite = [v for j in loose for v in ranges[j] if not math.isinf(v)]
        require(all(abs(v) <= value for v in finite), "a radius is too small")
        for unit, side, multipliers in proofs:
            total, g = self.backward(start, multipliers, {})
            rate = g[unit] if side else -g[unit]
            for v, pair in zip(g[:unit] + g[unit + 1 :], ranges[:unit] + ranges[unit + 1 :]):
                end = pair[v < 0]
                total, rate = (total, rate - abs(v)) if math.isinf(end) else (total + v * end, rate)
            require(rate >= 0 and total + rate * value > 0, "a radius is not proven")
        for j in loose:
            c = self.slopes[start][j]
            ends[j] = [max(ends[j][0], -value / c if c else -INF), min(ends[j][1], value)]


def check_only(state, rows, at, x, noise):
    """Prove that equations leave no code but ``at[0]`` within the bounds."""
    for row, ends in zip(at, state.intervals, strict=True):
        require(all(p[0] <= v <= p[1] for v, p in zip(row, ends, strict=True)), "point: elsewhere")
    last = state.layers[-1]
    equations = noise == 0 and not last.smooth and all(x[r] > 0 or last.slopes[r] for r in rows)
    require(equations and len(rows) == len(at[0]), "point: these rows are no equations")
    jacobian = [last.rows[r] for r in rows]
    for i in range(len(state.layers) - 1, 0, -1):
        layer, share = state.layers[i - 1], []
        for (low, high), c in zip(state.intervals[i], layer.slopes, strict=True):
            require(low >= 0 or high <= 0 or c == 1, "point: a sign is open")
            share.append(1 if low >= 0 else c.numerator * pow(c.denominator, -1, PRIME))
        columns = list(zip(*layer.rows, strict=True))
        scaled = [[v * s for v, s in zip(row, share, strict=True)] for row in jacobian]
        jacobian = [[sum(map(int.__mul__, r, c)) % PRIME for c in columns] for r in scaled]
    require(invertible(jacobian), "point: the rank is too low")


def invertible(matrix):
    """Whether the determinant of integers is not 0 modulo a prime, so that it is not 0."""
    if not matrix:
        return True
    top = next((row for row in matrix if row[0] % PRIME), None)
    if top is None:
        return False
    scale = pow(top[0], -1, PRIME)
    rest = [(row, row[0] * scale) for row in matrix if row is not top]
    return invertible([[(v - f * t) % PRIME for v, t in zip(r, top)][1:] for r, f in rest])


def leaves(state, node, point):
    """Go through a proof; yields a box for each part that may hold codes."""
    for kind, *claims in node["steps"]:
        require(kind in ("cuts", "radius"), "an unknown step")
        getattr(state, kind)(*claims)
    if "split" in node:
        layer, unit, value = node["split"]
        for side, child in enumerate(node["children"]):
            part = State(state.layers, state.intervals)
            pair, at = part.intervals[layer][unit], number(value)
            pair[1 - side] = max(pair[0], at) if side else min(pair[1], at)
            yield from leaves(part, child, point)
        require(len(node["children"]) == 2, "a split has two sides")
    elif not state.empty():
        require(node["end"] in ("box", "point"), "a branch is not empty")
        yield state.intervals[0] if node["end"] == "box" else point(state, node["rows"])


def check_sample(layers, x, sample):
    """Prove one sample's claims; returns its verdict."""
    noise, resolution = number(sample["noise"]), number(sample["resolution"])
    wider = noise + number(sample["rounding"])
    require(0 <= noise <= wider < INF, "noise: expected finite numbers of at least 0")
    size = layers[0].columns
    ends = sample["box"] or [["-inf"] * size, ["inf"] * size]
    box = [list(map(number, pair)) for pair in zip(*ends, strict=True)]
    codes = [list(map(number, z)) for z in sample["witnesses"]]
    require(len(box) == size and all(len(z) == size for z in codes), "sizes do not fit")
    require(all(explains(layers, x, noise, box, z) for z in codes), "a witness explains nothing")

    def point(state, rows):
        check_only(state, rows, forward(layers, codes[0]), x, noise)
        return [(v, v) for v in codes[0]]

    free = [[(-INF, INF)] * len(layer.rows) for layer in layers[:-1]]
    state = State(layers, [box, *free, layers[-1].observed(x, wider, sample["head"])])
    parts = list(leaves(state, sample["proof"], point))
    claimed = [list(map(number, sample[end])) for end in ("lower", "upper")]
    for low, high, *held in zip(*claimed, *parts, strict=True):
        require(all(low <= p[0] and p[1] <= high for p in held), "a code may lie outside the box")
    verdict, distance = sample["verdict"], number(sample["distance"])
    if verdict == "unique":
        far = [abs(v - w) for part in parts for pair, w in zip(part, codes[0]) for v in pair]
        require(max(far) <= distance <= resolution, "a code may be far from the witness")
    elif verdict == "ambiguous" and sample["ray"]:
        ray = [Fraction(int(entry)) for entry in sample["ray"]]  # not "1e999999999"
        require(not sample["box"] and any(ray) and escapes(layers, codes[0], ray), "no such ray")
    elif verdict == "ambiguous":
        apart = max(abs(v - w) for v, w in zip(codes[0], codes[1], strict=True))
        require(apart >= distance > resolution, "the witnesses are near each other")
    else:
        require(verdict == "undecided" or (verdict == "infeasible" and not parts), "a code may be")
    return verdict


def read_network(path):
    """The layers of a safetensors file, and the digest of what they hold."""
    data = Path(path).read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header, sha, layers = json.loads(data[8:start]), hashlib.sha256(), []

    def tensor(name, count):
        if name not in header:
            return (0.0,) * count  # a bias
        kind, (first, last) = header[name]["dtype"], header[name]["data_offsets"]
        return struct.unpack(f"<{count}{FORMATS[kind]}", data[start + first : start + last])

    for i, record in enumerate(json.loads(header["__metadata__"]["layers"])):
        name, (n, k) = record["activation"], record["shape"]
        require(record["storage"] == "dense", "network: expected dense weights")
        require(f"layers.{i}.weight" in header and 0 < n * k <= len(data), "network: no weights")
        flat, bias = tensor(f"layers.{i}.weight", n * k), tensor(f"layers.{i}.bias", n)
        sha.update(f"{n} {k} {name}".encode() + pack(flat) + pack(bias))
        kind, given, _, repeat = re.fullmatch(r"(\w+)(?:\(([^;)]*)(;(\d+))?\))?", name).groups()
        slope = {"relu": "0", "identity": "1", "sigmoid": "0", "tanh": "0"}.get(kind, given)
        each = min(int(repeat or 1), n)  # a shape may not ask for more than the file holds
        slopes = [Fraction(float(c)) for c in slope.split(",") for _ in range(each)]
        smooth = kind if kind in ("sigmoid", "tanh") else None
        layers.append(Layer(flat, (n, k), bias, slopes if repeat else slopes * n, smooth))
    hidden = not any(layer.smooth for layer in layers[:-1])
    require(hidden and all(c >= 0 for layer in layers for c in layer.slopes), "activation")
    return layers, sha.hexdigest()


def pack(values):
    return struct.pack(f"<{len(values)}d", *(v + 0.0 for v in values))


def read_observation(path, size):
    data = Path(path).read_bytes()
    width = 2 if data[6] == 1 else 4
    start = 8 + width + int.from_bytes(data[8 : 8 + width], "little")
    header = ast.literal_eval(data[8 + width : start].decode())
    require(data[:6] == b"\x93NUMPY" and not header["fortran_order"], "observation: another format")
    count = math.prod(header["shape"])
    values = struct.unpack(f"<{count}{FORMATS[header['descr']]}", data[start:])
    return [list(map(float, values[i : i + size])) for i in range(0, count, size)]


def seal(content):
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def check(certificate, network, observation):
    """Prove every verdict; returns them, first sample first."""
    content = json.loads(Path(certificate).read_text())
    require(content.pop("digest") == seal(content), "certificate: it was changed")
    layers, digest = read_network(network)
    rows = read_observation(observation, len(layers[-1].rows))
    verdicts = []
    for row, sample in zip(rows, content["samples"], strict=True):
        seen = hashlib.sha256(pack(row)).hexdigest()
        bound = seal([digest, seen, sample["noise"], sample["box"]])
        require(sample["bound_to"] == bound, "it is about another network, observation or noise")
        verdicts.append(check_sample(layers, list(map(Fraction, row)), sample))
    return verdicts


def main(paths):
    try:
        verdicts = check(*paths)
    except Exception as error:  # whatever goes wrong, nothing is proven
        return f"not proven: {type(error).__name__}: {error}"
    sys.stdout.write("".join(f"{index}: {v}\n" for index, v in enumerate(verdicts)))
    return 0 if verdicts and "undecided" not in verdicts else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
