"""Answers and their pictures, with planted codes."""

import numpy as np
import pytest

import preimage
from preimage.app import drawing, question
from preimage.doctor import prove
from preimage.network import Network


@pytest.fixture
def planted():
    rng = np.random.default_rng(0)
    network = preimage.from_arrays(
        [rng.standard_normal((24, 4)), rng.standard_normal((64, 24)) / 5]
    )
    return network, question.random_code(network, 5)


def asked(network, code, noise, hidden=()):
    canvas = question.canvas_value(network, network(code))
    for pixel in hidden:
        canvas["hidden"][pixel] = 1
        canvas["picture"][pixel] = 1.0  # a hidden pixel must not count
    return question.ask(network, canvas, noise)


def proof_of(network, posed):
    """What the page shows as proven."""
    return prove(network, posed.observation, posed.noise, posed.sensing)


def test_a_hidden_half_is_filled_in(planted):
    """Claim: the code comes back from what is seen, and the box around it holds the true one."""
    network, code = planted
    posed = asked(network, code, 0.001, hidden=range(32))
    found = question.answer(network, posed, "auto")
    np.testing.assert_allclose(found.found.latent, code, atol=0.05)
    assert found.found.status == preimage.Status.SOLVED
    assert found.found.residual_max <= 0.002
    assert (np.abs(found.found.latent - code) <= 5 * found.found.standard_error).all()
    np.testing.assert_allclose(found.found.reconstruct(network)[:32], network(code)[:32], atol=0.05)
    proven, _ = proof_of(network, posed)
    assert proven.verdict in ("unique", "ambiguous")
    assert (proven.lower <= code).all()
    assert (code <= proven.upper).all()
    assert (proven.upper - proven.lower).max() < 0.2


def test_a_picture_that_no_code_makes(planted):
    network, code = planted
    wrong = asked(network, code, 0.001)._replace(observation=np.full(64, -1.0))
    proven, sentence = proof_of(network, wrong)
    assert proven.verdict == "infeasible"
    assert "proven that no code" in sentence
    sliders = drawing.sliders(wrong, question.answer(network, wrong, "gauss_newton"), proven)
    assert sliders["lower"] == sliders["upper"] == [None] * 4


def test_where_nothing_can_be_proven_it_says_why():
    smooth = preimage.from_arrays([np.ones((9, 2)), np.ones((9, 9))], activation="tanh")
    proven, sentence = proof_of(smooth, asked(smooth, np.zeros(2), 0.1))
    assert proven is None
    assert "tanh" in sentence.lower()


def test_a_moved_code_is_held_against_what_is_seen(planted):
    network, code = planted
    posed = asked(network, code, 0.01, hidden=[3])
    _, stays = question.move(network, posed, {"code": code.tolist()})
    assert stays <= posed.noise
    _, leaves = question.move(network, posed, {"code": (code + 1.0).tolist()})
    assert leaves > posed.noise
    error = np.abs(posed.observation - network(code + 1.0))
    assert leaves == np.delete(error, 3).max()
    for bad in (None, [1.0], ["a"] * 4, [float("inf")] * 4):
        with pytest.raises(preimage.InputError, match="code"):
            question.move(network, posed, {"code": bad})
    with pytest.raises(preimage.InputError, match="method"):
        question.answer(network, posed, "magic")


def test_results_as_html(planted):
    network, code = planted
    posed = asked(network, code, 0.01, hidden=[3, 4])
    methods = ("linf", "exact")
    answers = [question.answer(network, posed, method) for method in methods]
    shown = drawing.pictures(network, posed, answers)
    assert shown.count("<img") == 3
    for words in ("2 pixels hidden", "reconstruction by linf", "<b>exact</b>"):
        assert words in shown
    assert "&lt;script&gt;" in drawing.verdict(None, "<script>")
    assert drawing.notice("") == ""
    assert "&lt;b&gt;" in drawing.notice("<b>")
    proven, sentence = proof_of(network, posed)
    assert "chip" in drawing.verdict(proven, sentence)
    sliders = drawing.sliders(posed, answers[0], proven)
    assert sliders["error"] == answers[0].found.standard_error.tolist()
    assert sliders["lower"] == proven.lower.tolist()
    assert sliders["reach"] >= np.abs(np.r_[proven.lower, proven.upper]).max()
    assert "within the noise" in drawing.moved(
        network, posed, *question.move(network, posed, {"code": code})
    )


class _Run:
    """A network that is only run: the layers of another, hidden."""

    draft = None

    def __init__(self, known):
        for name in ("latent_size", "observation_size", "digest", "linearize", "jvp", "vjp"):
            setattr(self, name, getattr(known, name))
        self.known = known

    def __call__(self, z):
        return self.known(z)


def test_a_network_that_is_only_run(planted):
    """Claim: it is inverted by the methods that can, and the page says why nothing is proven."""
    known, code = planted
    network = _Run(known)
    assert isinstance(network, Network)
    posed = asked(network, code, 0.001)
    assert question.methods_for(network) == ("auto", "gauss_newton", "gradient")
    found = question.answer(network, posed, "auto")
    np.testing.assert_allclose(found.found.latent, code, atol=0.05)
    proven, sentence = proof_of(network, posed)
    assert proven is None
    assert "Nothing is proven" in sentence
    tanh = preimage.from_arrays([np.eye(9)[:, :4]], activation="tanh")
    assert question.gray_range(network) == (0.0, 1.0)
    assert question.gray_range(_Run(tanh)) == question.gray_range(tanh) == (-1.0, 1.0)
