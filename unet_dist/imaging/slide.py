"""Whole-slide images (SVS, NDPI, MRXS ...) through OpenSlide, by windows.

Owns the grid of blocks in which a slide is asked for: OpenSlide places a region of a coarse level by coordinates of the
finest one, to a fraction of a pixel, so that only regions of one fixed grid give every window the same pixels.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from unet_dist.errors import ExtraError, RefusedError, UnetDistError
from unet_dist.imaging.encoded import Encoded
from unet_dist.imaging.image import UINT8, ImageFormat, Opening, Placement
from unet_dist.imaging.limits import in_time
from unet_dist.imaging.pyramid import choose_level
from unet_dist.imaging.readers import BlockReader
from unet_dist.imaging.values import make_conversion, nodata_of

SLIDE_SUFFIXES = (".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide")
_BLOCK = 512
_MIB = 2**20


def open_slide(encoded: Encoded, opening: Opening) -> BlockReader:
    """Open one level of a slide as RGB; where the scanner saw nothing stands the slide's background colour.

    Raises:
        ExtraError: OpenSlide is not installed.
        DataError: not a slide, damaged, or no such level.
    """
    path, name = encoded.path, encoded.name
    assert path is not None, encoded
    _ = encoded.head
    if opening.interpret is not None:
        raise RefusedError(f"{name} is a slide, whose compression changes ids", "Write masks as tiled TIFF or Zarr.")
    try:
        import openslide
    except ImportError as error:
        raise ExtraError(f"{path.name} is a slide, which needs OpenSlide: pip install 'unet_dist[slides]'.") from error
    try:
        slide = openslide.OpenSlide(path)
    except openslide.OpenSlideError as error:
        raise RefusedError(
            f"{name} cannot be read as a slide: {error}", "Copy it again; a plain TIFF should end in .tif."
        ) from error
    try:
        microns = (
            float(slide.properties[openslide.PROPERTY_NAME_MPP_X]),
            float(slide.properties[openslide.PROPERTY_NAME_MPP_Y]),
        )
        placement = Placement((1e4 / microns[0], 1e4 / microns[1]), 3)
    except (KeyError, ValueError, ZeroDivisionError):
        placement = Placement()
    shapes = [(height, width) for width, height in slide.level_dimensions]
    try:
        chosen = choose_level(shapes, placement.microns_per_px, level=opening.level, mpp=opening.mpp, name=name)
    except UnetDistError:
        slide.close()
        raise
    slide.set_cache(
        openslide.OpenSlideCache(8 * _MIB)
    )  # ours keeps whole blocks; this one joins blocks cut across its tiles
    factor = slide.level_downsamples[chosen]
    background = "#" + slide.properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR, "ffffff")
    height, width = shapes[chosen]
    nodata = None if opening.nodata is None else nodata_of(opening.nodata, UINT8)
    to_pixels = make_conversion(UINT8, 3, value_range=opening.value_range, nodata=nodata, name=name)

    def decode(block_row: int, block_col: int) -> np.ndarray:
        top, left = block_row * _BLOCK, block_col * _BLOCK
        size = min(_BLOCK, width - left), min(_BLOCK, height - top)
        try:
            place = round(left * factor), round(top * factor)
            region = in_time(name, lambda: slide.read_region(place, chosen, size))
        except openslide.OpenSlideError as error:
            raise RefusedError(
                f"{name}, level {chosen}, row {top}, column {left}: {error}", "Copy it again."
            ) from error
        opaque = Image.new("RGB", size, background)
        opaque.paste(region, mask=region.getchannel("A"))
        return to_pixels(np.asarray(opaque))

    return BlockReader(
        (height, width, 3),
        (_BLOCK, _BLOCK),
        decode,
        has_nodata=to_pixels.has_nodata,
        placement=placement.scaled(shapes[0][0] / height, shapes[0][1] / width),
        cache_bytes=opening.cache_bytes,
        release=slide.close,
    )


SLIDE = ImageFormat(
    "slide (.svs, .ndpi, .mrxs)",
    SLIDE_SUFFIXES,
    lambda encoded: encoded.suffix in SLIDE_SUFFIXES and not encoded.is_folder,
    open_slide,
    True,
)
