"""Values that a file says to scale are read as the quantity that it means, in every format; its fill value is no data."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from tests.imaging.test_envi import write_envi
from unet_dist.data.decoded.labels import LabelRules
from unet_dist.errors import RefusedError
from unet_dist.imaging.image import Interpret
from unet_dist.imaging.reader import open_image

SHAPE = (24, 20, 3)
STORED = np.random.default_rng(0).integers(1, 10_000, SHAPE).astype(np.uint16)
STORED[3, 4] = 65535
FACTOR, OFFSET = 0.0001, -0.1
MEANT = (STORED.astype(np.float64) * FACTOR + OFFSET).astype(np.float32)

Write = Callable[[Path, str, str], Path]


def write_tiff(path: Path, factor: str = f"{FACTOR}", offset: str = f"{OFFSET}", **how: object) -> Path:
    """As GDAL writes Sentinel-2: a factor and an offset for each band, and 65535 for no data."""
    items = "".join(
        f'<Item name="{role.upper()}" sample="{band}" role="{role}">{number}</Item>'
        for band in range(3)
        for role, number in (("scale", factor), ("offset", offset))
    )
    tags = [(42112, "s", 0, f"<GDALMetadata>{items}</GDALMetadata>", True), (42113, "s", 0, "65535", True)]
    where = path / "a.tif"
    tifffile.imwrite(where, STORED, **({"photometric": "rgb"} | how), extratags=tags)
    return where


def write_bands(path: Path, factor: str = f"{FACTOR}", offset: str = f"{OFFSET}") -> Path:
    more = f"data ignore value = 65535\ndata gain values = {{{factor}, {factor}, {factor}}}\n"
    return write_envi(path / "a", STORED, more=f"{more}data offset values = {{{offset}, {offset}, {offset}}}\n")


def write_zarr(path: Path, factor: float | str = FACTOR, offset: float | str = OFFSET, version: int = 3) -> Path:
    """As xarray writes it."""
    where = path / "a.zarr"
    named = {"dimension_names": ("y", "x", "band")} if version == 3 else {}
    array = zarr.create_array(
        str(where),
        shape=SHAPE,
        dtype="uint16",
        chunks=(16, 16, 3),
        zarr_format=version,
        fill_value=65535 if version == 2 else 0,
        **named,
    )
    array[...] = STORED
    fill = {"_FillValue": 65535} if version == 3 else {"_ARRAY_DIMENSIONS": ["y", "x", "band"]}
    array.attrs.update({"scale_factor": factor, "add_offset": offset, **fill})
    return where


WRITERS = {
    "tiff": write_tiff,
    "tiles": lambda path: write_tiff(path, tile=(16, 16), compression="deflate"),
    "planes": lambda path: write_bands(path),
    "zarr": write_zarr,
    "zarr 2": lambda path: write_zarr(path, version=2),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_pixels_are_the_quantity_and_no_data_is_the_stored_value(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    path = write(tmp_path)
    with open_image(path) as image:
        pixels, known = image.read(2, 22, 3, 19), image.known(0, 24, 0, 20)
        assert image.dtype == np.float32
    expected = STORED.max(axis=2) < 65535
    assert known is not None
    assert np.array_equal(known, expected)
    assert np.array_equal(pixels[expected[2:22, 3:19]], MEANT[2:22, 3:19][expected[2:22, 3:19]])
    with open_image(path, value_range=(0.0, 0.5)) as image:  # of the quantity, too
        assert image.read(0, 1, 0, 1).tolist() == np.rint(np.clip(MEANT[:1, :1], 0, 0.5) * 510).tolist()
    ids = Interpret(lambda stored: lambda values: values[..., :1], np.dtype(np.uint16))
    with pytest.raises(RefusedError, match="is a mask, and states the scale"):
        open_image(path, interpret=ids)


@pytest.mark.parametrize("write", [write_tiff, write_bands, write_zarr])
@pytest.mark.parametrize(("factor", "offset"), [("0", "0"), ("much", "0"), ("1", "nan"), ("inf", "0")])
def test_a_scale_that_is_none_is_a_sentence(tmp_path: Path, write: Write, factor: str, offset: str) -> None:
    path = write(tmp_path, factor, offset)
    with pytest.raises(RefusedError, match=r"states the (scale|offset) .* Expected a finite number"):
        open_image(path)


@pytest.mark.parametrize("write", [write_tiff, write_bands, write_zarr])
def test_a_scale_of_one_changes_nothing(tmp_path: Path, write: Write) -> None:
    with open_image(write(tmp_path, "1.0", "0")) as image:
        assert image.dtype == np.uint16
        assert np.array_equal(image.read(0, 3, 0, 20), STORED[:3])


def test_the_divisor_of_reflectance_divides_and_two_quantities_are_refused(tmp_path: Path) -> None:
    with open_image(write_envi(tmp_path / "a", STORED, more="reflectance scale factor = 10000\n")) as image:
        assert np.array_equal(image.read(0, 3, 0, 20), (STORED[:3] * np.float64(1 / 10000)).astype(np.float32))
    gains = "data gain values = {0.1, 0.1, 0.2}\nreflectance scale factor = 10000\n"
    with pytest.raises(RefusedError, match="which mean different quantities"):
        open_image(write_envi(tmp_path / "b", STORED, more=gains))


def _zarr_of(path: Path, dtype: str, attributes: dict[str, object]) -> Path:
    array = zarr.create_array(
        str(path), shape=(4, 4), dtype=dtype, chunks=(4, 4), fill_value=0, dimension_names=("y", "x")
    )
    array[...] = np.arange(16).reshape(4, 4)
    array.attrs.update(attributes)
    return path


@pytest.mark.parametrize("fill", [7.0, base64.standard_b64encode(struct.pack("<d", 7.0)).decode()])
def test_a_fill_value_of_floats_is_no_data_as_xarray_writes_it(tmp_path: Path, fill: object) -> None:
    with open_image(_zarr_of(tmp_path / "a.zarr", "float32", {"_FillValue": fill})) as image:
        known = image.known(0, 4, 0, 4)
    assert known is not None
    assert np.argwhere(~known).tolist() == [[1, 3]]


def test_what_chunks_hold_that_were_never_written_is_data(tmp_path: Path) -> None:
    with open_image(_zarr_of(tmp_path / "a.zarr", "uint8", {})) as image:
        assert image.known(0, 4, 0, 4) is None


@pytest.mark.parametrize(
    ("attributes", "says"),
    [
        ({"_Unsigned": "true"}, "says _Unsigned: true of int16"),
        ({"missing_value": [1, 2]}, r"calls 1 and 2 no data \(_FillValue, missing_value\)"),
        ({"scale_factor": [1, 2]}, "states the scale 1, 2 for its 1 channel"),
    ],
)
def test_conventions_that_cannot_be_kept_are_sentences(
    tmp_path: Path, attributes: dict[str, object], says: str
) -> None:
    with pytest.raises(RefusedError, match=says):
        open_image(_zarr_of(tmp_path / "a.zarr", "int16", attributes))


def test_alpha_is_not_scaled(tmp_path: Path) -> None:
    """A band of alpha has the factor 1 in GDAL's files, and says where there are data."""
    values = np.dstack([STORED, np.full(SHAPE[:2], 65535, np.uint16)])
    values[5, 6, 3] = 0
    item = '<GDALMetadata><Item name="SCALE" sample="1" role="scale">0.5</Item></GDALMetadata>'
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, values, photometric="rgb", extrasamples=["unassalpha"], extratags=[(42112, "s", 0, item, True)]
    )
    with open_image(path) as image:
        known = image.known(0, 24, 0, 20)
        assert known is not None
        assert np.argwhere(~known).tolist() == [[5, 6]]
        assert np.array_equal(image.read(0, 3, 0, 20), STORED[:3] * np.float32([1, 0.5, 1]))


