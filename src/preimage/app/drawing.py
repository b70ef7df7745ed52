"""Results as HTML, and as what the sliders take; text from elsewhere is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from preimage.app.question import Answer, Question, to_gray
from preimage.certify import Certificate
from preimage.matrix import Array
from preimage.network import Network
from preimage.notebook import number
from preimage.pixels import picture
from preimage.report.run import plain

_WIDTH = 132  # of a picture
_GOOD = {"solved", "unique"}
_BAD = {"infeasible", "failed"}


def notice(text: str) -> str:
    """A message to the visitor."""
    return f'<p class="notice" role="alert">{escape(text)}</p>' if text else ""


def pictures(network: Network, question: Question, answers: Sequence[Answer]) -> str:
    """What is seen, and beside it each method's reconstruction."""
    seen = np.where(question.seen, to_gray(network, question.observation), np.nan)
    hidden = int((~question.seen).sum())
    words = f"noise {question.noise:g}" + (f", {hidden} pixels hidden" if hidden else "")
    cells = [_figure(seen, "observation", "observation", words)]
    for answer in answers:
        found, name = answer.found, answer.method
        words = f"largest error {number(found.residual_max)} · {answer.seconds:.2f} s"
        if np.isfinite(found.standard_error).all():
            words += f" · standard error of z {number(np.median(found.standard_error))}"
        shown = to_gray(network, found.reconstruct(network))
        label = _chip(found.status)
        cells.append(_figure(shown, f"reconstruction by {name}", name, words, label))
    notes = "".join(
        f"<li>{_chip(status)} {escape(status.message.replace('`', ''))}</li>"
        for status in dict.fromkeys(answer.found.status for answer in answers)
    )
    return f'<div class="pictures">{"".join(cells)}</div><ul class="notes">{notes}</ul>'


def verdict(certificate: Certificate | None, sentence: str) -> str:
    """What is proven, or that it is being proven."""
    chip = "" if certificate is None else _chip(str(certificate.verdict)) + " "
    return f'<p class="verdict" role="status">{chip}{escape(sentence)}</p>'


def sliders(question: Question, answer: Answer, certificate: Certificate | None) -> dict[str, Any]:
    """What the sliders take: the code, its errors, the box around all codes, the question."""
    code = answer.found.latent
    ends = (np.full((2, code.size), np.nan) if certificate is None
            else np.array([certificate.lower, certificate.upper]))  # fmt: skip
    finite = np.concatenate([code[None], ends])
    finite = np.abs(finite[np.isfinite(finite)])
    reach = np.ceil(1.15 * finite.max(initial=2.0))
    return {
        "latent": plain(code),
        "error": plain(answer.found.standard_error),
        "lower": plain(ends[0]),
        "upper": plain(ends[1]),
        "reach": float(reach),
        "observation": question.observation.tolist(),
        "seen": question.seen.astype(int).tolist(),
        "noise": question.noise,
    }


def moved(network: Network, question: Question, output: Array, error: float) -> str:
    """What the network makes of the sliders' code, and its largest error on what is seen."""
    side = "within" if error <= question.noise else "above"
    words = f"largest error {number(error)}, {side} the noise of {question.noise:g}"
    return _figure(to_gray(network, output), "output of the sliders' code", "G(z)", words)


def _figure(vector: Array, text: str, title: str, words: str, extra: str = "") -> str:
    return (
        f"<figure>{picture(vector, text, _WIDTH)}<figcaption><b>{escape(title)}</b> {extra}<br>"
        f'<span class="soft">{escape(words)}</span></figcaption></figure>'
    )


def _chip(name: str) -> str:
    kind = "good" if name in _GOOD else "bad" if name in _BAD else "open"
    return f'<span class="chip {kind}">{escape(name.replace("_", " "))}</span>'
