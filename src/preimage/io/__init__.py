"""Generators and observations in files; generators in torch modules."""

from preimage.io.generators import load, save
from preimage.io.limits import Limits
from preimage.io.torch_module import from_torch

__all__ = ["Limits", "from_torch", "load", "save"]
