"""The pictures that an evaluation keeps for the page: an image, its label and its prediction.

Owns which are kept, the files' form, and how they travel inside a page. Each is stored once: labels as class ids, so that the
page colours them and switches classes on and off by itself; overlapping classes as the bytes of their packed planes, the planes
of the first four classes on top and those of the next four below.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unet_dist.data.decoded.labels import IGNORED, ignored_in
from unet_dist.data.decoded.planes import PRESENT, holds_planes, pack
from unet_dist.errors import DataError
from unet_dist.imaging.encoded import parsing
from unet_dist.imaging.palette import class_palette, colour_table
from unet_dist.imaging.stretch import as_picture
from unet_dist.report.figures import Sample
from unet_dist.storage.files import write_whole
from unet_dist.storage.held import held
from unet_dist.storage.refusals import writing_failed
from unet_dist.storage.typed import read_bytes

PICTURES_FOLDER = "pictures"
MAX_SIDE_PX = 960
"""Of a kept picture: what a page shows at most."""

_IMAGE, _LABEL, _PREDICTION = ".webp", "-label.png", "-prediction.png"


@dataclass(frozen=True)
class Choice:
    """A picture to be kept: the image's number in its split, and why it is."""

    index: int
    reason: str
    """spread (over the split) or worst."""


def choose_pictures(mious: Sequence[float | None], count: int) -> list[Choice]:
    """Choose images spread evenly over a split, and as many of the lowest mean IoU; none twice.

    Args:
        mious: of each image; None where it has no valid pixel.
    """
    count = min(count, len(mious))
    spread = [round(i * (len(mious) - 1) / max(1, count - 1)) for i in range(count)]
    known = sorted((miou, index) for index, miou in enumerate(mious) if miou is not None and index not in spread)
    return [Choice(i, "spread") for i in spread] + [Choice(i, "worst") for _, i in known[:count]]


def picture_name(split: str, index: int) -> str:
    """The stem of a picture's files: an id may hold what no file name does."""
    return f"{split}-{index:05d}"


def write_sample(folder: Path, name: str, sample: Sample, num_classes: int) -> None:
    """Write an image as WebP, label and prediction as PNGs of class ids or planes, each shown at most MAX_SIDE_PX wide and high.

    Raises:
        DataError: the disk refuses.
    """
    height, width = sample.label.shape
    shrink = min(1.0, MAX_SIDE_PX / max(height, width))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    picture = as_picture(sample.image)
    shown = picture if picture.shape[2] == 3 else picture[:, :, 0]
    image = Image.fromarray(np.ascontiguousarray(shown)).resize(size, Image.Resampling.LANCZOS)
    _write(folder / f"{name}{_IMAGE}", image, "WEBP", quality=80, method=4)
    palette = colour_table(class_palette(num_classes))
    if overlap := holds_planes(sample.label.dtype):
        sample = sample._replace(prediction=pack(sample.prediction.transpose(1, 2, 0)))
    for suffix, ids in ((_LABEL, sample.label), (_PREDICTION, sample.prediction)):
        if ids.dtype == np.uint8 and num_classes > IGNORED:  # of data with fewer classes than the network has
            ids = np.where(ids == IGNORED, ignored_in(np.dtype(np.uint16)), ids)
        shrunk = np.concatenate(
            [
                np.asarray(Image.fromarray(np.ascontiguousarray(part)).resize(size, Image.Resampling.NEAREST))
                for part in (_bytes_of(ids) if overlap else [ids])
            ]
        )
        plane = Image.fromarray(shrunk)
        if ids.dtype == np.uint8:
            plane.putpalette(palette.tobytes())
        _write(folder / f"{name}{suffix}", plane, "PNG", optimize=True)


def _bytes_of(planes: np.ndarray) -> np.ndarray:
    """The bytes of packed planes (H, W), the lowest first: (bytes, H, W) uint8, four classes in each."""
    size = planes.dtype.itemsize
    lowest_first = np.ascontiguousarray(planes, planes.dtype.newbyteorder("<"))
    return lowest_first.view(np.uint8).reshape(*planes.shape, size).transpose(2, 0, 1)


