"""Results as HTML, and as what the sliders take; text from elsewhere is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preimage.app.answer import Answer, Move, Verdict
from preimage.app.question import Question, to_gray
from preimage.network import Network
from preimage.notebook import number
from preimage.pixels import picture

Array = NDArray[np.float64]

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
        label = _chip(str(answer.status))
        words = f"largest error {number(answer.misfit)} · {_seconds(answer.seconds)}"
        if np.isfinite(answer.standard_error).all():
            words += f" · standard error of z {number(float(np.median(answer.standard_error)))}"
        shown = to_gray(network, answer.reconstruction)
        cells.append(
            _figure(shown, f"reconstruction by {answer.method}", answer.method, words, label)
        )
    told = {str(answer.status): answer.status.message for answer in answers}
    notes = "".join(
        f"<li>{_chip(name)} {escape(message.replace('`', ''))}</li>"
        for name, message in told.items()
    )
    return f'<div class="pictures">{"".join(cells)}</div><ul class="notes">{notes}</ul>'


def verdict(found: Verdict | None) -> str:
    """The certificate's verdict; None while it is being computed."""
    if found is None:
        return '<p class="verdict" role="status">Proving what can be proven …</p>'
    time = f' <span class="soft">{_seconds(found.seconds)}</span>' if found.seconds else ""
    chip = "" if found.name == "none" else _chip(found.name) + " "
    return f'<p class="verdict" role="status">{chip}{escape(found.sentence)}{time}</p>'


def sliders(question: Question, answer: Answer, found: Verdict | None) -> dict[str, Any]:
    """What the sliders take: the code, its errors, the box around all codes, the question."""
    code = answer.latent
    ends = (np.full((2, code.size), np.nan) if found is None
            else np.array([found.lower, found.upper]))  # fmt: skip
    known = np.concatenate([code[None], ends])
    known = np.abs(known[np.isfinite(known)])
    reach = np.ceil(1.15 * known.max(initial=2.0))
    return {
        "latent": _plain(code),
        "error": _plain(answer.standard_error),
        "lower": _plain(ends[0]),
        "upper": _plain(ends[1]),
        "reach": float(reach),
        "observation": question.observation.tolist(),
        "seen": question.seen.astype(int).tolist(),
        "noise": question.noise,
    }


def moved(network: Network, question: Question, at: Move) -> str:
    """What the network makes of the sliders' code."""
    side = "within" if at.explains else "above"
    words = f"largest error {number(at.misfit)}, {side} the noise of {question.noise:g}"
    shown = to_gray(network, at.reconstruction)
    return _figure(shown, "output of the sliders' code", "G(z)", words)


def _figure(vector: Array, text: str, title: str, words: str, extra: str = "") -> str:
    return (
        f"<figure>{picture(vector, text, _WIDTH)}<figcaption><b>{escape(title)}</b> {extra}<br>"
        f'<span class="soft">{escape(words)}</span></figcaption></figure>'
    )


def _chip(name: str) -> str:
    kind = "good" if name in _GOOD else "bad" if name in _BAD else "open"
    return f'<span class="chip {kind}">{escape(name.replace("_", " "))}</span>'


def _seconds(value: float) -> str:
    return f"{value:.2f} s"


def _plain(vector: Array) -> list[float | None]:
    """NaN is null in JSON."""
    return [float(value) if np.isfinite(value) else None for value in vector]
