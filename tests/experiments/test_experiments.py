"""Every figure at tiny scale: its qualitative claim, and the machinery that runs it."""

import ast
import inspect
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import preimage
from preimage import InputError
from preimage.experiments import MODULES, Table, find, fingerprint, run
from preimage.experiments.figure_2 import SUCCESS, band, limit
from preimage.experiments.problems import oracle
from preimage.experiments.table import FIRST, means, medians, slope

FOLDER = Path(inspect.getfile(find)).parent
SWEPT = {
    "figure-1a": "noise", "figure-1b": "noise", "figure-1c": "noise", "figure-1d": "noise",
    "figure-2a": "k", "figure-2b": "k", "figure-3": "noise", "figure-4": "digit",
    "appendix-relaxed": "noise", "timing": "k", "phase": "ratio", "sensing": "m",
    "corruption": "fraction", "compression": "k", "certified": "noise",
}  # fmt: skip


@pytest.fixture(scope="module")
def tables():
    """Each table once."""
    known = {}

    def of(name):
        if name not in known:
            known[name] = run(name, find(name, "tiny")[1])
        return known[name]

    return of


@pytest.mark.parametrize("name", MODULES)
def test_every_figure_has_its_table_and_picture(name, tables, tmp_path):
    table = tables(name)
    assert set(FIRST) | {SWEPT[name]} <= set(table.rows[0])
    assert {"versions", "seed", "machine", "seconds", "config"} <= set(table.facts)
    table.write(tmp_path / "t.csv")
    again = Table.read(tmp_path / "t.csv")
    assert repr(again.rows) == repr(table.rows)
    assert again.facts == table.facts
    experiment, config = find(name, "tiny")
    experiment.draw(config, again).savefig(tmp_path / "t.png", dpi=40)


@pytest.mark.parametrize("name", ["figure-1a", "figure-1c"])
def test_errors_grow_linearly_and_auto_is_at_the_oracle(name, tables):
    table = tables(name)
    for method in ("linf", "auto"):
        assert 0.9 < slope(*medians(table.where(method=method), "noise", "error")) < 1.2
    _, least = medians(table.where(method="oracle"), "noise", "error")
    _, auto = medians(table.where(method="auto"), "noise", "error")
    assert (auto[:2] <= 1.1 * least[:2]).all()
    assert auto[2] <= 1.6 * least[2]  # the largest noise, and three draws only


def test_gradient_descent_fails_on_the_trained_network(tables):
    part = tables("figure-1c").where(method="gradient")
    assert part.values("success").mean() < 0.5


def test_success_follows_the_binomial_limit(tables):
    _, config = find("figure-2a", "tiny")
    table = tables("figure-2a")
    k, rate = means(table.where(method="linf"), "k", "success")
    low, high = band(k, config.hidden[0], config.draws)
    assert (low <= rate).all()
    assert (rate <= high).all()
    assert limit(np.array([15]), 30)[0] == pytest.approx(0.5722, abs=1e-4)
    _, descent = means(table.where(method="gradient"), "k", "success")
    assert descent.sum() < rate.sum()


def test_leaky_relu_always_succeeds(tables):
    assert tables("figure-2b").where(method="linf").values("error").max() < SUCCESS


def test_auto_denoises_better_than_layer_by_layer(tables):
    table = tables("figure-3")
    auto, linf = (np.median(table.where(method=m).values("error")) for m in ("auto", "linf"))
    assert auto < linf


def test_masked_digits_come_back(tables):
    assert tables("figure-4").where(method="auto").values("error").max() < 1e-6


def test_the_domain_and_joint_work_need_less_expansion(tables):
    table = tables("phase")

    def rates(method):
        return means(table.where(method=method), "ratio", "success")[1]

    free, linf, joint = rates("free"), rates("linf"), rates("joint l2")
    assert (free <= linf).all()
    assert linf[1] > free[1]
    assert joint[0] > linf[0] == 0


def test_the_network_beats_sparsity(tables):
    part = tables("sensing").where(m=100)
    auto, lasso = (part.where(method=n).values("error") for n in ("auto", "lasso pixels"))
    assert auto.max() < 0.05 < lasso.min()


def test_l1_shrugs_off_gross_errors(tables):
    part = tables("corruption").where(fraction=0.1)
    l1, l2 = (np.median(part.where(method=f"joint {n}").values("error")) for n in ("l1", "l2"))
    assert l1 < 0.01 < l2


def test_boxes_hold_the_truth_and_grow_with_the_noise(tables):
    table = tables("certified")
    assert table.values("success").all()
    _, widths = medians(table, "noise", "error")
    assert widths[0] < widths[1]


def test_runs_resume_and_do_not_depend_on_the_number_of_processes(tmp_path):
    _, config = find("phase", "tiny")
    journal = tmp_path / "phase.partial"

    def interrupted(finished, total):
        for number, item in enumerate(finished):
            if number == 1:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        run("phase", config, journal=journal, progress=interrupted)
    kept = journal.read_text()
    journal.write_text(kept + '[["half a li')
    counted = []

    def count(finished, total):
        counted.append(total)
        return finished

    resumed = run("phase", config, workers=2, journal=journal, progress=count)
    assert counted == [2]
    whole = run("phase", config)

    def plain(table):
        return [{n: v for n, v in r.items() if n != "seconds"} for r in table.rows]

    assert plain(resumed) == plain(whole)
    other = replace(config, seed=99)
    assert fingerprint("phase", other) != fingerprint("phase", config)


def test_unknown_names_and_scales():
    with pytest.raises(InputError, match="figure-1a"):
        find("figure-9")
    with pytest.raises(InputError, match="paper"):
        find("figure-1a", "huge")


def test_oracle_is_least_squares():
    generator = preimage.from_arrays([[[1.0], [2.0], [-1.0]]])
    found = oracle(generator, np.array([[1.5, 2.0, 0.0]]), np.array([[1.0]]))
    assert found[0, 0] == pytest.approx(5.5 / 5)


def test_experiments_use_public_names_only():
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("preimage"):
                parts = (node.module or "").split(".")
                public = len(parts) == 1 or parts[1] in ("experiments", "plot")
                assert public, f"{path.name}: {node.module}"
                if len(parts) == 1:
                    assert all(a.name in {*preimage.__all__, "__version__"} for a in node.names)


def test_no_truth_reaches_a_method():
    """What ``inverted``, ``invert`` and ``certify`` are given never names the truth."""
    calls = 0
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            if getattr(node.func, "id", "") not in ("inverted", "invert", "certify", "_solve"):
                continue
            calls += 1
            for given in [*node.args, *(k.value for k in node.keywords)]:
                if ast.unparse(given) == "generator(truth)":
                    continue  # a noiseless observation
                names = {n.id for n in ast.walk(given) if isinstance(n, ast.Name)}
                assert not names & {"truth", "bound", "clean"}, f"{path.name}:{node.lineno}"
    assert calls >= 8


def test_all_experiments_are_listed():
    for name, module in MODULES.items():
        assert name in import_module(f"preimage.experiments.{module}").EXPERIMENTS