def remove_pictures(folder: Path, split: str, kept: Sequence[str]) -> None:
    """Remove the pictures of a split that an earlier evaluation kept and this one does not; what else lies there stays.

    Raises:
        DataError: the folder is a link, or its files cannot be removed.
    """
    suffixes = (_IMAGE, _LABEL, _PREDICTION)
    names = {name + suffix for name in kept for suffix in suffixes}
    if not os.path.lexists(folder):
        return
    try:
        with held(folder, follows=False) as place:
            for name in os.listdir(place):
                if name.startswith(f"{split}-") and name.endswith(suffixes) and name not in names:
                    os.unlink(name, dir_fd=place)
    except OSError as error:
        raise writing_failed(folder, error) from error


def embed_picture(folder: Path, name: str) -> dict[str, Any] | None:
    """Read a kept picture as data URIs: image, label, prediction, width, height, the class ids that occur and whether they overlap.

    Class ids travel as grey values: what a browser reads back from a palette are colours. Of 16 bits
    red is the lower byte and green the upper one. Overlapping classes are grey values too, of 2, 4 or 8 times the height.

    Returns:
        None where a file is missing or damaged: an evaluation may be at work.
    """
    if Path(name).name != name:  # a file of an evaluation is not where a record of others says
        return None
    try:
        with parsing(name):
            image = read_bytes(folder / f"{name}{_IMAGE}")
            with Image.open(io.BytesIO(image), formats=["WEBP"]) as picture:
                width, height = _small(picture).size
            ids = [np.asarray(_open_ids(folder / f"{name}{suffix}")) for suffix in (_LABEL, _PREDICTION)]
    except DataError:
        return None
    times = ids[0].shape[0] // height
    overlap = times > 1
    if times not in (1, 2, 4, 8) or any(part.shape != (times * height, width) for part in ids):
        return None
    if overlap:
        if any(part.dtype != np.uint8 for part in ids):
            return None
        classes = {k for part in ids for k in _present_in(part.reshape(times, height, width))}
    else:
        classes = {int(value) for part in ids for value in np.unique(part)} - {ignored_in(ids[0].dtype)}
    encoded = [_data_uri(_encode(Image.fromarray(_as_bytes(part)), "PNG", optimize=True), "png") for part in ids]
    return {
        "image": _data_uri(image, "webp"),
        "label": encoded[0],
        "prediction": encoded[1],
        "width": width,
        "height": height,
        "overlap": overlap,
        "classes": sorted(classes),
    }


def _present_in(parts: np.ndarray) -> set[int]:
    """The classes that occur in bytes of planes, (bytes, H, W)."""
    codes = parts[:, None] >> 2 * np.arange(4, dtype=np.uint8)[:, None, None] & 3  # (bytes, 4, H, W)
    return set(np.flatnonzero((codes == PRESENT).any(axis=(2, 3))).tolist())


def _as_bytes(ids: np.ndarray) -> np.ndarray:
    """Class ids of 8 bits as they are, others as (H, W, 3) uint8."""
    if ids.dtype == np.uint8:
        return ids
    return np.stack([ids & 255, ids >> 8, np.zeros_like(ids)], axis=2).astype(np.uint8)


def _open_ids(path: Path) -> Image.Image:
    with Image.open(io.BytesIO(read_bytes(path)), formats=["PNG"]) as picture:
        _small(picture).load()
    if picture.mode not in ("P", "L", "I;16"):
        raise ValueError(f"{path}: got mode {picture.mode}, expected class ids")
    return picture


def _small(picture: Image.Image) -> Image.Image:
    """A picture that is no larger than we write them, planes of overlapping classes below each other; looked at before it unfolds.

    Raises:
        ValueError: it is larger, so somebody else's.
    """
    if picture.width > MAX_SIDE_PX or picture.height > 8 * MAX_SIDE_PX:
        raise ValueError(f"{picture.width} x {picture.height} px")
    return picture


def _encode(picture: Image.Image, kind: str, **options: Any) -> bytes:
    encoded = io.BytesIO()
    picture.save(encoded, kind, **options)
    return encoded.getvalue()


def _write(path: Path, picture: Image.Image, kind: str, **options: Any) -> None:
    write_whole(path, _encode(picture, kind, **options))


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
