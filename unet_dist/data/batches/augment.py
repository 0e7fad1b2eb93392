"""Augmentation pipelines of albumentations.

Owns the one import of albumentations. A pipeline draws from a seed given with each sample, never from its own state: with
workers, seeded or not, that state repeats itself.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from unet_dist.data.decoded.labels import IGNORED, ignored_in
from unet_dist.errors import ConfigError, suggest
from unet_dist.wording import first_line

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it looks for updates on the network at import
import albumentations
import cv2


class Deform(albumentations.DualTransform):
    """Rotate, scale and bend a window about its middle, in one interpolation; its shape stays.

    Where it asks for pixels beyond the window, the image is mirrored as at the border of a prediction, and the labels are
    ignored.

    Args:
        rotation_deg: range of the angle, degrees.
        scale: range of the magnification, above 0; drawn evenly in its logarithm, so that halves are as frequent as doubles.
        displacement_px: standard deviation of the displacements on a 3x3 grid over the window, px; between its points they
            are bicubic.
        p: probability of doing anything.
    """

    _targets = (albumentations.core.type_definitions.Targets.IMAGE, albumentations.core.type_definitions.Targets.MASK)

    def __init__(
        self,
        rotation_deg: Sequence[float] = (0.0, 0.0),
        scale: Sequence[float] = (1.0, 1.0),
        displacement_px: float = 0.0,
        p: float = 0.5,
    ) -> None:
        super().__init__(p=p)
        for name, span in (("rotation_deg", rotation_deg), ("scale", scale)):
            if len(span) != 2 or not span[0] <= span[1] or (name == "scale" and span[0] <= 0):
                raise ValueError(f"{name}: got {list(span)}, expected [low, high]{', above 0' * (name == 'scale')}")
        self.rotation_deg = tuple(rotation_deg)
        self.scale = tuple(scale)
        self.displacement_px = displacement_px

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw where each pixel comes from: map_x and map_y (H, W) float32, px."""
        height, width = params["shape"][:2]
        random = self.random_generator
        angle = math.radians(random.uniform(*self.rotation_deg))
        factor = math.exp(-random.uniform(math.log(self.scale[0]), math.log(self.scale[1])))
        rows, cols = np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2
        cosine, sine = factor * math.cos(angle), factor * math.sin(angle)
        map_x = cosine * cols[None] - sine * rows[:, None] + (width - 1) / 2
        map_y = sine * cols[None] + cosine * rows[:, None] + (height - 1) / 2
        if self.displacement_px:
            grid = random.normal(0.0, self.displacement_px, (3, 3, 2))
            bend = cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
            map_x, map_y = map_x + bend[:, :, 0], map_y + bend[:, :, 1]
        return {"map_x": map_x.astype(np.float32), "map_y": map_y.astype(np.float32)}

    def apply(self, img: np.ndarray, map_x: np.ndarray, map_y: np.ndarray, **_: Any) -> np.ndarray:
        """Deform an image (H, W, C)."""
        return cv2.remap(img, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)

    def apply_to_mask(self, mask: np.ndarray, map_x: np.ndarray, map_y: np.ndarray, **_: Any) -> np.ndarray:
        """Deform labels (H, W) alike."""
        return cv2.remap(
            mask, map_x, map_y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=_beyond(mask)
        )


class Augmentation:
    """A pipeline named in the config.

    Args:
        transforms: each {name: Deform or an albumentations class, ...its arguments}, in order.

    Raises:
        ConfigError: an unknown transform or argument, or one that changes the size of the window.
    """

    def __init__(self, transforms: list[dict[str, Any]]) -> None:
        self._transforms = transforms
        self._pipelines = {IGNORED: self._compose(IGNORED)}

    def _compose(self, beyond: int) -> Any:
        """The pipeline of labels that are `beyond` where nothing counts."""
        built = [_build(dict(transform), beyond) for transform in self._transforms]
        return albumentations.Compose(built, additional_targets={"border": "mask"})

    def __call__(
        self, image: np.ndarray, labels: np.ndarray, border: np.ndarray | None = None, *, seed: int
    ) -> tuple[np.ndarray, ...]:
        """Transform an image (H, W, C), its class ids (H, W) and, where given, a border map (H, W) float32 alike.

        The result is a function of the seed.
        """
        beyond = _beyond(labels)
        if beyond not in self._pipelines:
            self._pipelines[beyond] = self._compose(beyond)
        pipeline = self._pipelines[beyond]
        pipeline.set_random_seed(seed)
        planes = {"image": image, "mask": labels, **({} if border is None else {"border": border})}
        try:
            result = pipeline(**{name: np.ascontiguousarray(plane) for name, plane in planes.items()})
        except (ValueError, TypeError, cv2.error) as error:
            if image.dtype == np.uint8 and image.shape[2] in (1, 3):
                raise
            raise ConfigError(
                f"augmentation: a transform does not take {image.dtype} images of {image.shape[2]} channels "
                f"({first_line(error)}). Take out what changes colours; Deform (rotation, scale, bending) takes any."
            ) from error
        moved = result["image"].reshape(*result["image"].shape[:2], -1)
        if moved.shape != image.shape or moved.dtype != image.dtype:
            raise ConfigError(
                f"augmentation: got {moved.dtype} windows of {moved.shape}, expected {image.dtype} of {image.shape} as they went "
                "in. "
                "Remove the transforms that resize, crop or normalise: the window is cut and normalised already."
            )
        return moved, result["mask"], *([] if border is None else [result["border"]])


def _beyond(plane: np.ndarray) -> int:
    """What stands in class ids, or in a border map, where nothing moves in."""
    return ignored_in(plane.dtype) if plane.dtype.kind == "u" else IGNORED


def _build(transform: dict[str, Any], beyond: int) -> Any:
    name = transform.pop("name", None)
    known = {
        key: value
        for key, value in vars(albumentations).items()
        if isinstance(value, type) and issubclass(value, albumentations.BasicTransform)
    } | {"Deform": Deform}
    if name not in known:
        near = suggest(str(name), known).partition("Valid:")[0]  # the whole list would fill the screen
        expected = "expected the name of an albumentations transform"
        raise ConfigError(f"augmentation: got name {name!r}, {expected}. {near}".rstrip())
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in transform.items()}
    import inspect
    import warnings

    parameters = inspect.signature(known[name]).parameters
    unknown = set(arguments) - set(parameters)
    if unknown:
        raise ConfigError(
            f"augmentation: {name}: unknown argument {sorted(unknown)[0]!r}. "
            f"{suggest(sorted(unknown)[0], set(parameters))}"
        )
    # What moves in from beyond the image has no label. Holes (CoarseDropout) keep theirs: their default is none.
    if "fill_mask" in parameters and parameters["fill_mask"].default is not None:
        arguments.setdefault("fill_mask", beyond)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return known[name](**arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"augmentation: {name}: {error}") from None
