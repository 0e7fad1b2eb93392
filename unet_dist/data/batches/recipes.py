"""Augmentations by name that happen on the device.

Owns what each of them does. Every part is a function of (seed, sample) alone, and the same bytes however a run is cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unet_dist.data.batches.colour import Colours, draw_colours
from unet_dist.data.batches.geometry import Geometry
from unet_dist.data.batches.texture import Textures, draw_textures
from unet_dist.data.batches.trivial import draw_operations
from unet_dist.imaging.image import ImageReader


@dataclass(frozen=True)
class Recipe:
    """What happens to the crops of a run.

    Attributes:
        geometry: where pixels and labels come from; None: from where the crop lies, mirrored or not.
        recolours: whether light and colour change.
        blur_p, noise_p: probability that a crop is blurred, and that it gets noise.
        is_trivial: whether one random operation takes the place of both.
    """

    geometry: Geometry | None = None
    recolours: bool = True
    blur_p: float = 0.0
    noise_p: float = 0.0
    is_trivial: bool = False

    def draw(
        self, seed: int, keys: Sequence[tuple[int, int, int]], readers: Sequence[ImageReader]
    ) -> tuple[Colours | None, Textures | None]:
        """Draw what happens to the light, colour and texture of windows.

        Args:
            keys: of each, its sample's position in the run and the row and the column of its first pixel in the crop.
            readers: of each, the image of its sample.
        """
        positions = [position for position, _, _ in keys]
        if self.is_trivial:
            return draw_operations(seed, positions, readers)
        textures = None
        if self.geometry is not None:
            textures = draw_textures(seed, list(keys), blur_p=self.blur_p, noise_p=self.noise_p)
        return draw_colours(seed, positions) if self.recolours else None, textures


RECIPES = {
    "colour": Recipe(),
    # Ronneberger et al. 2015, section 3.1: shifts (which random crops are), rotations, elastic deformations by displacements on a
    # coarse 3x3 grid of 10 px standard deviation, and variations of grey values.
    "paper": Recipe(Geometry(rotation_deg=(-180.0, 180.0), displacement_px=10.0)),
    # Of practice in street scenes; left and right are mirrored by horizontal_flip.
    "street": Recipe(Geometry(scale=(0.75, 1.5), p=0.8), blur_p=0.2),
    "strong": Recipe(Geometry(scale=(0.4, 1.8), rotation_deg=(-10.0, 10.0), p=0.9), blur_p=0.2, noise_p=0.2),
    # The geometry of "street", so that the two differ in light and colour only.
    "trivial": Recipe(Geometry(scale=(0.75, 1.5), p=0.8), is_trivial=True),
}
"""By the names that the config takes."""
