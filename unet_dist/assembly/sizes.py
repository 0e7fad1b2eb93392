"""The sizes of a run: the side of a crop's window, of a prediction's window, and how crops are cut into tiles.

Owns what a config and a network say together about pixels. Knows nothing of data or processes.
"""

from __future__ import annotations

from typing import Literal

from unet_dist.config.sections import Config
from unet_dist.errors import SizeError
from unet_dist.models.contract import Network, TrainableNetwork
from unet_dist.terminal import Teller
from unet_dist.tiling.crop_plan import CropPlanner
from unet_dist.tiling.geometry import (
    DEFAULT_TILE_SIZE_PX,
    WindowSizes,
    aligned_halo,
    default_tile_size,
    smallest_tile_size,
)
from unet_dist.tiling.gradient import require_separable


def plan_crops(config: Config, model: TrainableNetwork, side: int | None) -> CropPlanner:
    """How training crops are cut into tiles.

    Args:
        side: of the crop's window, px; None for whole images.

    Raises:
        SizeError: the network does not take windows of tile_size.
        LocalityError: tiles or split samples would change the gradient of this network; names the layer.
    """
    wanted = config.run.tile_size
    if wanted is not None:
        wanted = int(model.window_sizes.require(wanted, "tile_size"))
    if wanted is not None and (side is None or wanted < side):
        require_separable(model, f"tile_size {wanted} below input_size {side or 'full'}", by_pixels=True)
        assert model.locality is not None, "separable by pixels"
        smallest = smallest_tile_size(model.window_sizes, model.locality)
        if wanted < smallest:
            raise SizeError(
                f"tile_size: got {wanted}, expected {smallest} or more for this network. Set --tile_size {smallest}."
            )
    if config.schedule.split_sample:
        require_separable(model, "split_sample true", by_pixels=False)
    if side is None:
        require_separable(model, "input_size full", by_pixels=False)
    return CropPlanner(model.window_sizes, model.locality, training_halo(model), wanted)


def training_halo(model: Network) -> int:
    """Pixels that a training output leaves out on each side of its window: the halo where there is one, else the margin."""
    sizes: WindowSizes = model.window_sizes
    return sizes.margin if model.locality is None else aligned_halo(sizes, model.locality)


def resolve_input_size(wanted: int | Literal["full"], model: Network, teller: Teller) -> int | None:
    """The window's side for an input size: itself where it is valid; an even one that is not is rounded up, and said.

    None for full, where each image has its own.

    Raises:
        SizeError: an odd side that is not valid, or one that leaves no output.
    """
    sizes: WindowSizes = model.window_sizes
    if wanted == "full":
        return None
    if not sizes.is_valid(wanted) and wanted % 2:
        sizes.require(wanted, "input_size")
    side = sizes.round_up(wanted)
    smallest = sizes.minimum if model.locality is None else smallest_tile_size(sizes, model.locality)
    if side < smallest:
        raise SizeError(
            f"input_size: got {wanted}, expected {smallest} or more for this network. Set --input_size {smallest}."
        )
    if side != wanted:
        teller.say(
            f"input_size {wanted} is not a side this network takes: rounded up to {side}, output {side - 2 * training_halo(model)}."
        )
    return side


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
