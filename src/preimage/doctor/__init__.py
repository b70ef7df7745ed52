"""What is likely to be wrong with a network or its observations: ``preimage doctor``.

Every check compares what is given with what the network makes of codes from N(0, I).
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from preimage.certify import Certificate, certify
from preimage.doctor.observation import Finding, of_observation
from preimage.errors import InputError
from preimage.generator import Generator
from preimage.inspection import head_range, inspect_generator
from preimage.invert import invert
from preimage.io import from_torch
from preimage.matrix import Array, Flags
from preimage.network import Network, chain_of
from preimage.torch_checks import UntrainedWarning

__all__ = ["BOX", "Finding", "examine", "prove"]


_DRAWS = 200  # random codes
_CODES_TRIED = 20  # codes at which the influence of every coordinate is measured,
_ENTRIES = 2**25  # fewer where their Jacobians have more entries than this
_SAMPLES = 2  # observations that are inverted
BOX = 5.0  # codes with |z_i| <= 5 are certified
_PATIENCE = 5.0  # seconds for the inversion, and for the certificate
_PROVABLE = 2**20  # entries of all weights, zeros included; larger networks take minutes to certify
# A coordinate is weak if it changes outputs by less than this, where the strongest one changes them
# by 1: in trained networks weak ones stood below 0.01, and all others above 0.25.
_WEAK = 0.05
# A coordinate is not determined if an observation leaves this much of its variance under N(0, I).
_LEFT = 0.5


def examine(
    network: Any, observation: ArrayLike | None = None, *, noise: float = 0.0, seed: int = 0
) -> tuple[Finding, ...]:
    """Look for common mistakes, in the order in which they are best mended.

    Args:
        network: A ``Network``, or a ``torch.nn.Module``, which is imported and compared with the
            import.
        observation: (n,) or (batch, n); the first few are examined. None for the network alone.
        noise: Bound on the largest absolute noise entry.
        seed: Of the random codes.

    Returns:
        Findings; those with ``wrong`` first explain those after them.

    Raises:
        InputError: Neither a network nor a module, or one that cannot be imported.
    """
    found: list[Finding] = []
    if not isinstance(network, Network):
        network, found = _imported(network)
    rng = np.random.default_rng(seed)
    codes = rng.standard_normal((_DRAWS, network.latent_size))
    outputs = network(codes)
    found += _of_outputs(network, outputs)
    if any(one.wrong and one.topic in ("import", "head") for one in found):
        return tuple(found)
    tried = max(_ENTRIES // (network.observation_size * network.latent_size + 1), 1)
    found += _of_codes(network, codes[: min(tried, _CODES_TRIED)], noise)
    if observation is None:
        samples = outputs[:_SAMPLES] + rng.uniform(-noise, noise, outputs[:_SAMPLES].shape)
    else:
        samples = np.atleast_2d(np.asarray(observation, dtype=np.float64))
        samples = samples.reshape(len(samples), -1)[:_SAMPLES]
        found.append(of_observation(network, samples, outputs))
    if not any(one.wrong for one in found):
        found += _of_answers(network, samples, noise, own=observation is None)
    return tuple(found)


# The network ------------------------------------------------------------------------------------


def _imported(module: Any) -> tuple[Network, list[Finding]]:
    """A module as a network, and what the import complains of."""
    complaints: list[str] = []
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            network = from_torch(module)
        except InputError as error:
            if not getattr(module, "training", False):
                raise
            complaints.append(str(error))
            network = from_torch(copy.deepcopy(module).eval())
    complaints += [str(one.message) for one in told if one.category is UntrainedWarning][:1]
    return network, [Finding("import", True, complaint) for complaint in complaints]


def _of_outputs(network: Network, outputs: Array) -> Iterator[Finding]:
    """Outputs at random codes: finite, varying, not saturated."""
    if not np.isfinite(outputs).all():
        yield Finding("head", True, "Outputs at random codes are not finite: check the weights.")
        return
    spread, size = float(outputs.std(axis=0).max()), float(np.abs(outputs).max())
    if spread <= 1e-6 * max(size, 1e-300):
        yield Finding("head", True, (
            "All random codes give the same output: the decoder has collapsed, or its head is "
            "saturated by pre-activations that are too large (were the weights scaled twice?)."
        ))  # fmt: skip
        return
    head = head_range(network, outputs)
    if head is not None:
        yield from _of_head(outputs, *head)
    low, high = np.quantile(outputs, (0.001, 0.999))
    yield Finding("import", False, (
        f"Latent size {network.latent_size}, observation size {network.observation_size}; outputs "
        f"of random codes lie between {low:.3g} and {high:.3g}."
    ))  # fmt: skip


def _of_codes(network: Network, codes: Array, noise: float) -> Iterator[Finding]:
    """Latent coordinates that hardly change outputs, or that an observation does not determine.

    The second are found by the linearised model with a prior: given an observation with errors of
    standard deviation ``noise``, the covariance of z ~ N(0, I) is ``(I + J^T J / noise^2)^-1``.
    """
    jacobian = network.linearize(codes)[1]
    influence = np.sqrt(np.mean(np.square(jacobian), axis=(0, 1)))
    weak = influence < _WEAK * influence.max(initial=0.0)
    if weak.any():
        strongest = influence[weak].max() / influence.max()
        yield Finding("codes", False, (
            f"{weak.sum()} of {weak.size} latent coordinates ({_listed(weak)}) are almost unused: "
            f"they change the output by at most {strongest:.1%} of what the strongest does. "
            "Reconstructions hardly depend on them, but noise hides their values, and certificates "
            "find several codes."
        ))  # fmt: skip
    if noise <= 0:
        return
    gram = jacobian.transpose(0, 2, 1) @ jacobian / noise**2
    left = np.linalg.inv(gram + np.eye(len(influence)))
    unknown = (np.median(np.diagonal(left, axis1=1, axis2=2), axis=0) > _LEFT) & ~weak
    if unknown.any():
        yield Finding("codes", False, (
            f"At noise {noise:.3g} an observation determines {unknown.sum()} of {unknown.size} "
            f"latent coordinates ({_listed(unknown)}) no better than N(0, I) does: expect standard "
            "errors of 1 and more there."
        ))  # fmt: skip


def _listed(chosen: Flags) -> str:
    index = np.flatnonzero(chosen)
    return ", ".join(f"z{i}" for i in index[:8]) + (", …" if index.size > 8 else "")


def _of_head(outputs: Array, low: float, high: float) -> Iterator[Finding]:
    share = (outputs - low) / (high - low)
    saturated = (np.minimum(share, 1 - share) < 1e-7).mean(axis=1)
    if np.median(saturated) > 0.95:
        yield Finding("head", True, (
            f"The head is saturated: {saturated.max():.0%} of the outputs stand at {low:g} or "
            f"{high:g} within 1e-7, where nothing of the code is left. Were the weights, or the "
            "pixels in training, scaled by 255?"
        ))  # fmt: skip
    elif share.min() > 0.45 and share.max() < 0.75:
        yield Finding("head", True, (
            f"All outputs lie in the middle of the head's range ({low:g} to {high:g}): was the "
            "sigmoid applied twice?"
        ))  # fmt: skip


# Answers ----------------------------------------------------------------------------------------


def _of_answers(network: Network, samples: Array, noise: float, *, own: bool) -> Iterator[Finding]:
    """Whether a code comes within the noise, which method to use, and what it takes."""
    what = "an output of its own" if own else "the observation"
    start = time.perf_counter()
    found = invert(network, samples[:1], noise=noise, time_limit=_PATIENCE)
    seconds = time.perf_counter() - start
    error = float(found.residual_max[0])
    if found.status[0] == "solved":
        yield Finding("range", False, f"A code explains {what}: largest error {error:.3g}.")
    else:
        certificate, proven = prove(network, samples[0], noise)
        if certificate is not None and certificate.verdict in ("unique", "ambiguous"):
            proven += " Give method='auto' more restarts."
        yield Finding("range", own, (
            f"The best code found leaves a largest error of {error:.3g} on {what}, noise is "
            f"{noise:.3g}. " + proven
        ))  # fmt: skip
    yield Finding("method", False, _method(chain_of(network)))
    yield Finding("time", False, (
        f"method='auto' took {seconds:.2g} s a sample here; preimage batch inverts many at "
        "once, which is faster."
    ))  # fmt: skip


def prove(
    network: Network, sample: ArrayLike, noise: float, sensing: Any = None
) -> tuple[Certificate | None, str]:
    """Certify what a network, known or run, can make of a sample, (n,), within seconds.

    ``noise`` and ``sensing`` are as in ``preimage.certify``. The certificate is None where nothing
    can be proven; the sentence says what is, or why not.
    """
    chain, codes = chain_of(network), f"with |z_i| <= {BOX:g}"
    if chain is None:
        return None, "Nothing is proven: the layers of this network are not known."
    if sum(layer.input_size * layer.output_size for layer in chain.layers) > _PROVABLE:
        return None, (
            "Nothing is proven here, as a certificate of a network of this size takes minutes: use "
            "preimage certify."
        )
    try:
        found = certify(chain, sample, noise=noise, box=BOX, time_limit=_PATIENCE, sensing=sensing)
    except InputError as error:
        return None, f"Nothing is proven: {error}"
    return found, {
        "unique": f"It is proven that every code {codes} that explains the observation lies "
        f"within {found.distance:.2g} of one code.",
        "ambiguous": f"It is proven that two codes {codes} explain the observation; they are "
        f"{found.distance:.2g} apart.",
        "infeasible": f"It is proven that no code {codes} explains the observation.",
        "undecided": f"Whether a code {codes} explains the observation is not decided: "
        f"{found.reason}.",
    }[str(found.verdict)]


def _method(chain: Generator | None) -> str:
    if chain is None:
        return (
            "The network is run by torch: use method='auto' or 'gauss_newton' (or 'adam'); "
            "layer-wise methods and certificates need its layers."
        )
    exact = next(m for m in inspect_generator(chain).methods if m.method == "exact")
    if exact.verdict in ("yes", "mostly"):
        return (
            "The layers are known and expand: method='auto' suits; 'exact' without noise, 'linf' "
            "with bounded noise, 'l1' with a few gross errors."
        )
    return f"method='auto' (or 'gauss_newton') suits. Layer-wise methods may fail: {exact.reason}"
