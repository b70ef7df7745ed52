"""Verdicts with proofs: ``certify`` finds them, ``checker`` believes none of them."""

from preimage.certify.band import reconstruction_band
from preimage.certify.certificate import Certificate
from preimage.certify.certify import certify

__all__ = ["Certificate", "certify", "reconstruction_band"]
