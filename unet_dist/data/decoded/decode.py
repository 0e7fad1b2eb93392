"""From encoded pictures to pixels, refusing what would be read wrongly.

Owns the checks of one picture and of one pair. Pillow converts much silently (16 bits, palettes, transparency, several
frames); here each of these is a sentence instead. Knows nothing of sources or the cache.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from unet_dist.data.decoded.labels import LabelRules, raw_mode_of
from unet_dist.data.sources.fingerprint import digest_pixels
from unet_dist.data.sources.pairs import Content, RawPair, RefusedError

# What Pillow was seen to raise, or says it raises, on damaged files (SyntaxError: "broken PNG file").
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
TOO_DEEP = "Scale it to 8 bits yourself (which range becomes 0 to 255 is a choice about your data)."
_ORIENTATION_TAG = 0x0112  # Exif: 1 is upright, 5 to 8 exchange height and width


@dataclass(frozen=True)
class DecodedPair:
    """A pair as pixels, the integer sums that the statistics are made from, and by what another is told from it."""

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


@contextmanager
def lift_pillow_limit() -> Iterator[None]:
    """Leave the question of too large images to our own limit, which reads the header and names the setting.

    Process-wide while it lasts, as Pillow's limit is a global: enter it before starting threads.
    """
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def read_shape(pair: RawPair, max_pixels: int) -> tuple[int, int, int]:
    """Read (height, width, channels) of a pair from the headers alone.

    Raises:
        RefusedError: image and mask differ in size, or either cannot be used.
    """
    if isinstance(pair.image, np.ndarray):
        height, width, channels = pair.image.shape
        return height, width, channels
    with naming(f"image {pair.image_name}"), _open(pair.image, max_pixels) as picture:
        channels = _check_image_form(picture)
        height, width = _upright_size(picture)
    if not isinstance(pair.mask, np.ndarray):
        with naming(f"mask {pair.mask_name}"), _open(pair.mask, max_pixels) as picture:
            _check_mask_format(picture)
            mask_size = _upright_size(picture)
        check_sizes(pair, (height, width), mask_size)
    return height, width, channels


def decode_pair(pair: RawPair, rules: LabelRules, max_pixels: int) -> DecodedPair:
    """Decode an image and its mask, all checks included.

    Raises:
        RefusedError: either cannot be used; the message names the file and the reason.
    """
    with naming(f"image {pair.image_name}"):
        image = _decode_image(pair.image, max_pixels)
    with naming(f"mask {pair.mask_name}"):
        label = _decode_mask(pair.mask, rules, max_pixels)
    check_sizes(pair, image.shape[:2], label.shape)
    pixels = image[..., 0] if image.shape[2] == 1 else image
    histograms = np.array(Image.fromarray(pixels).histogram(), dtype=np.int64).reshape(-1, 256)  # (C, 256)
    levels = np.arange(256, dtype=np.int64)
    return DecodedPair(
        image=image,
        label=label,
        sums=histograms @ levels,
        square_sums=histograms @ levels**2,
        class_counts=np.bincount(label.ravel(), minlength=256).astype(np.int64),
        image_digest=digest_pixels(image),
        label_digest=digest_pixels(label),
    )


def _decode_image(content: Content, max_pixels: int) -> np.ndarray:
    if isinstance(content, np.ndarray):
        assert content.dtype == np.uint8, content.dtype
        assert content.ndim == 3, content.shape
        return content
    with _open(content, max_pixels) as picture:
        channels = _check_image_form(picture)
        upright = _upright(picture)
        if _has_alpha(picture):
            pixels = _drop_alpha(np.asarray(upright.convert("LA" if channels == 1 else "RGBA")))
        else:
            pixels = np.asarray(upright.convert("L" if channels == 1 else "RGB"))
    return pixels.reshape(*pixels.shape[:2], channels)  # (H, W, C)


def _decode_mask(content: Content, rules: LabelRules, max_pixels: int) -> np.ndarray:
    if isinstance(content, np.ndarray):
        return rules.map_ids(content)
    with _open(content, max_pixels) as picture:
        _check_mask_format(picture)
        label = rules.read(picture)
        orientation = _orientation(picture)
    if orientation == 1:
        return label
    return np.asarray(_turn(Image.fromarray(label), orientation))


@contextmanager
def _open(content: bytes | Path, max_pixels: int) -> Iterator[Image.Image]:
    """Open a picture by its header; what goes wrong inside the block, while its pixels are read, is a refusal too."""
    try:
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as picture:
            pixels = picture.width * picture.height
            if pixels > max_pixels:
                raise RefusedError(
                    f"has {picture.height} x {picture.width} = {pixels:,} pixels, and max_pixels is {max_pixels:,}",
                    "If the file is what it should be, raise max_pixels, or write image and mask as tiled TIFF or Zarr, which are "
                    "read by windows.",
                )
            num_frames = getattr(picture, "n_frames", 1)
            if num_frames > 1 and picture.format != "MPO":  # MPO: a phone's JPEG with a preview
                raise RefusedError(
                    f"holds {num_frames} frames",
                    "Write each frame as a file of its own.",
                )
            yield picture
    except RefusedError:
        raise
    except _UNREADABLE as error:
        reason = (
            getattr(error, "strerror", None) or re.sub(r"\s*(<_io.*>|'.*')$", "", str(error)) or type(error).__name__
        )
        raise RefusedError(
            f"cannot be read ({reason})",
            "The file is damaged, truncated or no image: fetch it again, or remove the pair.",
        ) from error


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Put the name of a file before what is wrong with it."""
    try:
        yield
    except RefusedError as error:
        raise RefusedError(f"{name} {error.got}", error.remedy) from error


