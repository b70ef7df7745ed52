"""The public entry: check the input, run a method, recompute the residual."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

from numpy.typing import ArrayLike

from preimage.clock import Clock, Progress
from preimage.errors import InputError
from preimage.inversion import Inversion
from preimage.matrix import slices
from preimage.methods import Method, as_method
from preimage.methods.assess import assess
from preimage.methods.parameters import check_positive
from preimage.network import Measured, Network, numbers_of
from preimage.observation import check_observation


def invert(
    generator: Network,
    observation: ArrayLike,
    method: Method | str = "auto",
    *,
    noise: ArrayLike = 0.0,
    sensing: Any = None,
    time_limit: float | None = None,
    progress: bool | None = None,
) -> Inversion:
    """Find latent codes z with ``G(z)``, or ``sensing @ G(z)``, near ``observation``.

    Args:
        generator: The network: a ``Generator``, or any other ``Network``, such as one that torch
            runs.
        observation: Shape (m,) or (batch, m), real, and finite wherever observed; m is the
            generator's output size n, or the number of rows of ``sensing``.
        method: A name in ``preimage.METHODS``, or an object such as ``LayerwiseLP(norm="l1")``.
        noise: The initial tolerance eps_0: a bound on the largest absolute noise entry, in the
            observation's units: a number; shape (batch,), one a sample; or shape (m,) or
            (batch, m), one an entry, which then counts in units of its own noise.
        sensing: What is seen of an output, if not all of it: a boolean mask, True where observed,
            of shape (n,) or (batch, n) (the observation keeps its n entries, what stands in the
            others is ignored); or a linear map of shape (m, n), one for all samples: an array,
            ``scipy.sparse``, or any operator with ``shape``, ``matmat`` and ``rmatmat``, such as
            those of ``scipy.sparse.linalg`` and ``pylops``.
        time_limit: Seconds after which the methods end with the best codes so far; samples that
            these do not explain have the status ``"time_limit"``. A step that has begun is ended.
        progress: Whether to show a progress bar after a second; None for one where standard error
            is a terminal.

    Returns:
        Codes, residuals (recomputed from the generator), a status per sample, layer reports.
        A single vector in gives single values out.

    Raises:
        InputError: Anything wrong with the arguments. A numerical failure is a status, and never
            raises.

    >>> import preimage
    >>> generator = preimage.from_arrays([[[2.0], [-1.0]]])
    >>> inversion = preimage.invert(generator, [6.0, 0.0], "exact")
    >>> inversion.latent, str(inversion.status)
    (array([3.]), 'solved')
    """
    if isinstance(generator, type) or not isinstance(generator, Network):
        raise InputError(
            f"generator: expected a preimage.Generator or another Network, got "
            f"{type(generator).__name__}; see preimage.load, preimage.from_torch and "
            "preimage.from_arrays"
        )
    start = time.perf_counter()
    if time_limit is not None:
        check_positive({"time_limit": time_limit}, {})
    checked, single = check_observation(generator, observation, noise, sensing)
    network = generator
    if checked.sensing is not None:
        network, checked = Measured(generator, checked.sensing), replace(checked, sensing=None)
    solver, cuts = as_method(method), slices(len(checked), numbers_of(network)) or [slice(0)]
    deadline, inversions = start + (math.inf if time_limit is None else time_limit), []
    with Progress(len(checked), progress) as bar:
        for part in map(checked.take, cuts):
            part = replace(part, clock=Clock(deadline, bar.report(len(part))))
            inversions.append(assess(network, part, solver.solve(network, part)))
            bar.finish(len(part))
    inversion = inversions[0] if len(cuts) == 1 else Inversion.concatenate(inversions)
    return inversion.squeeze() if single else inversion
