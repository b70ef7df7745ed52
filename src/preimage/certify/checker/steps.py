"""Steps of a proof, each proven before its intervals are used.

The network is ``a_i = W_i z_{i-1} + b_i``, ``z_i = s_i(a_i)``, where each ``s`` has slope 1 above 0
and slope ``c`` below. For any multipliers rho_i and ``g_{i-1} = W_i' rho_i``, every latent obeys

    0 = sum_i rho_i b_i + sum_ij (g_ij s_i(a_ij) - rho_ij a_ij) + sum_j g_0j z_j.

Each term has a least value over an interval. Where these sum to more than 0, there is no latent.
"""

import time

from .network import INF, require


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
