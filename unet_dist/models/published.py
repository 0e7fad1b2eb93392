"""Checkpoints that transformers wrote: their weights, and how their images were prepared.

Owns the two files beside config.json. Nothing of them is executed: weights are safetensors, or, for the checkpoints from
before it, a pickle read by torch's weights-only reader, which knows tensors and plain containers and no code.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor

from unet_dist.errors import CheckpointError
from unet_dist.models.pretrained import PICKLE_FILE, PROCESSOR_FILE
from unet_dist.models.weights import WEIGHTS_FILE, load_weights
from unet_dist.storage.typed import read_json
from unet_dist.wording import first_line

# The defaults of transformers' image processor for SegFormer, which hold for every key that a file leaves out.
_MEAN, _STD, _SIZE = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], {"height": 512, "width": 512}


class _ProcessorFile(TypedDict, total=False):
    """preprocessor_config.json, as far as it describes the scaling of pixels."""

    rescale_factor: float
    do_rescale: bool | None
    image_mean: list[float]
    image_std: list[float]
    do_normalize: bool | None
    do_resize: bool | None
    size: int | dict[str, int]


@dataclass(frozen=True)
class Processor:
    """How a published network's images are prepared.

    Attributes:
        mean, std: one per channel, in units of uint8 (0 to 255).
        resize_to: (height, width) to which an image of any size and shape is scaled; None leaves it as it is.
    """

    mean: list[float]
    std: list[float]
    resize_to: tuple[int, int] | None


def read_processor(folder: Path) -> Processor:
    """Read preprocessor_config.json; without one, what the library does by default.

    Raises:
        CheckpointError: it is damaged, or scales in a way that is not known here.
    """
    file = folder / PROCESSOR_FILE
    fields: _ProcessorFile = {}
    if file.is_file():
        remedy = "Download the checkpoint again."
        fields = read_json(file, _ProcessorFile, error=CheckpointError, remedy=remedy)
    # In units of uint8: (pixel * factor - mean) / std = (pixel - mean / factor) / (std / factor).
    factor = float(fields.get("rescale_factor", 1 / 255)) if fields.get("do_rescale", True) else 1.0
    if factor <= 0:
        raise CheckpointError(
            f"{file}: got rescale_factor {factor}, expected one above 0. Download the checkpoint again."
        )
    mean: Sequence[float] = fields.get("image_mean", _MEAN)
    std: Sequence[float] = fields.get("image_std", _STD)
    if not fields.get("do_normalize", True):
        mean, std = [0.0] * len(mean), [1.0] * len(std)
    resize_to = _read_size(fields.get("size", _SIZE), file) if fields.get("do_resize", True) else None
    return Processor([m / factor for m in mean], [s / factor for s in std], resize_to)


def _read_size(size: Any, file: Path) -> tuple[int, int]:
    if isinstance(size, int):  # of releases before 4.26: the side of a square
        return size, size
    if isinstance(size, dict) and {"height", "width"} <= set(size):
        return int(size["height"]), int(size["width"])
    raise CheckpointError(
        f"{file}: got size {json.dumps(size)}, expected a height and a width, or one side of a square. Such scaling is not "
        "known here: mend the file, or take another checkpoint."
    )


_SAFE_PICKLES = (2, 10)
"""The release of torch whose weights_only reader no longer corrupts memory for made-up files (CVE-2026-24747)."""


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read a checkpoint's tensors by the names in its file, on the CPU.

    Raises:
        CheckpointError: there are none, or the file is damaged, or holds more than dense tensors, or is a pickle that this torch
            cannot read safely.
    """
    if (folder / WEIGHTS_FILE).is_file():
        return load_weights(folder / WEIGHTS_FILE)
    file = folder / PICKLE_FILE
    if tuple(int(number) for number in torch.__version__.split(".")[:2]) < _SAFE_PICKLES:
        raise CheckpointError(
            f"{file} is a pickle, which torch {torch.__version__} does not read safely (CVE-2026-24747). Install torch "
            f"{'.'.join(map(str, _SAFE_PICKLES))} or newer, or take a checkpoint with {WEIGHTS_FILE}."
        )
    try:
        weights = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = first_line(error)
        raise CheckpointError(
            f"{file} is damaged, or holds more than tensors, and is not read ({reason}). Download it again, or take a checkpoint "
            f"with {WEIGHTS_FILE}."
        ) from None
    # The numbers of a sparse tensor are not checked against its sides: to compute with it reads beyond its memory.
    if not isinstance(weights, dict) or not all(
        isinstance(tensor, Tensor) and tensor.layout is torch.strided for tensor in weights.values()
    ):
        raise CheckpointError(f"{file} is not a table of dense tensors. Take a checkpoint with {WEIGHTS_FILE}.")
    return dict(weights)
