"""PNG, JPEG, WebP and BMP through Pillow: decoded once and whole, when the first window is read.

Owns which kinds of picture count as pixels: grey is one channel, colour and palette are RGB, and nothing is silently
thrown away (transparency, the lower byte of 16 bits).
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile

from unet_dist.errors import DataError
from unet_dist.imaging.image import BlockReader, ValueRange, require_decodable, require_mappable, to_uint8

# Named, because Pillow's whole list holds formats that start other programs (EPS) or clip to 8 bits (PPM).
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")

_CHANNELS = {"1": 1, "L": 1, "LA": 1, "I;16": 1, "I;16B": 1, "I": 1, "F": 1, "P": 3, "PA": 3, "RGB": 3, "RGBA": 3}
_ORIENTATION_TAG = 0x0112
_PILLOW_LIMIT = threading.Lock()


def open_picture(path: Path, *, value_range: ValueRange | None, max_pixels: int) -> BlockReader:
    """Open a picture: its header now, its pixels at the first read. It stands upright, as its EXIF orientation says.

    Raises:
        DataError: not a picture, more than max_pixels, transparent, another colour space than grey or RGB, more than 8
            bits without a value_range; at the first read: truncated or damaged.
    """
    with _open(path) as image:
        width, height = image.size
        require_decodable(height, width, max_pixels, str(path))
        # The plain getexif, since that of a PNG decodes the pixels to look behind them. 5 to 8 are quarter turns.
        if Image.Image.getexif(image).get(_ORIENTATION_TAG, 1) >= 5:
            width, height = height, width
        shape = (height, width, _num_channels(image, str(path)))
        require_mappable(np.dtype(np.uint16) if _deep_layout(image) else _dtype(image), value_range, str(path))

    def decode(block_row: int, block_col: int) -> np.ndarray:
        try:
            with _open(path) as image:
                if _deep_layout(image):
                    import imagecodecs

                    values = _without_alpha(imagecodecs.png_decode(path.read_bytes()), str(path))
                    pixels = to_uint8(values, value_range)
                else:
                    pixels = picture_pixels(image, value_range=value_range, name=str(path))
        except (OSError, SyntaxError, ValueError, RuntimeError) as error:  # what the decoders raise on damaged files
            raise DataError(f"{path} cannot be decoded: {error}. It is damaged or truncated: copy it again.") from error
        if pixels.shape != shape:
            raise DataError(
                f"{path} decodes to {pixels.shape}, and its header said {shape}. It changed meanwhile, or states its "
                "orientation behind the pixels: save it again."
            )
        return pixels

    return BlockReader(shape, shape[:2], decode)


def picture_pixels(image: Image.Image, *, value_range: ValueRange | None, name: str) -> np.ndarray:
    """Decode a Pillow image to (H, W, 1) or (H, W, 3) uint8, upright.

    Raises:
        DataError: transparent pixels, another colour space than grey or RGB, more than 8 bits without a value_range,
            or 16-bit colour.
        OSError, SyntaxError, ValueError: from Pillow, for a damaged file.
    """
    num_channels = _num_channels(image, name)
    if _deep_layout(image):
        raise DataError(f"{name} has 16 bits a colour, of which Pillow keeps 8. Give its path instead.")
    require_mappable(_dtype(image), value_range, name)
    if image.getexif().get(_ORIENTATION_TAG, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        with_alpha = image.convert("LA" if num_channels == 1 else "RGBA")
        return to_uint8(_without_alpha(np.asarray(with_alpha), name), value_range)
    if num_channels == 3 and image.mode != "RGB":
        image = image.convert("RGB")
    elif image.mode in ("1", "LA"):
        image = image.convert("L")
    values = np.asarray(image)
    return to_uint8(values[:, :, None] if num_channels == 1 else values, value_range)


def _without_alpha(values: np.ndarray, name: str) -> np.ndarray:
    """Drop an alpha channel that is opaque everywhere: (H, W), (H, W, 1 to 4) -> (H, W, 1 or 3)."""
    values = np.atleast_3d(values)
    if values.shape[2] in (2, 4):
        num_clear = int((values[:, :, -1] < np.iinfo(values.dtype).max).sum())
        if num_clear:
            raise DataError(
                f"{name} has {num_clear} transparent pixels. Expected opaque grey or RGB: flatten it onto the "
                "background it is meant for."
            )
        values = values[:, :, :-1]
    return values


def _open(path: Path) -> Image.Image:
    # Pillow's own limit is a global, and ours is stated per file: switched off while the header is read.
    with _PILLOW_LIMIT:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path, formats=_FORMATS)
        except UnidentifiedImageError as error:
            raise DataError(
                f"{path} is not an image that can be read. Expected PNG, JPEG, WebP, BMP, TIFF, .npy, Zarr or a slide "
                "(.svs, .ndpi, .mrxs): convert it, or leave it out."
            ) from error
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{path} cannot be opened: {error}. Check the path and the file.") from error
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _num_channels(image: Image.Image, name: str) -> int:
    if image.mode not in _CHANNELS:
        raise DataError(f"{name} is in the colour space {image.mode}. Expected grey or RGB: save it as RGB.")
    return 1 if _deep_layout(image) == "LA;16B" else _CHANNELS[image.mode]  # Pillow calls that one RGBA


def _deep_layout(image: Image.Image) -> str | None:
    """Return the layout of 16-bit colour or alpha, which Pillow would cut to 8 bits, or None."""
    layouts = [tile[3] for tile in image.tile] if isinstance(image, PngImageFile) else []
    return next((layout for layout in layouts if layout in ("LA;16B", "RGB;16B", "RGBA;16B")), None)


def _dtype(image: Image.Image) -> np.dtype:
    return np.dtype({"I;16": np.uint16, "I;16B": np.uint16, "I": np.int32, "F": np.float32}.get(image.mode, np.uint8))
