"""Proves that finished rasters hold the values, their overviews and their place in the world, always the same bytes, and
that a failure in the middle leaves nothing under the final name."""

import asyncio
import errno
import hashlib
import os
import subprocess
import sys
import threading
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.imaging.windows import assert_windows_equal, whole
from unet_dist.errors import DataError
from unet_dist.imaging.image import Placement
from unet_dist.imaging.palette import class_palette
from unet_dist.imaging.raster import write_raster
from unet_dist.imaging.reader import open_image
from unet_dist.imaging.scratch import Scratch

PALETTE = class_palette(35)
PLACEMENT = Placement(
    (40_000.0, 20_000.0),
    3,
    {
        33550: (0.5, 0.25, 0.0),
        33922: (0.0, 0.0, 0.0, 400_000.0, 5_800_000.0, 0.0),
        34735: (1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 32633),
        34737: "WGS 84 / UTM zone 33N|",
    },
)


@pytest.fixture(scope="module")
def labels():
    """(1100, 1301): three levels, and no side a multiple of a tile."""
    coarse = np.random.default_rng(0).integers(0, 35, (110, 131), dtype=np.uint8)
    labels = coarse.repeat(10, 0).repeat(10, 1)[:, :1301]
    labels[5, 7] = 255
    return labels


def digest(path):
    """One hash of a file, or of every file in a folder with its name."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    hashed = hashlib.sha256()
    for file in files:
        if file.is_file():
            hashed.update(str(file.relative_to(path)).encode() + file.read_bytes())
    return hashed.hexdigest()


@pytest.mark.parametrize("suffix", [".png", ".tif", ".zarr"])
def test_ids_beyond_8_bits_come_back_as_they_were(suffix, labels, tmp_path):
    many = labels.astype(np.uint16) * 200
    many[5, 7] = 65535
    write_raster(
        tmp_path / f"a{suffix}", many, palette=class_palette(7001), placement=replace(PLACEMENT, has_nodata=True)
    )
    with open_image(tmp_path / f"a{suffix}") as reader:
        assert reader.dtype == np.uint16
        np.testing.assert_array_equal(whole(reader)[..., 0], many)
    if suffix == ".tif":
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            assert file.pages[0].tags[42113].value == "65535"


def test_rational_coefficients_are_kept_and_scaled(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    numbers = dict(
        zip(("line_num_coeff", "line_den_coeff", "samp_num_coeff", "samp_den_coeff"), np.eye(4, 20), strict=True)
    )
    offsets = {"line_off": 7.5, "samp_off": 3.5, "lat_off": 50.0, "long_off": 10.0, "height_off": 300.0}
    scales = {"line_scale": 8.0, "samp_scale": 4.0, "lat_scale": 0.1, "long_scale": 0.1, "height_scale": 500.0}
    rpcs = rasterio.rpc.RPC(
        err_bias=1.0, err_rand=0.5, **{key: list(row) for key, row in numbers.items()}, **offsets, **scales
    )
    shape = {"height": 16, "width": 8, "count": 1, "dtype": "uint8"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(tmp_path / "image.tif", "w", driver="GTiff", rpcs=rpcs, **shape) as file:
            file.write(np.zeros((1, 16, 8), np.uint8))
        with open_image(tmp_path / "image.tif") as reader:
            placement = reader.placement
        write_raster(tmp_path / "a.tif", np.zeros((16, 8), np.uint8), palette=PALETTE, placement=placement)
        half = placement.scaled(2, 2)
        write_raster(tmp_path / "b.tif", np.zeros((8, 4), np.uint8), palette=PALETTE, placement=half)
        found = [rasterio.open(tmp_path / name).rpcs for name in ("a.tif", "b.tif")]
    assert found[0].to_dict() == rpcs.to_dict()
    # The centre of the image, between its pixels, and its half stay where they are.
    assert (found[1].line_off, found[1].samp_off, found[1].line_scale, found[1].samp_scale) == (3.5, 1.5, 4.0, 2.0)
    assert found[1].lat_off == 50.0


def test_a_label_tiff_is_a_tiled_compressed_coloured_pyramid_in_its_place(labels, tmp_path):
    path = tmp_path / "a.tif"
    write_raster(path, labels, palette=PALETTE, placement=PLACEMENT)
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff
        levels = file.series[0].levels
        assert [level.shape for level in levels] == [(1100, 1301), (550, 651), (275, 326)]
        for number, level in enumerate(levels):
            np.testing.assert_array_equal(level.asarray(), labels[:: 2**number, :: 2**number])
            page = level.keyframe
            assert (page.tile, page.compression.name, page.photometric.name) == ((512, 512), "ADOBE_DEFLATE", "PALETTE")
            assert (page.colormap[:, :35] >> 8 == PALETTE.T).all()
            assert (page.colormap[:, 35:] == 0).all()
            assert page.is_reduced == (number > 0)
    with open_image(path) as reader:
        assert reader.placement == PLACEMENT
    with open_image(path, level=1) as reader:
        assert reader.placement.resolution == pytest.approx((40_000 * 651 / 1301, 20_000 / 2))
    assert path.stat().st_size < labels.size / 10


def test_its_colours_are_those_of_the_palette(labels, tmp_path):
    write_raster(tmp_path / "a.tif", labels, palette=PALETTE)
    colours = np.zeros((256, 3), np.uint8)
    colours[:35] = PALETTE
    with open_image(tmp_path / "a.tif") as reader:
        assert_windows_equal(reader, colours[labels], num_windows=5)
        assert reader.placement == Placement()


def test_other_software_opens_it(labels, tmp_path):
    path = tmp_path / "a.tif"
    write_raster(path, labels, palette=PALETTE, placement=PLACEMENT)
    with Image.open(path) as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), labels)
    openslide = pytest.importorskip("openslide", reason="the extra slides is not installed")
    with openslide.OpenSlide(path) as slide:
        assert slide.level_dimensions == ((1301, 1100), (651, 550), (326, 275))
        assert slide.read_region((0, 0), 1, (1, 1)).getpixel((0, 0))[:3] == tuple(PALETTE[labels[0, 0]])


@pytest.mark.parametrize("suffix", ["tif", "zarr"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float16])
def test_probabilities_are_planes(tmp_path, suffix, dtype):
    if suffix == "zarr":
        pytest.importorskip("zarr", minversion="3", reason="zarr 3 needs Python 3.11")
    planes = np.random.default_rng(0).integers(0, 256, (3, 600, 700)).astype(dtype)
    if dtype == np.float16:
        planes /= 255
    path = tmp_path / f"a.{suffix}"
    write_raster(path, planes, placement=PLACEMENT)
    value_range = None if dtype == np.uint8 else (0.0, 1.0)
    for number in (0, 1):
        with open_image(path, level=number, value_range=value_range) as reader:
            assert reader.shape == planes[:, :: 2**number, :: 2**number].transpose(1, 2, 0).shape
            expected = planes.astype(np.float32) * (1 if dtype == np.uint8 else 255)
            np.testing.assert_allclose(
                whole(reader), expected[:, :: 2**number, :: 2**number].transpose(1, 2, 0), atol=0.6
            )
    if suffix == "tif":
        np.testing.assert_array_equal(tifffile.imread(path), planes)


def test_a_label_zarr_is_an_ome_pyramid_with_colours_and_place(labels, tmp_path):
    zarr = pytest.importorskip("zarr", minversion="3", reason="zarr 3 needs Python 3.11")
    path = tmp_path / "a.zarr"
    write_raster(path, labels, palette=PALETTE, placement=PLACEMENT)
    group = zarr.open_group(str(path), mode="r")
    for number, shape in enumerate([(1100, 1301), (550, 651), (275, 326)]):
        assert group[str(number)].shape == shape
        assert group[str(number)].chunks == (512, 512)
        np.testing.assert_array_equal(group[str(number)][...], labels[:: 2**number, :: 2**number])
    assert group.attrs["ome"]["image-label"]["colors"][3] == {"label-value": 3, "rgba": [*PALETTE[3].tolist(), 255]}
    assert group.attrs["geotiff"]["34737"] == "WGS 84 / UTM zone 33N|"
    with open_image(path) as reader:
        assert reader.placement.resolution == pytest.approx(PLACEMENT.resolution)
        np.testing.assert_array_equal(whole(reader)[:, :, 0], labels)
    with open_image(path, level=1) as reader:
        assert reader.placement.resolution == pytest.approx((40_000 * 651 / 1301, 10_000))


def test_a_small_label_map_is_a_png_and_grey_where_it_has_no_palette(labels, tmp_path):
    write_raster(tmp_path / "a.png", labels, palette=PALETTE)
    write_raster(tmp_path / "b.png", labels)
    for name, mode in (("a.png", "P"), ("b.png", "L")):
        picture = Image.open(tmp_path / name)
        assert picture.mode == mode
        np.testing.assert_array_equal(np.asarray(picture), labels)


@pytest.mark.parametrize("suffix", ["tif", "zarr", "png"])
def test_the_same_values_are_the_same_bytes_from_memory_or_disk_and_with_any_threads(labels, tmp_path, suffix):
    if suffix == "zarr":
        pytest.importorskip("zarr", minversion="3", reason="zarr 3 needs Python 3.11")
    with Scratch(tmp_path / "a.raw", labels.shape) as scratch:
        scratch.write(0, 0, labels)
        digests = set()
        for name, values, num_threads in (("a", labels, 1), ("b", scratch.values(), 1), ("c", labels, 3)):
            path = tmp_path / name / f"same.{suffix}"
            write_raster(path, values, palette=PALETTE, placement=PLACEMENT, num_threads=num_threads)
            digests.add(digest(path))
    assert len(digests) == 1


def test_an_older_file_is_replaced(labels, tmp_path):
    for suffix in ("tif", "png"):
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(b"old")
        write_raster(path, labels, palette=PALETTE)
        assert path.stat().st_size > 1000
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.png", "a.tif"]


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("a.gif", np.zeros((4, 4), np.uint8), r"a.gif is of no known kind. Expected a name that ends in .png, .tif"),
        ("a.png", np.zeros((3, 4, 4), np.uint8), r"\(3, 4, 4\) uint8. A PNG holds one uint8 plane.*name it .tif"),
        ("a.png", np.zeros((4, 4), np.float16), "A PNG holds one uint8 plane"),
        ("a.png", np.broadcast_to(np.uint8(0), (8193, 8192)), "at most 67108864 px: name it .tif or .zarr"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(tmp_path, name, values, words):
    with pytest.raises(DataError, match=words):
        write_raster(tmp_path / name, values)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB, where the test may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("suffix", ["tif", "zarr", "png"])
def test_a_full_disk_leaves_the_old_file_and_nothing_half_written(small_disk, suffix):
    if suffix == "zarr":
        pytest.importorskip("zarr", minversion="3", reason="zarr 3 needs Python 3.11")
    noise = np.random.default_rng(0).integers(0, 256, (1400, 1400), dtype=np.uint8)
    path = small_disk / f"a.{suffix}"
    write_raster(path, noise[:100, :100])
    before = digest(path)
    with pytest.raises(DataError, match=rf"a.{suffix} could not be written: No space left on device. Make room"):
        write_raster(path, noise, num_threads=2)
    assert [entry.name for entry in small_disk.iterdir()] == [path.name]
    assert digest(path) == before


def test_no_write_of_zarr_goes_on_when_one_has_failed(labels, tmp_path, monkeypatch):
    zarr = pytest.importorskip("zarr", minversion="3", reason="zarr 3 needs Python 3.11")
    begun, ended, dropped, write = [], [], threading.Event(), zarr.storage.LocalStore.set

    def write_late(key):
        begun.append(key)
        dropped.wait(30)
        ended.append(key)

    async def fail_first(store, key, value):
        if "/c/" not in key:
            return await write(store, key, value)
        if key.endswith("/c/0/0"):
            while len(begun) < 2:  # the other chunks of its row
                await asyncio.sleep(0)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        try:
            await asyncio.to_thread(write_late, key)
        except asyncio.CancelledError:
            dropped.set()
            raise

    monkeypatch.setattr(zarr.storage.LocalStore, "set", fail_first)
    try:
        with pytest.raises(DataError, match="No space left"):
            write_raster(tmp_path / "a.zarr", labels)
        assert len(ended) == len(begun) == 2
        assert list(tmp_path.iterdir()) == []
    finally:
        dropped.set()


def test_a_disk_without_room_for_the_scratch_is_noticed_at_once(small_disk):
    with pytest.raises(DataError, match=r"needs 1.9 MiB more, and its disk has 1.0 MiB free"):
        Scratch(small_disk / "a.raw", (1400, 1400))
    scratch = Scratch(small_disk / "b.raw", (900, 1000))
    (small_disk / "other").write_bytes(bytes(800_000))
    with pytest.raises(DataError, match=r"b.raw could not be written: No space left on device. Make room"):
        scratch.write(0, 0, np.ones((900, 1000), np.uint8))
    scratch.close()


def test_a_writer_killed_in_the_middle_leaves_nothing_under_the_final_name(tmp_path):
    code = """
