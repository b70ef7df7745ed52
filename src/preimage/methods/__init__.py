"""Inversion methods: frozen dataclasses with one verb, ``solve(network, observation)``."""

from __future__ import annotations

from typing import Protocol

from preimage.errors import InputError
from preimage.inversion import Estimate
from preimage.methods.auto import Auto
from preimage.methods.branch_and_bound import BranchAndBound as BranchAndBound
from preimage.methods.exact import Exact
from preimage.methods.gauss_newton import GaussNewton
from preimage.methods.gradient import Adam, GradientDescent
from preimage.methods.layerwise import LayerwiseLP
from preimage.methods.parameters import is_method
from preimage.methods.projected_gradient import ProjectedGradient
from preimage.network import Network
from preimage.observation import Observation


class Method(Protocol):
    """Anything that finds codes. What it is given never depends on the true code.

    The network is what was measured, ``A G`` where there is a sensing map, and ``observation`` has
    its outputs; see ``network.Measured``.
    """

    def solve(self, network: Network, observation: Observation) -> Estimate:
        """Estimate one code a sample; failures are statuses, not exceptions."""


# A name is short for the object with its defaults.
METHODS: dict[str, Method] = {
    "auto": Auto(),
    "exact": Exact(),
    "linf": LayerwiseLP(norm="linf"),
    "l1": LayerwiseLP(norm="l1"),
    "relaxed": LayerwiseLP(norm="relaxed"),
    "gauss_newton": GaussNewton(),
    "projected_gradient": ProjectedGradient(),
    "gradient": GradientDescent(),
    "adam": Adam(),
}


def as_method(method: Method | str) -> Method:
    """Return the method for a name, or the object itself.

    Raises:
        InputError: Unknown name, or an object without ``solve``.
    """
    if isinstance(method, str) and method in METHODS:
        return METHODS[method]
    if is_method(method):
        return method  # type: ignore[return-value]
    raise InputError(
        f"method: expected one of {', '.join(METHODS)}, or an object such as "
        f"LayerwiseLP(norm='l1'), got {method!r}"
    )
