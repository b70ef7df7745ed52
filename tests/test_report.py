"""The report: self-contained, readable, worst first, honest about damage."""

import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import preimage
from preimage.cli import app
from preimage.pixels import png
from preimage.report import INK, report_html


def write(folder, residuals=(0.1, 3.0, np.nan), network="net"):
    count = len(residuals)
    seen = np.zeros((count, 16))
    found = seen.copy()
    found[:, 0] = residuals
    np.save(folder / "observation.npy", seen)
    np.save(folder / "reconstruction.npy", found)
    summary = {
        "settings": {"network": network, "method": "linf"},
        "versions": {"numpy": "2"},
        "generator": {"sizes": [4, 16], "sha256": "ab" * 32},
        "status": {"solved": {"samples": count, "message": "Fine."}},
        "sample_status": ["solved"] * (count - 1) + ["failed"],
        "layers": [],
        "ms_per_sample": None,
    }
    (folder / "summary.json").write_text(json.dumps(summary))


def test_one_file_without_requests_or_scripts(tmp_path):
    """Every source is a data URI; names from outside are escaped; every picture has words."""
    write(tmp_path, network="<script>alert(1)</script>")
    page = report_html(tmp_path)
    tags = []

    class Collect(HTMLParser):
        def handle_starttag(self, tag, attrs):
            tags.append((tag, dict(attrs)))

    Collect().feed(page)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in tags}
    images = [attrs for tag, attrs in tags if tag == "img"]
    assert len(images) == 9
    assert all(a["src"].startswith("data:image/png;base64,") and a["alt"] for a in images)
    assert not re.search(r"https?:|url\(|@import", page)
    assert all(a.get("tabindex") == "0" for _, a in tags if a.get("class") == "scroll")


def test_worst_first(tmp_path):
    write(tmp_path)
    assert re.findall(r"<figcaption>sample (\d)", report_html(tmp_path)) == ["2", "1", "0"]


@pytest.mark.parametrize("scheme", INK)
def test_contrast(scheme):
    """WCAG 2.2's contrast ratio of both inks on the ground is at least 4.5."""

    def luminance(colour):
        c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [
            0.2126, 0.7152, 0.0722,
        ]  # fmt: skip

    ground, *inks = map(luminance, INK[scheme])
    for ink in inks:
        assert (max(ink, ground) + 0.05) / (min(ink, ground) + 0.05) >= 4.5


def test_damage_is_named(tmp_path):
    with pytest.raises(preimage.FormatError, match=r"summary\.json"):
        report_html(tmp_path)
    write(tmp_path)
    np.save(tmp_path / "reconstruction.npy", np.zeros((2, 16)))
    with pytest.raises(preimage.FormatError, match="one shape"):
        report_html(tmp_path)


def test_the_command_reports_what_invert_wrote(tmp_path):
    """From observations to the page, by the two commands."""
    generator = preimage.from_arrays([np.random.default_rng(0).standard_normal((16, 2))])
    preimage.save(generator, tmp_path / "net.npz")
    np.save(tmp_path / "x.npy", generator([[1.0, 2.0], [0.5, -1.0]]))
    out = str(tmp_path / "out")
    command = ["invert", str(tmp_path / "net.npz"), str(tmp_path / "x.npy"), "--out", out]
    assert CliRunner().invoke(app, [*command, "--method", "exact"]).exit_code == 0
    assert CliRunner().invoke(app, ["report", out]).exit_code == 0
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "2 inversions" in page
    assert CliRunner().invoke(app, ["report", str(tmp_path)]).exit_code == 2


def test_png_is_what_pillow_reads():
    vector = np.array([0.0, 1.0, 0.5, np.nan])
    image = np.asarray(Image.open(io.BytesIO(png(vector))))
    np.testing.assert_array_equal(image[..., 3], [[255, 255], [255, 0]])
    np.testing.assert_array_equal(image[..., 0].ravel()[:3], [0, 255, 128])
