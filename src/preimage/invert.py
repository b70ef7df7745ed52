"""The door: check the input, run a method, recompute the residual."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from preimage.errors import InputError
from preimage.generator import Generator
from preimage.inversion import Inversion
from preimage.methods import Method, as_method
from preimage.methods.assess import assess
from preimage.observation import check_observation

# Numbers of all layers that are worked on at a time, so that memory does not grow with the batch. A
# sample's result does not depend on its company, so that no result depends on this.
_ENTRIES = 2**22


def invert(
    generator: Generator,
    observation: ArrayLike,
    method: Method | str = "auto",
    *,
    noise: ArrayLike = 0.0,
    sensing: Any = None,
) -> Inversion:
    """Find latent codes z with ``G(z)``, or ``sensing @ G(z)``, near ``observation``.

    Args:
        generator: The network.
        observation: Shape (m,) or (batch, m), real, and finite wherever observed; m is the
            generator's output size n, or the number of rows of ``sensing``.
        method: A name in ``preimage.METHODS``, or an object such as ``LayerwiseLP(norm="l1")``.
        noise: The initial tolerance eps_0: a bound on the largest absolute noise entry, in the
            observation's units; a number, or shape (batch,).
        sensing: What is seen of an output, if not all of it: a boolean mask, True where observed,
            of shape (n,) or (batch, n) (the observation keeps its n entries, what stands in the
            others is ignored); or a linear map of shape (m, n), one for all samples: an array,
            ``scipy.sparse``, or any operator with ``shape``, ``matmat`` and ``rmatmat``, such as
            those of ``scipy.sparse.linalg`` and ``pylops``.

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
    if not isinstance(generator, Generator):
        raise InputError(
            f"generator: expected a preimage.Generator, got {type(generator).__name__}; "
            "see preimage.load, preimage.from_torch and preimage.from_arrays"
        )
    checked, single = check_observation(generator, observation, noise, sensing)
    solver, size = as_method(method), max(_ENTRIES // sum(generator.sizes), 1)
    parts = [checked.take(slice(i, i + size)) for i in range(0, max(len(checked), 1), size)]
    inversions = [assess(generator, part, solver.solve(generator, part)) for part in parts]
    inversion = inversions[0] if len(parts) == 1 else Inversion.concatenate(inversions)
    return inversion.squeeze() if single else inversion
