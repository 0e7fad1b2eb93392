"""Finished rasters of any size: label maps and probabilities as tiled BigTIFF, OME-Zarr or PNG.

Owns the layout of what others will open: tiles, compression, overviews, colours, resolution and georeference. The same
values give the same bytes, whatever the number of threads.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import tifffile

from unet_dist.errors import DataError
from unet_dist.imaging.image import DEFAULT_MAX_PIXELS, GEO_TAGS, Placement
from unet_dist.imaging.legend import as_xml_text
from unet_dist.imaging.palette import colour_table
from unet_dist.imaging.writer import write_grey, write_label_map
from unet_dist.imaging.zarr_store import require_zarr
from unet_dist.storage.files import replacing

RASTER_SUFFIXES = (".png", ".tif", ".tiff", ".zarr")

_TILE = 512
_GDAL_METADATA, _GDAL_NODATA = 42112, 42113
_BUFFER_BYTES = 32 * 2**20
"""Tiles in flight between the threads that compress them."""


def write_raster(
    path: str | os.PathLike,
    values: np.ndarray,
    *,
    palette: np.ndarray | None = None,
    band_names: Sequence[str] | None = None,
    placement: Placement | None = None,
    num_threads: int = 1,
) -> None:
    """Write a label map or probabilities, in the format the name asks for.

    TIFF: BigTIFF in compressed tiles of 512 px, with overviews. Zarr: an OME-Zarr 0.5 pyramid in chunks of 512 px.
    PNG: 8 bits and one plane, of a size that can be opened again. An overview of 1/2, 1/4 ... shows every second,
    fourth ... pixel, so that each of its pixels is a label that was predicted, and probabilities match labels.

    Memory: a few tiles a thread; `values` is read by tiles, and may be a memory map.

    Args:
        path: .png, .tif, .tiff or .zarr.
        values: (H, W) uint8, or uint16 of a label map; or (planes, H, W) uint8 or float16.
        palette: (num_classes, 3) uint8 of a label map; None writes grey.
        band_names: of the planes of labels, which TIFF keeps as GDAL's descriptions of bands.
        placement: resolution and georeference of the image that the values belong to.
        num_threads: that compress.

    Raises:
        DataError: another suffix, values that PNG cannot hold, or the file cannot be written; nothing is then left
            under its name.
        ExtraError: zarr is not installed.
    """
    path = Path(path)
    placement = placement or Placement()
    if path.suffix == ".png":
        if values.ndim != 2 or not _fits_png(values, palette) or values.size > DEFAULT_MAX_PIXELS:
            raise DataError(
                f"{path} would hold {values.shape} {values.dtype}. A PNG holds one uint8 plane, or one of uint16 ids, of at most "
                f"{DEFAULT_MAX_PIXELS} px: name it .tif or .zarr."
            )
        if palette is None:
            write_grey(path, values)
        else:
            write_label_map(path, values, palette)
    elif path.suffix in (".tif", ".tiff"):
        with replacing(path) as temporary:
            _write_tiff(temporary, values, palette, band_names, placement, num_threads)
    elif path.suffix == ".zarr":
        with replacing(path) as temporary:
            _write_zarr(temporary, values, palette, placement)
    else:
        raise DataError(f"{path} is of no known kind. Expected a name that ends in {', '.join(RASTER_SUFFIXES)}.")


def _fits_png(values: np.ndarray, palette: np.ndarray | None) -> bool:
    return values.dtype == np.uint8 or (palette is not None and values.dtype == np.uint16)


def _overviews(values: np.ndarray) -> list[np.ndarray]:
    """Return the values and their overviews, as views, down to one tile."""
    levels = [values]
    while max(levels[-1].shape[-2:]) > _TILE:
        levels.append(values[..., :: 2 ** len(levels), :: 2 ** len(levels)])
    return levels


def _write_tiff(
    path: Path,
    values: np.ndarray,
    palette: np.ndarray | None,
    band_names: Sequence[str] | None,
    placement: Placement,
    num_threads: int,
) -> None:
    options: dict[str, Any] = {"photometric": "minisblack"}
    if palette is not None and values.dtype == np.uint8:  # few programs know palettes of 16 bits: those ids are grey
        table = colour_table(palette).astype(np.uint16)
        options = {"photometric": "palette", "colormap": np.ascontiguousarray(table.T * 257)}
    if values.ndim == 3:
        options["planarconfig"] = "separate"
    # Neighbouring ids have no differences worth coding; neighbouring probabilities do.
    options["predictor"] = palette is None and band_names is None
    tags = [
        (code, kind, len(placement.geo_tags[code]), placement.geo_tags[code], True)
        for code, kind in GEO_TAGS.items()
        if code in placement.geo_tags
    ]
    if band_names is not None:
        items = (
            f'<Item name="DESCRIPTION" sample="{i}" role="description">{escape(as_xml_text(name))}</Item>'
            for i, name in enumerate(band_names)
        )
        text = f"<GDALMetadata>{''.join(items)}</GDALMetadata>"
        tags.append((_GDAL_METADATA, "s", 0, text.encode("ascii", "xmlcharrefreplace").decode(), True))
    if (
        palette is not None or band_names is not None
    ) and placement.has_nodata:  # where the image had no data, the labels say no class
        tags.append((_GDAL_NODATA, "s", 0, str(np.iinfo(values.dtype).max), True))
    levels = _overviews(values)
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        # Overviews follow as pages of their own (not as sub-images), which is where GDAL and OpenSlide look for them.
        for number, level in enumerate(levels):
            scaled = placement.scaled(values.shape[-2] / level.shape[-2], values.shape[-1] / level.shape[-1])
            file.write(
                _tiles(level),
                shape=level.shape,
                dtype=level.dtype,
                tile=(_TILE, _TILE),
                compression="zlib",
                subfiletype=1 if number else 0,
                resolution=scaled.resolution,
                resolutionunit=scaled.resolution_unit if scaled.resolution else None,
                extratags=[] if number else tags,
                metadata=None,
                software="unet_dist",
                maxworkers=num_threads,
                buffersize=_BUFFER_BYTES,
                **options,
            )


def _tiles(values: np.ndarray) -> Iterator[np.ndarray]:
    for plane in values.reshape(-1, *values.shape[-2:]):
        for row in range(0, plane.shape[0], _TILE):
            for col in range(0, plane.shape[1], _TILE):
                yield plane[row : row + _TILE, col : col + _TILE]


def _write_zarr(path: Path, values: np.ndarray, palette: np.ndarray | None, placement: Placement) -> None:
    """Write a pyramid; no write is under way when it is left, with an error or without.

    Of the chunks that it writes at once Zarr continues with the others after one has failed, in threads of its own, and makes their
    folders anew while somebody removes them. So its writes run in an event loop that ends here, and which then waits for them.
    """
    zarr = require_zarr()
    with ThreadPoolExecutor(1) as thread:  # the caller's may have an event loop, as that of a notebook
        thread.submit(asyncio.run, _fill_zarr(zarr, path, values, palette, placement)).result()


async def _fill_zarr(
    zarr: Any, path: Path, values: np.ndarray, palette: np.ndarray | None, placement: Placement
) -> None:
    names = ["c", "y", "x"][-values.ndim :]
    levels = _overviews(values)
    group = await zarr.api.asynchronous.create_group(store=str(path), zarr_format=3)
    for number, level in enumerate(levels):
        array = await group.create_array(
            str(number),
            shape=level.shape,
            dtype=level.dtype,
            chunks=(1,) * (values.ndim - 2) + (_TILE, _TILE),
            dimension_names=names,
        )
        for row in range(0, level.shape[-2], _TILE):
            rows = slice(row, row + _TILE)
            await array.setitem((..., rows, slice(None)), level[..., rows, :])
    await group.update_attributes(_ome(levels, names, palette, placement))


def _ome(levels: list[np.ndarray], names: list[str], palette: np.ndarray | None, placement: Placement) -> dict:
    """Describe the pyramid as OME-NGFF 0.5 has it, with the georeference beside it."""
    microns = placement.microns_per_px
    sizes = {"x": microns or 1.0, "y": (microns or 1.0) * _aspect(placement), "c": 1.0}
    unit = {"unit": "micrometer"} if microns else {}
    axes = [
        {"name": name, "type": "channel"} if name == "c" else {"name": name, "type": "space", **unit} for name in names
    ]
    datasets = []
    for number, level in enumerate(levels):
        ratios = dict(zip(names, np.divide(levels[0].shape, level.shape).tolist(), strict=True))
        scale = [sizes[name] * ratios[name] for name in names]
        datasets.append({"path": str(number), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    ome: dict[str, Any] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    if palette is not None:
        colours = [{"label-value": index, "rgba": [*colour, 255]} for index, colour in enumerate(palette.tolist())]
        ome["image-label"] = {"version": "0.5", "colors": colours}
    geo_tags = {str(code): value for code, value in placement.geo_tags.items()}
    return {"ome": ome, **({"geotiff": geo_tags} if geo_tags else {})}


def _aspect(placement: Placement) -> float:
    return placement.resolution[0] / placement.resolution[1] if placement.resolution else 1.0
