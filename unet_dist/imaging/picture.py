"""PNG, JPEG, WebP, GIF and others through Pillow: decoded once and whole, when the first window is read.

Owns which kinds of picture count as pixels: grey is one channel, colour and palette are RGB, and nothing is silently
thrown away (transparency, the lower byte of 16 bits, all frames but the first).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, UnidentifiedImageError

from unet_dist.errors import RefusedError
from unet_dist.imaging.avif import settings_of
from unet_dist.imaging.encoded import Encoded, parsing
from unet_dist.imaging.image import ImageFormat, Opening, Stored, ValueRange
from unet_dist.imaging.jpeg2000 import planes_of
from unet_dist.imaging.limits import in_time, require_decodable
from unet_dist.imaging.png_calibration import png_scaling
from unet_dist.imaging.pyramid import choose_level
from unet_dist.imaging.readers import ArrayReader, BlockReader
from unet_dist.imaging.values import (
    Conversion,
    Scaling,
    make_conversion,
    nodata_of,
    require_ids_unscaled,
    scaling_by_band,
    upright,
    upright_shape,
)
from unet_dist.wording import one_line

# Named, because Pillow's whole list holds formats that start other programs (EPS) or take gigabytes for a small file (ICNS).
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "AVIF", "JPEG2000", "PPM")
_BY_SUFFIX = {".tga": "TGA"}  # without a mark of its own, so that it is looked for in files of that name only
_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".mpo", ".webp", ".bmp", ".gif", ".avif", ".jp2", ".j2k", ".jpx"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga"),
)

_VOLUMES = (".nii", ".gz", ".dcm", ".nrrd", ".mha", ".mhd", ".mrc")
_CHANNELS = {"1": 1, "L": 1, "LA": 1, "I;16": 1, "I;16B": 1, "I": 1, "F": 1, "P": 3, "PA": 3, "RGB": 3, "RGBA": 3}
_LOSSY = {"JPEG": "JPEG", "MPO": "JPEG", "JPEG2000": "JPEG 2000", "AVIF": "AVIF"}
_ORIENTATION_TAG = 0x0112
_BYTES_PER_PX = 13
"""Measured: 6.5 GiB for a PNG of 497 megapixels; Pillow's own 4 per pixel, and the copies on the way to an array."""
_HEADER_BYTES = 2**16
_UINT16 = np.dtype(np.uint16)
_PILLOW_LIMIT = threading.Lock()


@dataclass(frozen=True)
class _Form:
    """What the header of a picture says.

    Attributes:
        dtype: of a value.
        channels: without alpha.
        has_alpha: whether that lies behind them.
        bits: of a value; None where its type has no more.
        decode: gives the values from the bytes of the file; None leaves it to Pillow.
        measured: what the file itself says that the values stand for.
    """

    dtype: np.dtype
    channels: int
    name: str
    has_alpha: bool
    bits: int | None = None
    decode: Callable[[bytes], np.ndarray] | None = None
    measured: Scaling | None = None

    def scaling(self, opening: Opening) -> Scaling | None:
        """What the values stand for: what lies beside goes before what the file says."""
        channels = self.channels + self.has_alpha
        own = self.measured
        if own is not None and self.has_alpha:
            own = Scaling((*own.factors, 1.0), (*own.offsets, 0.0))
        return scaling_by_band(*opening.scales, channels, self.name) or own

    def conversion(self, opening: Opening) -> Conversion:
        """The way from its values to pixels."""
        channels = self.channels + self.has_alpha
        return make_conversion(
            self.dtype,
            channels,
            value_range=opening.value_range,
            nodata=None if opening.nodata is None else nodata_of(opening.nodata, self.dtype),
            name=self.name,
            alpha=-1 if self.has_alpha else None,
            bits=self.bits,
            scaling=self.scaling(opening),
        )


