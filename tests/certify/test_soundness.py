"""A short run of ``make soundness``: every family once, and some mutants."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import soundness


@pytest.mark.parametrize("name", soundness.FAMILIES)
def test_no_false_claim(name):
    """Claim: nothing that is known is contradicted, and the checker proves each verdict."""
    _, counts, wrong = soundness.run(name, seed=1000)
    assert wrong == []
    assert counts["open"] <= 1


@pytest.mark.parametrize(
    "name",
    ["second preimages, |z|", "out of range, 1.1 noise", "tanh head", "half hidden", "wide"],
)
def test_no_mutant_passes(name):
    """Claim: certificates that were changed are not accepted, not even with a fitting seal."""
    _, tried, passed = soundness.run_mutants(name, 1000, 40)
    assert passed == []
    assert len(tried) >= 5
