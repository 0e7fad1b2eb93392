"""Sample transforms of other people: made from their word, and held to their contract at every crop.

Owns that a transform cannot write into the images that the run keeps, and that a fault in it names its line. Must not know what any
transform does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from unet_dist.config.transforms import TRANSFORMS
from unet_dist.data.batches.crops import SampleTransform
from unet_dist.errors import ConfigError, UnetDistError
from unet_dist.registry import describe_error


def build_transform(augmentation: str | list[dict[str, Any]]) -> SampleTransform:
    """Make what changes crops on the host from what the config says: albumentations transforms, or somebody else's transform.

    Raises:
        ConfigError: there is no such transform, it cannot be imported, or does not take these arguments.
    """
    if isinstance(augmentation, str):
        return CheckedTransform(cast(SampleTransform, TRANSFORMS.build(augmentation)), augmentation)
    from unet_dist.data.batches.augment import Augmentation  # slow to import, and most runs name none

    return Augmentation(augmentation)


@dataclass(frozen=True)
class CheckedTransform:
    """A transform that sees images it cannot write to, and must give back the shapes and types that came in.

    Attributes:
        transform: somebody else's.
        name: what a message calls it.
    """

    transform: SampleTransform
    name: str

    def __call__(
        self, image: np.ndarray, labels: np.ndarray, border: np.ndarray | None = None, *, seed: int
    ) -> tuple[np.ndarray, ...]:
        """Transform as `SampleTransform` says.

        Raises:
            ConfigError: it raises, or gives other shapes or types.
        """
        planes = [_read_only(plane) for plane in (image, labels, border) if plane is not None]
        try:
            moved = self.transform(*planes, seed=seed)
        except UnetDistError:
            raise
        except Exception as error:  # whatever somebody else's code raises
            raise ConfigError(
                f"augmentation: {self.name} failed: {describe_error(error)} Its arrays are read-only: copy what you change."
            ) from error
        expected, got = _describe(planes), _describe(moved)
        if got != expected:
            raise ConfigError(
                f"augmentation: {self.name} gave {got}, expected {expected} as they went in. Mend the transform: the window is cut "
                "and normalised already."
            )
        return tuple(moved)


def _read_only(plane: np.ndarray) -> np.ndarray:
    view = plane.view()
    view.flags.writeable = False
    return view


def _describe(planes: object) -> str:
    if not isinstance(planes, list | tuple):
        return f"a {type(planes).__name__}"
    return ", ".join(
        f"{plane.dtype} {plane.shape}" if isinstance(plane, np.ndarray) else f"a {type(plane).__name__}"
        for plane in planes
    )