def open_picture(encoded: Encoded, opening: Opening) -> BlockReader:
    """Open a picture: its header now, its pixels at the first read. It stands upright, as its EXIF orientation says.

    Raises:
        RefusedError: not a picture, more than max_pixels, several frames, another colour space than grey or RGB; at the first
            read: half transparent, truncated or damaged.
    """
    name = encoded.name
    with _open(encoded) as image:
        width, height = image.size
        choose_level([(height, width)], None, level=opening.level, mpp=opening.mpp, name=name)
        require_decodable(height, width, opening.max_pixels, name, bytes_per_px=_BYTES_PER_PX)
        _require_one_frame(image, name)
        _require_unscaled(image, name)
        form = _form_of(image, encoded)
        scaling = form.scaling(opening)
        if scaling is not None and image.mode in ("P", "PA"):
            raise RefusedError(f"{name} scales the indices of a palette", "Write the values that are meant.")
        if opening.interpret is not None:
            require_ids_unscaled(scaling, name)
        elif form.bits is not None and form.bits < 8 and opening.value_range is None:
            raise RefusedError(
                f"{name} holds {form.bits}-bit values",
                f"Say which are black and white: --value_range 0,{2**form.bits - 1}.",
            )
        # The plain getexif, since that of a PNG decodes the pixels to look behind them.
        size = upright_shape(height, width, Image.Image.getexif(image).get(_ORIENTATION_TAG, 1))
        stored = form.channels + form.has_alpha if opening.keeps_channels and image.mode != "P" else 1
        to_pixels = (
            form.conversion(opening)
            if opening.interpret is None
            else Conversion(opening.interpret.dtype, stored, False, np.asarray)
        )

    def decode(block_row: int, block_col: int) -> np.ndarray:
        with _open(encoded) as image:
            deep = None if form.decode is None else np.atleast_3d(form.decode(encoded.read()))
            if opening.interpret is not None:
                values = _stored_values(image) if deep is None else deep
                pixels = opening.interpret(_stored(image, values, encoded, opening.nodata))(values)
            else:
                values = _colours(image, name).astype(form.dtype, copy=False) if deep is None else deep
                pixels = form.conversion(opening)(values)
            pixels = np.ascontiguousarray(upright(pixels, image.getexif().get(_ORIENTATION_TAG, 1)))
        expected = (*size, to_pixels.channels)
        if pixels.shape[:2] != size or pixels.shape[2] not in (to_pixels.channels, to_pixels.channels + 1):
            raise RefusedError(
                f"{name} decodes to {pixels.shape}, and its header said {expected}",
                "It changed meanwhile, or states its orientation behind the pixels: save it again.",
            )
        return pixels

    has_nodata = to_pixels.has_nodata or (form.has_alpha and opening.interpret is None)
    return BlockReader(
        (*size, to_pixels.channels),
        size,
        lambda row, col: in_time(name, lambda: decode(row, col)),
        dtype=to_pixels.dtype,
        has_nodata=has_nodata,
    )


def _is_picture(encoded: Encoded) -> bool:
    Image.init()
    marks = [Image.OPEN[name][1] for name in _FORMATS if name in Image.OPEN]
    return encoded.suffix in _SUFFIXES or any(accept is not None and accept(encoded.head) for accept in marks)


PICTURE = ImageFormat("PNG, JPEG, WebP, BMP, GIF, AVIF, JPEG 2000, PPM", _SUFFIXES, _is_picture, open_picture, False)


def picture_reader(image: Image.Image, *, value_range: ValueRange | None, name: str) -> ArrayReader:
    """Read a Pillow image, upright.

    Raises:
        RefusedError: half transparent pixels, another colour space than grey or RGB, 16-bit colour, or damaged.
    """
    with parsing(name):
        if _deep_layout(image):
            raise RefusedError(f"{name} has 16 bits per colour, of which Pillow keeps 8", "Give its path instead.")
        form = _Form(_dtype(image), _num_channels(image, name), name, has_alpha=image.has_transparency_data)
        values = _colours(image, name).astype(form.dtype, copy=False)
        to_pixels = form.conversion(Opening(value_range=value_range))
        pixels = np.ascontiguousarray(upright(to_pixels(values), image.getexif().get(_ORIENTATION_TAG, 1)))
    known = pixels[:, :, -1] if pixels.shape[2] > to_pixels.channels else None
    return ArrayReader(pixels[:, :, : to_pixels.channels], known=known)


