"""The command: output, files and exit codes."""

import ast
import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import typer
from scipy import sparse
from typer.testing import CliRunner

import preimage
from preimage import cli, engine
from preimage.cli.terminal import write_figure
from preimage.inspection import inspect_generator
from preimage.plot import image_grid


def run(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.fixture
def planted(tmp_path):
    """A generator in a file, 20 observations in another, their codes."""
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((24, 4)), rng.standard_normal((100, 24)) / 10]
    generator = preimage.from_arrays(weights)
    latent = rng.standard_normal((20, 4))
    preimage.save(generator, tmp_path / "net.safetensors")
    np.save(tmp_path / "x.npy", generator(latent))
    return tmp_path / "net.safetensors", tmp_path / "x.npy", latent


def expect_one_line(result, *words):
    assert result.exit_code == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    for word in words:
        assert word in result.stderr


@pytest.mark.parametrize("method", ["linf", "gradient"])
def test_invert_writes_what_it_found(planted, tmp_path, method):
    network, observations, latent = planted
    out = tmp_path / "deep" / "out"
    result = run("invert", network, observations, "--method", method, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary == json.loads((out / "summary.json").read_text())
    assert summary["samples"] == sum(entry["samples"] for entry in summary["status"].values()) == 20
    assert summary["settings"]["method"] == method
    assert summary["versions"]["preimage"] == preimage.__version__
    found, images = np.load(out / "latent.npy"), np.load(out / "reconstruction.npy")
    np.testing.assert_array_equal(images, preimage.load(network)(found))
    residual = np.linalg.norm(np.load(observations) - images, axis=1)
    assert summary["residual"]["median"] == pytest.approx(np.median(residual))
    assert (out / "grid.png").read_bytes().startswith(b"\x89PNG")
    if method == "linf":
        np.testing.assert_allclose(found, latent, atol=1e-5)
        assert len(summary["layers"]) == 2


def test_invert_speaks_to_people(planted, tmp_path):
    network, observations, _ = planted
    result = run("invert", network, observations, "--out", tmp_path / "out")
    assert result.exit_code == 0
    assert "20 samples" in result.stdout
    assert preimage.Status.SOLVED.message in result.stdout


def test_invert_without_samples(planted, tmp_path):
    network, _, _ = planted
    np.save(tmp_path / "none.npy", np.zeros((0, 100)))
    result = run("invert", network, tmp_path / "none.npy", "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["ms_per_sample"] is None
    assert not (tmp_path / "out" / "grid.png").exists()


def test_samples_without_a_code_are_exit_code_1(planted, tmp_path, monkeypatch):
    network, observations, _ = planted

    def invert(generator, values, method, *, noise, sensing, time_limit):
        nan = np.full(len(values), np.nan)
        status = preimage.Status.INFEASIBLE.each(len(values))
        return preimage.Inversion(np.full((len(values), 4), np.nan), nan, nan, status, rank=-1)

    monkeypatch.setattr(preimage, "invert", invert)
    result = run("invert", network, observations, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 1
    summary = json.loads(result.stdout)
    assert list(summary["status"]) == ["infeasible"]
    assert summary["residual"]["median"] is None
    assert np.isnan(np.load(tmp_path / "out" / "reconstruction.npy")).all()


def test_a_missing_matplotlib_costs_only_the_picture(planted, tmp_path, monkeypatch):
    network, observations, _ = planted
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = run("invert", network, observations, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0
    assert "preimage[plot]" in result.stderr
    assert json.loads(result.stdout)["picture"] is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
@pytest.mark.parametrize(
    "name", ["net.safetensors", "net.npz", "a b.npz", "c.json", "d.JSON", "grid.png"]
)
def test_a_full_disk_costs_no_file_that_was_there(tmp_path, name):
    """Claim: the error names the path of the network, certificate or picture; old files stay."""
    path = tmp_path / name
    path.write_bytes(b"old")
    # A device that takes no byte, as a full disk does.
    (tmp_path / f".{name}.{os.getpid()}.partial").symlink_to("/dev/full")
    generator = preimage.from_arrays([np.eye(3)], activation="identity")
    certificate = preimage.certify(generator, np.ones(3), noise=0.1, box=5.0)
    save = {
        ".json": certificate.save,
        ".png": lambda path: write_figure(path, lambda: image_grid({"x": np.ones((1, 4))})),
    }.get(path.suffix.lower(), partial(preimage.save, generator))
    with pytest.raises(OSError, match=rf"No space left on device: '.*{name}'"):
        save(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_bad_input_is_one_line_and_exit_code_2(planted, tmp_path):
    network, observations, _ = planted
    out = tmp_path / "out"
    expect_one_line(run("invert", "nowhere", observations, "--out", out), "nowhere")
    expect_one_line(run("invert", network, tmp_path / "no.npy", "--out", out), "no.npy")
    expect_one_line(run("invert", network, observations, "--out", out, "--method", "magic"), "linf")
    expect_one_line(run("invert", network, observations, "--out", out, "--noise", "-1"), "noise")
    np.save(tmp_path / "wide.npy", np.zeros((1, 101)))
    expect_one_line(run("invert", network, tmp_path / "wide.npy", "--out", out), "101")
    expect_one_line(run("inspect", "nowhere"), "nowhere")
    (tmp_path / "file").write_text("")
    expect_one_line(run("invert", network, observations, "--out", tmp_path / "file"), "file")
    assert not out.exists()
    assert run("invert", network).exit_code == 2


def test_a_job_that_was_stopped_says_by_which_signal(planted, tmp_path, monkeypatch):
    """Claim: the exit code is that of a program that the signal ended, as shells count."""
    network, observations, _ = planted

    def invert_dataset(*arguments, **options):
        raise preimage.StoppedError("stopped by SIGTERM", 15)

    monkeypatch.setattr(preimage, "invert_dataset", invert_dataset)
    result = run("batch", network, observations, tmp_path / "store")
    assert (result.exit_code, result.stdout) == (143, "")
    assert result.stderr == "preimage: stopped by SIGTERM\n"


def test_inspect_counts_active_rows(planted):
    network, _, _ = planted
    result = run("inspect", network, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [layer["parameters"] for layer in found["layers"]] == [96, 2400]
    first = found["layers"][0]
    assert (first["inputs"], first["outputs"], first["expansion"]) == (4, 24, 6.0)
    assert 10 <= first["active_median"] <= 14
    assert first["active_worst"] < first["active_median"]
    assert {entry["method"] for entry in found["methods"]} == set(preimage.METHODS)
    assert {entry["verdict"] for entry in found["methods"]} <= {"yes", "mostly", "maybe", "no"}
    assert "4 → 24" in run("inspect", network).stdout


def test_inspect_says_where_layers_fail():
    narrow = preimage.from_arrays([np.ones((2, 4))])
    verdicts = {m.method: m.verdict for m in inspect_generator(narrow).methods}
    assert (verdicts["linf"], verdicts["adam"]) == ("no", "no")
    # Forty rows, and rank 1: [[1, 0], [-1, 0]] twenty times.
    flat = preimage.from_arrays([np.tile([[1.0, 0.0], [-1.0, 0.0]], (20, 1))])
    found = inspect_generator(flat)
    assert (found.layers[0].active_worst, found.layers[0].rank_worst) == (20, 1)
    assert {m.verdict for m in found.methods} == {"no"}
    for weights in ([[20, 2], [100, 20]], [[9, 4], [30, 9]], [[12, 3], [40, 12], [50, 40]],
                    [[8, 2], [8, 8], [30, 8]], [[6, 5], [60, 6]]):  # fmt: skip
        # The last layer has rank 1, whatever comes before.
        drawn = [np.random.default_rng(0).normal(size=shape) for shape in weights]
        drawn[-1] = np.outer(drawn[-1][:, 0], drawn[-1][0])
        found = inspect_generator(preimage.from_arrays(drawn))
        assert {m.verdict for m in found.methods} == {"no"}
    leaky = preimage.from_arrays([np.eye(3)], activation="leaky_relu(0.1)")
    assert {m.verdict for m in inspect_generator(leaky).methods} == {"yes", "maybe"}


def test_inspect_of_a_network_that_is_run():
    """Claim: joint methods may work, and those that need layers say why they cannot."""
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.SiLU(), torch.nn.Linear(8, 9))
    found = inspect_generator(preimage.from_torch(module.eval()))
    verdicts = {m.method: m for m in found.methods}
    assert found.layers == ()
    assert (verdicts["linf"].verdict, verdicts["gauss_newton"].verdict) == ("no", "maybe")
    assert "silu" in verdicts["linf"].reason
    assert "3 to 3 of 3" in found.rank_note


def test_inspect_of_a_wide_latent():
    """Claim: a small file that declares millions of coordinates takes no memory for them."""
    wide = sparse.csr_array(([1.0], [0], [0, 1, 1, 1, 1, 1, 1, 1, 1]), shape=(8, 4_000_000))
    found = inspect_generator(preimage.from_arrays([wide]))
    assert "not computed" in found.rank_note or "of 4000000" in found.rank_note


def test_fixed_coordinates(planted):
    """Claim: --fix gives the network of the other coordinates."""
    network, _, _ = planted
    assert "3 → 24" in run("inspect", network, "--fix", "1=0.5").stdout
    expect_one_line(run("inspect", network, "--fix", "1:0.5"), "INDEX=VALUE")
    expect_one_line(run("inspect", network, "--fix", "9=0"), "indices from 0 to 3")


def test_zoo_lists_the_cards():
    result = run("zoo", "--json")
    assert [card["name"] for card in json.loads(result.stdout)] == list(preimage.zoo.names())
    table = run("zoo").stdout
    assert all(name in table for name in preimage.zoo.names())
    refused = run("inspect", "mnist-20-60-784", "--layers", "fc1")
    expect_one_line(refused, "--layers")


def test_every_command_is_there():
    """Claim: the commands that the README names exist; those that moved say what to run."""
    shown = run("--help").stdout
    for name in (
        "app",
        "doctor",
        "inspect",
        "invert",
        "report",
        "batch",
        "certify",
        "check",
        "zoo",
    ):
        assert f" {name} " in shown
    expect_one_line(run("demo", "--out", "x"), "make demo")
    expect_one_line(run("experiment", "figure-1a"), "python -m experiments")
    expect_one_line(run("train", "mnist-20-60-784"), "python -m training")


def test_doctor_names_a_scale(planted):
    network, observations, _ = planted
    done = run("doctor", network, observations)
    assert done.exit_code == 0, done.output
    assert "WRONG" not in done.stdout
    np.save(observations, -np.load(observations))
    done = run("doctor", network, observations, "--json")
    assert done.exit_code == 1
    assert [one["topic"] for one in json.loads(done.stdout) if one["wrong"]] == ["scale"]


def test_the_page_says_what_it_lacks(monkeypatch):
    expect_one_line(run("app", "nowhere"), "nowhere")
    monkeypatch.setitem(sys.modules, "gradio", None)
    expect_one_line(run("app"), "preimage[web]")


def test_version_and_module():
    expected = [f"preimage {preimage.__version__}", f"engine: {engine.description()}"]
    assert run("--version").stdout.splitlines() == expected
    command = [sys.executable, "-m", "preimage", "--version"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines() == expected


def test_certify_and_check(planted, tmp_path):
    """Claim: a certificate is written, drawn and proven again; of another observation it is not."""
    network, observations, latent = planted
    np.save(observations, np.load(observations)[:2] + 1e-4)
    out, picture = tmp_path / "out" / "c.json", tmp_path / "c.png"
    done = run("certify", network, observations, "--noise", 0.001, "--box", 5, "--out", out,
               "--picture", picture, "--json")  # fmt: skip
    assert done.exit_code == 0, done.output
    samples = json.loads(done.stdout)["samples"]
    for sample, z in zip(samples, latent[:2], strict=True):
        assert sample["verdict"] == "unique"
        assert (np.array(sample["lower"]) <= z).all()
        assert (z <= np.array(sample["upper"])).all()
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert run("certify", network, observations, "--noise", 0.001, "--out", out).exit_code == 0
    done = run("check", out, network, observations)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert [line[:25] for line in lines if line.startswith("sample")] == [
        "sample 0: verdict: unique", "sample 1: verdict: unique",
    ]  # fmt: skip
    assert sum("noise 0.001" in line for line in lines) == 2
    assert lines[-1] == "proven"
    assert run("check", out, network, observations, "--noise", 0.001).exit_code == 0
    for option, value in (("--noise", 0.002), ("--box", 5), ("--resolution", 0.5)):
        done = run("check", out, network, observations, option, value)
        assert done.exit_code == 1
        assert f"it is about another {option[2:]}" in done.stdout
    np.save(observations, np.load(observations)[::-1])
    done = run("check", out, network, observations, "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["proven"] is False


def test_certify_and_check_what_a_mask_leaves(planted, tmp_path):
    """Claim: --mask is part of the question: check refuses the file without it."""
    network, observations, latent = planted
    out, mask = tmp_path / "c.json", tmp_path / "mask.npy"
    values = np.load(observations)[:2]
    seen = np.arange(values.shape[1]) % 4 != 0
    np.save(observations, np.where(seen, values, 7.0))
    np.save(mask, seen.astype(np.uint8))
    done = run("certify", network, observations, "--noise", 0.001, "--box", 5, "--out", out,
               "--mask", mask, "--json")  # fmt: skip
    assert done.exit_code == 0, done.output
    for sample, z in zip(json.loads(done.stdout)["samples"], latent[:2], strict=True):
        assert (np.array(sample["lower"]) <= z).all()
        assert (z <= np.array(sample["upper"])).all()
    assert run("check", out, network, observations, "--mask", mask).exit_code == 0
    done = run("check", out, network, observations)
    assert done.exit_code == 1
    assert "another observation or mask" in done.stdout
    np.save(mask, seen + 1)
    assert run("check", out, network, observations, "--mask", mask).exit_code == 2


def test_undecided_is_exit_code_1(planted, tmp_path):
    network, observations, _ = planted
    done = run("certify", network, observations, "--noise", 0, "--box", 5, "--out",
               tmp_path / "c.json")  # fmt: skip
    assert done.exit_code == 1
    assert "undecided" in done.stdout


@pytest.mark.parametrize("kind", ["npy of bools", "npy of 0 and 1", "picture", "sensing"])
def test_invert_with_a_mask_or_a_matrix(planted, tmp_path, kind):
    """What is not observed may be anything; the code is found from the rest."""
    from PIL import Image

    network, observations, codes = planted
    values = np.load(observations)
    n = values.shape[1]
    seen = np.arange(n) % 4 != 0
    mask = tmp_path / "mask.npy"
    match kind:
        case "npy of bools":
            np.save(mask, seen)
        case "npy of 0 and 1":
            np.save(mask, np.tile(seen.astype(np.uint8), (len(values), 1)))
        case "picture":
            mask = tmp_path / "mask.png"
            Image.fromarray(255 * seen.astype(np.uint8)[None]).save(mask)
        case "sensing":
            np.save(mask, np.eye(n)[seen])
    option, data = ("--mask", np.where(seen, values, 1e3)) if kind != "sensing" else (
        "--sensing", values[:, seen])  # fmt: skip
    np.save(tmp_path / "seen.npy", data)
    result = run("invert", network, tmp_path / "seen.npy", option, mask, "--out", tmp_path / "out",
                 "--json")  # fmt: skip
    assert result.exit_code == 0, result.output
    found = np.load(tmp_path / "out" / "latent.npy")
    np.testing.assert_allclose(found, codes, atol=1e-6)


# Images and turns of phrase that a reader who learns the field would stumble over.
_NOT_PLAIN = (
    r"\b(doors?|rooms?|company|whoever|nobody|anybody|everybody|knobs?|land(s|ed|ing)?|poses?)\b"
    r"|\bfirst first\b|\bleft behind\b|\bwhat binds\b|\bnext door\b|\blets? no\b"
)


def test_help_and_messages_are_plain_english():
    """Claim: no help text, status, report or finding has a word of the list; all help ends well."""
    root = typer.main.get_command(cli.app)
    texts = {"preimage": root.help}
    for name, command in root.commands.items():
        texts[name] = command.help
        texts |= {f"{name} {p.name}": p.help or "" for p in command.params if p.name != "help"}
    assert len(texts) > 60
    for name, text in texts.items():
        assert text, f"{name} has no help"
        assert text[0].isupper(), f"{name}: {text}"
    texts |= {f"status {status}": status.message for status in preimage.Status}
    for path in Path(preimage.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Raise, ast.Yield, ast.Return)):
                texts[f"{path}:{node.lineno}"] = ast.unparse(node)
    found = {n: text for n, text in texts.items() if re.search(_NOT_PLAIN, text, re.IGNORECASE)}
    assert found == {}
