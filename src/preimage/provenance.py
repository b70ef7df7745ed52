"""Which of some networks made a picture: a code that reproduces it, or a proof that none does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from preimage.certify import Certificate, certify
from preimage.errors import InputError
from preimage.generator import Generator
from preimage.matrix import Array, as_array
from preimage.methods.gauss_newton import GaussNewton
from preimage.methods.parameters import Box, box_ends, check_positive
from preimage.observation import Observation

Verdict = Literal["made", "not made", "undecided"]

# A network runs in float32 somewhere else: its outputs may differ by so many gray levels.
_ELSEWHERE = 1e-3
_TOP = 255.0


@dataclass(frozen=True, eq=False)
class Provenance:
    """What is known of one network and one picture.

    Attributes:
        name: Of the network.
        verdict: ``"made"``: the network gives the picture, up to its rounding, at ``latent``.
            ``"not made"``: no code in the box does, which ``certificate`` proves. Else
            ``"undecided"``.
        latent: (k,) the code, or the best that was found; NaN where there is none.
        error: Of the picture at ``latent``, in gray levels; NaN where there is none.
        reconstruction: (n,) what the network gives there, in [0, 1]; NaN where there is none.
        certificate: The proof that it was not made, or why that is open.
    """

    name: str
    verdict: Verdict
    latent: Array
    error: float
    reconstruction: Array
    certificate: Certificate

    def __repr__(self) -> str:
        return f"Provenance({self.name}: {self.verdict}, error {self.error:.3g} gray levels)"


def provenance(
    image: ArrayLike,
    networks: Mapping[str, Generator] | Sequence[Generator],
    *,
    box: Box = 5.0,
    levels: float = 0.5,
    time_limit: float = 10.0,
    seed: int = 0,
) -> tuple[Provenance, ...]:
    """Say of each network whether it made an 8-bit picture.

    A value v of the file means that the output was within ``levels`` gray levels of v: half a level
    where values were rounded, a whole one where they were cut off. Outputs are taken to be in
    [0, 1], of a tanh head in [-1, 1]. Where a head can leave that range, the ends 0 and 255 say
    only that the output is there or beyond: such a pixel is not used to exclude a code, but a code
    has to reproduce it.

    Args:
        image: Bytes, or floats in [0, 1], of as many entries as the networks' outputs; of shape
            (n,), (height, width), (channels, height, width) or (height, width, 3).
        networks: Generators by name; or without names, which are then their numbers.
        box: Where codes are looked for and excluded, ``|z_i| <= box`` or ``(low, high)``.
        levels: See above.
        time_limit: Seconds for each network.
        seed: Of the search for a code.

    Raises:
        InputError: A picture of another size or range, or a bad argument.

    >>> import preimage
    >>> ramp = preimage.from_arrays([[[0.2], [0.4], [0.6]]])
    >>> [found] = preimage.provenance([51, 102, 153], [ramp])
    >>> found.verdict, found.latent.round(2)
    ('made', array([1.]))
    >>> preimage.provenance([153, 102, 51], [ramp])[0].verdict
    'not made'
    """
    check_positive({"levels": levels, "time_limit": time_limit}, {})
    box_ends(box)
    named = networks if isinstance(networks, Mapping) else dict(enumerate(networks))
    values = _levels_of(image)
    found = []
    for name, generator in named.items():
        if not isinstance(generator, Generator) or generator.observation_size != values.size:
            raise InputError(
                f"networks: expected preimage.Generators of {values.size} outputs, as the picture "
                f"has, got {generator!r} for {name!r}"
            )
        found.append(_judge(str(name), generator, values, box, levels, time_limit, seed))
    return tuple(found)


def _levels_of(image: ArrayLike) -> Array:
    """The picture's gray levels, (n,), channels first."""
    array = as_array(image, "image")
    if array.ndim == 3 and array.shape[2] == 3 and array.shape[0] != 3:
        array = array.transpose(2, 0, 1)
    values = array.astype(np.float64).ravel()
    if array.dtype.kind == "f":
        values = _TOP * values
    if not values.size or not (np.isfinite(values) & (values >= 0) & (values <= _TOP)).all():
        raise InputError("image: expected integers from 0 to 255, or floats in [0, 1]")
    return values


def _judge(
    name: str, generator: Generator, values: Array, box: Box, levels: float, time_limit: float,
    seed: int,
) -> Provenance:  # fmt: skip
    """One network."""
    head = generator.layers[-1].activation
    low, high = head.range if np.isfinite(head.range).all() else (0.0, 1.0)
    unit = (high - low) / _TOP
    x = low + values / _TOP * (high - low)  # to the bit as pictures in files are scaled
    bottom, top = head.range
    # Under a ReLU, certify takes a 0 as what it is: at most 0, or near it.
    seen = ((values > levels) | (bottom >= low)) & ((values < _TOP - levels) | (top <= high))
    noise = (levels + _ELSEWHERE) * unit
    certificate = certify(generator, np.where(seen, x, 0.0), noise=noise, box=box, seed=seed,
                          sensing=None if seen.all() else seen, time_limit=time_limit)  # fmt: skip
    codes = [certificate.witness, certificate.other]
    if certificate.verdict == "undecided" and not np.isfinite(certificate.witness).all():
        sharp = GaussNewton(norm="linf", box=box, seed=seed)
        asked = Observation(x[None], np.array([levels * unit]), mask=seen[None])
        codes.append(np.asarray(sharp.solve(generator, asked).latent[0]))
    verdict: Verdict = "not made" if certificate.verdict == "infeasible" else "undecided"
    latent, error, shown = np.full(generator.latent_size, np.nan), np.nan, np.full(len(x), np.nan)
    for code in codes:
        if not np.isfinite(code).all():
            continue
        picture = np.clip((generator(code) - low) / (high - low), 0.0, 1.0)
        off = float(np.abs(_TOP * picture - values).max())
        verdict = "undecided"
        if not error <= off:
            latent, error, shown = code, off, picture
    if error <= levels + 2 * _ELSEWHERE:
        verdict = "made"
    return Provenance(name, verdict, latent, error, shown, certificate)
