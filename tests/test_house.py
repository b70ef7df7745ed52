"""The package keeps its rules: one-way imports, quick import, short modules."""

import ast
import subprocess
import sys
from pathlib import Path

import preimage

ROOT = Path(preimage.__file__).parent
sys.path.insert(0, str(Path(__file__).parents[1] / "docs" / "hooks"))

from size import lines_by_part, too_long  # noqa: E402

# `make size` counts. Lower this with every change that removes lines; the goal is 13,500.
MOST_LINES = 18_830
# Each module or package may import those before it.
FLOORS = [
    "errors",
    "matrix",
    "clock",
    "engine",
    "scaling",
    "pixels",
    "plot",
    "notebook",
    "slab",
    "activation",
    "generator",
    "measurements",
    "network",
    "torch_modules",
    "torch_checks",
    "torch_network",
    "observation",
    "inversion",
    "layer_program",
    "lp",
    "enclosure",
    "methods",
    "invert",
    "io",
    "certify",
    "provenance",
    "batch",
    "zoo",
    "inspection",
    "doctor",
    "adapters",
    "report",
    "app",
    "cli",
]
HEAVY = {
    "torch",
    "matplotlib",
    "PIL",
    "highspy",
    "onnx",
    "dask",
    "typer",
    "tqdm",
    "distributed",
    "zarr",
    "pandas",
    "sklearn",
    "gradio",
    "deepinv",
}


def test_imports_point_one_way():
    for path in ROOT.rglob("*.py"):
        part = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if part in ("__init__", "__main__"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("preimage"):
                parts = (node.module or "").split(".")
                named = [parts[1]] if len(parts) > 1 else [a.name for a in node.names]
                for other in named:
                    if other in FLOORS:
                        assert FLOORS.index(other) <= FLOORS.index(part), f"{path}: {other}"


def test_heavy_packages_wait_until_they_are_needed():
    """Claim: importing the package loads no optional package, and not the slow parts of SciPy."""
    code = "import sys, preimage; print(*{m.split('.')[0] for m in sys.modules}, *sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not (HEAVY | {"scipy.sparse", "scipy.linalg"}) & set(loaded.stdout.split())


def test_no_module_and_no_function_is_long():
    """Claim: at most 400 lines a module, 80 a function."""
    assert too_long(ROOT) == []
    for path in (ROOT / "app").glob("*.*"):
        assert len(path.read_text().splitlines()) <= 400, path


def test_the_library_does_not_grow():
    """Claim: the goal is 13,500 lines; until then, no change makes the library larger."""
    assert lines_by_part(ROOT).total() <= MOST_LINES


def test_only_the_command_prints():
    for path in ROOT.rglob("*.py"):
        part = path.relative_to(ROOT).parts[0]
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        prints = sum(getattr(call.func, "id", "") == "print" for call in calls)
        # ``preimage.show_versions`` is asked to.
        assert part == "cli" or prints == (part == "notebook.py"), path
