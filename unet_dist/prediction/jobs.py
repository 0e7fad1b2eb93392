"""Which images are predicted, and into which files.

Owns the reading of INPUT words, the names and formats of the outputs, and that no output falls on another file of the
prediction. Must not know how a label is computed.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from unet_dist.errors import ConfigError, DataError
from unet_dist.imaging.encoded import split_page, stem_of
from unet_dist.imaging.formats import files_beside, looks_like_image
from unet_dist.imaging.gdal_beside import is_beside
from unet_dist.imaging.image import DEFAULT_MAX_PIXELS
from unet_dist.imaging.pixels import EIGHT_BIT, Pixels, require_channels
from unet_dist.imaging.reader import ImageReader
from unet_dist.imaging.regions import require_features
from unet_dist.imaging.slide import SLIDE_SUFFIXES
from unet_dist.imaging.stacks import ALL, Select, images_in
from unet_dist.imaging.views import GreyAsColour
from unet_dist.imaging.zarr_store import is_zarr, require_zarr
from unet_dist.machine.cores import num_cores
from unet_dist.wording import counted, make_unique

Format = Literal["auto", "png", "tiff", "zarr"]
OpenReader = Callable[[Path], ImageReader]

_TIFF_SUFFIXES = (".tif", ".tiff")
_MOST_JUDGES = 8
"""Images that are decoded at once to see whether they can be."""
_MOST_NAME_BYTES = 217
"""Of an image without the end of its file's name. Derived: 255, less _overlay.png and the 26 that a file has until it is whole."""
_SUFFIX = {"png": ".png", "tiff": ".tif", "zarr": ".zarr"}


@dataclass(frozen=True)
class Job:
    """One image to predict.

    Attributes:
        source: the image.
        shape: (height, width).
        outputs: file of each raster asked for: labels, and perhaps probabilities and confidence; of labels as PNG, where classes
            overlap, one for each: labels/0, labels/1 ...
        overlay: file of the overlay, None where there is none.
        beside: files beside the label map: names (of its classes, for GDAL) and what --also asks for.
    """

    source: Path
    shape: tuple[int, int]
    outputs: dict[str, Path] = field(default_factory=dict)
    overlay: Path | None = None
    beside: dict[str, Path] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """The job as JSON, to tell other processes of it; `of` reads it."""
        return {
            "source": str(self.source),
            "shape": list(self.shape),
            "outputs": {kind: str(path) for kind, path in self.outputs.items()},
            "overlay": None if self.overlay is None else str(self.overlay),
            "beside": {kind: str(path) for kind, path in self.beside.items()},
        }

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Job:
        """The job that a record is of."""
        height, width = record["shape"]
        outputs = {kind: Path(path) for kind, path in record["outputs"].items()}
        overlay = None if record["overlay"] is None else Path(record["overlay"])
        beside = {kind: Path(path) for kind, path in record["beside"].items()}
        return cls(Path(record["source"]), (height, width), outputs, overlay, beside)


def find_sources(
    words: Sequence[str], select: Select = ALL, masks_among: Callable[[Sequence[Path]], Sequence[Path]] | None = None
) -> list[Path]:
    """Expand files, folders, globs and stacks, each in the order of its names; an image named twice counts once.

    Args:
        select: the images of stacks that are meant.
        masks_among: names the files of a folder that are masks, which are left out; one that is named itself stays.

    Raises:
        DataError: a word that gives no image.
    """
    sources: list[Path] = []
    for word in words:
        path = Path(word)
        if path.is_dir() and not (is_zarr(path) or path.suffix == ".zarr"):
            found = sorted(p for p in path.iterdir() if looks_like_image(p))
            masks = set(masks_among(found)) if masks_among else set()
            found = [p for p in found if p not in masks]
        elif split_page(path)[0].exists():
            found = [path]
        else:
            found = [Path(name) for name in sorted(glob.glob(word, recursive=True))]
        if not found:
            raise DataError(
                f"{word}: got no image, expected an image file, a folder of images or a glob that fits some. Check the path."
            )
        sources += (image for file in found for image in images_in(file, select))
    return list(dict.fromkeys(sources))


