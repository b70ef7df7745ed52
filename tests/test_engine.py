"""Which kernel is loaded, and what is said of one that is not."""

from pathlib import Path

import numpy as np
import pytest
from numpy.linalg import _umath_linalg
from typer.testing import CliRunner

import preimage
from preimage import engine
from preimage.cli import app

STRANGER = Path(_umath_linalg.__file__)  # a library that does not say its version

pytestmark = pytest.mark.skipif(engine.library() is None, reason="no kernel was built")


@pytest.fixture
def fresh():
    """The kernel is chosen anew, in the test and after it."""
    yield forget()
    forget()


def forget():
    engine.variant.cache_clear()
    engine.library.cache_clear()


def another_version(monkeypatch):
    monkeypatch.setattr(engine, "INTERFACE", engine.INTERFACE + 1)


def no_version(monkeypatch):
    monkeypatch.setattr(engine, "_file", lambda name: STRANGER)


def one_old_variant(monkeypatch):
    file, best = engine._file, engine.variant()
    forget()
    monkeypatch.setattr(engine, "_file", lambda name: STRANGER if name == best else file(name))


@pytest.mark.parametrize("plant", [another_version, no_version, one_old_variant])
def test_a_kernel_of_another_version_is_not_used(plant, fresh, monkeypatch, capsys):
    """Claim: such a library is never called; the answers are the same, and people are told."""
    rng = np.random.default_rng(0)
    generator = preimage.from_arrays([rng.normal(size=(20, 3)), rng.normal(size=(60, 20))])
    codes = rng.normal(size=(2, 3))
    with monkeypatch.context() as planted:
        plant(planted)
        assert engine.variant() is None
        assert engine.library() is None
        found = preimage.invert(generator, generator(codes), "linf", noise=1e-6)
        np.testing.assert_allclose(found.latent, codes, atol=1e-4)
        preimage.show_versions()
        shown = CliRunner().invoke(app, ["--version"]).output
        for text in (capsys.readouterr().out, shown):
            assert "of another version" in text
            assert "make kernel" in text
            assert "reinstall preimage" in text
    forget()
    assert engine.library() is not None
    assert "of another version" not in engine.description()