def _check_image_form(picture: Image.Image) -> int:
    """Give the number of channels, 1 or 3, of an image that is read as it is. Raises: RefusedError."""
    raw_mode = raw_mode_of(picture)
    if "16" in raw_mode or picture.mode.startswith(("I", "F")):
        raise RefusedError(
            f'has more than 8 bits a channel (mode "{picture.mode}"{f", {raw_mode}" if raw_mode else ""})',
            TOO_DEEP,
        )
    if picture.mode in ("L", "LA", "1"):
        return 1
    if picture.mode in ("RGB", "RGBA", "P", "PA"):
        return 3
    raise RefusedError(f'is of mode "{picture.mode}"', "Write it as grey or RGB, 8 bits a channel.")


def _has_alpha(picture: Image.Image) -> bool:
    return picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info


def _drop_alpha(pixels: np.ndarray) -> np.ndarray:
    """Drop an alpha channel that is opaque everywhere: (H, W, 2 or 4) -> (H, W, 1 or 3). Raises: RefusedError."""
    num_clear = int((pixels[..., -1] < 255).sum())
    if num_clear:
        raise RefusedError(
            f"has {num_clear:,} transparent pixels",
            "Flatten it onto the background it is meant for, and write it as grey or RGB.",
        )
    return np.ascontiguousarray(pixels[..., :-1])


def _check_mask_format(picture: Image.Image) -> None:
    if picture.format in ("JPEG", "MPO", "JPEG2000"):
        raise RefusedError(
            f"is a {picture.format}, which changes ids when it compresses", "Write masks as PNG from the original ids."
        )


def check_sizes(pair: RawPair, image_size: tuple[int, ...], mask_size: tuple[int, ...]) -> None:
    """Refuse a mask of another (height, width) than its image's. Raises: RefusedError."""
    if tuple(image_size) != tuple(mask_size):
        raise RefusedError(
            f"image {pair.image_name} is {image_size[0]} x {image_size[1]} and its mask {pair.mask_name} is "
            f"{mask_size[0]} x {mask_size[1]} (height x width)",
            "A mask has one id for each pixel of its image: write it again at that size, without interpolation.",
        )


def _orientation(picture: Image.Image) -> int:
    return int(picture.getexif().get(_ORIENTATION_TAG, 1) or 1)


def _upright_size(picture: Image.Image) -> tuple[int, int]:
    size = picture.height, picture.width
    return size if _orientation(picture) < 5 else size[::-1]


def _upright(picture: Image.Image) -> Image.Image:
    """Turn a picture as viewers and annotation tools show it, by its Exif orientation, as `datasets` does."""
    return picture if _orientation(picture) == 1 else ImageOps.exif_transpose(picture)


def _turn(picture: Image.Image, orientation: int) -> Image.Image:
    exif = picture.getexif()
    exif[_ORIENTATION_TAG] = orientation
    return ImageOps.exif_transpose(picture)
