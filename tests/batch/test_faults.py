"""The short version of ``make faults``."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("psutil")

from faults import damage, fill_the_disk, kill_at_random


def test_kills(tmp_path):
    """Claim: after kills of jobs and workers every sample is there once, to the bit."""
    kills = kill_at_random(8, tmp_path, 0.02, random.Random(1))
    assert kills.of_jobs + kills.of_workers == 8
    assert kills.finished_jobs >= 1
    assert kills.most_in_vain <= 2


def test_full_and_read_only_disks(tmp_path):
    """Claim: a clean error, everything finished before it is whole, and the job goes on."""
    said = fill_the_disk(tmp_path)
    if "not permitted" in said:
        pytest.skip(said)


def test_damage(tmp_path):
    """Claim: what is cut off or flipped is found, and mended by the same job."""
    damage(2, tmp_path, random.Random(0))
