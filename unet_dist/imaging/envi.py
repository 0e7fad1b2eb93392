"""ENVI: a text header (.hdr) beside raw values, as spectral cameras and remote sensing write them; mapped into memory.

Owns the header's words and where the values lie. An image is named by its header or by its raw file. Bands that the header calls
bad (bbl) keep their numbers, as in GDAL, and no place lacks data for what they hold.
Source: NV5 Geospatial, "ENVI Header Files" (fields and data types).
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from unet_dist.errors import RefusedError
from unet_dist.imaging.encoded import Encoded, parsing
from unet_dist.imaging.image import ImageFormat, Opening, Placement
from unet_dist.imaging.pyramid import choose_level
from unet_dist.imaging.readers import ArrayReader
from unet_dist.imaging.values import Scaling, nodata_of, scaling_by_band, scaling_of
from unet_dist.storage.mapped import watched

_RAW_SUFFIXES = ("", ".dat", ".img", ".raw", ".bin", ".bsq", ".bil", ".bip", ".cube")
_TYPES = {1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 12: "u2", 13: "u4", 14: "i8", 15: "u8"}
_AXES = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (2, 0, 1)}
"""Of each interleave where bands, lines and samples stand."""
_MOST_HEADER_BYTES = 2**22


def open_envi(encoded: Encoded, opening: Opening) -> ArrayReader:
    """Map an image of any interleave, byte order and type of real numbers.

    Band names are the header's, or else its wavelengths. "data ignore value" is nodata; a map info in UTM or degrees of WGS-84 is
    the place in the world. Gains and offsets are applied, and so is the divisor "reflectance scale factor".

    Raises:
        RefusedError: no raw file beside the header, one that is too short, compressed, or of complex values; gains to more
            than one quantity.
    """
    header = _header_of(encoded)
    assert header is not None, encoded
    with parsing(encoded.name, kind="ENVI header"):
        words = _parse(header)
        raw = data_of(header) if encoded.path == header else encoded.path
        if raw is None:
            looked = ", ".join(f"{header.stem}{suffix}" for suffix in _RAW_SUFFIXES[:4])
            raise RefusedError(
                f"{encoded.name} is an ENVI header without its raw file", f"Put it beside: {looked} or the like."
            )
        array = _map(raw, words, encoded.name)
        nodata = nodata_of(
            words.get("data ignore value", "") if opening.nodata is None else opening.nodata, array.dtype
        )
        beside = scaling_by_band(*opening.scales, array.shape[2], encoded.name)
        scaling = beside or _scaling(words, array.shape[2], encoded.name)
        names, bad = _band_names(words, array.shape[2]), _bad_bands(words, array.shape[2], encoded.name)
        placement = Placement(geo_tags=_geo_tags(words), band_names=names, bad_bands=bad)
    reader = ArrayReader(
        array,
        value_range=opening.value_range,
        interpret=opening.interpret,
        keeps_channels=opening.keeps_channels,
        nodata=nodata,
        name=encoded.name,
        placement=placement,
        scaling=scaling,
    )
    choose_level([reader.shape[:2]], None, level=opening.level, mpp=opening.mpp, name=encoded.name)
    return reader


def data_of(header: Path) -> Path | None:
    """Find the raw file of a header: of its name with another end, or of its name without .hdr (scene.dat.hdr)."""
    stems = [header.with_suffix("")]
    stems += [header.with_suffix(suffix) for suffix in (*_RAW_SUFFIXES, *map(str.upper, _RAW_SUFFIXES)) if suffix]
    return next((path for path in stems if path.is_file() and path != header), None)


def _header_of(encoded: Encoded) -> Path | None:
    """The header of an image that is named by it, or by its raw file; None of anything else."""
    path = encoded.path
    if path is None or encoded.is_folder:
        return None
    if path.suffix.lower() == ".hdr":
        return path if encoded.head[:4] == b"ENVI" else None
    if path.suffix.lower() not in _RAW_SUFFIXES:
        return None
    for header in (path.with_suffix(".hdr"), path.with_name(f"{path.name}.hdr"), path.with_suffix(".HDR")):
        if header.is_file() and Encoded(header, encoded.name).head[:4] == b"ENVI":
            return header
    return None


def _class_names(path: Path) -> dict[int, str]:
    header = _header_of(Encoded(path, str(path)))
    return {} if header is None else dict(enumerate(_listed(_parse(header), "class names")))


ENVI = ImageFormat(
    "ENVI",
    (".hdr",),
    lambda encoded: _header_of(encoded) is not None,
    open_envi,
    True,
    beside=lambda path: [raw for raw in [data_of(path)] if raw is not None],
    class_names=_class_names,
)


def _parse(header: Path) -> dict[str, str]:
    """Read `key = value` lines; a value in braces may take several lines, and ; begins a comment."""
    with header.open("rb") as file:
        text = file.read(_MOST_HEADER_BYTES).decode("utf-8", errors="replace")
    text = "\n".join(line for line in text.split("\n") if not line.lstrip().startswith(";"))
    # Without a pattern, which made-up headers can keep busy for hours.
    words: dict[str, str] = {}
    last_brace, at = text.rfind("}"), 0
    while at < len(text):
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        key, equals, value = text[at:end].partition("=")
        if equals and key and "{" not in key and "}" not in key:
            brace = end - len(value.lstrip(" \t"))
            if text.startswith("{", brace) and brace < last_brace:
                close = text.find("}", brace)
                value = text[brace:close]
                following = text.find("\n", close)
                end = len(text) if following < 0 else following
            words[" ".join(key.lower().split())] = value.strip().strip("{}").strip()
        at = end + 1
    return words


def _map(raw: Path, words: dict[str, str], name: str) -> np.ndarray:
    """View the values as (lines, samples, bands)."""
    lines, samples, bands = (_whole(words, key, name) for key in ("lines", "samples", "bands"))
    number = _whole(words, "data type", name)
    if number not in _TYPES:
        raise RefusedError(
            f"{name} has the data type {number}",
            f"Expected real numbers, one of {', '.join(map(str, _TYPES))}: convert it.",
        )
    interleave = words.get("interleave", "bsq").lower()
    if interleave not in _AXES:
        raise RefusedError(f'{name} has the interleave "{interleave}"', "Expected bsq, bil or bip: write it anew.")
    if words.get("file compression", "0") not in ("", "0"):
        raise RefusedError(f"{name} is a compressed ENVI file", "Write it without compression, or as GeoTIFF.")
    dtype = np.dtype((">" if words.get("byte order", "0") == "1" else "<") + _TYPES[number])
    offset = int(words.get("header offset", "0") or 0)
    places = _AXES[interleave]
    sides = dict(zip(places, (bands, lines, samples), strict=True))
    shape = tuple(sides[axis] for axis in range(3))
    needed, size = offset + bands * lines * samples * dtype.itemsize, raw.stat().st_size
    if min(shape) < 1 or size < needed:
        raise RefusedError(
            f"{name}: {raw.name} holds {size:,} bytes, and its header needs {needed:,}", "Copy both files again."
        )
    values = watched(np.memmap(raw, dtype, mode="r", offset=offset, shape=shape))
    return values.transpose(places[1], places[2], places[0])


def _whole(words: dict[str, str], key: str, name: str) -> int:
    if key not in words:
        raise RefusedError(f"{name} is an ENVI header without {key}", "Copy it again.")
    return int(words[key])


def _band_names(words: dict[str, str], bands: int) -> tuple[str, ...]:
    """The names of bands, or their wavelengths with the unit; none where they are not one for each band."""
    names = _listed(words, "band names")
    if len(names) != bands:
        unit = {"nanometers": " nm", "micrometers": " um", "nm": " nm", "um": " um"}.get(
            words.get("wavelength units", "").lower(), ""
        )
        names = [f"{wavelength}{unit}" for wavelength in _listed(words, "wavelength")]
    return tuple(names) if len(names) == bands else ()


def _bad_bands(words: dict[str, str], bands: int, name: str) -> tuple[int, ...]:
    """The numbers of the bands that are not to be used, from 1. Raises: RefusedError: the list is not one of all bands."""
    said = _listed(words, "bbl")
    if said and (len(said) != bands or not {float(word) for word in said} <= {0.0, 1.0}):
        raise RefusedError(
            f"{name} has {bands} bands, and its list of bad bands (bbl) {len(said)} entries, or others than 0 and 1",
            "Correct the list, or take it out of the header.",
        )
    return tuple(number for number, word in enumerate(said, 1) if not float(word))


def _scaling(words: dict[str, str], bands: int, name: str) -> Scaling | None:
    """Read what the values stand for. Raises: RefusedError: no numbers, or two of radiance, reflectance and a divisor."""
    found = {
        f"{kind} gain values": scaling_of(
            _listed(words, f"{kind} gain values"), _listed(words, f"{kind} offset values"), bands, name
        )
        for kind in ("data", "data reflectance")
    }
    divisor = scaling_of(_listed(words, "reflectance scale factor"), [], 1, name)
    if divisor is not None:
        found["reflectance scale factor"] = Scaling((1 / divisor.factors[0],) * bands, (0.0,) * bands)
    stated = {key: scaling for key, scaling in found.items() if scaling is not None}
    if len(stated) > 1:
        raise RefusedError(
            f"{name} states {' and '.join(stated)}, which mean different quantities",
            "Take those lines out of the header that you do not want.",
        )
    return next(iter(stated.values()), None)


def _listed(words: dict[str, str], key: str) -> list[str]:
    return [" ".join(word.split()) for word in words[key].split(",")] if words.get(key) else []


def _geo_tags(words: dict[str, str]) -> dict[int, object]:
    """The place in the world as GeoTIFF has it, where the header says one that needs no look-up: UTM or degrees, of WGS-84."""
    info = _listed(words, "map info")
    if len(info) < 7 or any(re.match(r"rotation\s*=\s*(?!0*\.?0*$)", word, re.IGNORECASE) for word in info):
        return {}
    col, row, x, y, x_size, y_size = map(float, info[1:7])
    tags: dict[int, object] = {33550: (x_size, y_size, 0.0), 33922: (col - 1, row - 1, 0.0, x, y, 0.0)}
    is_wgs84 = any(re.sub(r"[^a-z0-9]", "", word.lower()) == "wgs84" for word in info[7:])
    if is_wgs84 and info[0].upper() == "UTM" and len(info) > 8:
        code = (32600 if info[8].lower().startswith("n") else 32700) + int(info[7])
        tags[34735] = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, code)
    elif is_wgs84 and info[0].lower().startswith("geographic"):
        tags[34735] = (1, 1, 0, 3, 1024, 0, 1, 2, 1025, 0, 1, 1, 2048, 0, 1, 4326)
    return tags
