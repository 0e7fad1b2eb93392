"""Exports of annotation tools that are not read, told by their files, so that the refusal names the tool and the way out.

Owns what marks them. Must not be asked before everything that is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from unet_dist.data.sources.walk import UNREAD, is_hidden
from unet_dist.wording import listed

_END_BYTES = 2**16
_DEEPEST, _MOST_FILES = 3, 2000
"""assumption: a look at so many files tells what a folder holds."""

_COCO = "Export COCO, whose outlines are read."
# The end of the file's name, what it holds near its ends without spaces (all of these), the tool, and the way out.
_MARKS: tuple[tuple[str, tuple[bytes, ...], str, str], ...] = (
    (".json", (b'"data_format_version":"3', b'"project"'), "a project of VIA 3", _COCO),
    (".json", (b'"classTitle"',), "annotations of Supervisely", "Export masks or COCO."),
    (".json", (b'"classes"', b'"title"', b'"shape"'), "a project of Supervisely", "Export masks or COCO."),
    (".json", (b'"categories"', b'"items"'), "a data set of Datumaro", "Convert it: datum convert -f coco."),
    (".json", (b'"poly2d"',), "labels of BDD100K", "Take its bitmasks, or convert it to COCO."),
    (".json", (b'"segments_info"',), "panoptic COCO", "Export instances (outlines), or masks of class ids."),
    (".json", (b'"item"', b'"annotations"', b'"slots"'), "annotations of V7 Darwin", _COCO),
    (".json", (b'"bounding_box"', b'"paths"'), "annotations of V7 Darwin", _COCO),
    (".geojson", (b'"Feature"',), "GeoJSON without a FeatureCollection", "Export it as one FeatureCollection."),
    (".xml", (b"<annotation>", b"<bndbox>"), "boxes of Pascal VOC", "Draw outlines: a box says nothing of the pixels."),
    (
        ".xml",
        (b"<Regions>", b"<Vertices>"),
        "regions of Aperio",
        "Draw them as masks of class ids, or as GeoJSON in QuPath.",
    ),
    (
        ".xml",
        (b"<ASAP_Annotations>",),
        "annotations of ASAP",
        "Draw them as masks of class ids, or as GeoJSON in QuPath.",
    ),
    (".csv", (b"EncodedPixels",), "a table of run lengths", "Convert it to COCO, or to masks of class ids."),
    (".csv", (b"rle_mask",), "a table of run lengths", "Convert it to COCO, or to masks of class ids."),
    (".npy", (b"'descr':'|O'",), "pickles, as Cellpose's _seg.npy", "Save the masks as PNG or TIFF (x_cp_masks.png)."),
    (
        ".zip",
        (b".roi",),
        "regions of ImageJ",
        "Save masks: in ImageJ, ROI Manager, then Edit > Selection > Create Mask.",
    ),
    (".roi", (b"Iout",), "regions of ImageJ", "Save masks: in ImageJ, Edit > Selection > Create Mask."),
    (".shp", (), "a shapefile", "Convert it: ogr2ogr -f GPKG OUT.gpkg IN.shp."),
    (".kml", (), "KML", "Convert it: ogr2ogr -f GPKG OUT.gpkg IN.kml."),
    (".geojsonl", (), "GeoJSON by lines", "Convert it: ogr2ogr -f GPKG OUT.gpkg IN.geojsonl."),
)
_VOLUMES = (".nii", ".gz", ".dcm", ".nrrd", ".mha", ".mhd", ".mrc")


def describe_unread(root: Path) -> str:
    """Say what a folder holds that is not read, and the way out, two sentences; empty where nothing is known."""
    unread: dict[str, Path] = {}
    for path in islice(_files(root, 0), _MOST_FILES):
        suffix = path.suffix.lower()
        for end, marks, name, remedy in _MARKS:
            if suffix == end and all(mark in _ends_of(path) for mark in marks):
                return f"{path.relative_to(root)} looks like {name}, which is not read. {remedy}"
        if suffix in UNREAD:
            unread.setdefault(suffix, path)
    if not unread:
        return ""
    named = listed(str(path.relative_to(root)) for path in unread.values())
    if unread.keys() & set(_VOLUMES):
        return (
            f"It holds {named}, a format that is not read. Write each slice as TIFF or .npy, image and mask with the same axes; "
            "nibabel reads NIfTI, pydicom DICOM."
        )
    return f"It holds {named}, a format that is not read. Convert it to TIFF or PNG."


def _files(folder: Path, depth: int) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if is_hidden(path.name):
            continue
        if path.is_file():
            yield path
        elif path.is_dir() and depth < _DEEPEST:
            yield from _files(path, depth + 1)


def _ends_of(path: Path) -> bytes:
    """Give the start and the end of a file, without spaces."""
    try:
        with path.open("rb") as file:
            start = file.read(_END_BYTES)
            file.seek(max(file.tell(), path.stat().st_size - _END_BYTES))
            return b"".join((start + file.read()).split())
    except OSError:
        return b""
