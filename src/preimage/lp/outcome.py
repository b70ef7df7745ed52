"""How one linear program ended."""

from enum import StrEnum


class Outcome(StrEnum):
    """A backend's answer, after its claim was checked."""

    OPTIMAL = "optimal"
    INFEASIBLE = "infeasible"
    UNBOUNDED = "unbounded"
    FAILED = "failed"
