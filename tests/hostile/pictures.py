"""Images as subjects: every format in several forms, read as an image and as a mask, compared with what other readers get."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numcodecs
import numpy as np
import tifffile
import zarr
from PIL import Image, ImageOps
from zarr.codecs import GzipCodec

from tests.data.pictures import png_of_bits
from tests.hostile.judging import Subject, Wrong
from unet_dist.data.decoded.decode import decode_pair
from unet_dist.data.decoded.labels import LabelRules
from unet_dist.data.sources.pairs import RawPair
from unet_dist.errors import UnetDistError
from unet_dist.imaging.reader import open_image

MAX_PIXELS = 2**22
_SHOWN_PX = 600
_RULES = LabelRules(num_classes=200)


def _draw(height: int, width: int, channels: int = 3) -> np.ndarray:
    rows, cols = np.mgrid[0:height, 0:width]
    planes = [rows * 5 + cols * 3, rows * cols, rows * 2 + 255 - cols]
    return np.stack(planes[:channels], axis=-1).astype(np.uint8)


def _encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _pictures() -> Iterator[tuple[str, bytes]]:
    colour, grey = Image.fromarray(_draw(37, 45)), Image.fromarray(_draw(37, 45, 1)[..., 0])
    palette = colour.quantize(17)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    yield "rgb.png", _encoded(colour, "PNG")
    yield "grey.png", _encoded(grey, "PNG")
    yield "palette.png", _encoded(palette, "PNG")
    yield "opaque.png", _encoded(colour.convert("RGBA"), "PNG", exif=exif)
    yield "bits.png", png_of_bits([[0, 1, 3, 2], [3, 2, 1, 0]], 2)
    yield "one.png", _encoded(grey.convert("1"), "PNG")
    yield "deep.png", png_of_bits([[0, 300, 5], [65535, 1, 2]], 16)
    yield "turned.jpg", _encoded(colour, "JPEG", exif=exif, quality=90)
    yield "progressive.jpg", _encoded(grey, "JPEG", progressive=True)
    yield "lossless.webp", _encoded(colour, "WEBP", lossless=True, exif=exif)
    yield "lossy.webp", _encoded(colour.convert("RGBA"), "WEBP")
    yield "palette.gif", _encoded(palette, "GIF")
    yield "rgb.bmp", _encoded(colour, "BMP")
    yield "palette.bmp", _encoded(palette, "BMP")
    yield "rgb.ppm", _encoded(colour, "PPM")
    yield "rgb.tga", _encoded(colour, "TGA", compression="tga_rle")
    yield "rgb.jp2", _encoded(colour, "JPEG2000")


def _write_tiffs(folder: Path) -> None:
    colour, grey = _draw(50, 70), _draw(50, 70, 1)[..., 0]
    tifffile.imwrite(folder / "mapped.tif", colour, photometric="rgb")
    tifffile.imwrite(
        folder / "strips.tif", colour, photometric="rgb", compression="deflate", rowsperstrip=8, predictor=True
    )
    tifffile.imwrite(folder / "tiles.tif", grey, photometric="minisblack", compression="lzw", tile=(16, 16))
    tifffile.imwrite(
        folder / "planes.tif", colour.transpose(2, 0, 1), photometric="rgb", planarconfig="separate", compression="zstd"
    )
    tifffile.imwrite(folder / "white.tif", grey, photometric="miniswhite", compression="packbits")
    tifffile.imwrite(folder / "big.tif", colour, photometric="rgb", tile=(32, 32), compression="deflate", bigtiff=True)
    tifffile.imwrite(folder / "jpeg.tif", _draw(64, 64), photometric="rgb", tile=(32, 32), compression="jpeg")
    tifffile.imwrite(folder / "order.tif", colour, photometric="rgb", byteorder=">", compression="lzma")
    with tifffile.TiffWriter(folder / "pyramid.tif") as writer:
        writer.write(colour, photometric="rgb", tile=(16, 16), subifds=1, compression="deflate")
        writer.write(colour[::2, ::2], photometric="rgb", tile=(16, 16), subfiletype=1, compression="deflate")
    if 4 in tifffile.TIFF.DECOMPRESSORS:  # an older imagecodecs reads no fax
        Image.fromarray(grey > 99).save(folder / "fax.tif", compression="group4")
    Image.fromarray(colour).quantize(9).save(folder / "palette.tif")


def _write_zarrs(folder: Path) -> None:
    colour = _draw(50, 70)
    gzip = {2: numcodecs.GZip(), 3: GzipCodec()}
    for version, name in ((2, "two.zarr"), (3, "three.zarr")):
        how = {"chunks": (32, 32, 3), "zarr_format": version, "compressors": gzip[version]}
        array = zarr.create_array(folder / name, shape=colour.shape, dtype="uint8", **how)
        array[...] = colour
    _write_levels(folder / "levels.zarr", colour, compressors=numcodecs.GZip())


def _write_blosc(folder: Path) -> None:
    _write_levels(folder / "levels.zarr", _draw(50, 70), compressors=numcodecs.Blosc())


def _write_levels(path: Path, colour: np.ndarray, **how: object) -> None:
    group = zarr.create_group(path, zarr_format=2)
    for level in range(2):
        part = colour[:: 2**level, :: 2**level]
        # In two steps: zarr 3.0 takes no data here.
        array = group.create_array(str(level), shape=part.shape, dtype=part.dtype, chunks=(16, 16, 3), **how)
        array[...] = part
    sets = [{"path": str(level)} for level in range(2)]
    group.attrs["multiscales"] = [{"axes": [{"name": axis} for axis in "yxc"], "datasets": sets, "version": "0.4"}]


def _arrays() -> Iterator[tuple[str, np.ndarray]]:
    yield "rgb.npy", _draw(20, 30)
    yield "grey.npy", np.asfortranarray(_draw(20, 30, 1)[..., 0])
    yield "deep.npy", _draw(20, 30).astype(np.float32)


def _kept(write: Callable[[Path], object]) -> Callable[[Path], object]:
    """Write several images; a case damages one of them and reads it alone, told by its time of change."""

    def make(folder: Path) -> object:
        write(folder)
        return _stamps(folder)

    return make


def _stamps(folder: Path) -> dict[Path, tuple[int, int]]:
    return {
        path.relative_to(folder): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
        if not path.is_dir() or path.is_symlink()
    }


def _use(folder: Path, known: object) -> list[tuple[Path, np.ndarray]]:
    assert isinstance(known, dict)
    now = _stamps(folder)
    changed = {path.parts[0] for path in known.keys() | now.keys() if known.get(path) != now.get(path)}
    refusal: UnetDistError | None = None
    read: list[tuple[Path, np.ndarray]] = []
    for name in sorted(changed) or sorted({path.parts[0] for path in now}):
        try:
            read += read_both_ways(folder / name)
        except UnetDistError as error:
            refusal = error
    if refusal is not None:
        raise refusal
    return read


def read_both_ways(path: Path) -> list[tuple[Path, np.ndarray]]:
    """Read an image as prediction and as data do; gives the pixels that are to be compared with those of other readers.

    Raises:
        Wrong: they are not of the shape that was promised.
        UnetDistError: it is refused.
    """
    with contextlib.suppress(UnetDistError):
        decode_pair(RawPair("a", path, path, path.name, path.name), _RULES, MAX_PIXELS)
    value_range = (0.0, 255.0) if "deep" in path.name else None
    with open_image(path, max_pixels=MAX_PIXELS, value_range=value_range) as reader:
        height, width, channels = reader.shape
        pixels = reader.read(0, min(height, _SHOWN_PX), 0, min(width, _SHOWN_PX))
        if height * width <= MAX_PIXELS:
            pixels = reader.read(0, height, 0, width)
    if pixels.dtype != reader.dtype or pixels.shape[2] != channels:
        raise Wrong(f"{path.name}: {pixels.dtype} {pixels.shape}, and its shape is {reader.shape}")
    return [(path, pixels)] if value_range is None and height * width <= MAX_PIXELS else []


def _compare_all(read: list[tuple[Path, np.ndarray]]) -> None:
    for path, pixels in read:
        _compare(path, pixels)


def _compare(path: Path, pixels: np.ndarray) -> None:
    """Refuse pixels that differ from those of every other reader that can read the file.

    Raises:
        Wrong: they do.
    """
    others: dict[str, np.ndarray] = {}
    for name, read in _READERS.items():
        try:
            got = read(path)
        except Exception:  # noqa: BLE001, it may refuse for its own reasons
            continue
        if got is not None:
            others[name] = got
    tolerance = 255 if not others else 12 if path.suffix in (".jpg", ".webp", ".jp2") or path.name == "jpeg.tif" else 0
    for got in others.values():
        got = got[:, :, None] if got.ndim == 2 else got
        if got.shape[:2] == pixels.shape[:2] and _differ(got, pixels) <= tolerance:
            return
    if others:
        raise Wrong(f"{path.name}: {pixels.shape}, {', '.join(f'{name} {got.shape}' for name, got in others.items())}")


def _differ(got: np.ndarray, pixels: np.ndarray) -> int:
    """The largest difference; of grey that somebody shows as three equal channels too."""
    if got.shape[2] == pixels.shape[2] + 1:
        got = got[:, :, :-1]  # an opaque alpha, as transparency is refused
    if pixels.shape[2] == 1 and got.shape[2] == 3:
        pixels = np.repeat(pixels, 3, axis=2)
    if got.shape != pixels.shape or got.dtype != pixels.dtype:
        return 256
    difference = np.abs(np.nan_to_num(got).astype(np.float64) - np.nan_to_num(pixels))
    return int(np.ceil(difference.max(initial=0)))


def _by_pillow(path: Path) -> np.ndarray | None:
    with Image.open(path) as image:
        placed = 33550 in getattr(image, "tag_v2", {})
        image.load()
        # Pillow gives 16 bits of colour, and grey of few bits, in its own way.
        grey = image.mode in ("1", "L", "LA")
        turned = image if placed else ImageOps.exif_transpose(image)
        return np.asarray(turned.convert("L" if grey else "RGB"))


def _by_opencv(path: Path) -> np.ndarray | None:
    if path.suffix in (".tif", ".tga", ".jp2") or not path.is_file():
        return None  # of TIFF it is libtiff again, with colours of its own
    values = cv2.imread(str(path), cv2.IMREAD_COLOR)
    return None if values is None else values[:, :, ::-1]


def _by_tifffile(path: Path) -> np.ndarray | None:
    if path.suffix != ".tif":
        return None
    with tifffile.TiffFile(path) as file:
        page = file.series[0].keyframe
        values = file.series[0].asarray()
        if page.photometric == 3:
            table = page.colormap.T
            values = (table >> 8 if table.max() > 255 else table).astype(np.uint8)[values]
        if page.planarconfig == 2 and values.ndim == 3:
            values = values.transpose(1, 2, 0)
        if page.bitspersample == 1:
            values = values.astype(np.uint8) * 255
        values = 255 - values if page.photometric == 0 else values
        orientation = page.tags.valueof(274, default=1)
        return values if orientation == 1 else None


def _by_numpy(path: Path) -> np.ndarray | None:
    return np.load(path, allow_pickle=False) if path.suffix == ".npy" else None


def _by_zarr(path: Path) -> np.ndarray | None:
    if path.suffix != ".zarr":
        return None
    node = zarr.open(str(path), mode="r")
    return np.asarray((node if isinstance(node, zarr.Array) else node["0"])[...])


_READERS = {
    "Pillow": _by_pillow,
    "OpenCV": _by_opencv,
    "tifffile": _by_tifffile,
    "numpy": _by_numpy,
    "zarr": _by_zarr,
}


def _write_pictures(folder: Path) -> None:
    for name, content in _pictures():
        (folder / name).write_bytes(content)


def _write_arrays(folder: Path) -> None:
    for name, values in _arrays():
        np.save(folder / name, values)


SUBJECTS = [
    Subject("picture", _kept(_write_pictures), _use, 6, _compare_all),
    Subject("tiff", _kept(_write_tiffs), _use, 5, _compare_all),
    Subject("zarr", _kept(_write_zarrs), _use, 2, _compare_all),
    Subject("array", _kept(_write_arrays), _use, 1, _compare_all),
    Subject("blosc", _kept(_write_blosc), _use, 1, _compare_all),
]
