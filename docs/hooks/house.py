"""The house, drawn from the imports: ``python docs/hooks/house.py`` prints the SVG."""

from __future__ import annotations

import ast
import sys
from html import escape
from itertools import pairwise
from pathlib import Path

_WIDTH, _FLOOR, _ROOM, _TALL = 760, 78, 108, 34


def imports_of(source: Path) -> dict[str, set[str]]:
    """For each room, the other rooms that it imports, at the top of a file or in a function."""
    rooms: dict[str, set[str]] = {
        path.stem: set()
        for path in source.iterdir()
        if path.stem[0] != "_" and (path.suffix == ".py" or (path / "__init__.py").exists())
    }
    for path in source.rglob("*.py"):
        room = path.relative_to(source).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if room in rooms and isinstance(node, ast.ImportFrom) and node.module:
                package, *parts = node.module.split(".")
                named = parts[:1] or [alias.name for alias in node.names]
                if package == "preimage":
                    rooms[room] |= set(named) & set(rooms) - {room}
    return rooms


def floors_of(rooms: dict[str, set[str]]) -> list[list[str]]:
    """Rooms by their floor, ground floor first: each as low as what it imports lets it be."""
    level: dict[str, int] = {}

    def floor(room: str) -> int:
        if room not in level:
            level[room] = 0  # of a circle, which the test of the house does not allow
            level[room] = 1 + max(map(floor, rooms[room]), default=-1)
        return level[room]

    for room in rooms:
        floor(room)
    return [
        sorted(r for r in rooms if level[r] == height) for height in range(max(level.values()) + 1)
    ]


def _needed(rooms: dict[str, set[str]]) -> dict[str, set[str]]:
    """Imports that do not follow from others."""

    def reached(room: str) -> set[str]:
        return rooms[room].union(*map(reached, rooms[room]))

    return {
        room: {o for o in others if not any(o in reached(via) for via in others - {o})}
        for room, others in rooms.items()
    }


def _routes(rooms: dict[str, set[str]], level: dict[str, int]) -> list[list[str]]:
    """Each arrow as the points that it goes through: a gap on every floor between its ends."""
    return [
        [room, *(f"{room}>{other}@{i}" for i in range(level[room] - 1, level[other], -1)), other]
        for room, others in sorted(rooms.items())
        for other in sorted(others)
    ]


def _across(floors: list[list[str]], routes: list[list[str]]) -> dict[str, float]:
    """Where each room and gap stands on its floor: near what it is joined to, above and below."""
    level = {room: height for height, floor in enumerate(floors) for room in floor}
    near: dict[str, list[str]] = {room: [] for room in level}
    for route in routes:
        for height, point in enumerate(reversed(route), level[route[-1]]):
            if point not in level:
                level[point] = height
        for one, two in pairwise(route):
            near.setdefault(one, []).append(two)
            near.setdefault(two, []).append(one)
    across = dict.fromkeys(level, _WIDTH / 2)
    for _ in range(60):
        for height in range(len(floors)):
            points = [point for point in level if level[point] == height]
            wanted = {p: sum(across[q] for q in near[p]) / max(len(near[p]), 1) for p in points}
            points.sort(key=lambda point: (wanted[point], point))
            sizes = [_ROOM + 24 if point in floors[height] else 22 for point in points]
            left = (_WIDTH - sum(sizes)) / 2
            for point, size in zip(points, sizes, strict=True):
                across[point] = left + size / 2
                left += size
    return across


def house_svg(source: Path) -> str:
    """The drawing, with colours of the page that it stands on."""
    rooms = imports_of(source)
    floors = floors_of(rooms)
    level = {room: height for height, floor in enumerate(floors) for room in floor}
    routes = _routes(_needed(rooms), level)
    across = _across(floors, routes)

    def y(height: int) -> float:
        return 30 + (len(floors) - 1 - height) * _FLOOR

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
        f'<rect x="{across[room] - _ROOM / 2:.0f}" y="{y(height) - _TALL / 2:.0f}" '
        f'width="{_ROOM}" height="{_TALL}" rx="4"/>'
        f'<text x="{across[room]:.0f}" y="{y(height) + 5:.0f}">{escape(room)}</text>'
        for height, floor in enumerate(floors)
        for room in floor
    )
    text = "; ".join(f"floor {i}: {', '.join(floor)}" for i, floor in enumerate(floors))
    return (
        f'<svg class="house" xmlns="http://www.w3.org/2000/svg" role="img" '
        f'viewBox="0 0 {_WIDTH} {len(floors) * _FLOOR}" aria-label="Rooms of the library by the '
        f'floor they are on. {text}."><defs><marker id="tip" viewBox="0 0 8 8" refX="4" refY="4" '
        'markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>'
        f'<g class="arrows">{arrows}</g><g class="rooms">{boxes}</g></svg>'
    )


def rooms_table(source: Path) -> str:
    """A row a room, top floor first: the first line of its docstring."""
    rooms = imports_of(source)
    lines = ["| Room | What it is for |", "|---|---|"]
    for floor in reversed(floors_of(rooms)):
        for room in floor:
            path = source / f"{room}.py"
            path = path if path.exists() else source / room / "__init__.py"
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            first = " ".join(text.split("\n\n")[0].split()).replace("|", "\\|")
            lines.append(f"| `{room}` | {first.replace('``', '`')} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(house_svg(Path(sys.argv[1] if sys.argv[1:] else "src/preimage")) + "\n")
