"""Figure 3: denoising of digits that the trained network makes.

At the paper's variance of 0.3, and at a deviation of 0.03, where an l-infinity program can work.
"""

from experiments.experiment import Experiment
from experiments.pictures import Config, draw, jobs, work

_NOISES = (0.03, 0.5477)  # 0.5477**2 = 0.3
_DIGITS = Config(digits=(0, 3, 7, 8, 9), noises=(0.03, 0.1, 0.3, 0.5477))
EXPERIMENTS = {
    "figure-3": Experiment(
        {
            "tiny": Config(digits=(0, 3), noises=_NOISES),
            "quick": _DIGITS,
            "paper": _DIGITS,
        }, jobs, work, draw),
}  # fmt: skip
