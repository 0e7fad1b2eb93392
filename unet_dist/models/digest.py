"""The digest of a network: all that it computes with, so that a prediction resumes with the same one alone."""

from __future__ import annotations

import hashlib
import json

import torch

from unet_dist.imaging.pixels import EIGHT_BIT
from unet_dist.models.answers import answers_of
from unet_dist.models.contract import Network, pixels_of


def digest_of(model: Network) -> str:
    """A digest of all that the model computes with."""
    sha = hashlib.sha256(repr(model).encode())
    sha.update(repr((list(model.mean), list(model.std), model.ignore_index)).encode())
    if (thresholds := answers_of(model).thresholds) is not None:
        sha.update(repr(thresholds).encode())
    sha.update(json.dumps(pixels_of(model).record()).encode() if pixels_of(model) != EIGHT_BIT else b"")
    for name, tensor in sorted(model.state_dict().items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()
