"""Families of networks and observations of which something is known for certain."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import preimage
from preimage.measurements import HALF_LEVEL, clipping, magnitudes

PER_NETWORK = 10


@dataclass
class Plan:
    """A network with observations, and what is known of each.

    Attributes:
        generator: The network.
        x: (samples, n).
        noise: Of all samples.
        codes: (samples, planted, k), codes that are known to explain x; none where it is certain
            that no code does.
        box: As for ``certify``.
        unique: Whether the code is known to be the only one, up to the resolution.
        decidable: Whether the problem is well posed, so that a verdict is expected.
        sensing: A mask or a matrix; None if all of the output is seen.
    """

    generator: preimage.Generator
    x: np.ndarray
    noise: float
    codes: np.ndarray
    box: float | None = None
    unique: bool = False
    decidable: bool = True
    sensing: np.ndarray | None = None


Family = Callable[[np.random.Generator], Plan]


def _network(
    rng: np.random.Generator, sizes: list[int], scale: float = 1.0, **kind: object
) -> preimage.Generator:
    pairs = itertools.pairwise(sizes)
    weights = [scale * rng.normal(size=(n, k)) / np.sqrt(k) for k, n in pairs]
    return preimage.from_arrays(weights, **kind)


def _noisy(
    rng: np.random.Generator,
    generator: preimage.Generator,
    noise: float,
    z: np.ndarray | None = None,
    **more: object,
) -> Plan:
    """Outputs with uniform noise, of codes from N(0, I) unless they are given."""
    z = rng.normal(size=(PER_NETWORK, generator.latent_size)) if z is None else z
    x = generator(z)
    x = x + rng.uniform(-noise, noise, size=x.shape)
    return Plan(generator, x, noise, z[:, None], **more)  # type: ignore[arg-type]


def unique_relu(rng: np.random.Generator) -> Plan:
    """Small noise, layers that expand."""
    k = int(rng.integers(2, 5))
    plan = _noisy(rng, _network(rng, [k, 6 * k, 30 * k]), 1e-5, box=6.0)
    # With fewer active units than unknowns, a code is not determined.
    plan.decidable = False
    return plan


def unique_leaky(rng: np.random.Generator) -> Plan:
    """LeakyReLU, no box."""
    k = int(rng.integers(2, 5))
    return _noisy(rng, _network(rng, [k, 3 * k, 6 * k], activation="leaky_relu(0.2)"), 1e-5)


def three_layers(rng: np.random.Generator) -> Plan:
    """Three layers with biases."""
    biases = [0.1 * rng.normal(size=n) for n in (12, 30, 60)]
    return _noisy(rng, _network(rng, [3, 12, 30, 60], biases=biases), 1e-5, box=6.0)


def mirrored(rng: np.random.Generator) -> Plan:
    """``G(z) = M |z|``: every sign pattern of z is a second preimage, far away."""
    k = int(rng.integers(2, 4))
    eye, mixing = np.eye(k), rng.normal(size=(4 * k, k))
    generator = preimage.from_arrays(
        [np.vstack([eye, -eye]), np.hstack([mixing, mixing])], head="identity"
    )
    z = rng.uniform(1.0, 2.0, size=(PER_NETWORK, k))
    plan = _noisy(rng, generator, 1e-4, z, box=4.0)
    plan.codes = np.stack([z, -z], axis=1)
    return plan


def twin_columns(rng: np.random.Generator) -> Plan:
    """Two latent coordinates that do the same."""
    base = rng.integers(-3, 4, size=(12, 3)).astype(float)
    generator = preimage.from_arrays([np.hstack([base, base[:, :1]])], head="identity")
    z = rng.integers(-2, 3, size=(PER_NETWORK, 4)).astype(float)
    other = z + np.array([1.0, 0, 0, -1.0])
    return Plan(generator, generator(z), 0.0, np.stack([z, other], axis=1), 8.0)


def out_of_range(factor: float) -> Family:
    """Twin outputs that are pulled apart by more than the noise can."""

    def family(rng: np.random.Generator) -> Plan:
        k = int(rng.integers(2, 5))
        weights = [rng.normal(size=(4 * k, k)), rng.normal(size=(8 * k, 4 * k))]
        weights[1][1] = weights[1][0]
        generator = preimage.from_arrays(weights, [None, np.full(8 * k, 3.0)])
        noise = 10.0 ** -int(rng.integers(1, 5))
        z = 0.3 * rng.normal(size=(PER_NETWORK, k))
        x = generator(z)
        x = x + rng.uniform(-noise, noise, size=x.shape) * 0.5
        # Both stay active: max(., 1) keeps them above any noise.
        centre = np.maximum(x[:, 0], 1.0 + 10 * factor * noise)
        x[:, 0], x[:, 1] = centre + factor * noise, centre - factor * noise
        return Plan(generator, x, noise, np.zeros((PER_NETWORK, 0, k)), 6.0)

    return family


def dead_layer(rng: np.random.Generator) -> Plan:
    """No hidden unit is active anywhere near: G is constant there."""
    generator = preimage.from_arrays(
        [rng.normal(size=(6, 3)), rng.normal(size=(9, 6))], [np.full(6, -50.0), np.ones(9)]
    )
    z = rng.uniform(-2.5, 2.5, size=(PER_NETWORK, 3))
    codes = np.stack([z, -z + 1.0], axis=1)
    return Plan(generator, generator(z), 0.0, codes, 4.0)


def opposite_signs(rng: np.random.Generator) -> Plan:
    """``W = [D; -D]``, x = 0: one-sided rows alone determine z = 0."""
    k = int(rng.integers(1, 7))
    scale = np.diag(2.0 ** rng.integers(-20, 20, size=k))
    generator = preimage.from_arrays([np.vstack([scale, -scale])])
    zero = np.zeros((PER_NETWORK, 2 * k))
    box = None if rng.random() < 0.5 else 4.0
    return Plan(generator, zero, 0.0, zero[:, None, :k], box, unique=True)


def rank_deficient(rng: np.random.Generator) -> Plan:
    """A first layer of rank k - 1; codes differ along its null vector."""
    k = int(rng.integers(3, 6))
    left, right = rng.integers(-2, 3, size=(3 * k, k - 1)), rng.integers(-2, 3, size=(k - 1, k))
    right[:, 0] = right[:, 1]  # null vector (1, -1, 0, ...)
    first = (left @ right).astype(float)
    second = rng.integers(-2, 3, size=(5 * k, 3 * k)).astype(float)
    generator = preimage.from_arrays([first, second])
    z = rng.integers(-2, 3, size=(PER_NETWORK, k)).astype(float)
    shift = np.zeros(k)
    shift[:2] = 1.0, -1.0
    return Plan(generator, generator(z), 0.0, np.stack([z, z + shift], axis=1), 8.0)


def duplicate_rows(rng: np.random.Generator) -> Plan:
    """Every output twice, each with noise of its own."""
    base = rng.normal(size=(20, 4))
    return _noisy(rng, preimage.from_arrays([np.repeat(base, 2, axis=0)], head="identity"), 1e-6)


def scales(exponent: int) -> Family:
    """Weights of an extreme size."""

    def family(rng: np.random.Generator) -> Plan:
        size = 10.0**exponent
        generator = preimage.from_arrays(
            [size * rng.normal(size=(9, 3)), rng.normal(size=(30, 9))], activation="leaky_relu(0.5)"
        )
        return _noisy(rng, generator, 1e-6 * size)

    return family


def fewer_outputs(rng: np.random.Generator) -> Plan:
    """More unknowns than outputs."""
    generator = preimage.from_arrays([rng.integers(-3, 4, size=(2, 5)).astype(float)])
    z = rng.integers(-3, 4, size=(PER_NETWORK, 5)).astype(float)
    codes = z[:, None]
    box = None if rng.random() < 0.5 else 8.0
    return Plan(generator, generator(z), 0.0, codes, box, decidable=False)


def dyadic(rng: np.random.Generator) -> Plan:
    """Integers over a power of two and an invertible block: exact, and one code only."""
    k = int(rng.integers(2, 6))
    upper = np.triu(rng.integers(-3, 4, size=(k, k)), 1) + np.eye(k)
    rest = rng.integers(-3, 4, size=(2 * k, k))
    weight = np.vstack([upper, rest]) * 2.0 ** -int(rng.integers(0, 4))
    generator = preimage.from_arrays([weight], head="identity")
    z = rng.integers(-4, 5, size=(PER_NETWORK, k)) / 4.0
    box = None if rng.random() < 0.5 else 8.0
    return Plan(generator, generator(z), 0.0, z[:, None], box, unique=True)


def at_the_bound(rng: np.random.Generator) -> Plan:
    """Every entry is off by exactly the noise, so that the code is at a corner of the set."""
    generator, noise = _network(rng, [3, 12, 40]), 1e-3
    z = rng.normal(size=(PER_NETWORK, 3))
    x = generator(z)
    x = x + noise * rng.choice([-1.0, 1.0], size=x.shape)
    return Plan(generator, x, noise, z[:, None], 6.0, decidable=False)


def smooth_head(name: str) -> Family:
    """A head that is inverted by intervals."""

    def family(rng: np.random.Generator) -> Plan:
        generator = _network(rng, [3, 9, 30], activation="leaky_relu(0.3)", head=name)
        return _noisy(rng, generator, 1e-4, box=6.0)

    return family


def hidden(rng: np.random.Generator) -> Plan:
    """Half of the entries hidden; what is given for them is anything."""
    k = int(rng.integers(2, 4))
    plan = _noisy(rng, _network(rng, [k, 6 * k, 30 * k], activation="leaky_relu(0.2)"), 1e-5,
                  box=6.0)  # fmt: skip
    plan.sensing = rng.random(30 * k) < 0.5
    plan.x[:, ~plan.sensing] = rng.normal(size=(PER_NETWORK, int((~plan.sensing).sum())))
    return plan


def hidden_out_of_range(rng: np.random.Generator) -> Plan:
    """Twin outputs that are pulled apart, and seen; a third of the others is not."""
    plan = out_of_range(2.0)(rng)
    plan.sensing = rng.random(plan.x.shape[1]) < 0.7
    plan.sensing[:2] = True
    return plan


def measured(rng: np.random.Generator) -> Plan:
    """Gaussian measurements, fewer than entries."""
    k, noise = int(rng.integers(2, 4)), 1e-5
    generator = _network(rng, [k, 4 * k, 12 * k], activation="leaky_relu(0.2)")
    matrix = rng.normal(size=(8 * k, 12 * k)) / np.sqrt(8 * k)
    z = rng.normal(size=(PER_NETWORK, k))
    x = generator(z) @ matrix.T
    x = x + rng.uniform(-noise, noise, size=x.shape)
    return Plan(generator, x, noise, z[:, None], 6.0, sensing=matrix)


def signless(rng: np.random.Generator) -> Plan:
    """Magnitudes of a linear network: z and -z make the same."""
    k = int(rng.integers(2, 5))
    linear = preimage.from_arrays([rng.normal(size=(20, k))], head="identity")
    generator = linear.then(*magnitudes(rng.normal(size=(8 * k, 20)) / np.sqrt(20)))
    z = rng.choice([-1.0, 1.0], size=(PER_NETWORK, k)) * rng.uniform(0.5, 2.0, (PER_NETWORK, k))
    plan = _noisy(rng, generator, 1e-4, z, box=4.0)
    plan.codes = np.stack([z, -z], axis=1)
    return plan


def phaseless(rng: np.random.Generator) -> Plan:
    """Magnitudes of a network that is not odd."""
    plain = _network(rng, [2, 8, 24], activation="leaky_relu(0.2)")
    generator = plain.then(*magnitudes(rng.normal(size=(16, 24)) / np.sqrt(24)))
    return _noisy(rng, generator, 1e-4, box=6.0)


def clipped(rng: np.random.Generator) -> Plan:
    """Outputs cut at 0 and 1."""
    plain = _network(rng, [3, 12, 60], activation="leaky_relu(0.3)", head="identity")
    # Where most outputs are cut, a code is not determined.
    return _noisy(rng, plain.then(*clipping(60)), 1e-4, box=6.0, decidable=False)


def eight_bits(rng: np.random.Generator) -> Plan:
    """Files of a sigmoid network, rounded to 8 bits."""
    generator = _network(rng, [3, 12, 100], activation="leaky_relu(0.3)", head="sigmoid")
    z = rng.normal(size=(PER_NETWORK, 3))
    x = np.rint(255 * generator(z)) / 255
    return Plan(generator, x, float(np.nextafter(HALF_LEVEL, 1)), z[:, None], 6.0, decidable=False)


def wide(rng: np.random.Generator) -> Plan:
    """Two latents behind many hidden units: the latent's box is split."""
    generator = _network(rng, [2, 100, 100, 40], scale=1.4, head="identity")
    z = rng.uniform(-1.9, 1.9, size=(PER_NETWORK, 2))
    return _noisy(rng, generator, 1e-3, z, box=2.0, decidable=False)


