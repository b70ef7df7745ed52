"""The figures of the paper, rerun, and some that it could not draw: one file a figure.

``find(name, scale)`` gives an experiment and its configuration, ``run(name, config)`` a table,
``experiment.draw(config, table)`` the figure. Public names of ``preimage`` only are used, and what
a method is given never depends on the true code.
"""

from experiments.experiment import MODULES, Experiment, find, fingerprint, run
from experiments.table import Table

__all__ = ["MODULES", "Experiment", "Table", "find", "fingerprint", "run"]