def _colours(image: Image.Image, name: str) -> np.ndarray:
    """Decode the pixels as they lie in the file: (H, W, 1 or 3), and alpha behind them where it has transparency."""
    num_channels = _CHANNELS[image.mode]
    if image.mode in ("P", "PA"):
        image.load()
        entries = len(image.getpalette("RGB") or ()) // 3
        largest = int(np.asarray(image).reshape(*image.size[::-1], -1)[..., 0].max(initial=0))
        if largest >= entries:  # Pillow would show its last colour
            raise RefusedError(
                f"{name} holds the index {largest} of a palette of {entries} colours",
                "The file is damaged: fetch it again, or leave it out.",
            )
    if image.has_transparency_data and image.mode.startswith("I"):  # which Pillow would cut to 8 bits
        values = np.asarray(image).astype(np.uint16)
        return np.dstack([values, np.where(values == image.info["transparency"], 0, 65535).astype(np.uint16)])
    if image.has_transparency_data:
        return np.asarray(image.convert("LA" if num_channels == 1 else "RGBA"))
    if num_channels == 3 and image.mode != "RGB":
        image = image.convert("RGB")
    elif image.mode in ("1", "LA"):
        image = image.convert("L")
    return np.atleast_3d(np.asarray(image))


def _stored_values(image: Image.Image) -> np.ndarray:
    """Decode the values themselves, such as ids: (H, W, C), of a palette its indices, of few bits the bits."""
    raw_mode, values = _raw_mode(image), np.asarray(image)
    if raw_mode in ("L;2", "L;4"):  # Pillow scales grey of few bits up to 0..255
        values = values // (85 if raw_mode == "L;2" else 17)
    if image.mode == "PA":
        values = values[:, :, :1]
    return np.atleast_3d(values)


def _stored(image: Image.Image, values: np.ndarray, encoded: Encoded, nodata: float | None) -> Stored:
    palette = image.getpalette("RGB") if image.mode in ("P", "PA") else None
    entries = None if palette is None else np.asarray(palette, dtype=np.uint8).reshape(-1, 3)
    lossy = "lossy WebP" if image.format == "WEBP" and b"VP8 " in _start_of(encoded) else _LOSSY.get(image.format or "")
    return Stored(values.dtype, values.shape[2], entries, lossy, nodata=nodata)


@contextmanager
def _open(encoded: Encoded) -> Iterator[Image.Image]:
    """Open a picture by its header; what goes wrong inside the block, while its pixels are read, is a refusal too."""
    Image.init()  # of AVIF and others only where this Pillow has it
    known = [name for name in (*_FORMATS, _BY_SUFFIX.get(encoded.suffix)) if name in Image.OPEN]
    _ = encoded.head  # refuses all but files
    with parsing(encoded.name), encoded.open() as file:
        file.seek(0)
        # Pillow's own limit is a global, and ours is stated per file: switched off while the header is read.
        with _PILLOW_LIMIT:
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                image = Image.open(file, formats=known)
            except UnidentifiedImageError as error:
                raise _no_picture(encoded) from error
            finally:
                Image.MAX_IMAGE_PIXELS = limit
        with image:
            yield image


def _no_picture(encoded: Encoded) -> RefusedError:
    """Say how a file begins that no decoder knows: text under a picture's name needs another remedy than a rare format."""
    head = encoded.head
    if not head:
        return RefusedError(f"{encoded.name} is empty (0 bytes)", "Copy it again, or leave it out.")
    text = head.decode("ascii", "replace")
    if not all(letter.isprintable() or letter in "\r\n\t" for letter in text) or "\ufffd" in text:
        if head[4:8] == b"jP  " or head[:4] == b"\xff\x4f\xff\x51":
            return RefusedError(
                f"{encoded.name} is a JPEG 2000 of {planes_of(encoded).count} planes, or damaged",
                "Expected one to four: write it as TIFF, or fetch it again.",
            )
        got = f"{encoded.name} is not an image that can be read: it begins with the bytes {head[:8].hex(' ')}"
        if encoded.suffix in _VOLUMES:
            remedy = "Write each slice of a volume as TIFF or .npy: nibabel reads NIfTI, pydicom DICOM."
            return RefusedError(got, remedy)
        return RefusedError(
            got,
            "Expected PNG, JPEG, WebP, BMP, GIF, AVIF, JPEG 2000, PPM, TIFF, .npy, .npz, Zarr or a slide (.svs, .ndpi, "
            ".mrxs): convert it, or leave it out.",
        )
    got = f'{encoded.name} is not an image that can be read: it is text, which begins with "{one_line(text).strip()}"'
    if text == "version https://":
        return RefusedError(got, "It stands for a file in Git LFS: git lfs pull fetches the picture.")
    return RefusedError(got, "Put the picture itself here, draw PostScript or SVG as PNG, or leave the file out.")


