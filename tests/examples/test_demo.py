"""The demo: its tables, its picture, its codes."""

import json

import numpy as np

import preimage
from examples import demo


def test_demo_scores_and_draws(tmp_path, monkeypatch, capsys):
    tasks = demo.tasks
    monkeypatch.setattr(demo, "tasks", lambda generator: tasks(generator, 2))
    methods = {"linf": preimage.LayerwiseLP(), "adam": preimage.Adam(steps=50, restarts=1)}
    monkeypatch.setattr(demo, "DEMO_METHODS", methods)
    demo.main(["--out", str(tmp_path), "--json"])
    shown = json.loads(capsys.readouterr().out)
    known, real = shown["tables"].values()
    assert shown["verdicts"] == ["unique", "unique"]
    assert shown["seconds"] > 0
    assert [score["method"] for score in known] == ["ground truth", "linf", "adam"]
    assert [score["method"] for score in real] == ["linf", "adam"]
    assert known[1]["failures"] == 0
    assert known[1]["error_median"] < 1.0
    assert real[0]["error_median"] is None
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    demo.main(["--out", str(tmp_path)])
    text = capsys.readouterr().out
    assert "ground truth" in text
    assert text.count("unique, every code within") == 2
    assert "All in" in text


def test_demo_codes_can_be_known():
    generator = preimage.from_arrays([np.random.default_rng(0).standard_normal((9, 4)), np.eye(9)])
    codes = demo.draw_codes(generator, 30, seed=1)
    assert ((generator.preactivations(codes)[0] > 0).sum(axis=1) >= 4).all()
    np.testing.assert_array_equal(codes, demo.draw_codes(generator, 30, seed=1))
