"""Verdicts on problems with known answers, each proven again by the checker from files alone."""

import itertools
import json
import time

import numpy as np
import pytest
from planted import gaussian_generator

import preimage
from examples import hardness
from preimage import InputError, certify, from_arrays
from preimage.certify import checker
from preimage.certify.certify import checking_times

EYE = np.eye(3)
TALL = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])


def proven(folder, generator, x, certificate):
    """What the checker makes of the three files."""
    paths = [str(folder / name) for name in ("c.json", "net.safetensors", "x.npy")]
    certificate.save(paths[0])
    preimage.save(generator, paths[1])
    np.save(paths[2], np.atleast_2d(np.asarray(x, dtype=float)))
    return [record["verdict"] for record in checker.check(*paths)]


CASES = {
    "one-sided rows": (from_arrays([np.vstack([EYE, -EYE])]), np.zeros(6), 0.0, None, "unique"),
    "equations": (from_arrays([TALL]), [1.0, 2.0, 3.0], 0.0, None, "unique"),
    "equations, box": (from_arrays([TALL]), [1.0, 2.0, 3.0], 0.0, 8.0, "unique"),
    "out of range": (from_arrays([TALL]), [1.0, 2.0, 4.0], 0.01, None, "infeasible"),
    "outside the box": (from_arrays([TALL]), [1.0, 2.0, 3.0], 0.01, 1.0, "infeasible"),
    "negative": (from_arrays([TALL]), [-1.0, 2.0, 3.0], 0.01, None, "infeasible"),
    "unseen direction": (from_arrays([[[1.0, 2, 3], [0, 1, 1]]]), [1.0, 2.0], 0.0, None,
                         "ambiguous"),
    "unseen direction, box": (from_arrays([[[1.0, 2, 3], [0, 1, 1]]]), [1.0, 2.0], 0.0, 4.0,
                              "ambiguous"),
    "mirrored": (from_arrays([[[1.0], [-1.0]], [[1.0, 1.0]]]), [2.0], 1e-3, 5.0, "ambiguous"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_small_problems_have_the_verdict_that_pencil_and_paper_give(name, tmp_path):
    """Claim: the four verdicts mean what they say; each is re-proved from files."""
    generator, x, noise, box, verdict = CASES[name]
    certificate = certify(generator, x, noise=noise, box=box)
    assert certificate.verdict == verdict, certificate.reason
    assert proven(tmp_path, generator, x, certificate) == [verdict]


def test_zero_noise_and_equations_leave_one_point():
    """Claim: at noise 0, the witness is the only code up to rounding."""
    found = certify(from_arrays([TALL]), [1.0, 2.0, 3.0], noise=0.0)
    assert found.distance <= 1e-11
    assert found.witness.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("fixed", [[0], [1], [0, 1], [1, 2], [0, 1, 2]])
def test_a_box_that_fixes_coordinates(tmp_path, fixed):
    """Claim: the other coordinates are enclosed and the proof holds, whatever the box fixes."""
    rng = np.random.default_rng(0)
    generator, z = gaussian_generator((3, 12, 30), rng), np.array([0.5, 0.2, -0.3])
    low, high = np.full(3, -1.0), np.full(3, 1.0)
    low[fixed] = high[fixed] = z[fixed]
    found = certify(generator, generator(z), noise=1e-6, box=(low, high))
    assert found.verdict == "unique", found.reason
    assert ((found.lower <= z) & (z <= found.upper)).all()
    assert proven(tmp_path, generator, generator(z), found) == ["unique"]


def test_an_unbounded_preimage_has_codes_that_are_far_apart():
    """Claim: without a box, an unseen direction is followed far, and both codes explain x."""
    generator, x, *_ = CASES["unseen direction"]
    found = certify(generator, x, noise=0.0)
    assert found.distance > 1e5
    for code in (found.witness, found.other):
        assert np.array_equal(generator(code), np.array(x))


@pytest.mark.parametrize("head", ["relu", "identity", "leaky_relu(0.2)", "tanh", "sigmoid"])
@pytest.mark.parametrize("box", [None, 6.0])
def test_the_true_code_is_enclosed_and_near_the_witness(head, box, tmp_path):
    """Claim: unique verdicts enclose the planted code, whatever the head; the checker agrees."""
    rng = np.random.default_rng(3)
    generator = gaussian_generator((3, 12, 40), rng, "leaky_relu(0.3)", bias=True, head=head)
    z = rng.normal(size=(3, 3))
    x = generator(z)
    x = x + rng.uniform(-1e-5, 1e-5, size=x.shape)
    found = certify(generator, x, noise=1e-5, box=box)
    assert ((found.lower <= z) & (z <= found.upper)).all()
    near = np.abs(found.witness - z).max(axis=1) <= found.distance
    assert near[found.verdict == "unique"].all()
    assert (found.verdict == "unique").sum() >= (
        3 if head in ("identity", "leaky_relu(0.2)") else 1
    )
    assert proven(tmp_path, generator, x, found) == found.verdict.tolist()


def test_trained_decoder(tmp_path):
    """Claim: the real network, at a noise that decides; box and verdict are proven."""
    generator = preimage.zoo.load("mnist-20-60-784")
    rng = np.random.default_rng(0)
    z = rng.normal(size=20)
    x = generator(z) + rng.uniform(-1e-2, 1e-2, size=784)
    found = certify(generator, x, noise=1e-2, box=5.0)
    assert found.verdict in ("unique", "ambiguous")
    assert ((found.lower <= z) & (z <= found.upper)).all()
    assert np.median(found.upper - found.lower) < 0.2
    assert proven(tmp_path, generator, x, found) == [found.verdict]


def test_the_trained_decoder_is_certified_without_a_box():
    """Claim: a box is not needed; intervals without one are finite, and not much wider."""
    generator = preimage.zoo.load("mnist-20-60-784")
    rng = np.random.default_rng(1)
    z = rng.normal(size=20)
    x = generator(z) + rng.uniform(-1e-4, 1e-4, size=784)
    found = certify(generator, x, noise=1e-4)
    assert found.verdict == "unique", found.reason
    assert ((found.lower <= z) & (z <= found.upper)).all()
    assert np.median(found.upper - found.lower) < 2e-3


def test_codes_that_are_apart_only_at_the_edges_of_two_linear_pieces(tmp_path):
    """Claim: extreme codes count though rounding puts them outside; draw 96 of the benchmark."""
    generator, rng = preimage.zoo.load("mnist-20-60-784"), np.random.default_rng(1)
    for _ in range(97):
        z = np.clip(rng.normal(size=20), -4.9, 4.9)
        x = generator(z) + rng.uniform(-1e-2, 1e-2, size=784)
    found = certify(generator, x, noise=1e-2, box=5.0)
    assert found.verdict == "ambiguous"
    assert found.distance > found.resolution
    assert proven(tmp_path, generator, x, found) == ["ambiguous"]


def test_noise_below_rounding_is_named():
    """Claim: an observation made in floats is not called out of range; the number is given."""
    rng = np.random.default_rng(1)
    generator = gaussian_generator((3, 12, 40), rng)
    found = certify(generator, generator(rng.normal(size=3)), noise=0.0, box=5.0)
    assert found.verdict == "undecided"
    assert "rounding error" in found.reason


def _unsatisfiable(folder):
    """All eight clauses over three variables, as a network: no code, but no hull shows it."""
    signs = itertools.product((1, -1), repeat=3)
    clauses = [" ".join(str(s * v) for s, v in zip(row, (1, 2, 3), strict=True)) for row in signs]
    path = folder / "formula.cnf"
    path.write_text("p cnf 3 8\n" + "".join(f"{clause} 0\n" for clause in clauses))
    return hardness.from_cnf(path)


def test_a_search_over_signs_excludes_what_one_relaxation_does_not(tmp_path):
    """Claim: branching proves emptiness where hulls leave something; leaves are checked."""
    generator, x = _unsatisfiable(tmp_path)
    found = certify(generator, x, noise=hardness.NOISE, box=(-1.0, 2.0))
    assert found.verdict == "infeasible"
    assert "split" in found.claims[0].proof
    assert proven(tmp_path, generator, x, found) == ["infeasible"]


def test_caps_end_in_undecided(tmp_path):
    """Claim: neither a cap on branches nor one on time makes a verdict."""
    generator, x = _unsatisfiable(tmp_path)
    for cap in ({"nodes": 1}, {"time_limit": 1e-9}):
        found = certify(generator, x, noise=hardness.NOISE, box=(-1.0, 2.0), **cap)
        assert found.verdict == "undecided"
        assert "limit" in found.reason


def test_no_proof_is_deeper_than_the_checker_follows(tmp_path, monkeypatch):
    """Claim: splits end at the largest depth, with a reason, and what was proven stays."""
    generator, x = _unsatisfiable(tmp_path)
    monkeypatch.setattr(checker, "DEPTH", 1)
    monkeypatch.setattr(checker.forms, "DEPTH", 1)
    found = certify(generator, x, noise=hardness.NOISE, box=(-1.0, 2.0))
    assert found.verdict == "undecided"
    assert found.reason == "the largest depth of a proof was reached"
    assert np.isfinite([found.lower, found.upper]).all()
    assert proven(tmp_path, generator, x, found) == ["undecided"]


def test_a_batch_is_its_samples():
    """Claim: verdict, box and witness of a sample do not depend on the others, up to rounding."""
    rng = np.random.default_rng(5)
    generator = gaussian_generator((3, 12, 40), rng)
    x = generator(rng.normal(size=(2, 3))) + 1e-4
    batch = certify(generator, x, noise=2e-4, box=5.0)
    for sample in range(2):
        alone = certify(generator, x[sample], noise=2e-4, box=5.0)
        assert alone.verdict == batch.verdict[sample]
        np.testing.assert_allclose(alone.lower, batch.lower[sample], rtol=1e-9)
        np.testing.assert_allclose(alone.witness, batch.witness[sample], rtol=1e-9)
    assert len(batch) == 2
    assert "2 samples" in repr(batch)


def test_bad_input_is_refused_at_once():
    generator = from_arrays([TALL])
    for arguments in (
        {"noise": -1.0},
        {"noise": np.nan},
        {"noise": [0.1, 0.1, 0.2]},
        {"noise": 0.1, "box": -1.0},
        {"noise": 0.1, "resolution": 0.0},
        {"noise": 0.1, "nodes": 0},
        {"noise": 0.1, "time_limit": np.inf},
    ):
        with pytest.raises(InputError):
            certify(generator, [1.0, 2.0, 3.0], **arguments)
    with pytest.raises(InputError, match="finite"):
        certify(generator, [1.0, np.nan, 3.0], noise=0.1)
    with pytest.raises(InputError, match="generator"):
        certify("net", [1.0], noise=0.1)
    with pytest.raises(InputError, match="hidden"):
        certify(from_arrays([EYE, EYE], activation="tanh"), np.zeros(3), noise=0.1)


def test_a_certificate_is_one_json_file_of_hexadecimal_floats(tmp_path):
    certificate = certify(from_arrays([TALL]), [1.0, 2.0, 3.0], noise=0.25, box=8.0)
    certificate.save(tmp_path / "c.json")
    content = json.loads((tmp_path / "c.json").read_text())
    assert content["samples"][0]["question"]["noise"] == (0.25).hex()
    assert content["samples"][0]["verdict"] == certificate.verdict
    loaded = preimage.Certificate.load(tmp_path / "c.json")
    assert [claim.record() for claim in loaded.claims] == content["samples"]
    assert repr(loaded) == repr(certificate)
    np.testing.assert_array_equal(loaded.lower[0], certificate.lower)
    (tmp_path / "c.json").write_text(json.dumps(content | {"digest": "0"}))
    with pytest.raises(preimage.errors.FormatError, match="changed"):
        preimage.Certificate.load(tmp_path / "c.json")


def test_the_band_holds_every_output_of_every_witness():
    """Claim: the band of a picture holds G of the true code and of both witnesses."""
    rng = np.random.default_rng(7)
    generator = gaussian_generator((3, 12, 40), rng, head="sigmoid")
    z = rng.normal(size=3)
    x = generator(z) + rng.uniform(-0.05, 0.05, size=40)
    found = certify(generator, x, noise=0.05, box=3.0)
    low, high = preimage.reconstruction_band(generator, found)
    codes = [z, found.witness] + ([found.other] if found.verdict == "ambiguous" else [])
    for code in codes:
        assert ((low <= generator(code)) & (generator(code) <= high)).all()
    assert (high - low).max() <= 0.1 + 1e-9
    empty = certify(generator, x + 2.0, noise=0.05, box=3.0)
    with pytest.raises(InputError, match="no code"):
        preimage.reconstruction_band(generator, empty)


def _seen_in_part(seed, kind):
    """A small network, what is seen of its output, and a sensing of the kind."""
    rng = np.random.default_rng(seed)
    generator = gaussian_generator((3, 12, 40), rng, "leaky_relu(0.3)", bias=True)
    z = rng.normal(size=(2, 3))
    if kind == "matrix":
        sensing = rng.normal(size=(30, 40))
        x = generator(z) @ sensing.T
    else:
        sensing = rng.random((2, 40) if kind == "mask a sample" else 40) < 0.7
        x = np.where(sensing, generator(z), np.nan)
    return generator, z, x + rng.uniform(-1e-4, 1e-4, size=x.shape), sensing


@pytest.mark.parametrize("kind", ["mask", "mask a sample", "matrix"])
def test_what_is_seen_in_part_is_certified_and_checked(kind, tmp_path):
    """Claim: masks and matrices; the checker proves it from files, and refuses another sensing."""
    generator, z, x, sensing = _seen_in_part(2, kind)
    found = certify(generator, x, noise=1e-4, box=5.0, sensing=sensing)
    assert (found.verdict != "undecided").all()
    assert ((found.lower <= z) & (z <= found.upper)).all()
    paths = [str(tmp_path / name) for name in ("c.json", "net.safetensors", "x.npy", "a.npy")]
    found.save(paths[0])
    preimage.save(generator, paths[1])
    np.save(paths[2], x)
    np.save(paths[3], sensing)
    records = checker.check(*paths)
    assert [record["verdict"] for record in records] == found.verdict.tolist()
    loaded = preimage.Certificate.load(paths[0])
    assert [claim.record() for claim in loaded.claims] == records
    other = ~sensing if sensing.dtype == bool else 2 * sensing
    np.save(paths[3], other)
    with pytest.raises(ValueError, match=r"it is about another|NaN"):
        checker.check(*paths)
    with pytest.raises(ValueError, match=r"it is about another|another size|expected a|NaN"):
        checker.check(*paths[:3])
    low, high = preimage.reconstruction_band(generator, loaded)
    assert ((low <= generator(z[0])) & (generator(z[0]) <= high)).all()


def test_an_interrupted_trial_of_the_checker_does_not_count(monkeypatch):
    """Claim: one slow moment does not shorten the proofs of all samples after it."""
    adjoint, calls = checker.Layer.adjoint, itertools.count()

    def slow_once(layer, values):
        if next(calls) == 1:
            time.sleep(0.2)
        return adjoint(layer, values)

    monkeypatch.setattr(checker.Layer, "adjoint", slow_once)
    assert checking_times(from_arrays([TALL]))[1] < 0.2


def test_a_mask_asks_less_than_the_whole():
    """Claim: S grows when pixels go: intervals of the whole lie within those of the part."""
    generator, z, _, _ = _seen_in_part(3, "mask")
    x = generator(z[0])
    whole = certify(generator, x, noise=1e-3, box=5.0)
    mask = np.arange(40) < 25
    part = certify(generator, x, noise=1e-3, box=5.0, sensing=mask)
    assert (part.upper - part.lower).max() >= (whole.upper - whole.lower).max()
    nothing_known = certify(generator, x, noise=1e-3, box=5.0, sensing=np.arange(40) < 2)
    assert nothing_known.verdict == "ambiguous"


def test_sensing_without_a_matrix_is_refused():
    from scipy.sparse.linalg import aslinearoperator

    generator = from_arrays([TALL])
    with pytest.raises(InputError, match="matrix"):
        certify(generator, [1.0, 2.0, 3.0], noise=0.1, sensing=aslinearoperator(EYE))
