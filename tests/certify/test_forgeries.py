"""Forged certificates, judged by an exact oracle; and that the campaign would find a hole."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import exact_oracle
import forgeries

from preimage.certify import checker

RULES = ["a cut is not proven", "a latent may lie elsewhere", "a latent may be far",
         "the witnesses are near", "a witness does not explain"]  # fmt: skip


@pytest.fixture(scope="module")
def problems():
    return {seed: forgeries.draw(seed) for seed in range(3)}


def test_no_forgery_is_false_and_accepted(problems, monkeypatch):
    """Claim: what the checker accepts is true for the question that it states."""
    monkeypatch.setattr(forgeries, "draw", problems.__getitem__)
    for seed in problems:
        counts, wrong = forgeries.run(seed, 200)
        assert wrong == []
        assert counts["honest"] == forgeries.SAMPLES
        assert counts["accepted, true"] > 0


@pytest.mark.parametrize("rule", RULES)
def test_a_checker_without_one_rule_is_found_out(rule, problems, monkeypatch):
    """Claim: forgeries are sharp enough: each rule that is left out lets a false one through."""

    def require(condition, message):
        if not condition and not message.startswith(rule):
            raise ValueError(message)

    for part in (checker, checker.files, checker.forms, checker.network, checker.steps):
        monkeypatch.setattr(part, "require", require)
    monkeypatch.setattr(forgeries, "draw", problems.__getitem__)
    assert any(forgeries.run(seed, 400)[1] for seed in problems)


def test_the_oracle_finds_sets_made_by_hand():
    """Claim: G(z) = |z|, x = 2: S is two intervals, or one when the noise joins them."""
    generator = forgeries.preimage.from_arrays([[[1.0], [-1.0]], [[1.0, 1.0]]], head="identity")
    pieces = exact_oracle.exact_pieces(generator)
    assert exact_oracle.explaining(pieces, [2], 1, (-5, 5)) == [(-3, -1), (1, 3)]
    assert exact_oracle.explaining(pieces, [2], 1, (0, 5)) == [(1, 3)]
    assert exact_oracle.explaining(pieces, [-2], 1, (-5, 5)) == []
