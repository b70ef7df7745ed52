"""The public entry: check the input, and prove of each sample what can be proven."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from preimage.certify.certificate import Certificate
from preimage.certify.prove import measured_chain, prove
from preimage.enclosure.network import as_network
from preimage.errors import InputError
from preimage.generator import Generator
from preimage.methods.gauss_newton import GaussNewton
from preimage.methods.parameters import Box, box_ends, check_positive
from preimage.observation import check_observation


def certify(
    generator: Generator,
    observation: ArrayLike,
    *,
    noise: ArrayLike,
    sensing: Any = None,
    box: Box = None,
    resolution: float | None = None,
    rounds: int = 4,
    nodes: int = 1000,
    time_limit: float = 10.0,
    seed: int = 0,
) -> Certificate:
    """Say what is proven of ``S = { z : max |G(z) - x| <= noise }``, within ``box`` if given.

    With ``sensing`` A, S is ``{ z : max |A G(z) - x| <= noise }``.

    - ``unique``: S is not empty, and no code in it is farther than ``distance`` from the witness.
    - ``ambiguous``: two codes in S are ``distance`` apart, more than ``resolution``.
    - ``infeasible``: S is empty.
    - ``undecided``: anything else; ``reason`` says why.

    A forward pass in floats has rounding errors. Codes are excluded (and boxes computed) only for
    the noise plus a bound on these; witnesses explain the observation to within the noise itself,
    in exact arithmetic. Noise below that bound often is ``undecided``; the reason names it.

    Args:
        generator: Dense or sparse layers with piecewise-linear activations; the last may be tanh
            or sigmoid.
        observation: Shape (m,) or (batch, m); m is the generator's output size n, or the number of
            rows of ``sensing``.
        noise: Bound on the largest absolute noise entry; a number, or shape (batch,).
        sensing: What is seen of an output, if not all of it: a boolean mask, True where observed,
            of shape (n,) or (batch, n); or a matrix of shape (m, n), an array or ``scipy.sparse``.
        box: Only codes with ``|z_i| <= box``, or ``(low, high)``, numbers or one a coordinate.
        resolution: Distance up to which codes count as one; by default 1 % of the box's (least
            positive) half-width, or of max(1, |witness|) without a box.
        rounds: Most rounds of tightening.
        nodes: Most branches that a sample may open.
        time_limit: Seconds that a sample may take, with the check of its proof, not counting the
            search for a first code.
        seed: Of that search.

    Raises:
        InputError: Anything wrong with the arguments.

    >>> import preimage
    >>> generator = preimage.from_arrays([[[2.0], [-1.0]]])
    >>> certificate = preimage.certify(generator, [6.0, 0.0], noise=0.5)
    >>> str(certificate.verdict), certificate.lower.round(3), certificate.upper.round(3)
    ('ambiguous', array([2.75]), array([3.25]))
    """
    if not isinstance(generator, Generator):
        raise InputError(
            "generator: expected a preimage.Generator, whose layers are known, got "
            f"{type(generator).__name__}; nothing can be proven of a network that is only run"
        )
    positive = {"time_limit": time_limit}
    positive |= {} if resolution is None else {"resolution": resolution}
    check_positive(positive, {"rounds": rounds, "nodes": nodes})
    k = generator.latent_size
    low, high = box_ends(box, k)
    checked, single = check_observation(generator, observation, noise, sensing)
    if np.size(noise) > 1 and np.shape(noise) not in ((len(checked),), (len(checked), 1)):
        raise InputError(
            f"noise: certify takes a number or one a sample, shape ({len(checked)},), got shape "
            f"{np.shape(noise)}"
        )
    measured = measured_chain(generator, checked)
    as_network(measured)
    search = GaussNewton(box=box, seed=seed, backend="kernel")
    starts = search.solve(measured, replace(checked, sensing=None)).latent
    began = time.perf_counter()  # not before, since first use may compile
    claims = prove(
        generator, checked, starts, (low, high), resolution, rounds, nodes, time_limit, began
    )
    return Certificate.of(claims, k, single)
