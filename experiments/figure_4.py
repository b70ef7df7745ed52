"""Figure 4: the middle of the picture is unobserved; no noise.

The l-infinity program twice: on the rows that are seen, as in the authors' code, and as the
projection of projected gradient, as in the paper's text.
"""

from experiments.experiment import Experiment
from experiments.pictures import Config, draw, jobs, work

_METHODS = ("linf", "projected", "gradient", "auto")
_DIGITS = Config(digits=(7, 1, 5, 6, 9), side=12, methods=_METHODS)
EXPERIMENTS = {
    "figure-4": Experiment(
        {
            "tiny": Config(digits=(7, 1), side=12, methods=("linf", "gradient", "auto")),
            "quick": _DIGITS,
            "paper": _DIGITS,
        }, jobs, work, draw),
}  # fmt: skip
