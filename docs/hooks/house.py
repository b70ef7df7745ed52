"""The house, drawn from the imports: ``python docs/hooks/house.py`` prints the SVG."""

from __future__ import annotations

import ast
import sys
from html import escape
from itertools import pairwise
from pathlib import Path

_WIDTH, _ROW, _BOX, _TALL = 760, 78, 108, 34


def imports_of(source: Path) -> dict[str, set[str]]:
    """For each module, the other modules that it imports, at the top of a file or in a function."""
    modules: dict[str, set[str]] = {
        path.stem: set()
        for path in source.iterdir()
        if path.stem[0] != "_" and (path.suffix == ".py" or (path / "__init__.py").exists())
    }
    for path in source.rglob("*.py"):
        module = path.relative_to(source).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if module in modules and isinstance(node, ast.ImportFrom) and node.module:
                package, *parts = node.module.split(".")
                named = parts[:1] or [alias.name for alias in node.names]
                if package == "preimage":
                    modules[module] |= set(named) & set(modules) - {module}
    return modules


def rows_of(modules: dict[str, set[str]]) -> list[list[str]]:
    """Modules by their row, ground row first: each as low as what it imports lets it be."""
    level: dict[str, int] = {}

    def row(module: str) -> int:
        if module not in level:
            level[module] = 0  # of a circle, which the test of the house does not allow
            level[module] = 1 + max(map(row, modules[module]), default=-1)
        return level[module]

    for module in modules:
        row(module)
    return [
        sorted(r for r in modules if level[r] == height)
        for height in range(max(level.values()) + 1)
    ]


def _needed(modules: dict[str, set[str]]) -> dict[str, set[str]]:
    """Imports that do not follow from others."""

    def reached(module: str) -> set[str]:
        return modules[module].union(*map(reached, modules[module]))

    return {
        module: {o for o in others if not any(o in reached(via) for via in others - {o})}
        for module, others in modules.items()
    }


def _routes(modules: dict[str, set[str]], level: dict[str, int]) -> list[list[str]]:
    """Each arrow as the points that it goes through: a gap on every row between its ends."""
    return [
        [
            module,
            *(f"{module}>{other}@{i}" for i in range(level[module] - 1, level[other], -1)),
            other,
        ]
        for module, others in sorted(modules.items())
        for other in sorted(others)
    ]


def _across(rows: list[list[str]], routes: list[list[str]]) -> dict[str, float]:
    """Where each module and gap stands on its row: near what it is joined to, above and below."""
    level = {module: height for height, row in enumerate(rows) for module in row}
    near: dict[str, list[str]] = {module: [] for module in level}
    for route in routes:
        for height, point in enumerate(reversed(route), level[route[-1]]):
            if point not in level:
                level[point] = height
        for one, two in pairwise(route):
            near.setdefault(one, []).append(two)
            near.setdefault(two, []).append(one)
    across = dict.fromkeys(level, _WIDTH / 2)
    for _ in range(60):
        for height in range(len(rows)):
            points = [point for point in level if level[point] == height]
            wanted = {p: sum(across[q] for q in near[p]) / max(len(near[p]), 1) for p in points}
            points.sort(key=lambda point: (wanted[point], point))
            sizes = [_BOX + 24 if point in rows[height] else 22 for point in points]
            left = (_WIDTH - sum(sizes)) / 2
            for point, size in zip(points, sizes, strict=True):
                across[point] = left + size / 2
                left += size
    return across


def house_svg(source: Path) -> str:
    """The drawing, with colours of the page that it stands on."""
    modules = imports_of(source)
    rows = rows_of(modules)
    level = {module: height for height, row in enumerate(rows) for module in row}
    routes = _routes(_needed(modules), level)
    across = _across(rows, routes)

    def y(height: int) -> float:
        return 30 + (len(rows) - 1 - height) * _ROW

    arrows = ""
    for route in routes:
        x, top = across[route[0]], y(level[route[0]]) + _TALL / 2
        path = f"M{x:.0f} {top:.0f}"
        for step, point in enumerate(route[1:], 1):
            last = point == route[-1]
            u, middle = across[point], y(level[route[0]] - step)
            v = middle - _TALL / 2 - (5 if last else 0)
            bend = (v - top) / 2
            path += f"C{x:.0f} {top + bend:.0f} {u:.0f} {v - bend:.0f} {u:.0f} {v:.0f}"
            path += "" if last else f"V{middle + _TALL / 2:.0f}"
            x, top = u, middle + _TALL / 2
        arrows += f'<path d="{path}" marker-end="url(#tip)"/>'
    boxes = "".join(
        f'<rect x="{across[module] - _BOX / 2:.0f}" y="{y(height) - _TALL / 2:.0f}" '
        f'width="{_BOX}" height="{_TALL}" rx="4"/>'
        f'<text x="{across[module]:.0f}" y="{y(height) + 5:.0f}">{escape(module)}</text>'
        for height, row in enumerate(rows)
        for module in row
    )
    left = min(across.values()) - _BOX / 2 - 8
    wide = max(across.values()) + _BOX / 2 + 8 - left
    text = "; ".join(f"row {i}: {', '.join(row)}" for i, row in enumerate(rows))
    return (
        f'<svg class="house" xmlns="http://www.w3.org/2000/svg" role="img" '
        f'viewBox="{left:.0f} 0 {wide:.0f} {len(rows) * _ROW}" '
        'aria-label="Modules of the library by the '
        f'row they are on. {text}."><defs><marker id="tip" viewBox="0 0 8 8" refX="4" refY="4" '
        'markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>'
        f'<g class="arrows">{arrows}</g><g class="modules">{boxes}</g></svg>'
    )


def modules_table(source: Path) -> str:
    """A row a module, top row first: the first line of its docstring."""
    modules = imports_of(source)
    lines = ["| Module | What it is for |", "|---|---|"]
    for row in reversed(rows_of(modules)):
        for module in row:
            path = source / f"{module}.py"
            path = path if path.exists() else source / module / "__init__.py"
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            first = " ".join(text.split("\n\n")[0].split()).replace("|", "\\|")
            lines.append(f"| `{module}` | {first.replace('``', '`')} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(house_svg(Path(sys.argv[1] if sys.argv[1:] else "src/preimage")) + "\n")
