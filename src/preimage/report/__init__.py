"""One HTML file that shows a result: of ``preimage invert``, ``certify`` or ``batch``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from preimage.batch.store import METADATA, open_store
from preimage.errors import FormatError, InputError
from preimage.network import Network, known_chain
from preimage.report.certificates import certificates_page, find_certificates
from preimage.report.inversions import run_page, store_page
from preimage.report.run import SUMMARY, write_run

__all__ = ["report_html", "write_run"]


def report_html(
    path: str | Path,
    *,
    generator: Network | None = None,
    observations: Any = None,
    sensing: Any = None,
) -> str:
    """The report on what a command wrote, as one page.

    Args:
        path: A folder that ``preimage invert`` or ``write_run`` wrote, a store of ``preimage
            batch``, or a certificate (or a folder of them).
        generator: The network, known or run, for its card and the reconstructions; an inversion's
            folder holds both already.
        observations: A path or an array; they need the network. Of a store, for their pictures:
            only the rows that are drawn are read. A certificate's are compared with those in it.
        sensing: What was seen of them, as given to ``preimage.invert`` or ``certify``.

    Returns:
        HTML without scripts or external links.

    Raises:
        FormatError: No result of these commands, or a damaged file.
        StoreError: A damaged store.
        InputError: Another network, or other observations, than those of the result.
        MissingExtraError: matplotlib is not installed.
    """
    path = Path(path)
    if observations is not None and generator is None:
        raise InputError("observations: expected them with the network that they are compared with")
    if (path / SUMMARY).exists():
        if observations is not None:
            raise InputError(f"{path}: expected no observations, an inversion's folder holds them")
        return run_page(path, generator)
    if (path / METADATA).exists():
        return store_page(open_store(path), generator, observations, sensing)
    certificates = find_certificates(path)
    if not certificates:
        raise FormatError(
            f"{path}: expected the output of `preimage invert` (summary.json), a store of "
            "`preimage batch` (zarr.json), or a certificate of `preimage certify`"
        )
    chain = None if generator is None else known_chain(generator, "a certificate")
    return certificates_page(certificates, chain, observations, sensing)
