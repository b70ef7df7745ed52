"""Documentation that runs: every code block, top to bottom, page by page, in an empty folder."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer

import preimage
from preimage.cli import app

ROOT = Path(__file__).parent.parent
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
}
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WITH_CODE = [name for name, text in PAGES.items() if BLOCK.search(text)]
# Their arguments are checked, and they are not run: they take minutes, a cluster or a browser.
LONG = {"app"}
# What a page assumes, on its first line.
GIVEN = {
    "README.md": "import numpy as np; from torch import nn; "
    "decoder = nn.Sequential(nn.Linear(5, 90), nn.Sigmoid()); image = np.full(90, 0.5)"
}
RUN = (
    "import typer.testing, preimage.cli\n"
    "def _run(*arguments):\n"
    "    found = typer.testing.CliRunner().invoke(preimage.cli.app, arguments)\n"
    "    assert found.exit_code in (0, 1), found.output\n"
)


def commands(block):
    """The calls of ``preimage`` in a shell block, as lists of arguments."""
    lines = (shlex.split(line, comments=True) for line in block.replace("\\\n", " ").splitlines())
    return [words[1:] for words in lines if words[:1] == ["preimage"]]


def as_program(name):
    """The page without its prose, each line of Python where it was; commands become calls."""
    text = PAGES[name]
    lines = [""] * (text.count("\n") + 1)
    for match in BLOCK.finditer(text):
        kind, block = match.groups()
        first = text[: match.start(2)].count("\n")
        if kind == "python":
            lines[first : first + block.count("\n")] = block.splitlines()
        else:
            wanted = [a for a in commands(block) if a[0] not in LONG and "--scheduler" not in a]
            lines[first] = "; ".join(f"_run{tuple(arguments)}" for arguments in wanted)
    lines[0] = f"exec({RUN!r}); {GIVEN.get(name, '')}"
    return "\n".join(lines) + "\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Empty but for what the README takes as given: a decoder in several forms, and data."""
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    layers = torch.nn.Linear(5, 30), torch.nn.ReLU(), torch.nn.Linear(30, 90), torch.nn.Sigmoid()
    generator = preimage.from_torch(torch.nn.Sequential(*layers))
    preimage.save(generator, "decoder.safetensors")
    np.save("images.npy", generator(np.random.default_rng(0).standard_normal((4, 5))))
    named = {"fc3": layers[0], "fc4": layers[2]}
    torch.save({f"{n}.{k}": w for n, f in named.items() for k, w in f.state_dict().items()},
               "vae.pth")  # fmt: skip
    exec(BLOCK.search(PAGES["docs/tutorials/onnx.md"])[2], {})  # writes decoder.onnx
    return tmp_path


@pytest.mark.parametrize("name", WITH_CODE)
def test_every_block_runs(name, folder):
    """A page fails if it raises, warns or gives a command bad input; the line is the page's."""
    for match in BLOCK.finditer(PAGES[name]):
        if match[1] == "sh":
            for arguments in commands(match[2]):
                check_arguments(arguments)
    program = as_program(name)
    if not program.split("\n", 1)[1].strip():
        return  # commands that take long, and nothing else
    path = folder / "page.py"
    path.write_text(program, encoding="utf-8")
    strict = ["-W", "error::UserWarning", "-W", "error::RuntimeWarning"]
    source = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, *strict, path.name], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": source},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def check_arguments(arguments):
    """Raises unless the command exists and takes these."""
    root = typer.main.get_command(app)
    context = root.make_context("preimage", [], resilient_parsing=True)
    command = root.get_command(context, arguments[0])
    assert command is not None, arguments
    command.make_context(arguments[0], arguments[1:], parent=context)


def test_unknown_arguments_would_be_noticed():
    check_arguments(["zoo", "--json"])
    with pytest.raises(typer.BadParameter.__base__, match="nowhere"):
        check_arguments(["zoo", "--nowhere"])