def find_left_out(words: Sequence[str]) -> list[Path]:
    """What the folders among the words hold beside images: other files, and folders, which are not searched; hidden ones apart."""
    folders = [path for path in map(Path, words) if path.is_dir() and not (is_zarr(path) or path.suffix == ".zarr")]
    inside = (path for folder in folders for path in sorted(folder.iterdir()))
    others = [path for path in inside if not looks_like_image(path) and not path.name.startswith(".")]
    parts = {
        part for folder in folders for path in folder.iterdir() if looks_like_image(path) for part in files_beside(path)
    }
    return [path for path in others if path not in parts and not is_beside(path)]


def keep_readable(
    sources: Sequence[Path], *, open_reader: OpenReader, in_channels: int, pixels: Pixels = EIGHT_BIT
) -> tuple[list[Path], dict[Path, str]]:
    """Tell the images that can be predicted from those that cannot, which are named with their reason.

    The last pixel of each is read: an ordinary picture is decoded whole for it, a TIFF or Zarr only where it lies.

    Raises:
        DataError: the first of them, where not one can be predicted.
    """

    def judge(source: Path) -> DataError | None:
        num_bytes = len(os.fsencode(stem_of(source)))
        if num_bytes > _MOST_NAME_BYTES:
            return DataError(
                f"{source}: its name has {num_bytes} bytes, expected {_MOST_NAME_BYTES} at most: outputs are named by it. "
                "Rename it."
            )
        try:
            with open_reader(source) as reader:
                height, width, channels = reader.shape
                require_channels(channels, in_channels, str(source))
                pixels.require(reader, str(source))
                reader.read(height - 1, height, width - 1, width)
        except DataError as error:
            return error
        return None

    with ThreadPoolExecutor(min(_MOST_JUDGES, num_cores())) as pool:
        errors = {source: error for source, error in zip(sources, pool.map(judge, sources), strict=True) if error}
    if len(errors) == len(sources):
        raise errors[sources[0]]
    return [source for source in sources if source not in errors], {s: str(error) for s, error in errors.items()}


def make_jobs(
    sources: Sequence[Path],
    output: Path,
    *,
    open_reader: OpenReader,
    in_channels: int,
    rasters: Sequence[str],
    class_names: Sequence[str] | None = None,
    format: Format,
    overlay: bool,
    beside: Sequence[str] = (),
    say: Callable[[str], None] | None = None,
    pixels: Pixels = EIGHT_BIT,
) -> list[Job]:
    """Read each image's header and name its outputs.

    Args:
        output: folder of the outputs.
        open_reader: opens an image.
        in_channels, pixels: that the network takes.
        rasters: labels, and perhaps probabilities and confidence.
        class_names: of overlapping classes, whose labels have a plane each; None where a pixel has one class.
        format: auto keeps TIFF and Zarr, and takes PNG for the others up to DEFAULT_MAX_PIXELS. Probabilities, and labels of
            overlapping classes, which have a plane per class, are TIFF instead of PNG; such labels as PNG have a file per class.
        overlay: for images of at most DEFAULT_MAX_PIXELS, as an overlay is made in memory.
        beside: names, qgis, geojson: what stands beside a map of one class per pixel; names only beside TIFF.
        say: takes a line for the user.

    Raises:
        DataError: an image that cannot be opened or has other channels, an output that would overwrite an input or
            another output, or an image too large for the format.
        ExtraError: zarr is not installed.
    """
    jobs, num_grey = [], 0
    for source in sources:
        with open_reader(source) as reader:
            height, width, channels = reader.shape
            num_grey += isinstance(reader, GreyAsColour)
            require_channels(channels, in_channels, str(source))
            pixels.require(reader, str(source))
        is_small = height * width <= DEFAULT_MAX_PIXELS
        suffix = _suffix(source, format, is_small)
        if "geojson" in beside and not is_small:
            raise DataError(
                f"{source}: got also geojson for an image of more than {DEFAULT_MAX_PIXELS} px, whose regions are found in memory. "
                "Remove geojson from --also."
            )
        if suffix == ".zarr":
            require_zarr()  # now, and not when all is computed
        stem = stem_of(source)
        outputs: dict[str, Path] = {}
        for kind in rasters:
            name = stem if kind == "labels" else f"{stem}_{kind}"
            is_planar = kind == "probabilities" or (kind == "labels" and class_names is not None)
            if kind == "labels" and class_names is not None and format == "png":
                for number, part in enumerate(_file_names(class_names)):
                    outputs[f"{kind}/{number}"] = output / f"{name}_{part}.png"
            else:
                outputs[kind] = output / f"{name}{'.tif' if is_planar and suffix == '.png' else suffix}"
        picture = output / f"{stem}_overlay.png" if overlay and is_small else None
        jobs.append(Job(source, (height, width), outputs, picture, _beside(outputs.get("labels"), beside)))
    _require_apart(jobs)
    if num_grey and say is not None:
        say(f"{counted(num_grey, 'grey image')} read as colour, grey repeated: the network takes colour")
    return jobs


