"""What GDAL writes beside an image of any format: NAME.aux.xml, with no data, scales and offsets, and the mask NAME.msk.

Owns these two files. What they say goes before what the image itself says, as in GDAL.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from unet_dist.errors import RefusedError
from unet_dist.imaging.encoded import Encoded, parsing
from unet_dist.imaging.envi import data_of
from unet_dist.imaging.image import ImageReader, Interpret, Opening, Stored
from unet_dist.imaging.readers import MaskedReader
from unet_dist.imaging.tiff import open_tiff

_MOST_BYTES = 2**24
"""assumption: the histograms of 255 bands take a hundredth of it."""
_KINDS = ("NoDataValue", "Scale", "Offset")
_NAMES = "CategoryNames"


def files_of_gdal(path: Path) -> list[Path]:
    """Name the files beside an image that change what its pixels mean: statistics alone change nothing."""
    aux = _aux(path)
    states = aux.is_file() and any(f"<{kind}".encode() in aux.read_bytes()[:_MOST_BYTES] for kind in (*_KINDS, _NAMES))
    return [*([aux] if states else []), *([_mask(path)] if _mask(path).is_file() else [])]


def is_beside(path: Path) -> bool:
    """Say whether a file is one of these two, or the overviews, of an image that lies there, by its name."""
    end = next((end for end in (".aux.xml", ".msk", ".ovr") if path.name.endswith(end)), None)
    return end is not None and path.with_name(path.name.removesuffix(end)).is_file()


def with_stated(opening: Opening, encoded: Encoded) -> Opening:
    """Add what the file beside says; the user's own nodata goes first.

    Raises:
        RefusedError: it is damaged, or states several values for no data.
    """
    if encoded.path is None or encoded.is_folder or not (aux := _aux(encoded.path)).is_file():
        return opening
    name = f"{encoded.name}.aux.xml"
    found: dict[str, dict[int, str]] = {kind: {} for kind in _KINDS}
    with parsing(name, kind="file of GDAL"):
        with aux.open("rb") as file:
            root = ElementTree.fromstring(file.read(_MOST_BYTES))
        for band in root.iter("PAMRasterBand"):
            for kind in _KINDS:
                if (text := band.findtext(kind)) is not None:
                    found[kind][int(band.get("band", "1")) - 1] = text
        nodata = {float(text) for text in found["NoDataValue"].values()}
    if len(nodata) > 1 and opening.nodata is None:
        raise RefusedError(
            f"{name} states {len(nodata)} values for no data", "Expected one for all bands: say which with --nodata."
        )
    chosen = nodata.pop() if nodata and opening.nodata is None else opening.nodata
    return replace(opening, nodata=chosen, scales=(found["Scale"], found["Offset"]))


def category_names(path: Path) -> dict[int, str]:
    """Give the names that the file beside has for the ids of a mask; or none. Raises: RefusedError: it is damaged."""
    if path.is_dir() or not (aux := _aux(path)).is_file():
        return {}
    with parsing(str(aux), kind="file of GDAL"):
        names = ElementTree.fromstring(aux.read_bytes()[:_MOST_BYTES]).find(f"PAMRasterBand/{_NAMES}")
        found = {} if names is None else {index: one.text or "" for index, one in enumerate(names)}
    return {index: name for index, name in found.items() if name.strip()}


def masked(reader: ImageReader, encoded: Encoded, opening: Opening) -> ImageReader:
    """Leave out what the mask beside leaves out: where it is 0, the image has no data. A mask of ids is left as it is.

    Raises:
        RefusedError: it has another size, or several bands.
    """
    if encoded.path is None or encoded.is_folder or opening.interpret is not None or not _mask(encoded.path).is_file():
        return reader
    name = f"{encoded.name}.msk"

    def as_bytes(stored: Stored) -> Callable[[np.ndarray], np.ndarray]:
        if stored.channels != 1:
            raise RefusedError(f"{name} has {stored.channels} bands", "Expected one for all bands: write it again.")
        return lambda values: (values != 0).astype(np.uint8)

    try:
        mask = open_tiff(Encoded(_mask(encoded.path), name), Opening(opening.level, interpret=Interpret(as_bytes)))
        if (size := mask.shape[:2]) != (expected := reader.shape[:2]):
            mask.close()
            raise RefusedError(
                f"{name} is {size[0]} x {size[1]}, and its image {expected[0]} x {expected[1]} (height x width)",
                "It says where there are data: write it again at that size, or remove it.",
            )
    except RefusedError:
        reader.close()
        raise
    return MaskedReader(reader, mask)


def _aux(path: Path) -> Path:
    return _beside(path, ".aux.xml")


def _mask(path: Path) -> Path:
    return _beside(path, ".msk")


def _beside(path: Path, end: str) -> Path:
    image = (data_of(path) if path.suffix.lower() == ".hdr" else None) or path  # of ENVI it is the raw file's
    return image.with_name(f"{image.name}{end}")
