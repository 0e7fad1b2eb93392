"""Street scenes made by a procedure: the data set that needs no download.

Owns the numbering: scene `index` of `seed` is one picture and one label map, on any machine and in any process. How a
scene looks is in scenes/.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unet_dist.scenes.classes import SIDEWALK_CLASSES
from unet_dist.scenes.scene import render_scene

__all__ = ["SIDEWALK_CLASSES", "SyntheticScenes"]

_MIN_SIDE = 8


class SyntheticScenes:
    """Street scenes seen from the pavement, with the 35 classes of segments/sidewalk-semantic.

    `render(index)` depends on (seed, index, height, width) alone; another size shows the same scene, squeezed to fit.
    24 of the classes occur. Randomness is Philox, whose stream numpy keeps stable, and Pillow draws the outlines: two machines
    with the same numpy and Pillow make the same bytes. Another Pillow may round an outline differently.
    """

    def __init__(self, num_images: int = 100, height: int = 1080, width: int = 1920, seed: int = 0) -> None:
        """Raises: ValueError where there is no image or a side is under 8 px."""
        if num_images < 1 or height < _MIN_SIDE or width < _MIN_SIDE or seed < 0:
            raise ValueError(
                f"got num_images={num_images}, height={height}, width={width}, seed={seed}; expected num_images >= 1, "
                f"sides >= {_MIN_SIDE} px and seed >= 0"
            )
        self.num_images, self.height, self.width, self.seed = num_images, height, width, seed
        self.class_names = list(SIDEWALK_CLASSES)

    def __len__(self) -> int:
        return self.num_images

    def render(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Draw scene `index`: the picture (height, width, 3) and the label map (height, width), both uint8.

        Raises: IndexError where 0 <= index < len(self) does not hold.
        """
        if not 0 <= index < self.num_images:
            raise IndexError(f"got scene {index}; expected 0..{self.num_images - 1}")
        rng = np.random.Generator(np.random.Philox(key=np.array([self.seed, index], dtype=np.uint64)))
        return render_scene(rng, self.height, self.width)
