"""Compare our reading of a folder of odd image files with Pillow's and tifffile's own reading, file by file.

    python -m tests.measure.corpus FOLDER [--limit 200] [--seconds 20]

For each file: read, with pixels equal to the reference (upright, unconverted, alpha left off), or refused in one sentence; and a
pair of it with a mask is read or refused alike, so that training and prediction agree. Printed: how many of each, each file that
differs, and the largest memory. Exit code 1 where a file is a fault.
"""

from __future__ import annotations

import argparse
import logging
import resource
import signal
import sys
import warnings
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import tifffile
from PIL import Image, ImageOps

from unet_dist.data.decoded.decode import decode_pair
from unet_dist.data.decoded.labels import LabelRules
from unet_dist.data.sources.pairs import RawPair
from unet_dist.errors import UnetDistError
from unet_dist.imaging.formats import image_suffixes
from unet_dist.imaging.reader import open_image
from unet_dist.imaging.values import upright

_MAX_PIXELS = 50_000_000


class _TooLongError(BaseException):
    pass


def read_ours(path: Path) -> np.ndarray | str:
    """Pixels, or the sentence of the refusal."""
    try:
        with open_image(path, max_pixels=_MAX_PIXELS) as reader:
            height, width, _ = reader.shape
            return np.array(reader.read(0, height, 0, width))
    except UnetDistError as error:
        return str(error)


def read_as_pair(path: Path, shape: tuple[int, ...]) -> np.ndarray | str:
    """The same as training reads it."""
    pair = RawPair("a", path, np.zeros(shape[:2], np.uint8), str(path), "mask")
    try:
        return decode_pair(pair, LabelRules(num_classes=2), _MAX_PIXELS).image
    except UnetDistError as error:
        return str(error)


def read_reference(path: Path) -> np.ndarray | None:
    """The pixels by Pillow or tifffile; None where they do not read it, or it is no one image of grey or colour."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _tiff(path) if path.suffix.lower() in (".tif", ".tiff") else _picture(path)
    except _TooLongError:
        raise
    except Exception:  # noqa: BLE001, whatever a parser raises
        return None


def _picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        is_deep_grey = image.mode in ("I;16", "I;16B", "I")
        if (
            "16" in str(getattr(image, "tile", "")) and not is_deep_grey and image.format != "BMP"
        ):  # 16 bits of all three colours
            return _deep_picture(path)  # Pillow keeps 8 of 16 bits
        image.load()
        turned = ImageOps.exif_transpose(image)
        if image.format == "JPEG2000" and is_deep_grey:
            return np.atleast_3d(np.asarray(turned) >> 16 - _bits_of_jpeg2000(path))
        grey, palette = turned.mode in ("1", "L", "LA"), turned.mode in ("P", "PA")
        if turned.has_transparency_data and not is_deep_grey:
            return np.asarray(turned.convert("LA" if grey else "RGBA"))[..., :-1]
        return np.atleast_3d(np.asarray(turned.convert("L" if grey else "RGB") if grey or palette else turned))


def _bits_of_jpeg2000(path: Path) -> int:
    """Bits of a grey JPEG 2000 without sign: Pillow shifts them up to 16, which is undone."""
    data = path.read_bytes()
    return data[data.index(b"\xff\x4f\xff\x51") + 42] + 1


def _deep_picture(path: Path) -> np.ndarray:
    """Read colours of 16 bits by OpenCV, which has them in its own order."""
    values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if values is None or values.ndim != 3:
        raise ValueError("no colours")
    return values[:, :, 2::-1]


def _tiff(path: Path) -> np.ndarray:
    with tifffile.TiffFile(path) as file:
        page, series = file.series[0].keyframe, file.series[0]
        values = series.asarray()
        if series.axes in ("SYX", "CYX"):
            values = np.moveaxis(values, 0, -1)
        values = np.atleast_3d(values)
        if page.photometric == 3:
            table = page.colormap.T
            values = (table >> 8 if table.max() > 255 else table).astype(np.uint8)[values[..., 0].astype(np.intp)]
            return upright(values, page.tags.valueof(274, default=1))
        if page.bitspersample == 1:
            values = values.astype(bool) * np.uint8(255)
        if page.photometric == 0:
            values = np.iinfo(values.dtype).max - values
        kinds = [int(kind) for kind in page.extrasamples]
        if any(kind in (1, 2) for kind in kinds):
            place = page.samplesperpixel - len(kinds) + next(i for i, kind in enumerate(kinds) if kind in (1, 2))
            values = np.delete(values, place, axis=2)
        return upright(values, page.tags.valueof(274, default=1))


def judge(path: Path) -> tuple[str, str]:
    """The outcome of a file: a word, and the remark on it."""
    ours = read_ours(path)
    if isinstance(ours, str):
        told = read_as_pair(path, (1, 1))
        if not isinstance(told, str) or "and its mask" in told:  # it came as far as the sizes
            return "FAULT", f"prediction refuses what training reads: {ours}"
        return "refused", ours
    reference = read_reference(path)
    as_pair = read_as_pair(path, ours.shape)
    if isinstance(as_pair, str) or not np.array_equal(as_pair, ours, equal_nan=ours.dtype.kind == "f"):
        return "FAULT", f"training reads other pixels than prediction: {as_pair if isinstance(as_pair, str) else ''}"
    if reference is None:
        return "read, without a reference", f"{ours.dtype} {ours.shape}"
    if ours.shape == reference.shape and np.array_equal(ours, reference, equal_nan=ours.dtype.kind == "f"):
        return "equal", f"{ours.dtype} {ours.shape}"
    return "FAULT", f"{ours.dtype} {ours.shape} is not the reference's {reference.dtype} {reference.shape}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, default=200, help="files, evenly spread")
    parser.add_argument("--seconds", type=int, default=20, help="of the processor that one file may take")
    parser.add_argument("--verbose", action="store_true", help="print every file")
    options = parser.parse_args()
    files = sorted(p for p in options.folder.rglob("*") if p.is_file() and p.suffix.lower() in image_suffixes())
    chosen = (
        [files[i * len(files) // options.limit] for i in range(options.limit)] if len(files) > options.limit else files
    )
    Image.MAX_IMAGE_PIXELS = None
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")

    def stop(*_: object) -> None:
        raise _TooLongError

    signal.signal(signal.SIGPROF, stop)
    counts: Counter[str] = Counter()
    for path in chosen:
        signal.setitimer(signal.ITIMER_PROF, options.seconds)
        try:
            word, said = judge(path)
        except _TooLongError:
            word, said = "FAULT", f"more than {options.seconds} s"
        except Exception as error:  # noqa: BLE001, what this looks for
            word, said = "FAULT", f"{type(error).__name__}: {error}"
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        counts[word] += 1
        if word == "FAULT" or options.verbose or "\n" in said:
            print(f"{word}: {path}: {said}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{len(chosen)} of {len(files)} files: {', '.join(f'{n} {word}' for word, n in counts.most_common())}")
    print(f"largest memory: {peak:.2f} GiB")
    sys.exit(1 if counts["FAULT"] else 0)


if __name__ == "__main__":
    main()
