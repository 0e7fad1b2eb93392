"""How a network predicts: by exact tiles, blended tiles or whole images.

Owns the choice, and the sentence that gives its reason.
"""

from __future__ import annotations

from collections.abc import Callable

from unet_dist.errors import LocalityError
from unet_dist.models.contract import Network
from unet_dist.prediction.blended import BlendedTiles
from unet_dist.prediction.exact import ExactTiles
from unet_dist.prediction.tiles import EXACT, WHOLE, Tiles
from unet_dist.prediction.values import Recipe
from unet_dist.prediction.whole import WholeImages


def choose_tiles(
    model: Network,
    recipe: Recipe = Recipe(),  # noqa: B008, it is frozen
    *,
    blend: bool = False,
    whole: bool = False,
    window_batch: int,
    must_be_asked: bool = False,
    say: Callable[[str], None],
) -> Tiles:
    """Choose how a network predicts: exactly where it is local, else as it was trained, else by blended tiles.

    Args:
        recipe: the outputs of each pixel.
        blend, whole: what the user asked for.
        must_be_asked: refuse to blend unasked, as whoever gets the labels is to know that they depend on the tile size.
        say: prints that memory ran out and with which windows the work continues.

    Raises:
        LocalityError: a network without a finite halo, and blending must be asked for.
        ConfigError: the recipe needs a finite halo.
    """
    if whole or (model.resize_to is not None and not blend):
        return WholeImages(model, recipe)
    if blend or (model.locality is None and not must_be_asked):
        return BlendedTiles(model, recipe, window_batch=window_batch, say=say)
    try:
        return ExactTiles(model, recipe, window_batch=window_batch, say=say)
    except LocalityError as error:
        raise LocalityError(
            f"{error} Or add --blend true: then the labels do depend on the tile size; or "
            "--whole true: then memory grows with the image."
        ) from None


def reason_of(tiles: Tiles) -> str | None:
    """Why images are not predicted exactly, in a sentence; None where they are."""
    if tiles.name == EXACT:
        return None
    scale = tiles.model.resize_to if tiles.name == WHOLE else None
    size = "" if scale is None else f" scaled to {scale[0]}x{scale[1]}, as it was trained"
    return f"No exact tiles ({tiles.model.locality_obstacle}): predicted by {tiles.name}{size}."
