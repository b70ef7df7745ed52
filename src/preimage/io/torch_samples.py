"""A function of one latent, for batches; torch is imported with this module."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def by_sample(run: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """``run`` of each latent of a batch."""
    if len(z) == 1:  # as torch is to trace it
        return run(z[0])[None]
    return torch.func.vmap(run)(z)


class BySample(torch.nn.Module):
    """A module whose forward takes one latent at a time.

    Args:
        module: Its output may have any shape.
        shape: Of the latent that it takes.
    """

    def __init__(self, module: torch.nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.module, self.shape = module, shape

    def forward(self, z: Tensor) -> Tensor:
        """The outputs of latents, both with a leading batch dimension, flattened."""
        return by_sample(lambda one: self.module(one.reshape(self.shape)).reshape(-1), z)
