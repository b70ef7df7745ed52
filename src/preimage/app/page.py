"""The widgets of the page, and the server that shows it to this machine only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

import preimage
from preimage.app import answer, drawing, question
from preimage.errors import InputError, MissingExtraError, PreimageError
from preimage.generator import Generator
from preimage.pixels import picture

Array = NDArray[np.float64]

# Gradio reads these when it is imported: it is to ask nobody, and to tell nobody.
_SILENCE = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
_DIGITS = 20  # two of each
_NOISE = 0.05

_CANVAS = """
<div class="tools" role="radiogroup" aria-label="Tool">
<label><input type="radio" name="tool" value="draw" checked> Draw</label>
<label><input type="radio" name="tool" value="erase"> Erase</label>
<label><input type="radio" name="tool" value="hide"> Hide</label>
<label><input type="radio" name="tool" value="show"> Show</label>
</div>
<canvas aria-label="The picture: draw on it, or hide pixels"></canvas>
<div class="tools"><button type="button" data-clear="picture">Blank picture</button>
<button type="button" data-clear="hidden">Show all</button></div>
"""
_SLIDERS = """
<div class="panel" hidden><div class="head"><p class="place" role="status"></p>
<button type="button" data-back>Back to the code found</button></div>
<div class="split"><div class="moved"></div><div class="rows"></div></div></div>
"""
_NO_SLIDERS: dict[str, Any] = {"latent": [], "lower": [], "upper": [], "reach": 1.0}


def build(generator: Generator, name: str) -> Any:
    """The page for a network, as ``gradio.Blocks``.

    Args:
        generator: The network.
        name: What to call it.

    Raises:
        MissingExtraError: gradio is not installed.
    """
    gradio = _gradio()
    room = files("preimage.app")
    scripts = {n: (room / f"{n}.js").read_text(encoding="utf-8") for n in ("canvas", "sliders")}

    def show(sent: Any) -> str:
        """The output of the sliders' code."""
        try:
            asked = question.again(generator, sent)
            return drawing.moved(generator, asked, answer.move(generator, asked, sent))
        except PreimageError as error:
            return drawing.notice(str(error))

    first = question.canvas_value(generator, generator(question.random_code(generator, 0)))
    with gradio.Blocks(title=f"preimage: {name}", analytics_enabled=False) as page:
        gradio.HTML(_header(generator, name))
        with gradio.Row():
            with gradio.Column(scale=1, min_width=300):
                gradio.HTML("<h2>Picture</h2>")
                with gradio.Row():
                    sampled = gradio.Button("Output of a random code", size="sm", min_width=120)
                    upload = gradio.UploadButton("Upload a picture", size="sm", min_width=120)
                canvas = gradio.HTML(
                    first, html_template=_digits(generator) + _CANVAS, js_on_load=scripts["canvas"],
                    elem_classes="canvas", elem_id="canvas",
                )  # fmt: skip
                notice = gradio.HTML("", elem_id="notice")
                noise = gradio.Slider(
                    0.0, 0.3, _NOISE, step=0.01, label="Noise",
                    info="Uniform noise up to this is added, and the methods are told.",
                )  # fmt: skip
                methods = gradio.CheckboxGroup(
                    list(answer.METHODS), value=["auto", "linf"], label="Methods",
                    info="The sliders take the code of the first.",
                )  # fmt: skip
                button = gradio.Button("Invert", variant="primary", elem_id="invert")
            with gradio.Column(scale=2, min_width=320):
                gradio.HTML("<h2>Reconstructions</h2>")
                pictures = gradio.HTML(
                    '<p class="soft">Choose a picture and press Invert.</p>', elem_id="pictures"
                )
                verdict = gradio.HTML("", elem_id="verdict")
                gradio.HTML("<h2>Code</h2>")
                sliders = gradio.HTML(
                    _NO_SLIDERS, html_template=_SLIDERS, js_on_load=scripts["sliders"],
                    server_functions=[show], elem_classes="sliders", elem_id="sliders",
                )  # fmt: skip

        def sample() -> tuple[Any, str]:
            seed = int(np.random.default_rng().integers(2**32))
            image = generator(question.random_code(generator, seed))
            return question.canvas_value(generator, image), ""

        def read(path: str | None) -> tuple[Any, str]:
            try:
                image = question.read_upload(str(path), generator)
            except PreimageError as error:
                return gradio.skip(), drawing.notice(str(error))
            return question.canvas_value(generator, image), ""

        def invert(canvas: Any, noise: Any, wanted: list[str]) -> Iterator[tuple[Any, ...]]:
            try:
                yield from _inverted(generator, canvas, noise, wanted)
            except PreimageError as error:
                yield gradio.skip(), gradio.skip(), gradio.skip(), drawing.notice(str(error))

        sampled.click(sample, None, [canvas, notice], show_progress="hidden")
        upload.upload(read, upload, [canvas, notice], show_progress="hidden")
        results = [pictures, verdict, sliders, notice]
        button.click(
            invert, [canvas, noise, methods], results, show_progress="minimal", concurrency_limit=1
        )
    return page


