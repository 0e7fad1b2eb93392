"""The procedural street scenes as a source of pairs.

Owns their signature: the arguments and the code that draws. How a scene looks is in scenes/.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import PIL

from unet_dist.data.sources.fingerprint import digest_text
from unet_dist.data.sources.pairs import RawPair
from unet_dist.errors import ConfigError

SYNTHETIC = "synthetic"


class SyntheticSource:
    """The procedural street scenes, as pixels: a function of (number of images, size, seed) and the drawing's code."""

    name = SYNTHETIC
    files_root: Path | None = None

    def __init__(self, num_images: int, size: tuple[int, int], seed: int) -> None:
        from unet_dist.scenes.synthetic import SyntheticScenes

        self._arguments = (num_images, *size, seed)
        try:
            self._scenes = SyntheticScenes(num_images, *size, seed=seed)
        except ValueError as error:
            raise ConfigError(f"data_path {SYNTHETIC}: {error}. Correct synthetic_images or synthetic_size.") from error
        self.fixed_shape: tuple[int, int, int] | None = (*size, 3)

    @property
    def splits(self) -> dict[str, int]:
        """The number of samples of each split."""
        return {"train": self._arguments[0]}

    def read_id_names(self) -> dict[int, str] | None:
        """Class names by the ids of the masks, None where the source has none."""
        return dict(enumerate(self._scenes.class_names))

    def read_pair(self, split: str, index: int) -> RawPair:
        """Read one image and its mask."""
        image, label = self._scenes.render(index)
        name = f"scene-{index:05d}"
        return RawPair(id=name, image=image, mask=label, image_name=name, mask_name=name)

    def signature(self, memo_path: Path) -> str:
        """A text that changes with the content; it names the decoded cache."""
        code = sorted((path for path in files("unet_dist.scenes").iterdir() if path.name.endswith(".py")), key=str)
        texts = [path.read_text(encoding="utf-8") for path in code]
        # Another Pillow may round an outline differently, and that is another picture.
        return digest_text(SYNTHETIC, repr(self._arguments), np.__version__, PIL.__version__, *texts)
