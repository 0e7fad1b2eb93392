"""The regions of a label map as polygons, in the GeoJSON that QuPath takes.

Owns their coordinates: the edges of pixels, so that the pixels whose centre a polygon holds are those of its region.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unet_dist.errors import ExtraError
from unet_dist.storage.files import replacing


def require_features() -> Any:
    """Import what finds the regions.

    Raises:
        ExtraError: rasterio is not installed.
    """
    try:
        return importlib.import_module("rasterio.features")
    except ImportError as error:
        raise ExtraError("Regions as GeoJSON need rasterio: pip install 'unet_dist[geo]'.") from error


def write_regions(path: Path, labels: np.ndarray, names: Sequence[str], palette: np.ndarray) -> None:
    """Write each region of one class (4 neighbours) as an annotation: a polygon with holes, px from the upper left corner.

    Memory: twice the label map, and one region.

    Args:
        labels: (H, W) uint8 or uint16; an id without a name is no region.
        names: of the classes, from id 0 on.
        palette: (num_classes, 3) uint8.

    Raises:
        DataError: the file cannot be written; nothing is then left under its name.
    """
    classes = [
        {"name": name, "color": colour} for name, colour in zip(names, palette[: len(names)].tolist(), strict=True)
    ]
    # By 4 neighbours, as a polygon of 8 may touch itself at a corner, which is invalid in GeoJSON.
    regions = require_features().shapes(np.asarray(labels), mask=labels < len(names), connectivity=4)
    with replacing(path) as temporary, open(temporary, "x", encoding="utf-8", errors="replace", newline="\n") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for number, (geometry, value) in enumerate(regions):
            rings = [[[int(col), int(row)] for col, row in ring] for ring in geometry["coordinates"]]
            feature = {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": rings},
                "properties": {"objectType": "annotation", "classification": classes[int(value)]},
            }
            file.write((",\n" if number else "\n") + json.dumps(feature, ensure_ascii=False))
        file.write("\n]}\n")
