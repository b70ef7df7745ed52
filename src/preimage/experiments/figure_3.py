"""Figure 3: denoising of digits that the trained network makes, Gaussian noise of variance 0.3."""

from preimage.experiments.experiment import Experiment
from preimage.experiments.pictures import Config, draw, jobs, work

_NOISE = 0.3**0.5
_DIGITS = Config(digits=(0, 3, 7, 8, 9), noise=_NOISE)
EXPERIMENTS = {
    "figure-3": Experiment(
        {
            "tiny": Config(digits=(0, 3), noise=_NOISE, methods=("linf", "auto")),
            "quick": _DIGITS,
            "paper": _DIGITS,
        }, jobs, work, draw),
}  # fmt: skip
