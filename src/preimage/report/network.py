"""The network's card: known or run, its layers, and which methods can invert it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from preimage.errors import InputError
from preimage.inspection import inspect_generator
from preimage.network import Network, chain_of
from preimage.notebook import number
from preimage.report.page import note, wide_table

KNOWN = (
    "The layers of this network are known: every method, certificates and branch and bound work "
    "on it."
)
RUN = (
    "This network is run by torch, its layers are not known: joint and gradient methods invert "
    "it, and what they find is not proven."
)


def standing(network: Network) -> str:
    """One sentence: whether the layers are known, and what follows."""
    return RUN if chain_of(network) is None else KNOWN


def inspection_of(network: Network | None, digest: str | None = None) -> dict[str, Any] | None:
    """What ``preimage inspect`` finds of the network of that digest; None without a network."""
    if network is None:
        return None
    if digest is not None and network.digest != digest:
        raise InputError(
            f"network: expected the one that was inverted, with SHA-256 {digest[:16]}…, got "
            f"{network.digest[:16]}…"
        )
    return asdict(inspect_generator(network))


def network_card(
    inspection: Mapping[str, Any] | None,
    sizes: Sequence[int],
    digest: str,
    reports: Sequence[Mapping[str, Any]] = (),
) -> str:
    """What is known of a network, and tables of its layers and methods.

    ``sizes`` are those of the latent code and of the layers' outputs, or of the last alone;
    ``digest`` is empty if unknown; ``reports`` hold medians of the ``LayerReport`` of each layer.
    """
    known = note(f"SHA-256 of the network: {digest}") if digest else ""
    chain = " → ".join(map(str, sizes)) or "Unknown"
    if inspection is None:
        hint = "give the network (--network NET) for its layers and what can invert them"
        return f"<p>{chain}; {hint}.</p>{_reports(reports)}{known}"
    layers = inspection["layers"]
    return (
        f"<p>{KNOWN if layers else f'{chain}. {RUN}'}</p>"
        + (wide_table("Layers", *layers_table(inspection)) if layers else "")
        + note(f"{inspection['active_note']} {inspection['rank_note']}")
        + _reports(reports)
        + wide_table("Methods that can invert it", *methods_table(inspection))
        + known
    )


def layers_table(inspection: Mapping[str, Any]) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Columns and a row a layer, as text."""
    columns = ("layer", "sizes", "expansion", "parameters", "activation", "active rows: median",
               "worst", "rank", "needed")  # fmt: skip
    return columns, [
        (str(row["index"]), f"{row['inputs']} → {row['outputs']}", f"{row['expansion']:.2f}",
         f"{row['parameters']:,}", row["activation"], f"{row['active_median']:.0f}",
         str(row["active_worst"]), "" if row["rank_worst"] < 0 else f"{row['rank_median']:.0f}",
         str(row["inputs"]))
        for row in inspection["layers"]
    ]  # fmt: skip


def methods_table(inspection: Mapping[str, Any]) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Columns and a row a method, as text."""
    rows = [(row["method"], row["verdict"], row["reason"]) for row in inspection["methods"]]
    return ("method", "can invert it", "why"), rows


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
