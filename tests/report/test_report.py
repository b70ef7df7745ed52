"""The reports: self-contained, readable, worst first, honest about damage and what is unknown."""

import json
import re
import tracemalloc
from html.parser import HTMLParser

import numpy as np
import pytest
from typer.testing import CliRunner

import preimage
from preimage.cli import app
from preimage.plot import BAR
from preimage.report import report_html, write_run
from preimage.report.page import SHOWN, spread

GENERATOR = preimage.from_arrays([np.random.default_rng(0).standard_normal((16, 2))])


def write(folder, residuals=(0.1, 3.0, np.nan), network="net", mask=None):
    """A run whose samples have these residuals; NaN for one without a code."""
    latent = np.random.default_rng(1).standard_normal((len(residuals), 2)) + 3
    seen = GENERATOR(latent)
    seen[:, 0] += np.nan_to_num(residuals)
    latent[np.isnan(residuals)] = np.nan
    status = np.where(np.isnan(residuals), preimage.Status.FAILED, preimage.Status.SOLVED)
    inversion = preimage.Inversion(latent, np.abs(residuals), np.abs(residuals), status, rank=2)
    settings = {"network": network, "method": "linf", "noise": 0.5}
    return write_run(folder, GENERATOR, seen, inversion, settings=settings, sensing=mask)


def tags_of(page):
    found = []

    class Collect(HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.append((tag, dict(attrs)))

    Collect().feed(page)
    return found


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A report of each kind, with pictures and without."""
    folder = tmp_path_factory.mktemp("results")
    write(folder / "run", network="<script>alert(1)</script>")
    values = GENERATOR([[1.0, 2.0], [0.5, -1.0], [2.0, 2.0]]) + 0.01
    store = folder / "store"
    preimage.invert_dataset(GENERATOR, values, store, "linf", noise=0.02, shard_size=2)
    preimage.certify(GENERATOR, values, noise=0.02, box=5.0).save(folder / "c.json")
    known = {"generator": GENERATOR, "observations": values}
    return {
        "run": report_html(folder / "run"),
        "store": report_html(store),
        "store, drawn": report_html(store, **known),
        "certificate": report_html(folder / "c.json"),
        "certificate, drawn": report_html(folder / "c.json", **known),
    }


KINDS = ("run", "store", "store, drawn", "certificate", "certificate, drawn")


@pytest.mark.parametrize("kind", KINDS)
def test_one_file_that_everybody_can_read(pages, kind):
    """No script, no request, nothing unescaped; pictures have words; the keyboard can scroll."""
    page = pages[kind]
    tags = tags_of(page)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in tags}
    assert not re.search(r"https?:|url\((?!#)|@import", page)
    for tag, attrs in tags:
        if tag == "img":
            assert attrs["src"].startswith("data:image/png;base64,")
            assert attrs["alt"]
        if tag == "svg":
            assert attrs["role"] == "img"
            assert attrs["aria-label"]
        if attrs.get("class") == "scroll":
            assert attrs["tabindex"] == "0"
            assert attrs["aria-label"]
    count = sum(tag == "img" for tag, _ in tags)
    assert count == {"run": 9, "store": 0, "certificate": 3, "certificate, drawn": 10}.get(kind, 9)
    assert sum(tag == "svg" for tag, _ in tags) >= 2


def test_pages_say_what_they_are_about(pages):
    for kind in ("run", "store, drawn", "certificate, drawn"):
        assert "8.00" in pages[kind]  # the expansion of 2 -> 16
        assert "can invert it" in pages[kind]
    assert "--network NET" in pages["store"]
    assert "3 certified samples" in pages["certificate"]
    assert "<td>unique</td><td>2</td>" in pages["certificate"]
    assert pages["certificate"].count("<details>") == 3
    for name in ("shard_size", "method_sha256"):
        assert name in pages["store"]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_contrast(pages, scheme):
    """WCAG 2.2's ratios on the ground: at least 4.5 for both inks, 3 for the bars."""
    names = ("ground", "ink", "soft", "bar")
    colours = [re.findall(rf"--{name}:(#\w{{6}})", pages["run"])[scheme] for name in names]
    assert colours[3] == BAR

    def luminance(colour):
        c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [
            0.2126, 0.7152, 0.0722,
        ]  # fmt: skip

    ground, *inks = map(luminance, colours)
    for ink, least in zip(inks, (4.5, 4.5, 3.0), strict=True):
        assert (max(ink, ground) + 0.05) / (min(ink, ground) + 0.05) >= least


# Inversions -------------------------------------------------------------------------------------


def test_worst_first(tmp_path):
    write(tmp_path)
    page = report_html(tmp_path)
    assert re.findall(r"<figcaption>sample (\d)", page) == ["2", "1", "0"]
    assert "2 residuals: smallest 0.1, median 0.1, 95 % at most 3, largest 3; 1 unknown" in page
    assert "the line is the noise, 0.5" in page


def test_unseen_pixels_are_shown_as_such(tmp_path):
    """What a mask hides is neither drawn nor counted, whatever stands there."""
    mask = np.arange(16) > 0  # hides the entry that is wrong
    write(tmp_path, residuals=(5.0, 7.0), mask=mask)
    page = report_html(tmp_path)
    assert "Hatched: not observed" in page
    assert "2 residuals: smallest 0, median 0, 95 % at most 0, largest 0" in page


def test_measurements_are_compared_with_measurements(tmp_path):
    """With a linear map the residual is that of y - A G(z), and y is not taken for a picture."""
    sensing = np.random.default_rng(2).standard_normal((9, 16))
    latent = np.array([[3.0, 4.0]])
    values = GENERATOR(latent) @ sensing.T
    values[0, 0] += 0.25
    inversion = preimage.invert(GENERATOR, values, "gauss_newton", sensing=sensing, noise=0.25)
    write_run(tmp_path, GENERATOR, values, inversion, settings={}, sensing=sensing)
    page = report_html(tmp_path)
    assert 'alt="measurements 0"' in page
    assert f"residual {inversion.residual[0]:.3g}" in page


def test_standard_errors_are_shown(tmp_path):
    values = GENERATOR([[3.0, 4.0]]) + 0.01
    inversion = preimage.invert(GENERATOR, values, noise=0.05)
    write_run(tmp_path, GENERATOR, values, inversion, settings={})
    page = report_html(tmp_path)
    assert f"standard error {np.median(inversion.standard_error):.3g}" in page
    assert page.count("<details>") == 1


def test_summary_is_json_that_every_reader_takes(tmp_path):
    summary = write(tmp_path, residuals=(np.nan, 1.0))
    read = json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail)
    assert summary["status"]["failed"]["samples"] == read["status"]["failed"]["samples"] == 1
    assert read["ms_per_sample"] is None
    assert read["residual"]["median"] == 1.0


