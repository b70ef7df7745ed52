"""Documentation that runs: every code block, top to bottom, page by page, in an empty folder."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import preimage
from preimage.cli import app

ROOT = Path(__file__).parent.parent
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
}
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WITH_CODE = {name: BLOCK.findall(text) for name, text in PAGES.items() if BLOCK.search(text)}
# Their arguments are checked, and they are not run: they take minutes, a cluster or a browser.
LONG = {"demo", "experiment", "train", "app"}


def commands(block):
    """The calls of ``preimage`` in a shell block, as lists of arguments."""
    lines = (shlex.split(line, comments=True) for line in block.replace("\\\n", " ").splitlines())
    return [words[1:] for words in lines if words[:1] == ["preimage"]]


@pytest.fixture
def given(tmp_path, monkeypatch):
    """What the README takes as given: an empty folder with a decoder in several forms, and data."""
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    decoder = torch.nn.Sequential(
        torch.nn.Linear(5, 30), torch.nn.ReLU(), torch.nn.Linear(30, 90), torch.nn.Sigmoid()
    )
    generator = preimage.from_torch(decoder)
    preimage.save(generator, "decoder.safetensors")
    np.save("images.npy", generator(np.random.default_rng(0).standard_normal((4, 5))))
    state = {f"fc{i}.{name}": w for i, part in ((3, decoder[0]), (4, decoder[2]))
             for name, w in part.state_dict().items()}  # fmt: skip
    torch.save(state, "vae.pth")
    exec(BLOCK.search(PAGES["docs/tutorials/onnx.md"])[2], {})  # writes decoder.onnx
    return {"__name__": "__main__", "decoder": decoder}


@pytest.mark.parametrize("name", WITH_CODE)
def test_every_block_runs(name, given):
    """A block that raises, warns or exits with bad input fails; line numbers are the page's."""
    for match in BLOCK.finditer(PAGES[name]):
        kind, block = match.groups()
        if kind == "python":
            line = PAGES[name][: match.start(2)].count("\n")
            exec(compile("\n" * line + block, name, "exec"), given)
            continue
        for arguments in commands(block):
            check_arguments(arguments)
            if arguments[0] not in LONG and "--scheduler" not in arguments:
                result = CliRunner().invoke(app, arguments)
                assert result.exit_code in (0, 1), f"{arguments}: {result.output}"


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
