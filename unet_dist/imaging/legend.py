"""Names and colours of classes in files beside a label map, as GDAL and QGIS look for them.

Owns their XML, and which class is the background. Knows nothing of the pixels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from unet_dist.storage.files import write_whole

_NOT_XML = re.compile("[^ -~\xa0-\ud7ff\ue000-\ufdcf\ufdf0-\ufffd\U00010000-\U0010fffd]")
"""Characters that XML 1.0 forbids or advises against; and line breaks and tabs, which a legend has no room for."""


def as_xml_text(name: str) -> str:
    """Put U+FFFD for each character of a name that XML cannot hold."""
    return _NOT_XML.sub("\ufffd", name)


def background_of(names: Sequence[str]) -> int | None:
    """Give the class that an overlay leaves as it is: the one named so, or class 0 where no class has a name of its own.

    >>> background_of(["cell", "background"]), background_of(["class_0", "class_1", "class_2"]), background_of(["road", "car"])
    (1, 0, None)
    """
    for index, name in enumerate(names):
        if name.strip(" _").lower() in ("background", "bg"):
            return index
    return 0 if list(names) == [f"class_{index}" for index in range(len(names))] else None


def write_category_names(path: Path, names: Sequence[str]) -> None:
    """Write GDAL's category names of band 1, into NAME.tif.aux.xml: GDAL reads it with NAME.tif, and QGIS shows the names.

    The colours are in the TIFF itself.

    Args:
        names: of the classes, from id 0 on.

    Raises:
        DataError: the file cannot be written; nothing is then left under its name.
    """
    # Source: GDAL's raster data model, "Persistent Auxiliary Metadata"; the TIFF format has no place for these names.
    root = ElementTree.Element("PAMDataset")
    band = ElementTree.SubElement(root, "PAMRasterBand", band="1")
    categories = ElementTree.SubElement(band, "CategoryNames")
    for name in names:
        ElementTree.SubElement(categories, "Category").text = as_xml_text(name)
    write_whole(path, ElementTree.tostring(root, encoding="utf-8", xml_declaration=False) + b"\n")


def write_qgis_style(path: Path, names: Sequence[str], palette: np.ndarray) -> None:
    """Write a QGIS style with a value, a colour and a label for each class, into NAME.qml: QGIS takes it with NAME.tif or NAME.png.

    Pixels without a class, 255 or 65535, are transparent.

    Args:
        names: of the classes, from id 0 on.
        palette: (num_classes, 3) uint8.

    Raises:
        DataError: the file cannot be written; nothing is then left under its name.
    """
    root = ElementTree.Element("qgis", version="3.0", styleCategories="Symbology")
    renderer = ElementTree.SubElement(
        ElementTree.SubElement(root, "pipe"), "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1"
    )
    entries = ElementTree.SubElement(renderer, "colorPalette")
    for value, (name, colour) in enumerate(zip(names, palette.tolist(), strict=True)):
        colour = "#{:02x}{:02x}{:02x}".format(*colour)
        label = as_xml_text(name)
        ElementTree.SubElement(entries, "paletteEntry", value=str(value), color=colour, alpha="255", label=label)
    document = ElementTree.tostring(root, encoding="utf-8", xml_declaration=False)
    write_whole(path, b"<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" + document + b"\n")
