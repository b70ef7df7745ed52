"""Docstrings as Markdown: to it ``>>>`` would be a quotation, and ``::`` is nothing special."""

from __future__ import annotations

import re
from typing import Any

import griffe

_DOCTEST = re.compile(r"^>>> .*?(?=\n\s*\n|\Z)", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"^::$|(?<=\S:):$", re.MULTILINE)  # before an indented block


class Doctests(griffe.Extension):
    """Fences every doctest, and takes the mark of literal blocks away."""

    def on_instance(self, *, obj: Any, **kwargs: Any) -> None:
        """Change the docstring before it is parsed."""
        if obj.docstring:
            text = _DOCTEST.sub(lambda match: f"```pycon\n{match[0]}\n```", obj.docstring.value)
            obj.docstring.value = _MARK.sub("", text)
