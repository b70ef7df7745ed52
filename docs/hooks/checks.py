"""What a built site must be: nothing asked of another host, no broken link, words for pictures."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

_ELSEWHERE = re.compile(r"(?:[a-z]+:)?//", re.IGNORECASE)
_IN_STYLE = re.compile(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^)"';]*)""", re.IGNORECASE)
# What a browser fetches without being asked to.
_FETCHED = {"src", "srcset", "poster", "data", "xlink:href"}


class _Page(HTMLParser):
    """Collects what a page links to, fetches, and can be linked at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.anchors: set[str] = set()
        self.wordless: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See ``HTMLParser``."""
        known = {name: value or "" for name, value in attrs}
        self.anchors |= {known[name] for name in ("id", "name") if name in known}
        self.fetched += [value for name, value in known.items() if name in _FETCHED]
        if tag == "link" and known.get("rel") not in ("canonical", "prev", "next"):
            self.fetched.append(known.get("href", ""))
        elif tag in ("a", "link") and "href" in known:
            self.links.append(known["href"])
        if tag == "img" and not known.get("alt"):
            self.wordless.append(known.get("src", ""))
        if "mermaid" in known.get("class", "").split():
            self.fetched.append("//mermaid")  # the theme would load it from elsewhere


def faults(folder: Path) -> list[str]:
    """What is wrong with the site in a folder, one line each."""
    root = "site:/"
    pages = {
        urljoin(root, path.relative_to(folder).as_posix()): _Page(path.read_text(encoding="utf-8"))
        for path in folder.rglob("*.html")
    }
    found = []
    for place, page in pages.items():
        where = place.removeprefix(root)
        found += [f"{where}: no words for the picture {source}" for source in page.wordless]
        found += [
            f"{where}: fetched from elsewhere: {url}"
            for url in page.fetched
            if _ELSEWHERE.match(url)
        ]
        for link in (*page.links, *page.fetched):
            if re.match(r"[a-z]+:|//", link):
                continue
            target, anchor = urldefrag(urljoin(place, unquote(link)))
            path = folder / target.removeprefix(root).lstrip("/")
            if path.is_dir():
                path, target = path / "index.html", target.rstrip("/") + "/index.html"
            if not path.exists():
                found.append(f"{where}: broken link {link}")
            elif anchor and target in pages and anchor not in pages[target].anchors:
                found.append(f"{where}: no such anchor {link}")
    for path in folder.rglob("*.css"):
        urls = _IN_STYLE.findall(path.read_text(encoding="utf-8"))
        found += [f"{path.name}: fetched from elsewhere: {url}" for url in urls]
    return found