def test_damage_is_named(tmp_path):
    with pytest.raises(preimage.FormatError, match=r"summary\.json"):
        report_html(tmp_path)
    write(tmp_path)
    with pytest.raises(preimage.InputError, match="holds them"):
        report_html(tmp_path, generator=GENERATOR, observations=np.zeros((3, 16)))
    with pytest.raises(preimage.InputError, match="SHA-256"):
        report_html(tmp_path, generator=preimage.from_arrays([np.eye(16)[:, :2]]))
    np.save(tmp_path / "reconstruction.npy", np.zeros((2, 16)))
    with pytest.raises(preimage.FormatError, match="one shape"):
        report_html(tmp_path)
    (tmp_path / "reconstruction.npy").write_bytes(b"no array")
    with pytest.raises(preimage.FormatError, match="expected the output folder"):
        report_html(tmp_path)


def test_the_command_reports_what_invert_wrote(tmp_path):
    """From observations to the page, by the two commands."""
    preimage.save(GENERATOR, tmp_path / "net.npz")
    np.save(tmp_path / "x.npy", GENERATOR([[1.0, 2.0], [0.5, -1.0]]))
    out = str(tmp_path / "out")
    command = ["invert", str(tmp_path / "net.npz"), str(tmp_path / "x.npy"), "--out", out]
    assert CliRunner().invoke(app, [*command, "--method", "exact"]).exit_code == 0
    assert CliRunner().invoke(app, ["report", out]).exit_code == 0
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "2 inversions" in page
    assert CliRunner().invoke(app, ["report", str(tmp_path)]).exit_code == 2


# Stores -----------------------------------------------------------------------------------------


def test_worst_samples_of_a_store(tmp_path):
    """More samples than are shown, over many shards: the worst of all, in their order."""
    values = np.abs(np.random.default_rng(0).standard_normal((3 * SHOWN, 16)))
    store = preimage.invert_dataset(
        GENERATOR, values, tmp_path / "s", "gauss_newton", noise=0.1, shard_size=7
    )
    order = np.argsort(-store.residual[:], kind="stable")[:SHOWN]
    page = report_html(tmp_path / "s", generator=GENERATOR, observations=values)
    assert re.findall(r"<figcaption>sample (\d+)", page) == [str(i) for i in order]
    assert f"{3 * SHOWN} residuals" in page
    with pytest.raises(preimage.InputError, match="residuals differ"):
        report_html(tmp_path / "s", generator=GENERATOR, observations=values[::-1])
    with pytest.raises(preimage.InputError, match="expected 72 samples"):
        report_html(tmp_path / "s", generator=GENERATOR, observations=values[1:])


