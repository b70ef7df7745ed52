"""The form of a certificate: exact types, ranges, lengths and depths. Nothing is proven here."""

import json
import math
import re

from .network import INF, exact, require

VERDICTS = {"unique": 1, "ambiguous": 2, "infeasible": 0, "undecided": 1}  # most witnesses
FLOAT = re.compile(r"-?(inf|0x[01]\.[0-9a-f]{1,13}p[+-][0-9]{1,4})")
DEPTH = 200  # largest depth of a proof


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
