"""From the encoded pictures of a pair to pixels and class ids.

Owns the checks of one pair. The pixels come in by the reader that predictions use; here are the rules that make class ids
of a mask's values, and the sums of one pair. Knows nothing of sources or the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from unet_dist.data.decoded.labels import LabelRules
from unet_dist.data.sources.fingerprint import digest_pixels
from unet_dist.data.sources.pairs import RawPair
from unet_dist.errors import RefusedError
from unet_dist.imaging.encoded import Encoded
from unet_dist.imaging.image import DEFAULT_CACHE_BYTES, ImageReader, Interpret, Stored, ValueRange, require_decodable
from unet_dist.imaging.reader import open_image
from unet_dist.imaging.views import PartReader


@dataclass(frozen=True)
class DecodedPair:
    """A pair as pixels, the integer sums that the statistics are made from, and the digests that identify it."""

    image: np.ndarray  # (H, W, C) uint8
    label: np.ndarray  # (H, W) uint8, IGNORED where nothing counts
    sums: np.ndarray  # (C,) int64
    square_sums: np.ndarray  # (C,) int64
    class_counts: np.ndarray  # (256,) int64
    image_digest: bytes  # 32, as PixelDigest gives them
    label_digest: bytes

    def without_pixels(self) -> DecodedPair:
        """Keep the sums and digests alone, so that a whole data set of these stays small."""
        nothing = np.empty(0, dtype=np.uint8)
        return replace(self, image=nothing, label=nothing)


def open_image_of(
    pair: RawPair, max_pixels: int, *, value_range: ValueRange | None = None, cache_bytes: int = DEFAULT_CACHE_BYTES
) -> ImageReader:
    """Open the image of a pair. Raises: RefusedError: it cannot be used."""
    assert not isinstance(pair.image, np.ndarray), pair
    image = open_image(
        Encoded(pair.image, f"image {pair.image_name}"),
        max_pixels=max_pixels,
        value_range=value_range,
        cache_bytes=cache_bytes,
        channels=pair.channels,
    )
    return image if pair.part is None else PartReader(image, pair.part)


def open_mask_of(
    pair: RawPair, rules: LabelRules, max_pixels: int, *, cache_bytes: int = DEFAULT_CACHE_BYTES
) -> ImageReader:
    """Open the mask of a pair as class ids, (H, W, 1) uint8. Raises: RefusedError: it cannot be used."""
    assert isinstance(pair.mask, bytes | Path), pair
    name = f"mask {pair.mask_name}"
    mask = open_image(
        Encoded(pair.mask, name), max_pixels=max_pixels, interpret=_interpret(rules, name), cache_bytes=cache_bytes
    )
    return mask if pair.part is None else PartReader(mask, pair.part)


def read_shape(
    pair: RawPair, rules: LabelRules, max_pixels: int, *, value_range: ValueRange | None = None
) -> tuple[int, int, int]:
    """Read (height, width, channels) of a pair from the headers alone.

    Raises:
        RefusedError: image and mask differ in size, or either cannot be used.
    """
    if isinstance(pair.image, np.ndarray):
        height, width, channels = pair.image.shape
        return height, width, channels
    with open_image_of(pair, max_pixels, value_range=value_range) as image:
        shape = image.shape
    if isinstance(pair.mask, bytes | Path):
        with open_mask_of(pair, rules, max_pixels) as mask:
            check_sizes(pair, shape[:2], mask.shape[:2])
    return shape


def decode_pair(
    pair: RawPair, rules: LabelRules, max_pixels: int, *, value_range: ValueRange | None = None
) -> DecodedPair:
    """Decode an image and its mask, all checks included.

    Args:
        value_range: the values of the image that become 0 and 255.

    Raises:
        RefusedError: either cannot be used; the message names the file and the reason.
    """
    if isinstance(pair.image, np.ndarray):
        image = pair.image
        assert image.dtype == np.uint8, image.dtype
        assert image.ndim == 3, image.shape
        if pair.channels == 3 and image.shape[2] == 1:
            image = np.repeat(image, 3, axis=2)
    else:
        with open_image_of(pair, max_pixels, value_range=value_range) as reader:
            image = _read_whole(reader, max_pixels, f"image {pair.image_name}")
    if not isinstance(pair.mask, bytes | Path):
        with naming(f"mask {pair.mask_name}"):
            label = rules.map_ids(pair.mask() if callable(pair.mask) else pair.mask)
    else:
        with open_mask_of(pair, rules, max_pixels) as reader:
            label = _read_whole(reader, max_pixels, f"mask {pair.mask_name}")[..., 0]
    check_sizes(pair, image.shape[:2], label.shape)
    levels = np.arange(256, dtype=np.int64)
    histograms = _histograms(image)
    return DecodedPair(
        image=image,
        label=label,
        sums=histograms @ levels,
        square_sums=histograms @ levels**2,
        class_counts=np.bincount(label.ravel(), minlength=256).astype(np.int64),
        image_digest=digest_pixels(image),
        label_digest=digest_pixels(label),
    )


def _read_whole(reader: ImageReader, max_pixels: int, name: str) -> np.ndarray:
    height, width, _ = reader.shape
    require_decodable(height, width, max_pixels, name)
    return reader.read(0, height, 0, width)


def _histograms(image: np.ndarray) -> np.ndarray:
    """Count the values of each channel: (H, W, C) uint8 -> (C, 256) int64."""
    if image.shape[2] in (1, 3):  # Pillow counts at twice the pace of numpy
        picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
        return np.array(picture.histogram(), dtype=np.int64).reshape(-1, 256)
    planes = (image[..., channel].ravel() for channel in range(image.shape[2]))
    return np.stack([np.bincount(plane, minlength=256) for plane in planes]).astype(np.int64)


def _interpret(rules: LabelRules, name: str) -> Interpret:
    """The way from the stored values of a mask to its class ids, whose refusals bear its name."""

    def interpret(stored: Stored) -> Callable[[np.ndarray], np.ndarray]:
        with naming(name):
            to_classes = rules.reader_of(stored)

        def map_values(values: np.ndarray) -> np.ndarray:
            with naming(name):
                return to_classes(values)[..., None]

        return map_values

    return interpret


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Put the name of a file before what is wrong with it."""
    try:
        yield
    except RefusedError as error:
        raise RefusedError(f"{name} {error.got}", error.remedy) from error


def check_sizes(pair: RawPair, image_size: tuple[int, ...], mask_size: tuple[int, ...]) -> None:
    """Refuse a mask of another (height, width) than its image's. Raises: RefusedError."""
    if tuple(image_size) != tuple(mask_size):
        raise RefusedError(
            f"image {pair.image_name} is {image_size[0]} x {image_size[1]} and its mask {pair.mask_name} is "
            f"{mask_size[0]} x {mask_size[1]} (height x width)",
            "A mask has one id for each pixel of its image: write it again at that size, without interpolation.",
        )
