"""Doctests in docstrings are shown as code: to Markdown, ``>>>`` would be a quotation."""

from __future__ import annotations

import re
from typing import Any

import griffe

_DOCTEST = re.compile(r"^>>> .*?(?=\n\s*\n|\Z)", re.MULTILINE | re.DOTALL)
_LITERAL = re.compile(r"(?:^|(?<=\n\n))((?: {4}.*\n?|\n(?= {4}))+)", re.MULTILINE)


class Doctests(griffe.Extension):
    """Fences every doctest."""

    def on_instance(self, *, obj: Any, **kwargs: Any) -> None:
        """Change the docstring before it is parsed."""
        if obj.docstring:
            text = _DOCTEST.sub(lambda match: f"```pycon\n{match[0]}\n```", obj.docstring.value)
            obj.docstring.value = text
