"""The network in exact arithmetic: its layers, their outputs, and whether a code explains x.

Numbers are integers that count units of 2^-1074, the smallest float, or of 2^-e where an exponent e
is kept beside them. Layer 0 stands for the latent; the numbers of layer i are at index i.
"""

import decimal
import functools
import math
import operator
from fractions import Fraction

INF, UNIT, TINY = math.inf, 1074, Fraction(1, 10**70)


def require(condition, message):
    if not condition:
        raise ValueError(message)


def exact(value):
    """A float in units of 2^-1074."""
    if math.isinf(value):
        return value
    numerator, denominator = value.as_integer_ratio()
    return numerator << (UNIT + 1 - denominator.bit_length())


def rational(value, exponent=UNIT):
    return value if value in (INF, -INF) else Fraction(value, 1 << exponent)


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


@functools.lru_cache(maxsize=1 << 13)  # a proof asks for the same outputs again
def output(smooth, value, exponent=UNIT):
    """A smooth head's output at value 2^-exponent, from below and above, as fractions."""
    t = (2 if smooth == "tanh" else 1) * rational(value, exponent)
    near = max(min(t, Fraction(700)), Fraction(-700))
    with decimal.localcontext() as context:
        context.prec = 90  # of the quotient and of exp, which Decimal rounds correctly
        e = Fraction((-decimal.Decimal(near.numerator) / near.denominator).exp())
    low = 1 / (1 + e * (1 + TINY)) if t >= -700 else Fraction(0)
    high = 1 / (1 + e * (1 - TINY)) if t <= 700 else Fraction(1)
    return (2 * low - 1, 2 * high - 1) if smooth == "tanh" else (low, high)


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
                under = ends[0] == -INF or output(self.smooth, ends[0])[1] <= rational(low)
                over = ends[1] == INF or output(self.smooth, ends[1])[0] >= rational(high)
                require(under and over, "head: its ends do not hold what is observed")
            elif c == 0:
                ends = [low if low > 0 else -INF, high if high >= 0 else -INF]
            else:  # divided by the slope, and rounded outward
                ends = [low if low >= 0 else (low << self.bend) // c,
                        high if high >= 0 else -((-high << self.bend) // c)]  # fmt: skip
            found.append(ends)
        return found


def latent_layer(k):
    return Layer([0.0] * k, (k, 1), [0.0] * k, [1.0] * k)


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
        pairs = zip(x, (output(layers[-1].smooth, v, top) for v in a), strict=True)
        seen = [(rational(v - noise), p, rational(v + noise)) for v, p in pairs if v is not None]
        return all(low <= p[0] and p[1] <= high for low, p, high in seen)
    lift = max(UNIT - scale, 0)
    more = scale + lift - UNIT
    seen = [(v << lift, w << more) for v, w in zip(z, x, strict=True) if w is not None]
    return all(abs(v - w) <= noise << more for v, w in seen)
