"""The widgets of the page, and its server, which only this machine can reach."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from importlib.resources import files
from tempfile import TemporaryDirectory
from typing import Any

import preimage
from preimage.app import drawing, question
from preimage.doctor import prove
from preimage.errors import InputError, PreimageError, extra
from preimage.network import Network
from preimage.pixels import picture
from preimage.report.network import standing

# Disables Gradio's analytics and downloads; it reads these when it is imported.
_OFFLINE = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
_HOSTS = ["127.0.0.1", "localhost"]
_DIGITS = 20  # two of each
_NOISE = 0.05

_NO_SLIDERS: dict[str, Any] = {"latent": [], "error": [], "lower": [], "upper": [], "reach": 1.0}


def build(network: Network, name: str) -> Any:
    """The page for a network, as ``gradio.Blocks``; arguments as in ``served``."""
    import gradio

    def show(sent: Any) -> str:
        """The output of the sliders' code."""
        try:
            asked = question.again(network, sent)
            return drawing.moved(network, asked, *question.move(network, asked, sent))
        except PreimageError as error:
            return drawing.notice(str(error))

    offered = list(question.methods_for(network))
    first = question.canvas_value(network, network(question.random_code(network, 0)))
    with gradio.Blocks(title=f"preimage: {name}", analytics_enabled=False) as page:
        gradio.HTML(_header(network, name))
        with gradio.Row():
            with gradio.Column(scale=1, min_width=300):
                gradio.HTML("<h2>Picture</h2>")
                with gradio.Row():
                    sampled = gradio.Button("Random output", size="sm", min_width=120)
                    upload = gradio.UploadButton("Upload a picture", size="sm", min_width=120)
                canvas = gradio.HTML(
                    first, html_template=_digits(network) + _file("canvas.html"),
                    js_on_load=_file("canvas.js"), elem_classes="canvas", elem_id="canvas",
                )  # fmt: skip
                notice = gradio.HTML("", elem_id="notice")
                noise = gradio.Slider(
                    0.0, 0.3, _NOISE, step=0.01, label="Noise",
                    info="Uniform noise up to this is added, and the methods are told.",
                )  # fmt: skip
                methods = gradio.CheckboxGroup(
                    offered, value=offered[:2], label="Methods",
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
                    _NO_SLIDERS, html_template=_file("sliders.html"),
                    js_on_load=_file("sliders.js"), server_functions=[show],
                    elem_classes="sliders", elem_id="sliders",
                )  # fmt: skip

        def sample() -> tuple[Any, str]:
            return question.canvas_value(network, network(question.random_code(network))), ""

        def read(path: str | None) -> tuple[Any, str]:
            try:
                image = question.read_upload(str(path), network)
            except PreimageError as error:
                return gradio.skip(), drawing.notice(str(error))
            return question.canvas_value(network, image), ""

        def invert(canvas: Any, noise: Any, wanted: list[str]) -> Iterator[tuple[Any, ...]]:
            try:
                yield from _inverted(network, canvas, noise, wanted)
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
    network: Network, canvas: Any, noise: Any, wanted: list[str]
) -> Iterator[tuple[Any, ...]]:
    """Each method's answer as soon as it is there, then the certificate."""
    asked = question.ask(network, canvas, noise)
    answers: list[question.Answer] = []
    for method in wanted or ["auto"]:
        answers.append(question.answer(network, asked, method))
        shown = drawing.pictures(network, asked, answers)
        sliders = drawing.sliders(asked, answers[0], None)
        yield shown, drawing.verdict(None, "Proving what can be proven …"), sliders, ""
    certificate, sentence = prove(network, asked.observation, asked.noise, asked.sensing)
    sliders = drawing.sliders(asked, answers[0], certificate)
    yield shown, drawing.verdict(certificate, sentence), sliders, ""


@contextmanager
def served(
    network: Network, name: str, *, port: int | None = None, browser: bool = True
) -> Iterator[str]:
    """Serve the page of a network, known or run; on leaving, delete what was uploaded.

    Yields a loopback address, at the first free port from 7860 on if none is given. Requests that
    name another host are refused, so that a web page elsewhere cannot reach this one by rebinding
    its name to this machine.
    """
    os.environ.update(_OFFLINE)
    with extra("web", "gradio"):
        import gradio
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware

    theme = gradio.themes.Default(  # with system fonts: none is downloaded
        primary_hue="blue",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    trusted = Middleware(TrustedHostMiddleware, allowed_hosts=_HOSTS)
    with TemporaryDirectory(prefix="preimage-") as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads
        page = build(network, name)
        try:
            page.launch(
                server_name="127.0.0.1", server_port=port, share=False, inbrowser=browser,
                quiet=True, prevent_thread_lock=True, ssr_mode=False, footer_links=[],
                max_file_size=question.UPLOAD.file_bytes, app_kwargs={"middleware": [trusted]},
                theme=theme, css=_file("style.css"),
            )  # fmt: skip
        except OSError as error:
            raise InputError(
                f"port: expected a free one, got {port}: {error}; leave it out for any free one"
            ) from error
        try:
            yield page.local_url
        finally:
            page.close(verbose=False)


def _file(name: str) -> str:
    return (files("preimage.app") / name).read_text(encoding="utf-8")


def _header(network: Network, name: str) -> str:
    layers = escape(repr(network))
    return (
        f"<h1>Which code made this?</h1><p>{escape(name)}: <code>{layers}</code>. Choose a "
        "picture, draw on it, hide parts of it; then find the codes that explain the rest.</p>"
        f'<p class="soft">{standing(network)}</p>'
    )


def _digits(network: Network) -> str:
    """Buttons with real digits, two of each, for a network whose pictures have their size."""
    images, labels = preimage.zoo.digits()
    if images.shape[1] != network.observation_size:
        return ""
    step = len(images) // _DIGITS
    buttons = [
        f'<button type="button" data-digit aria-label="Digit {label}">'
        f"{picture(image, '', 28)}</button>"
        for image, label in zip(images[::step], labels[::step], strict=True)
    ]
    return f'<div class="digits">{"".join(buttons)}</div>'
