"""The size of the library: ``python docs/hooks/size.py`` counts its lines."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from pathlib import Path

MODULE, FUNCTION = 400, 80  # most lines of one


def lines_by_part(source: Path) -> Counter[str]:
    """Lines of Python of each module or package in a folder."""
    found: Counter[str] = Counter()
    for path in source.rglob("*.py"):
        part = path.relative_to(source).parts[0].removesuffix(".py")
        found[part] += len(path.read_text(encoding="utf-8").splitlines())
    return found


def too_long(source: Path) -> list[str]:
    """Modules over ``MODULE`` lines and functions over ``FUNCTION``, docstrings included."""
    found = []
    for path in sorted(source.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if (count := len(text.splitlines())) > MODULE:
            found.append(f"{path.relative_to(source)}: {count} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                count = (node.end_lineno or node.lineno) - node.lineno + 1
                if count > FUNCTION:
                    found.append(f"{path.relative_to(source)}: {node.name}: {count} lines")
    return found


def main() -> None:
    """Print the lines of each part, and what is too long."""
    source = Path(__file__).parents[2] / "src" / "preimage"
    parts = lines_by_part(source)
    for part, count in parts.most_common():
        sys.stdout.write(f"{count:>6} {part}\n")
    sys.stdout.write(f"{parts.total():>6} in all\n" + "".join(f"{x}\n" for x in too_long(source)))


if __name__ == "__main__":
    main()