def _require_one_frame(image: Image.Image, name: str) -> None:
    if getattr(image, "is_animated", False) and image.format != "MPO":  # MPO: a phone's JPEG with a preview
        # Those of a GIF stand nowhere, and counting millions of them takes minutes.
        frames = "several" if image.format == "GIF" else getattr(image, "n_frames", 2)
        raise RefusedError(f"{name} holds {frames} frames", "Write each frame as a file of its own.")


def _require_unscaled(image: Image.Image, name: str) -> None:
    """Refuse a PPM whose largest value is none of Pillow's: it would be stretched in silence."""
    if image.format == "PPM":
        arguments = _decoder_arguments(image)
        maximum = arguments[1] if isinstance(arguments, tuple) and len(arguments) == 2 else 255
        if maximum not in (255, 65535) or (maximum == 65535 and image.mode != "I"):
            raise RefusedError(
                f"{name} counts to {maximum}", "Expected 255, or 65535 as grey: write it as PNG or TIFF."
            )


def _num_channels(image: Image.Image, name: str) -> int:
    if image.mode not in _CHANNELS:
        raise RefusedError(f"{name} is in the colour space {image.mode}", "Expected grey or RGB: save it as RGB.")
    return 1 if _deep_layout(image) == "LA;16B" else _CHANNELS[image.mode]  # Pillow calls that one RGBA


def _form_of(image: Image.Image, encoded: Encoded) -> _Form:
    """Read from the header what the values are, and what decodes those that Pillow would change.

    Raises:
        RefusedError: another colour space than grey or RGB, or a damaged header.
    """
    import imagecodecs

    name, layout = encoded.name, _deep_layout(image)
    form = _Form(_dtype(image), _num_channels(image, name), name, has_alpha=image.has_transparency_data)
    if image.format == "PNG":
        form = replace(form, measured=png_scaling(encoded, _UINT16 if layout else form.dtype, form.channels))
    if layout:
        has_alpha = layout in ("LA;16B", "RGBA;16B")
        return replace(form, dtype=_UINT16, has_alpha=has_alpha, decode=imagecodecs.png_decode)
    if image.format == "JPEG2000" and image.mode != "P":
        planes = planes_of(encoded, (image.size[1], image.size[0]), len(image.getbands()))
        channels = planes.count - planes.has_alpha
        deep = replace(form, dtype=planes.dtype, channels=channels, has_alpha=planes.has_alpha)
        bits = planes.bits if planes.bits < 8 * planes.dtype.itemsize else None
        deep = replace(deep, bits=bits)
        return form if planes.is_plain else replace(deep, decode=imagecodecs.jpeg2k_decode)
    if image.format == "AVIF":
        bits, is_grey = settings_of(encoded)
        deep = replace(form, channels=1 if is_grey else 3, decode=imagecodecs.avif_decode)
        if bits > 8:
            return replace(deep, dtype=_UINT16, bits=bits)
        return deep if is_grey and form.has_alpha else form
    return form


def _start_of(encoded: Encoded) -> bytes:
    with encoded.open() as file:
        return file.read(_HEADER_BYTES)


def _deep_layout(image: Image.Image) -> str | None:
    """Return the layout of 16-bit colour or alpha in a PNG, which Pillow would cut to 8 bits, or None."""
    raw_mode = _raw_mode(image)
    return raw_mode if raw_mode in ("LA;16B", "RGB;16B", "RGBA;16B") else None


def _raw_mode(image: Image.Image) -> str:
    """Name the form of the pixels in the file, such as "L;4" or "RGB;16B", which Pillow's mode may hide."""
    arguments = _decoder_arguments(image)
    first = arguments if isinstance(arguments, str) else arguments[0] if arguments else ""
    return first if isinstance(first, str) else ""


def _decoder_arguments(image: Image.Image) -> str | tuple[object, ...]:
    tiles = getattr(image, "tile", None)
    return tiles[0][3] if tiles and isinstance(tiles[0][3], (str, tuple)) else ""


def _dtype(image: Image.Image) -> np.dtype:
    if image.mode == "I" and "16" in _raw_mode(image):  # a grey PNG of 16 bits, as Pillow before 11 gives it
        return np.dtype(np.uint16)
    return np.dtype({"I;16": np.uint16, "I;16B": np.uint16, "I": np.int32, "F": np.float32}.get(image.mode, np.uint8))
