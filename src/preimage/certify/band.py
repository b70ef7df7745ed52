"""What a certificate says of the picture: the range of each output over all codes left."""

from __future__ import annotations

import numpy as np

from preimage.certify.certificate import Certificate, Claim
from preimage.certify.proof import replay
from preimage.certify.prove import network_digest
from preimage.enclosure.network import Array, Bounds, Network, as_network
from preimage.enclosure.observed import starting_bounds
from preimage.enclosure.relaxation import relax
from preimage.enclosure.tighten import Budget, Deduction, layer_programs, tighten_bounds
from preimage.errors import InputError
from preimage.generator import Generator


def reconstruction_band(
    generator: Generator, certificate: Certificate, sample: int = 0
) -> tuple[Array, Array]:
    """The least and the largest value that each output takes over the codes of one sample.

    Two linear programs an output, over what the certificate's enclosure says of all layers; their
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
    found = Deduction.start(_proven_bounds(network, claim))
    if all(np.isfinite(end).all() for end in found.bounds.outputs(network, 0)):
        relaxation = relax(network, found.bounds)
        wanted = layer_programs(relaxation, network.depth)
        tighten_bounds(network, found, relaxation, wanted, Budget(np.inf, 1))
    low, high = found.bounds.lower[-1], found.bounds.upper[-1]
    with np.errstate(invalid="ignore"):
        least, most = network.head(low), network.head(high)
    return np.nextafter(least, -np.inf), np.nextafter(most, np.inf)


def _proven_bounds(network: Network, claim: Claim) -> Bounds:
    """What the claim says of all layers: by its proof's first steps, or by its intervals alone."""
    question, proof = claim.question, claim.proof
    if question.sensing is not None or "steps" not in proof:
        nothing = np.full(network.sizes[-1], np.nan)
        return starting_bounds(network, nothing, 0.0, claim.lower, claim.upper)
    infinite = tuple(np.full(network.sizes[0], end) for end in (-np.inf, np.inf))
    low, high = question.box or infinite
    noise = claim.enclosed_noise
    bounds = starting_bounds(network, question.observation, noise, low, high)
    replay(network, bounds, proof["steps"])
    return bounds
