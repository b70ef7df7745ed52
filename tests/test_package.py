"""What is shipped: wheel and source distribution, and that the wheel runs where nothing else is."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest

import preimage

ROOT = Path(preimage.__file__).parents[2]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """The wheel and the source distribution, built from this checkout."""
    folder = tmp_path_factory.mktemp("shipped")
    code = "import sys; from scikit_build_core import build; "
    code += "build.build_wheel(sys.argv[1], {'build-dir': sys.argv[1] + '/build'}); "
    code += "build.build_sdist(sys.argv[1])"
    run(sys.executable, "-c", code, folder, cwd=ROOT)
    (wheel,), (source,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, source


def run(*command, cwd):
    """As a stranger would: with no way to this checkout."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readme_and_the_errors_name_extras_that_exist():
    """Claim: every extra that the README lists, or an error tells to install, can be installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = set(project["optional-dependencies"])
    listed = re.search(r"Extras: (.*?)\. torch", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    assert set(re.findall(r"`(\w+)`", listed)) == extras
    source = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    named = re.findall(r'\bextra\("(\w+)"', source) + re.findall(r"preimage\[(\w+)\]'", source)
    assert named
    assert set(named) <= extras


def files_of_the_package():
    """All but the kernel, which each install builds."""
    paths = (ROOT / "src" / "preimage").rglob("*")
    return {str(path.relative_to(ROOT / "src")) for path in paths if path.is_file()
            and "__pycache__" not in path.parts and path.suffix != ".so"}  # fmt: skip


def test_the_wheel_has_every_file_of_the_package_and_no_other(shipped):
    with zipfile.ZipFile(shipped[0]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    kernels = {name for name in names if name.endswith(".so")}
    assert names - kernels == files_of_the_package()
    assert "preimage/kernel_baseline.so" in kernels
    assert "-py3-none-" in shipped[0].name  # no Python headers: one wheel serves all versions
    assert {"preimage/py.typed", "preimage/app/style.css"} <= names


def test_the_source_distribution_holds_what_a_packager_needs(shipped):
    with tarfile.open(shipped[1]) as source:
        sizes = {m.name.partition("/")[2]: m.size for m in source.getmembers()}
    assert {f"src/{name}" for name in files_of_the_package()} <= set(sizes)
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "constraints.txt",
                 "tests/test_package.py", "PKG-INFO"):  # fmt: skip
        assert sizes[name] > 0
    folders = {name.partition("/")[0] for name in sizes if "/" in name}
    assert folders <= {
        ".ci",
        "benchmarks",
        "docs",
        "examples",
        "experiments",
        "src",
        "tests",
        "training",
    }
    assert not any("__pycache__" in name or name.endswith((".pyc", ".nbi")) for name in sizes)


def test_an_install_without_a_compiler_gives_the_same_answers(tmp_path):
    """Claim: without a C compiler a wheel is built all the same, and says which engine it has."""
    code = "import sys; from scikit_build_core import build; "
    code += "build.build_wheel(sys.argv[1], {'build-dir': sys.argv[1] + '/build'})"
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path],
        cwd=ROOT,
        env={**os.environ, "CC": str(tmp_path / "no-compiler")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        assert not [name for name in file.namelist() if name.endswith(".so")]
        file.extractall(tmp_path / "site")
    script = """
import sys
# An editable install of the tests' environment would be found first, with its kernel.
sys.meta_path = [f for f in sys.meta_path if "ScikitBuild" not in type(f).__name__]
import numpy, preimage
from preimage import engine
generator = preimage.zoo.load("mnist-20-60-784")
codes = numpy.random.default_rng(0).standard_normal((2, 20))
found = preimage.invert(generator, generator(codes), "exact")
assert abs(found.latent - codes).max() < 1e-6
found = preimage.invert(generator, generator(codes), "linf", noise=1e-6)
assert abs(found.latent - codes).max() < 1e-3
print(engine.description())
"""
    shown = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("NumPy, SciPy and HiGHS; for the faster C kernel")


def test_the_wheel_runs_in_a_clean_environment(shipped, tmp_path):
    """Claim: installed with what it asks for, it inverts from another folder."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path)
    python, command = (tmp_path / "venv" / "bin" / name for name in ("python", "preimage"))
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile",
        "-c", ROOT / "constraints.txt", shipped[0], cwd=tmp_path)  # fmt: skip
    where = run(python, "-c", "import preimage; print(preimage.__file__)", cwd=tmp_path)
    assert Path(where).is_relative_to(tmp_path)
    generator = preimage.zoo.load("mnist-20-200-500-784")
    codes = np.random.default_rng(0).standard_normal((2, 20))
    np.save(tmp_path / "x.npy", generator(codes))
    run(command, "invert", "mnist-20-200-500-784", "x.npy", "--method", "exact", "--out", "found",
        cwd=tmp_path)  # fmt: skip
    np.testing.assert_allclose(np.load(tmp_path / "found" / "latent.npy"), codes, atol=1e-8)
