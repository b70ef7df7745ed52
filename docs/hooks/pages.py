"""What MkDocs does beside Markdown: formulas, the house, the commands, benchmarks, checks."""

from __future__ import annotations

import html
import re
import sys
import warnings
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

sys.path.insert(0, str(Path(__file__).parent))

from checks import faults
from commands import commands_markdown
from house import house_svg, modules_table

with warnings.catch_warnings():  # it warns of how it finds its own font
    warnings.simplefilter("ignore", DeprecationWarning)
    import ziamath

# What pymdownx.arithmatex leaves of $...$ and $$...$$.
_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
_BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)

# Size of the letters drawn, and of what is 1em for them: those of the drawings are small.
_SIZE, _EM = 16, 13.5


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Put the house, the commands and links to benchmark pages where comments ask for them."""
    if "<!-- house -->" in markdown:
        source = Path(config["config_file_path"]).parent / "src" / "preimage"
        drawn = house_svg(source) + "\n\n" + modules_table(source)
        markdown = markdown.replace("<!-- house -->", drawn)
    if "<!-- commands -->" in markdown:
        markdown = markdown.replace("<!-- commands -->", commands_markdown())
    if "<!-- benchmarks -->" in markdown:
        markdown = markdown.replace("<!-- benchmarks -->", _benchmarks(files))
    return markdown


def _benchmarks(files: Any) -> str:
    pages = [file for file in files.documentation_pages() if file.src_uri.startswith("benchmarks/")]
    if not pages:
        return "None are in this copy: `make bench` writes them."
    lines = []
    for file in pages:
        text = Path(file.abs_src_path).read_text(encoding="utf-8")
        title = next((x[2:] for x in text.splitlines() if x.startswith("# ")), file.src_uri)
        lines.append(f"- [{title}]({file.src_uri})")
    return "\n".join(lines)


def on_page_content(content: str, page: Any, config: Any, files: Any) -> str:
    """Formulas become drawings: no script, no font, the same on every machine."""
    content = _INLINE.sub(lambda match: _formula(match[1], inline=True), content)
    wide = '<div class="formula" tabindex="0">{}</div>'
    return _BLOCK.sub(lambda match: wide.format(_formula(match[1], inline=False)), content)


def _formula(text: str, *, inline: bool) -> str:
    """An SVG in units of the text around it, in its colour; its LaTeX is what is read aloud."""
    latex = " ".join(html.unescape(text).split())
    drawn = ziamath.Latex(latex, size=_SIZE, color="currentColor", inline=inline)
    label = html.escape(latex, quote=True)

    def sized(match: re.Match[str]) -> str:
        width, height = (f"{float(size) / _EM:.3f}em" for size in match.groups())
        style = f"width:{width};height:{height};vertical-align:{drawn.getyofst() / _EM:.3f}em"
        return f'<svg role="img" aria-label="{label}" style="{style}"'

    return re.sub(r'^<svg[^>]*? width="(\S*)" height="(\S*)"', sized, drawn.svg())


def on_post_build(config: Any) -> None:
    """Fail if the site asks anything of another host, or has a broken link."""
    found = faults(Path(config["site_dir"]))
    if found:
        raise PluginError("\n".join(found))
