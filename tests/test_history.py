"""A sample's numbers depend neither on what the process did before nor on what is compiled."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import hashlib, sys
import preimage

generator, digits = preimage.zoo.load("mnist-20-60-784"), preimage.zoo.digits()[0][:16]
found = {}
for name in sys.argv[1:]:
    latent = preimage.invert(generator, digits, name, noise=0.1).latent
    found[name] = hashlib.sha256(latent.tobytes()).hexdigest()
print(sorted(found.items()))
"""


def run(folder, *names):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *names], capture_output=True, text=True, check=True,
        env={**os.environ, "NUMBA_CACHE_DIR": str(folder)},
    )  # fmt: skip
    return done.stdout


@pytest.mark.slow
def test_compiled_anew_or_loaded_and_in_any_order(tmp_path):
    """Claim: bit by bit the same in the process that compiles, and in those that load."""
    first = run(tmp_path, "gauss_newton", "exact")
    assert run(tmp_path, "gauss_newton", "exact") == first
    assert run(tmp_path, "exact", "gauss_newton") == first
