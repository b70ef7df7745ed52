"""The report of a run: one page that holds everything it shows."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest

import preimage
from preimage.report import report_html


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.cells = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.cells.append(data)


def write(folder, name):
    seen = np.full((3, 16), 0.5)
    found = seen.copy()
    found[1], found[2] = np.nan, 0.25
    status = ["solved", "failed", "solved"]
    summary = {
        "settings": {"network": name}, "versions": {"numpy": "2"}, "ms_per_sample": 1.0,
        "generator": {"sizes": [2, 16], "sha256": "0" * 64}, "layers": [], "sample_status": status,
        "status": {"solved": {"samples": 2, "message": "fine"},
                   "failed": {"samples": 1, "message": "<b>none</b>"}},
    }  # fmt: skip
    np.save(folder / "observation.npy", seen)
    np.save(folder / "reconstruction.npy", found)
    (folder / "summary.json").write_text(json.dumps(summary))


def test_page_is_whole_and_escaped(tmp_path):
    """Claim: nothing is fetched, hostile names stay text, the worst sample comes first."""
    hostile = '<script src="https://x.test/a.js">"&'
    write(tmp_path, hostile)
    page = Page(report_html(tmp_path))
    assert {"script", "link", "iframe", "b"}.isdisjoint(tag for tag, _ in page.tags)
    assert hostile in page.cells
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 9
    assert all(a["alt"] and a["src"].startswith("data:image/png;base64,") for a in images)
    assert [a["alt"] for a in images[::3]] == ["observation 1", "observation 2", "observation 0"]
    row = page.cells.index("solved")
    assert page.cells[row + 1 : row + 3] == ["2", "fine"]


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(preimage.FormatError, match="summary"):
        report_html(tmp_path)
