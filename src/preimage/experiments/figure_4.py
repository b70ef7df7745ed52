"""Figure 4: the middle of the picture is unobserved; no noise."""

from preimage.experiments.experiment import Experiment
from preimage.experiments.pictures import Config, draw, jobs, work

_DIGITS = Config(digits=(7, 1, 5, 6, 9), side=12)
EXPERIMENTS = {
    "figure-4": Experiment(
        {
            "tiny": Config(digits=(7, 1), side=12, methods=("gradient", "auto")),
            "quick": _DIGITS,
            "paper": _DIGITS,
        }, jobs, work, draw),
}  # fmt: skip
