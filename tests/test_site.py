"""The documentation site builds without a warning, and asks nothing of another host."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import preimage

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs" / "hooks"))

from checks import faults  # noqa: E402
from house import house_svg, imports_of, rows_of  # noqa: E402


def test_the_site_builds_without_a_warning(tmp_path):
    """Strict: a warning is an error; and the build ends with ``checks.faults``."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    theory = (tmp_path / "site" / "theory" / "index.html").read_text(encoding="utf-8")
    assert theory.count('role="img" aria-label=') > 50  # formulas are drawn
    assert "arithmatex" not in theory
    assert 'class="house"' in (tmp_path / "site" / "contributing" / "index.html").read_text()
    reference = "".join(p.read_text() for p in (tmp_path / "site" / "reference").rglob("*.html"))
    documented = {
        name.rpartition(".")[2] for name in re.findall(r'id="(preimage\.[^"]+)"', reference)
    }
    assert set(preimage.__all__) <= documented


@pytest.mark.parametrize(
    ("page", "fault"),
    [
        ('<script src="https://cdn.example/x.js"></script>', "fetched from elsewhere"),
        ('<link rel="stylesheet" href="//fonts.example/x.css">', "fetched from elsewhere"),
        ('<img src="https://example/x.png" alt="x">', "fetched from elsewhere"),
        ('<pre class="mermaid">graph</pre>', "fetched from elsewhere"),
        ('<a href="../nowhere/">x</a>', "broken link"),
        ('<a href="#nothing">x</a>', "no such anchor"),
        ('<img src="index.html">', "no words"),
    ],
)
def test_faults_are_found(tmp_path, page, fault):
    (tmp_path / "index.html").write_text(page)
    assert any(fault in line for line in faults(tmp_path))


def test_links_to_follow_are_no_fault(tmp_path):
    (tmp_path / "index.html").write_text('<a id="a" href="https://example.org">x</a><a href="#a">')
    (tmp_path / "x.css").write_text("a{background:url(data:image/png;base64,)}")
    assert faults(tmp_path) == []
    (tmp_path / "x.css").write_text("@import 'https://example.org/x.css'")
    assert len(faults(tmp_path)) == 1


def test_the_house_is_drawn_from_the_imports(tmp_path):
    """A module stands above those that it imports; an implied import is not drawn."""
    for name, text in {
        "low": '"""L."""',
        "middle": "from preimage.low import a",
        "high": "from preimage.middle import b\nfrom preimage import low",
    }.items():
        (tmp_path / f"{name}.py").write_text(text)
    modules = imports_of(tmp_path)
    assert modules == {"low": set(), "middle": {"low"}, "high": {"low", "middle"}}
    assert rows_of(modules) == [["low"], ["middle"], ["high"]]
    drawn = house_svg(tmp_path)
    assert drawn.count("marker-end") == 2
    assert drawn.count("<text") == 3


def test_links_of_the_readme_lead_somewhere():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link.partition("#")[0]).exists()] == []
