"""How a network predicts: by exact tiles, blended tiles or whole images.

Owns the choice, and the sentence that gives its reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from unet_dist.models.contract import Network
from unet_dist.prediction.blended import BlendedTiles
from unet_dist.prediction.values import Recipe
from unet_dist.prediction.whole import WholeImages


@dataclass(frozen=True)
class Inference:
    """How images are predicted.

    Attributes:
        name: as evaluation-SPLIT.json has it: exact tiles, blended tiles or whole image.
        tiles: None for exact tiles.
        is_asked: whether the user named it.
    """

    name: str
    tiles: BlendedTiles | WholeImages | None
    is_asked: bool

    def told(self, model: Network) -> str | None:
        """Why images are not predicted exactly, in a sentence; None where they are, or where it was asked for."""
        if self.tiles is None or self.is_asked:
            return None
        size = (
            ""
            if model.resize_to is None
            else f" scaled to {model.resize_to[0]}x{model.resize_to[1]}, as it was trained"
        )
        return f"No exact tiles ({model.locality_obstacle}): predicted by {self.name}{size}."


def choose_inference(
    model: Network,
    *,
    blend: bool = False,
    whole: bool = False,
    window_batch: int,
    recipe: Recipe | None = None,
    say: Callable[[str], None],
) -> Inference:
    """Choose how a network predicts: exactly where it is local, else as it was trained, else by blended tiles.

    Args:
        blend, whole: what the user asked for.
        recipe: of a prediction.
        say: told that memory ran out and how it goes on.
    """
    recipe = recipe or Recipe()
    if whole or (model.resize_to is not None and not blend):
        return Inference("whole image", WholeImages(model, recipe), is_asked=whole)
    if blend or model.locality is None:
        return Inference("blended tiles", BlendedTiles(model, recipe, window_batch, say), is_asked=blend)
    return Inference("exact tiles", None, is_asked=False)
