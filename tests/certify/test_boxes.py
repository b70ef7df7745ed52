"""The verifier of subdivisions against exact fractions: no part that holds a code is excluded."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

import preimage
from preimage.certify import boxes, checker
from preimage.enclosure.linear_bounds import in_range, linear_bounds, pull_back
from preimage.enclosure.network import as_network


def _layer(weight, bias, slope):
    """A layer as the checker hands it over: flat weight, shape, bias, slopes, no smooth head."""
    weight = np.atleast_2d(np.asarray(weight, dtype=float))
    n = len(weight)
    return (weight.ravel().tolist(), weight.shape, [float(bias)] * n, [float(slope)] * n, None)


def _outputs(layers, z):
    """Pre-activations of the last layer, as fractions."""
    values = [Fraction(v) for v in z]
    for flat, (_, k), bias, slopes, _ in layers:
        rows = [flat[i : i + k] for i in range(0, len(flat), k)]
        a = [
            sum((Fraction(w) * v for w, v in zip(row, values, strict=True)), Fraction(b))
            for row, b in zip(rows, bias, strict=True)
        ]
        values = [v if v >= 0 else Fraction(c) * v for v, c in zip(a, slopes, strict=True)]
    return a


def _excluded(layers, z, box, tokens, noise=Fraction(0)):
    """Whether the verifier accepts a subdivision that leaves out z, which explains its outputs."""
    observed = [
        [math.floor((a - noise) * 2**checker.UNIT), math.ceil((a + noise) * 2**checker.UNIT)]
        for a in _outputs(layers, z)
    ]
    exact = [tuple(map(checker.exact, pair)) for pair in box]
    try:
        parts = boxes.remaining(layers, observed, exact, tokens)
    except (ValueError, OverflowError):
        return False
    code = list(map(checker.exact, z))
    return not any(
        all(low <= v <= high for (low, high), v in zip(part, code, strict=True)) for part in parts
    )


def _empty(*row):
    """One part, said to be empty because of one row."""
    units = range(len(row))
    return [("empty", [(list(units), list(map(checker.exact, map(float, row))))])]


TINY, HUGE = 2.0**-60, 2.0**60
SUSPICIONS = {
    "a weight that is 0 in float32": (
        [_layer(2.0**-151, 0, 1)], [2.0**120], [(0.0, 2.0**121)], _empty(1.0)),
    "such a weight behind large ones": (
        [_layer(HUGE, 0, 1), _layer(HUGE, 0, 1), _layer(2.0**-151, 0, 1)], [1.0], [(0.0, 2.0)],
        _empty(1.0)),
    "a slope that is 0 in float32": (
        [_layer(1, 0, 2.0**-151), _layer(1, 0, 1)], [-(2.0**120)], [(-(2.0**121), 0.0)],
        _empty(-1.0)),
    "a bias that is 0 in float32": (
        [_layer(TINY, 2.0**-151, 1), _layer(HUGE, 0, 1), _layer(HUGE, 0, 1), _layer(HUGE, 0, 1)],
        [0.0], [(0.0, 2.0**-160)], _empty(1.0)),
    "a row whose product underflows": (
        [_layer(TINY, 0, 1)], [2.0**100], [(0.0, 2.0**101)], _empty(2.0**-100)),
    "the same in float64": (
        [_layer(2.0**-400, 0, 1)], [2.0**800], [(0.0, 2.0**801)], _empty(2.0**-700)),
    "a pulled row that underflows": (
        [_layer(TINY, 0, 1), _layer(TINY, 0, 1), _layer(TINY, 0, 1)], [2.0**120],
        [(0.0, 2.0**121)], _empty(1.0)),
    "a slope's product that underflows": (
        [_layer(TINY, 0, TINY), _layer(HUGE, 0, 1), _layer(HUGE, 1.75 * 2.0**-30, 0),
         _layer(1, 0, 1)],
        [-1.5 * 2.0**-30], [(-1.5 * 2.0**-30, -1.5 * 2.0**-30)], _empty(1.0)),
    "a slope that is 1 in float32": (
        [_layer(1, 0, 1 - 2.0**-25), _layer(1, 0, 1)], [-1.0], [(-1.0, -1.0 + 2.0**-40)],
        _empty(-1.0)),
    "a row that overflows": ([_layer(1, 0, 1)], [1.0], [(0.0, 2.0)], _empty(2.0**1000)),
    "outputs that overflow": (
        [_layer(HUGE, 0, 0), _layer(HUGE, 0, 0), _layer(HUGE, 0, 1)], [1.0], [(-1.0, 2.0)],
        _empty(1.0)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", SUSPICIONS)
@pytest.mark.parametrize("size", [1.0, 2.0**-30, 2.0**30])
def test_a_part_with_a_code_is_not_empty(name, size):
    """Claim: neither underflow nor overflow nor rounding to float32 excludes a code."""
    layers, z, box, tokens = SUSPICIONS[name]
    ((kind, rows),) = tokens
    scaled = [(units, [checker.exact(float(Fraction(v, 2**checker.UNIT)) * size) for v in values])
              for units, values in rows]  # fmt: skip
    assert not _excluded(layers, z, box, [(kind, scaled)])


def _random(rng):
    """A small network with numbers of any size, a code, a box around it, and a claim."""
    sizes = [int(rng.integers(1, 3)), *rng.integers(1, 4, size=rng.integers(1, 5)).tolist()]
    spread = float(rng.choice([0, 3, 30, 60, 200]))

    def numbers(*shape):
        scale = 2.0 ** rng.uniform(-spread, spread, size=shape)
        return rng.choice([-1.0, 1.0, 1.0, 0.0], size=shape) * scale * rng.uniform(1, 2, size=shape)

    layers = []
    for k, n in itertools.pairwise(sizes):
        slopes = rng.choice([0.0, 1.0, 0.3, 1.7, 1 - 2.0**-25, 2.0 ** -rng.uniform(0, spread)], n)
        bias = (numbers(n) if rng.random() < 0.5 else np.zeros(n)).tolist()
        layers.append((numbers(n, k).ravel().tolist(), (n, k), bias, slopes.tolist(), None))
    z = numbers(sizes[0])
    wide = np.abs(z) * 2.0 ** rng.uniform(-30, 3, size=len(z)) + 2.0 ** -rng.uniform(0, spread + 1)
    share = rng.uniform(size=len(z)) * rng.choice([0.0, 1.0])
    low, high = np.minimum(z - wide * share, z), np.maximum(z + wide * (1 - share), z)
    n = sizes[-1]
    rows = [(list(range(n)), list(map(checker.exact, numbers(n).tolist()))) for _ in range(4)]
    box = list(zip(low.tolist(), high.tolist(), strict=True))
    if rng.random() < 0.5:
        return layers, z.tolist(), box, [("empty", rows)]
    i = int(rng.integers(len(z)))
    new = low.copy(), high.copy()
    side = int(rng.integers(2))
    new[side][i] = np.nextafter(z[i], (low if side else high)[i])
    ends = [list(map(checker.exact, end.tolist())) for end in new]
    return layers, z.tolist(), box, [("cut", *ends, rows), ("box",)]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_no_claim_whatever_excludes_a_code():
    """Claim: the verifier is sound for weights, slopes, boxes and rows of any size."""
    rng = np.random.default_rng(0)
    for _ in range(1500):
        layers, z, box, tokens = _random(rng)
        assert not _excluded(layers, z, box, tokens), (layers, z, box, tokens)


def test_searching_bounds_refuse_what_a_cast_would_lose():
    """Claim: the search judges the size of weights before they are rounded to float32, too."""
    generator = preimage.from_arrays([[[2.0**-151]], [[1.0]]], activation="identity")
    network = as_network(generator)
    assert not in_range(network, np.float32)
    assert in_range(network, np.float64)


@pytest.mark.parametrize("exponent", [-100, -700])
def test_rows_that_underflow_bound_nothing_in_the_search(exponent):
    """Claim: a row pulled back through a small weight keeps what a large box makes of it."""
    weight = 2.0**-60 if exponent == -100 else 2.0**-400
    dtype = np.float32 if exponent == -100 else np.float64
    generator = preimage.from_arrays([[[weight]]], activation="identity")
    high = np.array([[2.0 ** (101 if exponent == -100 else 801)]])
    network = as_network(generator)
    forms = linear_bounds(network.cast(dtype), 0 * high, high)
    row = np.full((1, 1, 1), 2.0**exponent)
    found = pull_back(network, forms, row)
    assert (found.slope[0] @ high[0] + found.shift[0])[0] >= 2.0**exponent * weight * high[0, 0]
