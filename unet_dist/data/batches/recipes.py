"""Augmentations by name that happen on the device.

Owns what each of them does. Every part is a function of (seed, sample) alone, and the same bytes however a run is cut.
"""

from __future__ import annotations

from dataclasses import dataclass

from unet_dist.data.batches.geometry import Geometry


@dataclass(frozen=True)
class Recipe:
    """What happens to the crops of a run.

    Attributes:
        geometry: where pixels and labels come from; None: from where the crop lies, mirrored or not.
        recolours: whether light and colour change.
        blur_p, noise_p: probability that a crop is blurred, and that it gets noise.
    """

    geometry: Geometry | None = None
    recolours: bool = True
    blur_p: float = 0.0
    noise_p: float = 0.0


RECIPES = {
    "colour": Recipe(),
    # Ronneberger et al. 2015, section 3.1: shifts (which random crops are), rotations, elastic deformations by displacements on a
    # coarse 3x3 grid of 10 px standard deviation, and variations of grey values.
    "paper": Recipe(Geometry(rotation_deg=(-180.0, 180.0), displacement_px=10.0)),
    # Of practice in street scenes; left and right are mirrored by horizontal_flip.
    "street": Recipe(Geometry(scale=(0.75, 1.5), p=0.8), blur_p=0.2),
    "strong": Recipe(Geometry(scale=(0.4, 1.8), rotation_deg=(-10.0, 10.0), p=0.9), blur_p=0.2, noise_p=0.2),
}
"""By the names that the config takes."""