import os, sys, numpy as np
from unet_dist.imaging import raster
tiles = raster._tiles
def dying(values):
    for number, tile in enumerate(tiles(values)):
        if number == 5:
            os.kill(os.getpid(), 9)
        yield tile
raster._tiles = dying
raster.write_raster(sys.argv[1], np.zeros((2000, 2000), np.uint8))
"""
    path = tmp_path / "a.tif"
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    assert not path.exists()
    assert len(list(tmp_path.iterdir())) == 1  # what it was writing, which the next attempt replaces
    write_raster(path, np.zeros((2000, 2000), np.uint8))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.tif"]


def ordinary_memory():
    """RssAnon of this process in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="RssAnon is Linux's")
def test_memory_does_not_grow_with_the_raster(tmp_path, monkeypatch):
    from unet_dist.imaging import raster

    seen = []
    tiles = raster._tiles

    def watched(values):
        for tile in tiles(values):
            seen.append(ordinary_memory())
            yield tile

    monkeypatch.setattr(raster, "_tiles", watched)
    for side in (1024, 12_000):
        with Scratch(tmp_path / f"{side}.raw", (side, side)) as scratch:
            start = ordinary_memory()
            seen.clear()
            write_raster(tmp_path / f"{side}.tif", scratch.values(), num_threads=2)
            assert (
                max(seen) - start < 64 * 2**20
            )  # the buffer of 32 MiB and what compressing takes; 137 MiB is the raster
