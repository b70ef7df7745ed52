"""The network's card: its layers, how far they expand, and which methods can invert it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from preimage.errors import InputError
from preimage.generator import Generator
from preimage.inspection import inspect_generator
from preimage.notebook import number
from preimage.report.page import note, wide_table


def inspection_of(generator: Generator | None, digest: str | None = None) -> dict[str, Any] | None:
    """What ``preimage inspect`` finds; None without a network.

    Raises:
        InputError: The network is not that of ``digest``.
    """
    if generator is None:
        return None
    if digest is not None and generator.digest != digest:
        raise InputError(
            f"network: expected the one of the result, SHA-256 {digest[:16]}…, got "
            f"{generator.digest[:16]}…"
        )
    return asdict(inspect_generator(generator))


def network_card(
    inspection: Mapping[str, Any] | None,
    sizes: Sequence[int],
    digest: str,
    reports: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Tables of layers and methods.

    Args:
        inspection: From ``inspection_of``.
        sizes: Of the latent code and of every layer's output, or of the first and last only.
        digest: SHA-256; empty if unknown.
        reports: Medians of the ``LayerReport`` of each layer, of a layer-wise method.
    """
    known = note(f"SHA-256 of the network: {digest}") if digest else ""
    if inspection is None:
        chain = " → ".join(map(str, sizes))
        hint = "give the network (--network NET) for its layers and what can invert them"
        return f"<p>{chain or 'Unknown'}; {hint}.</p>{_reports(reports)}{known}"
    layers = [
        (row["index"], row["inputs"], row["outputs"], f"{row['expansion']:.2f}",
         row["activation"], f"{row['parameters']:,}", f"{row['active_median']:.0f}",
         row["active_worst"], row["inputs"])
        for row in inspection["layers"]
    ]  # fmt: skip
    columns = ("layer", "inputs", "outputs", "expansion", "activation", "parameters",
               "active rows: median", "worst", "needed")  # fmt: skip
    methods = [(row["method"], row["verdict"], row["reason"]) for row in inspection["methods"]]
    return (
        wide_table("Layers", columns, layers)
        + note(f"{inspection['active_note']} {inspection['rank_note']}")
        + _reports(reports)
        + wide_table("Methods that can invert it", ("method", "can invert it", "why"), methods)
        + known
    )


def _reports(reports: Sequence[Mapping[str, Any]]) -> str:
    if not reports:
        return ""
    names = ("slack", "tolerance", "active", "rank")
    rows = [
        (i, *("–" if report.get(n) is None else number(float(report[n])) for n in names))
        for i, report in enumerate(reports)
    ]
    columns = ("layer", "slack", "tolerance", "active rows", "rank")
    return wide_table("What each layer's step did", columns, rows) + note(
        "Medians over the samples; a layer determines its input where the rank reaches its inputs."
    )