def write_imagej(path: Path, stored: np.ndarray, *words: str) -> Path:
    """As ImageJ writes it: words of its own in the description."""
    where = path / "a.tif"
    text = "\n".join(["ImageJ=1.54f", *words, ""])
    tifffile.imwrite(where, stored, photometric="minisblack", description=text, metadata=None)
    return where


@pytest.mark.parametrize(
    ("dtype", "words", "factor", "offset"),
    [
        ("uint16", ("cf=0", "c0=-32768.0", "c1=1.0", "vunit=Gray Value"), 1.0, -32768.0),
        ("uint16", ("cf=0", "c0=-1024.0", "c1=0.5", "vunit=HU"), 0.5, -1024.0),
        ("uint8", ("c0=3.0", "c1=2.0", "vunit=OD", "zeroclip=true"), 2.0, 3.0),
        ("int16", ("cf=0", "c0=-32768.0", "c1=2.0", "vunit=HU"), 2.0, 32768.0),
    ],
)
def test_the_line_of_imagej_is_applied_as_imagej_does(
    tmp_path: Path, dtype: str, words: tuple[str, ...], factor: float, offset: float
) -> None:
    """Of signed values ImageJ calibrates those that it has made unsigned: 2 * (v + 32768) - 32768."""
    stored = np.random.default_rng(0).integers(0, 120, (24, 20)).astype(dtype)
    with open_image(write_imagej(tmp_path, stored, *words)) as image:
        pixels = image.read(0, 24, 0, 20)[..., 0]
    assert pixels.dtype == np.float32
    assert np.array_equal(pixels, (stored * factor + offset).astype(np.float32))


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        ("uint16", ("cf=0", "c0=0.0", "c1=1.0", "vunit=Gray Value")),
        ("uint16", ("cf=0", "c0=-1024.0", "c1=0.5")),  # no unit: ImageJ leaves it out
        ("float32", ("cf=0", "c0=-1024.0", "c1=0.5", "vunit=HU")),  # of 32 bits it is a unit alone
        ("int16", ("cf=0", "c0=-32768.0", "c1=1.0", "vunit=Gray Value")),
        ("uint8", ("cf=20", "vunit=Gray Value")),
    ],
)
def test_what_imagej_does_not_calibrate_stays_as_stored(tmp_path: Path, dtype: str, words: tuple[str, ...]) -> None:
    stored = np.arange(480).reshape(24, 20).astype(dtype)
    with open_image(write_imagej(tmp_path, stored, *words)) as image:
        assert image.dtype == stored.dtype
        assert np.array_equal(image.read(0, 24, 0, 20)[..., 0], stored)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("cf=21", "vunit=Uncalibrated OD"), "ImageJ's calibration number 21 .cf., which is no line"),
        (("cf=7", "c0=1", "c1=2", "c2=3", "c3=4", "vunit=OD"), "ImageJ's calibration number 7"),
        (("cf=0", "c0=-3", "c1=1", "vunit=OD", "zeroclip=true"), "calibration with zeroclip"),
        (("cf=0", "c0=nan", "c1=1", "vunit=OD"), "states the offset nan"),
    ],
)
def test_a_curve_of_imagej_is_a_sentence(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    path = write_imagej(tmp_path, np.zeros((24, 20), np.uint8), *words)
    with pytest.raises(RefusedError, match=says):
        open_image(path)


def test_a_calibrated_stack_has_its_line_on_every_page(tmp_path: Path) -> None:
    stored = np.arange(2 * 16 * 16, dtype=np.uint16).reshape(2, 16, 16)
    tifffile.imwrite(
        tmp_path / "a.tif", stored, imagej=True, metadata={"axes": "ZYX", "cf": 0, "c0": 5.0, "c1": 0.25, "vunit": "HU"}
    )
    with open_image(tmp_path / "a.tif#2") as image:
        assert np.array_equal(image.read(0, 16, 0, 16)[..., 0], (stored[1] * 0.25 + 5).astype(np.float32))


@pytest.mark.parametrize(
    ("dtype", "attributes", "missing"),
    [
        ("int16", {"valid_range": [2, 13]}, [0, 1, 14, 15]),
        ("uint8", {"valid_min": 3}, [0, 1, 2]),
        ("float32", {"valid_max": 12.5, "_FillValue": 4.0}, [4, 13, 14, 15]),
        ("uint16", {"valid_range": [1, 14], "scale_factor": 0.5}, [0, 15]),
        ("float32", {"_FillValue": float("nan"), "missing_value": 7.0}, [7]),
        ("int16", {"missing_value": 7}, [7]),
    ],
)
def test_values_beyond_the_valid_range_are_no_data(
    tmp_path: Path, dtype: str, attributes: dict[str, object], missing: list[int]
) -> None:
    """Of packed values it bounds the stored ones, as CF has it."""
    with open_image(_zarr_of(tmp_path / "a.zarr", dtype, attributes)) as image:
        known, pixels = image.known(0, 4, 0, 4), image.read(0, 4, 0, 4)
    assert known is not None
    assert np.flatnonzero(~known.ravel()).tolist() == missing
    factor = np.float32(attributes.get("scale_factor", 1))
    assert np.array_equal(pixels.ravel()[known.ravel()], np.arange(16)[known.ravel()] * factor)


@pytest.mark.parametrize(
    "attributes",
    [
        {"valid_range": [3]},
        {"valid_range": [5, 3]},
        {"valid_range": ["0", "9"]},
        {"valid_range": [0, 9], "valid_max": 9},
        {"valid_max": None, "valid_min": float("nan")},
        {"valid_range": [0.0, 0.9], "scale_factor": 0.1},
        {"_FillValue": 0, "missing_value": 1},
    ],
)
def test_limits_that_are_none_are_sentences(tmp_path: Path, attributes: dict[str, object]) -> None:
    with pytest.raises(RefusedError, match=r"a\.zarr .*(valid_range|_FillValue)"):
        open_image(_zarr_of(tmp_path / "a.zarr", "int16", attributes))


def test_ids_beyond_the_valid_range_are_a_sentence(tmp_path: Path) -> None:
    ids = Interpret(lambda stored: lambda values: values[..., :1], np.dtype(np.uint16))
    path = _zarr_of(tmp_path / "a.zarr", "uint8", {"valid_range": [0, 12], "_FillValue": 15})
    with (
        open_image(path, interpret=ids) as mask,
        pytest.raises(RefusedError, match="is a mask with 13, beyond its valid_range"),
    ):
        mask.read(0, 4, 0, 4)
    path = _zarr_of(tmp_path / "b.zarr", "uint8", {"valid_range": [0, 14], "_FillValue": 15})
    with open_image(path, interpret=ids) as mask:
        assert mask.read(0, 4, 0, 4).ravel().tolist() == list(range(16))


def write_calibrated_png(path: Path, stored: np.ndarray, *, first: int = 0, last: int = 65535, kind: int = 0) -> Path:
    """A PNG with the chunk pCAL: -0.5 + 13.107 * value / (x1 - x0)."""
    from PIL import Image

    Image.fromarray(stored).save(path)
    content = path.read_bytes()
    body = b"heat\0" + struct.pack(">iiBB", first, last, kind, 2) + b"K\0-0.5\x0013.107"
    chunk = struct.pack(">I", len(body)) + b"pCAL" + body + struct.pack(">I", zlib.crc32(b"pCAL" + body))
    path.write_bytes(content[:33] + chunk + content[33:])  # behind the header
    return path


def test_a_calibrated_png_is_the_quantity(tmp_path: Path) -> None:
    stored = STORED[:, :, 0].copy()
    with open_image(write_calibrated_png(tmp_path / "a.png", stored)) as image:
        assert image.dtype == np.float32
        np.testing.assert_allclose(image.read(0, 24, 0, 20)[:, :, 0], stored * (13.107 / 65535) - 0.5, rtol=1e-6)
    rgb = (STORED % 256).astype(np.uint8)
    transparent = np.dstack([rgb, np.where(rgb[:, :, 0] > 99, 255, 0).astype(np.uint8)])
    with open_image(write_calibrated_png(tmp_path / "b.png", transparent, last=255)) as image:
        np.testing.assert_allclose(image.read(0, 24, 0, 20), rgb * (13.107 / 255) - 0.5, rtol=1e-5)
        np.testing.assert_array_equal(image.known(0, 24, 0, 20), rgb[:, :, 0] > 99)
    for options in ({"kind": 1}, {"last": 4095}):
        with pytest.raises(RefusedError, match=r"measure \(pCAL\), and not by a line .* take the chunk pCAL out"):
            open_image(write_calibrated_png(tmp_path / "c.png", stored, **options))
    with pytest.raises(RefusedError, match="is a mask, and states the scale"):
        open_image(tmp_path / "a.png", interpret=Interpret(lambda stored: lambda values: values))


@pytest.mark.parametrize(
    ("attributes", "label_map", "expected"),
    [
        ({"flag_masks": [1, 2, 4], "flag_meanings": "cloud snow water"}, None, None),
        ({"flag_masks": [1, 2, 4]}, {"0": 0, "1-15": 1}, [0, 1, 1, 1]),
        ({"flag_values": [0, 1, 2, 3], "flag_meanings": "land cloud snow water"}, None, [0, 1, 2, 3]),
    ],
)
def test_flags_of_a_mask_are_no_ids_and_listed_ids_are(
    tmp_path: Path, attributes: dict[str, object], label_map: dict[str | int, int] | None, expected: list[int] | None
) -> None:
    path = _zarr_of(tmp_path / "m.zarr", "uint8", attributes)
    rules = LabelRules(num_classes=None, label_map=label_map)
    if expected is None:
        with pytest.raises(RefusedError, match=r"holds flags, .* \(flag_masks of CF\)\. Say which class each value is"):
            open_image(path, interpret=Interpret(rules.reader_of))
        return
    with open_image(
        path, interpret=Interpret(lambda stored: lambda values: rules.reader_of(stored)(values)[..., None])
    ) as mask:
        assert mask.read(0, 1, 0, 4).ravel().tolist() == expected
