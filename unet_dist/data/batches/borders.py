"""The border weights of the U-Net paper: what a pixel between two objects weighs beyond its class.

Owns the map of an image. It follows from the label of the whole image, so that every crop and every tile of it sees the same
one: an object that a crop cuts in two is one object, and a neighbour beyond the crop's edge is a neighbour.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from unet_dist.data.decoded.labels import Label, ignored_in
from unet_dist.errors import ConfigError

# Maps kept in memory by each process that reads crops. Making one anew takes 0.1 s for 512x512 px with 150 objects.
KEPT_BYTES = 256 * 2**20


@dataclass(frozen=True)
class BorderWeights:
    """Makes the maps of a split's labels and keeps the newest. Safe for threads.

    Source: Ronneberger et al. 2015, equation 2: w0 exp(-(d1 + d2)^2 / (2 sigma^2)), where d1 and d2 are the distances to the
    nearest and the second nearest object.

    Attributes:
        border_class: the class between objects; only its pixels weigh more. The objects are the connected components of every
            other class (8 neighbours, as the paper's cells are parted by at least a pixel).
        weight: w0.
        sigma_px: sigma.
    """

    border_class: int
    weight: float = 10.0
    sigma_px: float = 5.0
    _kept: OrderedDict[int, np.ndarray] = field(default_factory=OrderedDict, repr=False, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def __reduce__(self) -> tuple[object, ...]:
        return BorderWeights, (self.border_class, self.weight, self.sigma_px)  # a worker makes its own maps

    def of(self, index: int, label: Label) -> np.ndarray:
        """The map of a sample: (H, W) float32. Kept by its index.

        Raises:
            ConfigError: the label is read by windows, and the map follows from the whole.
        """
        if not isinstance(label, np.ndarray):
            raise ConfigError(
                f"loss: got border weights, which follow from the whole label, and that of an image of {label.shape[0]} x "
                f"{label.shape[1]} px is read by windows. Leave them out, or raise --max_pixels, with another --cache_path, so "
                "that TIFF is decoded."
            )
        with self._lock:
            if index in self._kept:
                self._kept.move_to_end(index)
                return self._kept[index]
            made = border_map(np.asarray(label[:, :]), self.border_class, weight=self.weight, sigma_px=self.sigma_px)
            self._kept[index] = made
            while len(self._kept) > 1 and sum(kept.nbytes for kept in self._kept.values()) > KEPT_BYTES:
                self._kept.popitem(last=False)
            return made


def border_map(label: np.ndarray, border_class: int, *, weight: float = 10.0, sigma_px: float = 5.0) -> np.ndarray:
    """Weigh the pixels of a border by the distances to the two nearest objects.

    Args:
        label: (H, W) class ids of a whole image.

    Returns:
        (H, W) float32, 0 outside the border and where fewer than two objects are near.
    """
    # Beyond this distance the weight vanishes against 1 in float32.
    reach = math.ceil(sigma_px * math.sqrt(2 * math.log(max(weight, 1.0) * 2**25)))
    nearest, second = np.full((2, *label.shape), np.inf)
    for value in np.unique(label):
        if value in (border_class, ignored_in(label.dtype)):
            continue
        objects, _ = ndimage.label(label == value, structure=np.ones((3, 3)))
        for number, place in enumerate(ndimage.find_objects(objects), start=1):
            box = tuple(slice(max(0, side.start - reach), side.stop + reach) for side in place)
            distance = ndimage.distance_transform_edt(objects[box] != number)
            near, far = nearest[box], second[box]
            np.minimum(far, np.maximum(near, distance), out=far)  # the middle one of three
            np.minimum(near, distance, out=near)
    result = weight * np.exp(-((nearest + second) ** 2) / (2 * sigma_px**2))
    result[label != border_class] = 0.0
    return result.astype(np.float32)