def kinds_beside(also: str | None, *, overlap: bool, has_names: bool) -> list[str]:
    """Name the kinds of files beside each label map.

    Args:
        also: the kinds asked for, separated by commas.
        overlap: a pixel may have several classes.
        has_names: the network's classes have names.

    Raises:
        ConfigError: they are asked for where a pixel may have several classes.
        ExtraError: rasterio is not installed, which finds regions.
    """
    asked = [] if also is None else list(dict.fromkeys(also.split(",")))
    if asked and overlap:
        raise ConfigError(
            f"also: got {also} for a network whose classes overlap, expected none: qgis and geojson show one class per pixel. "
            "Remove it."
        )
    if "geojson" in asked:
        require_features()
    return ["names"] * (has_names and not overlap) + asked


def _beside(labels: Path | None, kinds: Sequence[str]) -> dict[str, Path]:
    """Name the files beside a label map, as GDAL and QGIS look for them."""
    if labels is None:
        return {}
    names = {"names": f"{labels.name}.aux.xml", "qgis": f"{labels.stem}.qml", "geojson": f"{labels.stem}.geojson"}
    return {kind: labels.with_name(names[kind]) for kind in kinds if kind != "names" or labels.suffix in _TIFF_SUFFIXES}


def _file_names(class_names: Sequence[str]) -> list[str]:
    """Names of classes that fit into a file's name, all different."""
    return make_unique([re.sub(r"[^\w.-]+", "_", name)[:60] or "_" for name in class_names])


def _suffix(source: Path, format: Format, is_small: bool) -> str:
    if format == "png" and not is_small:
        raise DataError(
            f"{source}: got format png for an image of more than {DEFAULT_MAX_PIXELS} px, expected tiff, zarr or auto. "
            "Change --format."
        )
    if format != "auto":
        return _SUFFIX[format]
    if split_page(source)[0].is_dir():
        return ".zarr"
    is_deep = split_page(source)[0].suffix.lower() in (*_TIFF_SUFFIXES, *SLIDE_SUFFIXES)
    return ".png" if is_small and not is_deep else ".tif"


def files_of(job: Job) -> Iterator[Path]:
    """Yield every file that a job makes."""
    yield from job.outputs.values()
    yield from job.beside.values()
    if job.overlay is not None:
        yield job.overlay


def _require_apart(jobs: Sequence[Job]) -> None:
    """Refuse outputs that fall on an input or on each other."""
    inputs = {job.source.resolve() for job in jobs}
    makers: dict[Path, Path] = {}
    for job in jobs:
        for path in files_of(job):
            whole = path.resolve()
            if whole in inputs:
                raise DataError(f"{path}: the output would overwrite an input. Choose another --output.")
            if whole in makers:
                raise DataError(
                    f"{job.source} and {makers[whole]} would both become {path}. Predict them into two folders."
                )
            makers[whole] = job.source


def describe(jobs: Sequence[Job]) -> Iterator[str]:
    """A line per job for the few that fit on a screen."""
    for job in jobs[:5]:
        first, *others = files_of(job)
        yield f"{job.source.name} -> {first}" + "".join(f", {path.name}" for path in others)
    if len(jobs) > 5:
        yield f"and {len(jobs) - 5} more"