def _inverted(
    generator: Generator, canvas: Any, noise: Any, wanted: list[str]
) -> Iterator[tuple[Any, ...]]:
    """Each method's answer as soon as it is there, then the certificate."""
    asked = question.ask(generator, canvas, noise)
    answers: list[answer.Answer] = []
    for method in wanted or ["auto"]:
        answers.append(answer.invert(generator, asked, method))
        shown = drawing.pictures(generator, asked, answers)
        sliders = drawing.sliders(asked, answers[0].latent, None)
        yield shown, drawing.verdict(None), sliders, ""
    proven = answer.certify(generator, asked)
    sliders = drawing.sliders(asked, answers[0].latent, proven)
    yield shown, drawing.verdict(proven), sliders, ""


def serve(page: Any, *, port: int | None = None, browser: bool = True) -> None:
    """Show the page at a loopback address, until its ``close`` is called.

    Args:
        page: From ``build``; afterwards its ``local_url`` says where it is.
        port: Where to listen; by default the first that is free from 7860 on.
        browser: Open the page in the browser.

    Raises:
        InputError: The port is not free.
    """
    gradio = _gradio()
    # Fonts that every machine has: no font is asked of anybody.
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    style = (files("preimage.app") / "style.css").read_text(encoding="utf-8")
    try:
        page.launch(
            server_name="127.0.0.1", server_port=port, share=False, inbrowser=browser, quiet=True,
            prevent_thread_lock=True, ssr_mode=False, max_file_size=question.UPLOAD.file_bytes,
            footer_links=[], theme=gradio.themes.Default(primary_hue="blue", **fonts), css=style,
        )  # fmt: skip
    except OSError as error:
        raise InputError(f"port: {error}") from error


def warm_up(generator: Generator) -> None:
    """Ask once what the page will ask first, so that nobody waits for compilation."""
    code = question.random_code(generator, 0)
    asked = question.ask(generator, question.canvas_value(generator, generator(code)), _NOISE)
    for method in ("auto", "linf"):
        answer.invert(generator, asked, method)
    answer.certify(generator, asked)


def _gradio() -> Any:
    os.environ.update(_SILENCE)
    try:
        import gradio
    except ImportError as error:
        raise MissingExtraError("gradio", "web") from error
    return gradio


def _header(generator: Generator, name: str) -> str:
    layers = escape(repr(generator))
    return (
        f"<h1>Which code made this?</h1><p>{escape(name)}: <code>{layers}</code>. Pick a picture, "
        "draw on it, hide some of it; then find the codes that explain what is left.</p>"
    )


def _digits(generator: Generator) -> str:
    """Buttons with real digits, two of each, if the network makes pictures of their size."""
    images, labels = preimage.zoo.digits()
    if images.shape[1] != generator.observation_size:
        return ""
    step = len(images) // _DIGITS
    buttons = [
        f'<button type="button" data-digit aria-label="Digit {label}">{shown}</button>'
        for image, label in zip(images[::step], labels[::step], strict=True)
        for shown in [picture(image, "", 28)]
    ]
    return f'<div class="digits">{"".join(buttons)}</div>'