def wide_out_of_range(rng: np.random.Generator) -> Plan:
    """The same, with twin outputs that are pulled apart by more than the noise can."""
    plan = wide(rng)
    weights = [layer.dense_weight.copy() for layer in plan.generator.layers]
    weights[-1][1] = weights[-1][0]
    plan.generator = preimage.from_arrays(weights, head="identity")
    plan.x[:, 1] = plan.x[:, 0] + 2.5 * plan.noise
    plan.codes, plan.decidable = np.zeros((PER_NETWORK, 0, 2)), True
    return plan


FAMILIES: dict[str, Family] = {
    "unique, ReLU": unique_relu,
    "unique, LeakyReLU, no box": unique_leaky,
    "three layers": three_layers,
    "second preimages, |z|": mirrored,
    "twin columns": twin_columns,
    "out of range, 10 noise": out_of_range(10.0),
    "out of range, 1.1 noise": out_of_range(1.1),
    "out of range, 1.001 noise": out_of_range(1.001),
    "dead layer": dead_layer,
    "W = [D; -D], x = 0": opposite_signs,
    "rank-deficient": rank_deficient,
    "duplicate rows": duplicate_rows,
    "scale 1e12": scales(12),
    "scale 1e-12": scales(-12),
    "k > n": fewer_outputs,
    "dyadic, noise 0": dyadic,
    "noise at its bound": at_the_bound,
    "sigmoid head": smooth_head("sigmoid"),
    "tanh head": smooth_head("tanh"),
    "half hidden": hidden,
    "half hidden, out of range": hidden_out_of_range,
    "Gaussian measurements": measured,
    "magnitudes, linear": signless,
    "magnitudes": phaseless,
    "clipped": clipped,
    "8 bits": eight_bits,
    "wide": wide,
    "wide, out of range": wide_out_of_range,
}
