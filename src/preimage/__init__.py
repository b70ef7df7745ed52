"""Invert deep generative models with ReLU-like activations."""

from preimage import zoo
from preimage.activation import Activation, Identity, LeakyReLU, ReLU, Sigmoid, Tanh
from preimage.batch import Store, invert_dataset, open_store
from preimage.certify import Certificate, certify, reconstruction_band
from preimage.errors import (
    FormatError,
    InputError,
    MissingExtraError,
    PreimageError,
    StoppedError,
    StoreError,
)
from preimage.generator import Generator, Layer, from_arrays
from preimage.inversion import Inversion, LayerReport, Stage, Status
from preimage.invert import invert
from preimage.io import Limits, from_torch, load, save
from preimage.methods import (
    METHODS,
    Adam,
    Auto,
    BranchAndBound,
    Exact,
    GaussNewton,
    GradientDescent,
    LayerwiseLP,
    ProjectedGradient,
)
from preimage.notebook import show_versions
from preimage.provenance import Provenance, provenance
from preimage.torch_network import TorchNetwork

__version__ = "0.1.0"

__all__ = [
    "METHODS",
    "Activation",
    "Adam",
    "Auto",
    "BranchAndBound",
    "Certificate",
    "Exact",
    "FormatError",
    "GaussNewton",
    "Generator",
    "GradientDescent",
    "Identity",
    "InputError",
    "Inversion",
    "Layer",
    "LayerReport",
    "LayerwiseLP",
    "LeakyReLU",
    "Limits",
    "MissingExtraError",
    "PreimageError",
    "ProjectedGradient",
    "Provenance",
    "ReLU",
    "Sigmoid",
    "Stage",
    "Status",
    "StoppedError",
    "Store",
    "StoreError",
    "Tanh",
    "TorchNetwork",
    "certify",
    "from_arrays",
    "from_torch",
    "invert",
    "invert_dataset",
    "load",
    "open_store",
    "provenance",
    "reconstruction_band",
    "save",
    "show_versions",
    "zoo",
]


def __getattr__(name: str) -> None:
    if name == "hardness":
        raise AttributeError("preimage.hardness is examples/hardness.py of the repository now")
    raise AttributeError(f"module 'preimage' has no attribute {name!r}")
