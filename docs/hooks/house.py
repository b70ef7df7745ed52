"""The house, drawn from the imports: ``python docs/hooks/house.py`` prints the SVG."""

from __future__ import annotations

import ast
import sys
from html import escape
from pathlib import Path

_WIDTH, _FLOOR, _ROOM, _TALL = 760, 74, 104, 34


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


def _places(floors: list[list[str]], needed: dict[str, set[str]]) -> dict[str, tuple[float, float]]:
    """The middle of each room: on its floor near what it uses and what uses it."""
    near = {room: needed[room] | {r for r in needed if room in needed[r]} for room in needed}
    across = dict.fromkeys(needed, _WIDTH / 2)
    for _ in range(20):
        for floor in floors:
            wanted = {
                room: sum(across[other] for other in near[room]) / max(len(near[room]), 1)
                for room in floor
            }
            step = _WIDTH / len(floor)
            for index, room in enumerate(sorted(floor, key=lambda room: (wanted[room], room))):
                across[room] = step * (index + 0.5)
    return {
        room: (across[room], 30 + (len(floors) - 1 - height) * _FLOOR)
        for height, floor in enumerate(floors)
        for room in floor
    }


def house_svg(source: Path) -> str:
    """The drawing, with colours of the page that it stands on."""
    rooms = imports_of(source)
    floors, needed = floors_of(rooms), _needed(rooms)
    place = _places(floors, needed)
    arrows = ""
    for room, others in sorted(needed.items()):
        for other in sorted(others):
            (x, y), (u, v) = place[room], place[other]
            y, v = y + _TALL / 2, v - _TALL / 2 - 5
            bend = (v - y) / 2
            arrows += f'<path d="M{x:.0f} {y:.0f}C{x:.0f} {y + bend:.0f} {u:.0f} {v - bend:.0f} '
            arrows += f'{u:.0f} {v:.0f}" marker-end="url(#tip)"/>'
    boxes = "".join(
        f'<rect x="{x - _ROOM / 2:.0f}" y="{y - _TALL / 2:.0f}" width="{_ROOM}" height="{_TALL}" '
        f'rx="4"/><text x="{x:.0f}" y="{y + 5:.0f}">{escape(room)}</text>'
        for room, (x, y) in place.items()
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
