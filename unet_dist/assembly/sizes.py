"""The sizes of a run: the side of a crop's window, of a prediction's window, and how crops are cut into tiles.

Owns what a config and a network say together about pixels. Knows nothing of data or processes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

import torch

from unet_dist.assembly.objective import refuse_whole_images
from unet_dist.config.batch_cut import BatchCut, cut_batch
from unet_dist.config.sections import Config
from unet_dist.errors import ConfigError, SizeError
from unet_dist.machine.memory import free_bytes
from unet_dist.models.contract import Network, TrainableNetwork
from unet_dist.planner.fitting import CUDA_CONTEXT_BYTES
from unet_dist.terminal import Teller
from unet_dist.tiling.crop_plan import CropPlanner
from unet_dist.tiling.geometry import (
    DEFAULT_TILE_SIZE_PX,
    WindowSizes,
    aligned_halo,
    default_tile_size,
)

_LITTLE = 8
"""Where less than one in so many pixels of a window counts, most of the work is for context. Assumption; with one in sixteen the
quick start reached 0.60 where all reached 0.76 (experiments.md)."""

_SHARE_OF_FREE = 0.8
"""Of the free memory, what tiles of `auto` may take: the rest is for reading, writing and whoever else is there. Assumption."""


@dataclass(frozen=True)
class CropSizes:
    """How the crops of a run are cut.

    Attributes:
        side: of a crop's window, px; None for whole images.
        planner: cuts crops into tiles.
        cut: of the global batch.
    """

    side: int | None
    planner: CropPlanner
    cut: BatchCut


def settle_crops(config: Config, model: TrainableNetwork, world_size: int, teller: Teller) -> CropSizes:
    """Settle the sizes of a run's crops and how its batch is cut.

    Args:
        model: the network, or its skeleton.

    Raises:
        ConfigError, SizeError, LocalityError: they cannot be as the config says.
    """
    schedule = config.schedule
    side = resolve_input_size(schedule.input_size, model, teller, context_px=schedule.context_px)
    planner = CropPlanner.of(
        model,
        side=side,
        tile_size=config.run.tile_size,
        splits_samples=bool(schedule.split_sample),
        context_px=schedule.context_px,
    )
    cut = cut_batch(schedule, world_size, has_tiles=planner.cuts(side))
    if planner.cuts(side) or cut.splits_samples:
        refuse_whole_images(schedule.loss, "split_sample" if cut.splits_samples else "tile_size")
    return CropSizes(side, planner, cut)


def refuse_beyond_memory(skeleton: Network, crops: CropSizes) -> None:
    """Refuse what cannot fit by any account: weights, gradient and two moments, or the pixels of one micro-batch.

    Raises:
        ConfigError: more than this machine's memory.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    parameters = sum(p.numel() for p in skeleton.parameters())
    if 16 * parameters > memory:
        raise ConfigError(
            f"base_channels, depth: got a network of {parameters:,} parameters, which with gradient and moments takes "
            f"{16 * parameters / 2**30:,.0f} GiB; this machine has {memory / 2**30:,.0f} GiB. Set a smaller --base_channels."
        )
    cut, side = crops.cut, crops.side or 0
    window = min(side, crops.planner.tile_size or side)
    pixels = cut.micro_batch_size * window**2
    if not cut.splits_samples and pixels > memory:
        raise ConfigError(
            f"batch_size, input_size: got {cut.micro_batch_size} windows of {window}x{window} at a time, whose pixels alone take "
            f"{pixels / 2**30:,.0f} GiB; this machine has {memory / 2**30:,.0f} GiB. Set a smaller --micro_batch_size, or a "
            "--tile_size."
        )


def training_halo(model: Network, context_px: int | None = None) -> int:
    """Pixels that a training output leaves out on each side of its window: the halo where there is one, else the margin.

    Args:
        context_px: as the user said it, instead.
    """
    if context_px is not None:
        return context_px
    sizes: WindowSizes = model.window_sizes
    return sizes.margin if model.locality is None else aligned_halo(sizes, model.locality)


def resolve_input_size(
    wanted: int | Literal["full"], model: Network, teller: Teller, *, context_px: int | None = None
) -> int | None:
    """The window's side for an input size: itself where it is valid; an even one that is not is rounded up, and said.

    None for full, where each image has its own.

    Args:
        context_px: as the user said it: how much of a window leaves no output.

    Raises:
        SizeError: an odd side that is not valid, or one that leaves no output.
    """
    sizes: WindowSizes = model.window_sizes
    if wanted == "full":
        return None
    if not sizes.is_valid(wanted) and wanted % 2:
        sizes.require(wanted, "input_size")
    side = sizes.round_up(wanted)
    halo = training_halo(model, context_px)
    smallest = sizes.round_up(2 * halo + (1 if model.locality is None else model.locality.stride))
    if side < smallest:
        remedy = ", or --context_px 0, with which all of a window counts" if _may_count_all(model, context_px) else ""
        raise SizeError(
            f"input_size: got {wanted}, expected {smallest} or more for this network. Set --input_size {smallest}{remedy}."
        )
    output = side - 2 * halo
    if side != wanted:
        teller.say(f"input_size {wanted} is not a side this network takes: rounded up to {side}, output {output}.")
    if output**2 * _LITTLE < side**2 and _may_count_all(model, context_px):
        teller.say(
            f"Only {output}x{output} of the {side}x{side} px of a training window count, as the rest is context. "
            "--context_px 0 lets all count, for worse borders; a larger --input_size lets more count."
        )
    return side


def _may_count_all(model: Network, context_px: int | None) -> bool:
    """Whether --context_px 0 is open: the network pads its windows, and nobody said how much is context."""
    return context_px is None and model.window_sizes.margin == 0 and model.locality is not None


def resolve_tile_size(wanted: int | None, model: Network, trained: Config | None) -> int:
    """The largest side of a prediction window, px.

    Args:
        wanted: by the user, strict.
        model: the network.
        trained: the run it is of, if any. Its tile_size bounds memory, so it is kept; else windows are of the usual side, or of the
            input size where that is larger: the labels are the same, and small windows compute many pixels more than once.

    Raises:
        SizeError: the wanted side is not valid.
    """
    sizes: WindowSizes = model.window_sizes
    if wanted is None and trained is not None:
        wanted = trained.run.tile_size
    if wanted is not None:
        return int(sizes.require(wanted, "tile_size"))
    input_size = trained.schedule.input_size if trained is not None else None
    side = sizes.round_up(input_size) if isinstance(input_size, int) else None
    if model.locality is None:  # what it sees of an image depends on the window: as in training
        return side or sizes.round_down(DEFAULT_TILE_SIZE_PX) or sizes.minimum
    return max(side or 0, default_tile_size(sizes, model.locality))


def memory_of_process(model: Network, device: torch.device) -> int:
    """Say how many bytes a process may have for weights and activations of a prediction; the weights are there already."""
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    context = CUDA_CONTEXT_BYTES if device.type == "cuda" else 0
    return int(_SHARE_OF_FREE * free_bytes(device, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))) + weights + context