@pytest.mark.parametrize("kind", ["one mask", "a mask a sample", "a matrix"])
def test_partly_observed_stores_and_certificates(tmp_path, kind):
    """Their pictures need what was observed: hidden pixels are hatched, measurements compared."""
    rng = np.random.default_rng(3)
    sensing = {
        "one mask": rng.random(16) < 0.7, "a mask a sample": rng.random((4, 16)) < 0.7,
        "a matrix": rng.standard_normal((9, 16)),
    }[kind]  # fmt: skip
    values = GENERATOR(rng.standard_normal((4, 2))) + rng.uniform(-0.01, 0.01, (4, 16))
    values = values @ sensing.T if kind == "a matrix" else values
    preimage.save(GENERATOR, tmp_path / "net.npz")
    np.save(tmp_path / "x.npy", values)
    np.save(tmp_path / "seen.npy", sensing)
    how = ["--sensing" if kind == "a matrix" else "--mask", str(tmp_path / "seen.npy")]
    given = [str(tmp_path / "net.npz"), str(tmp_path / "x.npy")]
    known = ["--network", given[0], "--observations", given[1]]
    command = ["batch", *given, str(tmp_path / "s"), "--noise", "0.1", "--shard-size", "3", *how]
    assert CliRunner().invoke(app, command).exit_code == 0
    command = ["certify", *given, "--noise", "0.1", "--box", "5", *how]
    assert CliRunner().invoke(app, [*command, "--out", str(tmp_path / "c.json")]).exit_code == 0
    for path in ("s", "c.json"):
        command = ["report", str(tmp_path / path), *known, "--out", str(tmp_path / "r.html")]
        if path == "s":
            refused = CliRunner().invoke(app, command)
            assert refused.exit_code == 2
            words = "16 entries" if kind == "a matrix" else "--mask FILE or --sensing FILE"
            assert words in refused.output
        shown = CliRunner().invoke(app, [*command, *how])
        assert shown.exit_code == 0, shown.output
        page = (tmp_path / "r.html").read_text(encoding="utf-8")
        assert page.count('alt="difference') == 4
        assert ("Hatched" in page) == (path == "s" and kind != "a matrix")


def test_an_unfinished_store_says_so(tmp_path):
    values = GENERATOR(np.ones((4, 2)))
    store = preimage.invert_dataset(GENERATOR, values, tmp_path / "s", "exact", shard_size=2)
    from preimage.batch.store import METADATA, chunk_path

    chunk_path(store.path, "status", 1).unlink()
    text = (store.path / METADATA).read_text()
    left_out = text.replace('"left_out": {}', '"left_out": {"1": "killed <its> worker"}')
    (store.path / METADATA).write_text(left_out)
    page = report_html(store.path)
    assert "1 of 2 shards finished" in page
    assert "<td>waiting</td><td>2</td>" in page
    assert "killed &lt;its&gt; worker" in page


def test_a_store_is_never_held_as_a_whole(tmp_path):
    """Claim: a sample costs less than 100 bytes of memory, however long its code is (here 400)."""
    from preimage.batch.store import chunk_path

    wide = preimage.from_arrays([np.eye(50)], activation="identity")
    store = preimage.invert_dataset(
        wide, np.ones((10_000, 50)), tmp_path / "s", "exact", shard_size=500
    )
    peaks = []
    for count in (20, 1):
        for shard in range(count, 20):
            chunk_path(store.path, "status", shard).unlink()
        tracemalloc.start()
        report_html(store.path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[0] - peaks[1] < 100 * 9500


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([], "No errors are known"),
        ([np.nan], "No errors are known"),
        ([0.0, 0.0], "2 errors: smallest 0, median 0"),
        ([3.0], "1 errors: smallest 3, median 3"),
        ([0.0, 1.0], "smallest 0"),
        ([0.0, 1.0, 0.0, 2.0], "largest 2; the first bar holds 2 that are 0."),
    ],
)
def test_distributions_without_width(values, words):
    assert words in spread(np.array(values, dtype=float), "errors")


# Certificates -----------------------------------------------------------------------------------


def test_certificates_worst_first(tmp_path):
    """Every verdict, the undecided ones on top, intervals without an end among them."""
    one = preimage.from_arrays([[[1.0, 0.0], [0.0, 1.0]]])
    values = np.array([[1.0, 1.0], [1.0, 0.0], [-1.0, 1.0]])
    preimage.certify(one, values, noise=0.1, box=None, resolution=0.5).save(tmp_path / "c.json")
    (tmp_path / "other.json").write_text("{}")
    page = report_html(tmp_path)
    assert re.findall(r"<figcaption>sample \d: (\w+)", page) == [
        "ambiguous", "infeasible", "unique",
    ]  # fmt: skip
    assert "−∞" in page
    assert "ambiguous, distance 1" in page
    with pytest.raises(preimage.InputError, match="another network"):
        report_html(tmp_path, generator=preimage.from_arrays([2 * np.eye(2)]))
    with pytest.raises(preimage.InputError, match="another observation"):
        report_html(tmp_path, generator=one, observations=values + 0.01)
    with pytest.raises(preimage.InputError, match="with the network"):
        report_html(tmp_path, observations=values)
    (tmp_path / "again.json").write_bytes((tmp_path / "c.json").read_bytes())
    with pytest.raises(preimage.InputError, match="one certificate"):
        report_html(tmp_path, generator=one, observations=values)


def test_a_changed_certificate_is_refused(tmp_path):
    path = tmp_path / "c.json"
    preimage.certify(GENERATOR, GENERATOR([[1.0, 2.0]]), noise=0.02, box=5.0).save(path)
    path.write_text(path.read_text().replace("unique", "infeasible"))
    with pytest.raises(preimage.FormatError, match="changed"):
        report_html(path)
    path.write_text("not JSON")
    with pytest.raises(preimage.FormatError, match="expected a certificate"):
        report_html(path)
