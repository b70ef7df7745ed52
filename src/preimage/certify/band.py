"""What a certificate says of the picture: the range of each output over all codes left."""

from __future__ import annotations

import numpy as np

from preimage.certify.certificate import Certificate
from preimage.certify.certify import network_digest
from preimage.enclosure.descent import tighten
from preimage.enclosure.network import as_network, starting_bounds
from preimage.enclosure.tighten import Budget, Deduction, end_programs, tighten_by
from preimage.errors import InputError
from preimage.generator import Generator
from preimage.matrix import Array

# Of tightening, before the outputs are bounded.
_ROUNDS = 4


def reconstruction_band(
    generator: Generator, certificate: Certificate, sample: int = 0
) -> tuple[Array, Array]:
    """The least and the largest value that each output takes over the codes of one sample.

    Two linear programs an output, over the certificate's intervals and the observation; their
    multipliers are evaluated with rounding in mind, so that the band holds ``G(z)`` for every code
    z that explains the observation.

    Args:
        generator: That the certificate is about.
        certificate: From ``certify``.
        sample: Which of its samples.

    Returns:
        Both ends, (n,) each; infinite where nothing bounds an output.

    Raises:
        InputError: The sample is infeasible, and has no codes at all; or another generator.
    """
    claim = certificate.claims[sample]
    if claim.verdict == "infeasible":
        raise InputError(f"sample {sample}: no code explains it, so that there is no band")
    network, question = as_network(generator), claim.question
    if question.network != network_digest(generator):
        raise InputError("generator: expected the network that was certified, got another one")
    x = question.observation
    if question.sensing is not None:
        x = np.full(network.sizes[-1], np.nan)
    bounds = starting_bounds(network, x, claim.enclosed_noise, claim.lower, claim.upper)
    found, budget = Deduction.start(bounds), Budget(np.inf, 1)
    if np.isfinite([claim.lower, claim.upper]).all():
        found.propagate(network)
        if "subdivision" not in claim.proof:  # which is for networks of many units
            tighten(network, found, budget, _ROUNDS)
        tighten_by(lambda relaxed: end_programs(relaxed.last), network, found, budget)
    low, high = found.bounds.lower[-1], found.bounds.upper[-1]
    with np.errstate(invalid="ignore"):
        least, most = network.head(low), network.head(high)
    return np.nextafter(least, -np.inf), np.nextafter(most, np.inf)
