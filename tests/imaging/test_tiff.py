"""Proves that a window of a TIFF equals the window of the whole, for every way a TIFF can store pixels, and that only the
tiles and strips it touches are decoded."""

import os
import struct
from concurrent.futures import ThreadPoolExecutor

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.version import Version
from PIL import Image, ImageOps

from tests.imaging.windows import assert_windows_equal, rectangles, whole
from unet_dist.errors import ConfigError, DataError
from unet_dist.imaging.encoded import Encoded
from unet_dist.imaging.reader import open_image
from unet_dist.imaging.readers import BlockReader, TurnedReader

needs_few_bits = pytest.mark.skipif(
    Version(imagecodecs.__version__) < Version("2026.3.6"),
    reason="imagecodecs reads fax and writes few bits since 2026.3.6",
)
TILED = {"tile": (16, 32)}
LAYOUTS = {
    "one strip": {},
    "strips": {"rowsperstrip": 7},
    "strips, deflate": {"rowsperstrip": 7, "compression": "zlib"},
    "strips, LZW, predictor": {"rowsperstrip": 5, "compression": "lzw", "predictor": True},
    "tiles": TILED,
    "tiles, deflate, predictor": {**TILED, "compression": "zlib", "predictor": True},
    "tiles, zstd": {**TILED, "compression": "zstd"},
    "tiles, LZMA, big-endian": {**TILED, "compression": "lzma", "byteorder": ">"},
    "tiles, JPEG 2000": {**TILED, "compression": "jpeg2000"},
    "tiles, JPEG": {**TILED, "compression": "jpeg"},
    "strips, JPEG": {"rowsperstrip": 16, "compression": "jpeg"},
    "tiles, BigTIFF": {**TILED, "compression": "zlib", "bigtiff": True},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rgb_windows_equal_the_whole(rgb, tmp_path, layout):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, rgb, photometric="rgb", **LAYOUTS[layout])
    with open_image(path) as reader:
        assert_windows_equal(reader, tifffile.imread(path))  # JPEG: what is lost is lost in both


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if "JPEG" not in name])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_planes_and_grey_equal_the_whole(tmp_path, layout, channels):
    planes = np.random.default_rng(0).integers(0, 256, (channels, 37, 53), dtype=np.uint8)
    path = tmp_path / "a.tif"
    kind = {"planarconfig": "separate"} if channels > 1 else {}
    tifffile.imwrite(path, planes.squeeze(), photometric="minisblack", **kind, **LAYOUTS[layout])
    with open_image(path) as reader:
        assert_windows_equal(reader, planes.transpose(1, 2, 0))


@pytest.mark.parametrize("layout", ["one strip", "strips, deflate", "tiles", "tiles, zstd", "tiles, LZMA, big-endian"])
@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32, np.float64])
def test_wider_values_are_as_stored_or_mapped_by_the_stated_range(tmp_path, layout, dtype):
    values = np.random.default_rng(0).integers(0, 4096, (37, 53)).astype(dtype)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, **LAYOUTS[layout])
    with open_image(path, value_range=(0, 4095)) as reader:
        exact = np.rint(values.astype(np.float64) * 255 / 4095)
        assert_windows_equal(reader, exact[:, :, None])
    with open_image(path) as reader:
        assert reader.dtype == (np.float32 if dtype == np.float64 else dtype)
        assert_windows_equal(reader, values[:, :, None])


@pytest.mark.parametrize("kind", ["ome", "imagej"])
@pytest.mark.parametrize("compressed", [True, False])
def test_channels_on_pages_of_their_own(tmp_path, kind, compressed):
    planes = np.random.default_rng(0).integers(0, 256, (4, 37, 53), dtype=np.uint8)
    path = tmp_path / "a.tif"
    options = {"compression": "zlib", "tile": (16, 16)} if compressed and kind == "ome" else {}
    options |= {"compression": "zlib"} if compressed and kind == "imagej" else {}
    tifffile.imwrite(path, planes, photometric="minisblack", metadata={"axes": "CYX"}, **{kind: True}, **options)
    with open_image(path) as reader:
        assert_windows_equal(reader, planes.transpose(1, 2, 0))


@needs_few_bits
def test_a_palette_is_colour_and_min_is_white_is_turned(tmp_path):
    ids = np.random.default_rng(0).integers(0, 256, (37, 53), dtype=np.uint8)
    colormap = np.random.default_rng(1).integers(0, 256, (3, 256), dtype=np.uint16)
    for scale in (256, 1):  # as the standard says, and as some write it
        tifffile.imwrite(
            tmp_path / "p.tif", ids, photometric="palette", colormap=colormap * scale, compression="zlib", tile=(16, 16)
        )
        with open_image(tmp_path / "p.tif") as reader:
            assert_windows_equal(reader, colormap.T[ids])
    bits, table = ids > 99, colormap[:, :2] * 256
    tifffile.imwrite(tmp_path / "b.tif", bits, extratags=[(320, "H", 6, tuple(table.ravel().tolist()), True)])
    with tifffile.TiffFile(tmp_path / "b.tif", mode="r+") as file:  # tifffile writes no palette of one bit
        file.pages[0].tags[262].overwrite(3)
    with open_image(tmp_path / "b.tif") as reader:
        assert_windows_equal(reader, colormap.T[bits.astype(int)])
    with_alpha = np.stack([ids, np.where(ids > 40, 255, 0).astype(np.uint8)], axis=2)
    alpha_tags = [(320, "H", 768, tuple((colormap * 256).ravel().tolist()), True)]
    tifffile.imwrite(
        tmp_path / "a.tif", with_alpha, photometric="minisblack", extrasamples=["unassalpha"], extratags=alpha_tags
    )
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        file.pages[0].tags[262].overwrite(3)
    with open_image(tmp_path / "a.tif") as reader:
        known = reader.known(0, ids.shape[0], 0, ids.shape[1])
        pixels = reader.read(0, ids.shape[0], 0, ids.shape[1])
    np.testing.assert_array_equal(known, ids > 40)
    np.testing.assert_array_equal(pixels[known], colormap.T[ids][known])
    tifffile.imwrite(tmp_path / "w.tif", ids, photometric="miniswhite")
    with open_image(tmp_path / "w.tif") as reader:
        assert_windows_equal(reader, 255 - ids[:, :, None])
    deep = ids.astype(np.uint16) * 16
    tifffile.imwrite(tmp_path / "w.tif", deep, photometric="miniswhite", bitspersample=12)
    with open_image(tmp_path / "w.tif") as reader:
        assert_windows_equal(reader, 4095 - deep[:, :, None])
    tifffile.imwrite(tmp_path / "w.tif", deep.astype(np.uint32), photometric="miniswhite")
    with pytest.raises(DataError, match="stores white as 0 in uint32"):
        open_image(tmp_path / "w.tif")


@needs_few_bits
def test_one_bit_is_black_and_white_and_four_bits_need_a_range(tmp_path):
    bits = np.random.default_rng(0).integers(0, 2, (37, 53)).astype(bool)
    tifffile.imwrite(tmp_path / "b.tif", bits, photometric="minisblack")
    with open_image(tmp_path / "b.tif") as reader:
        assert_windows_equal(reader, bits[:, :, None] * np.uint8(255))
    tifffile.imwrite(tmp_path / "n.tif", bits.astype(np.uint8) * 15, bitspersample=4)
    with pytest.raises(DataError, match="holds 4-bit values"):
        open_image(tmp_path / "n.tif")
    with open_image(tmp_path / "n.tif", value_range=(0, 15)) as reader:
        assert_windows_equal(reader, bits[:, :, None] * np.uint8(255))


def test_tiles_that_a_sparse_file_leaves_out_are_empty(tmp_path):
    def tiles():
        for index in range(9):
            yield None if index % 2 else np.full((16, 16), index + 1, np.uint8)

    tifffile.imwrite(tmp_path / "s.tif", tiles(), shape=(48, 48), dtype=np.uint8, tile=(16, 16), compression="zlib")
    with open_image(tmp_path / "s.tif") as reader:
        expected = np.array([[1, 0, 3], [0, 5, 0], [7, 0, 9]], np.uint8).repeat(16, 0).repeat(16, 1)
        assert_windows_equal(reader, expected[:, :, None])


def counted(monkeypatch):
    """Record which tiles and strips tifffile decodes."""
    indices = []
    original = tifffile.TiffPage.decode.func  # type: ignore[attr-defined]

    def decode(page):
        inner = original(page)

        def counting(data, index, **options):
            indices.append(index)
            return inner(data, index, **options)

        return counting

    descriptor = tifffile.TiffPage.__dict__["decode"]
    monkeypatch.setattr(descriptor, "func", decode)
    return indices


def test_only_touched_tiles_are_decoded_once_and_memory_stays_within_the_budget(tmp_path, monkeypatch):
    values = np.random.default_rng(0).integers(0, 256, (256, 320), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", values, tile=(32, 32), compression="zlib")
    decoded = counted(monkeypatch)
    with open_image(tmp_path / "a.tif", cache_bytes=4 * 32 * 32) as reader:
        reader.read(33, 60, 65, 90)
        assert decoded == [12]
        reader.read(40, 70, 70, 100)
        assert decoded == [12, 13, 22, 23]
        for row in range(0, 224, 32):
            for col in range(0, 288, 32):
                reader.read(row, row + 33, col, col + 33)
                assert reader._held_bytes == sum(block.nbytes for block in reader._blocks.values()) <= 4 * 32 * 32  # type: ignore[attr-defined]


def test_every_strip_is_decoded_once_while_windows_go_along_a_row(tmp_path, monkeypatch):
    values = np.random.default_rng(0).integers(0, 256, (256, 320), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", values, rowsperstrip=8, compression="zlib")
    decoded = counted(monkeypatch)
    with open_image(tmp_path / "a.tif", cache_bytes=64 * 320) as reader:
        for col in range(0, 320, 64):
            reader.read(0, 64, col, col + 64)
    assert decoded == list(range(8))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_window_of_any_tiling(tmp_path_factory, data):
    height, width = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 70))
    tile = data.draw(st.sampled_from([None, (16, 16), (16, 48), (64, 32)]))
    rows_per_strip = data.draw(st.integers(1, 80))
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("any") / "a.tif"
    layout = {"tile": tile} if tile else {"rowsperstrip": rows_per_strip}
    tifffile.imwrite(path, pixels, photometric="rgb", compression=data.draw(st.sampled_from([None, "zlib"])), **layout)
    with open_image(path) as reader:
        for _ in range(3):
            top, bottom, left, right = data.draw(rectangles(height, width))
            window = reader.read(top, bottom, left, right)
            np.testing.assert_array_equal(window, pixels[top:bottom, left:right])


def write_pyramid(path, *, subifds, shape=(300, 421), num_levels=4, **options):
    """Write a pyramid of 2 x 2 averages, as sub-images or as reduced pages; return its levels."""
    levels = [np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)]
    while len(levels) < num_levels:
        levels.append(levels[-1][::2, ::2])
    with tifffile.TiffWriter(path) as file:
        common = {"photometric": "rgb", "tile": (32, 32), "compression": "zlib", "metadata": None}
        file.write(levels[0], subifds=num_levels - 1 if subifds else 0, **common, **options)
        for level in levels[1:]:
            file.write(level, subfiletype=1, **common)
    return levels


@pytest.mark.parametrize("subifds", [True, False])
def test_levels_of_a_pyramid_by_number_and_by_size(tmp_path, subifds):
    path = tmp_path / "p.tif"
    levels = write_pyramid(path, subifds=subifds, resolution=(40_000, 40_000), resolutionunit="CENTIMETER")
    for number, pixels in enumerate(levels):
        with open_image(path, level=number) as reader:
            assert_windows_equal(reader, pixels, num_windows=5)
            assert reader.placement.microns_per_px == pytest.approx(0.25 * 421 / pixels.shape[1])
        with open_image(path, mpp=0.26 * 2**number) as reader:
            assert reader.shape == pixels.shape
    with open_image(path) as reader:
        assert reader.shape == levels[0].shape


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"level": 4}, DataError, r"no level 4. Choose one of: 0 \(300 x 421 px, 0.25 µm/px\), 1 \(150 x 211 px, 0.49"),
        ({"level": -1}, DataError, "no level -1"),
        ({"mpp": 0.35}, DataError, r"no level of 0.35 µm/px \(within 10 %\). Choose one of: 0 .*resample"),
        ({"mpp": 0.25, "level": 0}, ConfigError, "level is 0 and mpp is 0.25"),
    ],
)
def test_a_level_that_is_not_there_is_answered_with_those_that_are(tmp_path, options, error, words):
    write_pyramid(tmp_path / "p.tif", subifds=True, resolution=(40_000, 40_000), resolutionunit="CENTIMETER")
    with pytest.raises(error, match=words):
        open_image(tmp_path / "p.tif", **options)


def test_mpp_without_a_stated_resolution_is_refused(tmp_path, rgb):
    tifffile.imwrite(tmp_path / "a.tif", rgb)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    for name in ("a.tif", "a.png"):
        with pytest.raises(DataError, match=f"{name} does not state the size of its pixels"):
            open_image(tmp_path / name, mpp=0.25)
    with pytest.raises(DataError, match=r"a.png has no level 1. Choose one of: 0 \(37 x 53 px\)"):
        open_image(tmp_path / "a.png", level=1)


def test_ome_states_the_size_of_a_pixel(tmp_path, rgb):
    size = {"PhysicalSizeX": 500.0, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.25}
    tifffile.imwrite(tmp_path / "a.ome.tif", rgb, ome=True, photometric="rgb", metadata={"axes": "YXS", **size})
    with open_image(tmp_path / "a.ome.tif") as reader:
        assert reader.placement.resolution == (20_000, 40_000)
        assert reader.placement.microns_per_px == 0.5


GEO = {
    33550: ("d", (0.5, 0.5, 0.0)),
    33922: ("d", (0.0, 0.0, 0.0, 400_000.0, 5_800_000.0, 0.0)),
    34735: ("H", (1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 32633)),
    34737: ("s", "WGS 84 / UTM zone 33N|"),
}


def test_georeference_is_kept_and_scaled_with_the_level(tmp_path):
    path = tmp_path / "g.tif"
    extratags = [(code, kind, 0 if kind == "s" else len(value), value, True) for code, (kind, value) in GEO.items()]
    write_pyramid(path, subifds=False, shape=(256, 512), num_levels=3, extratags=extratags)
    with open_image(path) as reader:
        assert reader.placement.geo_tags == {code: value for code, (_, value) in GEO.items()}
    with open_image(path, level=2) as reader:
        assert reader.placement.geo_tags[33550] == (2.0, 2.0, 0.0)
        assert reader.placement.geo_tags[34735] == GEO[34735][1]


def test_every_way_to_place_pixels_scales():
    from unet_dist.imaging.image import Placement

    matrix = (2.0, 0.5, 0.0, 10.0, 0.25, -3.0, 0.0, 20.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    ties = (8.0, 4.0, 0.0, 1.0, 2.0, 0.0, 16.0, 12.0, 0.0, 5.0, 6.0, 0.0)
    scaled = Placement((8.0, 8.0), 3, {34264: matrix, 33922: ties}).scaled(2, 4)
    assert scaled.resolution == (2.0, 4.0)
    assert scaled.geo_tags[33922] == (2.0, 2.0, 0.0, 1.0, 2.0, 0.0, 4.0, 6.0, 0.0, 5.0, 6.0, 0.0)
    # the same corner of the world: column 40 of the fine grid is column 10 of the coarse one, row 20 is row 10
    fine, coarse = np.reshape(matrix, (4, 4)), np.reshape(scaled.geo_tags[34264], (4, 4))
    np.testing.assert_allclose(fine @ (40, 20, 0, 1), coarse @ (10, 10, 0, 1))


@pytest.mark.parametrize(
    ("shape", "options", "words"),
    [
        (
            (5, 37, 53),
            {"photometric": "minisblack"},
            r"stack of images \(axes . 5, Y 37, X 53\).*from a.tif#1 to a.tif#5",
        ),
        ((37, 53, 4), {"photometric": "separated"}, "colour space SEPARATED. Expected grey or RGB"),
        ((37, 53, 3), {"photometric": "cielab"}, "colour space CIELAB"),
    ],
)
def test_what_is_not_one_grey_or_rgb_image_is_refused(tmp_path, shape, options, words):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros(shape, np.uint8), **options)
    with pytest.raises(DataError, match=words):
        open_image(tmp_path / "a.tif")


def test_a_huge_segment_is_not_decoded_unless_the_limit_is_raised(tmp_path):
    black = np.zeros((1000, 1000), np.uint8)
    tifffile.imwrite(tmp_path / "bomb.tif", black, compression="zlib", rowsperstrip=1000)
    assert (tmp_path / "bomb.tif").stat().st_size < 2000
    with pytest.raises(DataError, match=r"bomb.tif .* one piece of 1000 x 1000 = 1,000,000 px.*max_pixels"):
        open_image(tmp_path / "bomb.tif", max_pixels=999_999)
    with open_image(tmp_path / "bomb.tif", max_pixels=1_000_000) as reader:
        assert whole(reader).shape == (1000, 1000, 1)
    tifffile.imwrite(tmp_path / "tiled.tif", black, compression="zlib", tile=(512, 512))
    with open_image(tmp_path / "tiled.tif", max_pixels=512 * 512) as reader:
        assert reader.shape == (1000, 1000, 1)


@pytest.mark.parametrize("layout", ["one strip", "strips, deflate", "tiles", "tiles, deflate, predictor"])
def test_a_truncated_file_is_a_sentence_wherever_it_ends(tmp_path, layout):
    pixels = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    path = tmp_path / "cut.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", **LAYOUTS[layout])
    content = path.read_bytes()
    for length in [*range(4, 400, 3), *range(400, len(content), 97), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match=r"cut.tif is a damaged or truncated TIFF: .*Copy it again"):
            open_image(path)


def test_a_file_whose_index_is_at_the_end_says_so_when_cut(tmp_path):
    path = tmp_path / "cut.tif"
    write_pyramid(path, subifds=False)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(DataError, match=r"segment \d+ of \d+ ends at byte \d+ and the file at \d+"):
        open_image(path)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_damaged_bytes_give_pixels_or_a_sentence(tmp_path_factory, seed):
    random = np.random.default_rng(seed)
    path = tmp_path_factory.mktemp("fuzz") / "a.tif"
    tifffile.imwrite(path, np.zeros((40, 40, 3), np.uint8), photometric="rgb", compression="zlib", tile=(16, 16))
    content = bytearray(path.read_bytes())
    for _ in range(random.integers(1, 4)):
        content[random.integers(4, len(content))] = random.integers(0, 256)
    path.write_bytes(content)
    try:
        with open_image(path, max_pixels=10**6) as reader:
            assert isinstance(reader, BlockReader | TurnedReader)  # what is damaged may be the orientation
            reader.read(0, 1, 0, 1)
    except DataError as error:
        assert "a.tif" in str(error)  # noqa: PT017


def test_threads_read_from_one_reader(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (512, 512), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", values, tile=(32, 32), compression="zlib")

    def reads_right(seed):
        random = np.random.default_rng(seed)
        for row, col in random.integers(0, 480, (200, 2)):
            window = reader.read(row, row + 32, col, col + 32)[:, :, 0]
            if not np.array_equal(window, values[row : row + 32, col : col + 32]):
                return False
        return True

    with open_image(tmp_path / "a.tif", cache_bytes=20 * 32 * 32) as reader, ThreadPoolExecutor(4) as threads:
        assert all(threads.map(reads_right, range(4)))
        assert reader._held_bytes == sum(block.nbytes for block in reader._blocks.values()) <= 20 * 32 * 32  # type: ignore[attr-defined]


def test_forked_readers_do_not_disturb_each_other(tmp_path):
    """Workers of a data loader inherit the descriptor, and with it the file position."""
    values = np.random.default_rng(0).integers(0, 256, (512, 512), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", values, tile=(16, 16), compression="zlib")
    with open_image(tmp_path / "a.tif") as reader:
        children = []
        for worker in range(3):
            child = os.fork()
            if child == 0:
                random = np.random.default_rng(worker)
                good = True
                for _ in range(300):
                    row, col = random.integers(0, 480, 2)
                    window = reader.read(row, row + 32, col, col + 32)[:, :, 0]
                    good &= np.array_equal(window, values[row : row + 32, col : col + 32])
                os._exit(0 if good else 1)
            children.append(child)
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]


@pytest.mark.parametrize("orientation", [0, 1, 2, 3, 4, 5, 6, 7, 8, 99])
@pytest.mark.parametrize("layout", ["one strip", "tiles, deflate, predictor"])
def test_a_turned_tiff_stands_upright_in_every_window(rgb, tmp_path, layout, orientation):
    """As Pillow turns it; an unknown orientation turns nothing."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, rgb, photometric="rgb", extratags=[(274, "H", 1, orientation, True)], **LAYOUTS[layout])
    picture = Image.fromarray(rgb)
    picture.getexif()[0x0112] = orientation
    with open_image(path) as reader:
        assert_windows_equal(reader, np.asarray(ImageOps.exif_transpose(picture)))


def test_georeferenced_rows_are_not_turned(rgb, tmp_path):
    place = [(33550, "d", 3, (10.0, 10.0, 0.0), True), (33922, "d", 6, (0, 0, 0, 5e5, 4e6, 0.0), True)]
    tifffile.imwrite(tmp_path / "a.tif", rgb, photometric="rgb", extratags=[*place, (274, "H", 1, 3, True)])
    with open_image(tmp_path / "a.tif") as reader:
        assert_windows_equal(reader, rgb)


@pytest.mark.parametrize("compression", ["raw", "group3", "group4", "tiff_ccitt"])
def test_a_fax_is_black_and_white(tmp_path, compression):
    bits = np.random.default_rng(0).integers(0, 2, (37, 56)).astype(bool)
    Image.fromarray(bits).save(tmp_path / "a.tif", compression=compression)
    if compression != "raw" and 4 not in tifffile.TIFF.DECOMPRESSORS:  # of an older imagecodecs, or Python 3.10
        with pytest.raises(DataError, match=r"compressed as CCITT.*Install newer ones \(fax: imagecodecs 2026.3.6"):
            open_image(tmp_path / "a.tif")
        return
    with open_image(tmp_path / "a.tif") as reader:
        assert_windows_equal(reader, bits[..., None] * np.uint8(255))


@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000", "jpegxl", "jpegxr"])
@pytest.mark.parametrize("is_padded", [False, True])
def test_a_picture_that_ends_within_its_segment_is_refused(rgb, tmp_path, compression, is_padded):
    """Decoders fill the missing pixels with grey, and take zeros, as a broken download leaves them, for data."""
    if compression == "jpegxr" and is_padded:
        pytest.skip("its code has no end of its own")
    if compression == "jpegxl" and not imagecodecs.JPEGXL.available:
        pytest.skip("imagecodecs has no JPEG XL here")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, rgb, photometric="rgb", compression=compression, tile=(64, 64))
    with open_image(path) as reader:
        whole(reader)
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        at, count = page.dataoffsets[0], page.databytecounts[0]
        place = page.tags["TileByteCounts"].valueoffset
        kind = {3: "<H", 4: "<I"}[page.tags["TileByteCounts"].dtype]
    content = bytearray(path.read_bytes())
    if is_padded:
        content[at + count // 2 : at + count] = bytes(count - count // 2)
    else:
        struct.pack_into(kind, content, place, count // 2)
    path.write_bytes(content)
    with open_image(path) as reader, pytest.raises(DataError, match="damaged or truncated TIFF: segment 0"):
        whole(reader)


def test_old_style_jpeg_is_named(rgb, tmp_path):
    """Its tables lie outside the strips, so that what decodes them as JPEG calls the file damaged, or shows other colours."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, rgb, photometric="rgb", compression="jpeg")
    with tifffile.TiffFile(path) as file:
        place = file.pages[0].tags["Compression"].valueoffset
    content = bytearray(path.read_bytes())
    content[place : place + 2] = struct.pack("<H", 6)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"old-style JPEG \(compression 6\), which is not read.* tiffcp -c zip"):
        open_image(path)


def test_a_compression_that_nothing_installed_decodes_is_named(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((32, 32), np.uint8), compression="zlib", tile=(16, 16))
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        file.pages[0].tags[259].overwrite(32766)
    with pytest.raises(DataError, match=r"a.tif is compressed as NEXT, which the installed tifffile .* do not decode"):
        open_image(tmp_path / "a.tif")


def test_overviews_and_masks_belong_to_their_image(rgb, tmp_path):
    with tifffile.TiffWriter(tmp_path / "cog.tif") as file:
        file.write(rgb, photometric="rgb", tile=(16, 16), compression="zlib", metadata=None)
        file.write(rgb[..., 0] > 9, photometric=4, tile=(16, 16), subfiletype=4, metadata=None)
        file.write(rgb[::2, ::2], photometric="rgb", tile=(16, 16), compression="zlib", subfiletype=1, metadata=None)
    with open_image(tmp_path / "cog.tif") as reader:
        assert_windows_equal(reader, rgb)
        assert reader.placement.has_nodata
        for top, bottom, left, right in ((0, rgb.shape[0], 0, rgb.shape[1]), (3, 21, 15, 33)):
            known = reader.known(top, bottom, left, right)
            np.testing.assert_array_equal(known, rgb[top:bottom, left:right, 0] > 9)
    with tifffile.TiffWriter(tmp_path / "two.tif") as file:
        file.write(rgb, photometric="rgb", metadata=None)
        file.write(rgb[:9, :9], photometric="rgb", metadata=None)
    with pytest.raises(DataError, match=r"two.tif holds 2 images of different kinds. Write each"):
        open_image(tmp_path / "two.tif")


@pytest.mark.parametrize(("kind", "channels"), [(0, 4), (1, 3), (2, 3)])
def test_a_fourth_band_is_a_channel_and_an_opaque_alpha_none(rgb, tmp_path, kind, channels):
    four = np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])
    tifffile.imwrite(tmp_path / "a.tif", four, photometric="rgb", extrasamples=[kind])
    with open_image(tmp_path / "a.tif") as reader:
        assert_windows_equal(reader, four[..., :channels])
    four[3, 5, 3] = 254
    tifffile.imwrite(tmp_path / "a.tif", four, photometric="rgb", extrasamples=[kind])
    with open_image(tmp_path / "a.tif") as reader:
        if kind == 0:
            assert_windows_equal(reader, four)
        else:
            with pytest.raises(DataError, match=r"a.tif has 1 half transparent pixels"):
                whole(reader)


@needs_few_bits
def test_opaque_is_the_largest_of_the_bits_that_a_sample_has(rgb, tmp_path):
    deep = np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)]).astype(np.uint16) * 16 + 15
    deep[3, 5, 3] = 0
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb", extrasamples=["unassalpha"], bitspersample=12)
    with open_image(tmp_path / "a.tif") as reader:
        assert_windows_equal(reader, deep[..., :3])
        np.testing.assert_array_equal(reader.known(0, len(rgb), 0, rgb.shape[1]), deep[..., 3] > 0)


@pytest.mark.parametrize("nexts", [[0], [1, 0], [1, 2, 1], [1, 2, 2]])
@pytest.mark.parametrize("big", [False, True])
def test_pages_that_name_an_earlier_one_end(tmp_path, nexts, big):
    """Each page is 4 x 4 px; its number of the next page leads back."""
    with tifffile.TiffWriter(tmp_path / "a.tif", bigtiff=big) as file:
        for _ in nexts:
            file.write(np.zeros((4, 4), np.uint8), metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        places = [page.offset for page in file.pages]
        entries = [len(page.tags) for page in file.pages]
    content = bytearray((tmp_path / "a.tif").read_bytes())
    for place, number, then in zip(places, entries, nexts, strict=True):
        at = place + (8 + 20 * number if big else 2 + 12 * number)
        size = 8 if big else 4
        content[at : at + size] = places[then].to_bytes(size, "little")
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(
        DataError, match=r"a.tif is a damaged or truncated TIFF: a page names an earlier one as the next"
    ):
        open_image(tmp_path / "a.tif")


def test_a_tiff_in_memory_reads_as_its_file(rgb, tmp_path):
    for layout in ("one strip", "tiles, deflate, predictor"):
        tifffile.imwrite(tmp_path / "a.tif", rgb, photometric="rgb", **LAYOUTS[layout])
        with open_image(Encoded((tmp_path / "a.tif").read_bytes(), "row 3")) as reader:
            assert_windows_equal(reader, rgb)


@pytest.mark.parametrize(
    ("told", "dtype", "expected"),
    [
        ("0", np.uint8, 0),
        ("255", np.uint8, 255),
        ("-9999", np.uint8, None),
        ("nan", np.uint8, None),
        ("0", np.uint16, 0),
        ("-9999", np.int16, -9999),
        ("-3.4028234663852886e+38", np.float32, -3.4028234663852886e38),
        ("nan", np.float32, np.nan),
    ],
)
@pytest.mark.parametrize("limits", [None, (0, 100)])
def test_where_all_channels_hold_the_value_there_are_no_data(tmp_path, told, dtype, expected, limits):
    """Of whole numbers; the value is a stored one, whatever range it is mapped by. Of floats in any channel."""
    pixels = np.full((9, 9, 2), 7, dtype)
    pixels[2, 3] = pixels[4, 5, 1] = 7 if expected is None else expected
    options = {"photometric": "minisblack", "planarconfig": "contig", "metadata": None}
    tifffile.imwrite(tmp_path / "a.tif", pixels, extratags=[(42113, "s", 0, told, True)], **options)
    absent = np.zeros((9, 9), bool)
    if expected is not None:
        absent[2, 3], absent[4, 5] = True, np.dtype(dtype).kind == "f"
    with open_image(tmp_path / "a.tif", value_range=limits) as reader:
        assert reader.placement.scaled(2, 2).has_nodata == (expected is not None)
        known = reader.known(1, 8, 2, 9)
        np.testing.assert_array_equal(absent[1:8, 2:9], False if known is None else ~known)
    with open_image(tmp_path / "a.tif", nodata=7) as reader:  # what the user says goes before the file
        there = (pixels != 7) & (np.abs(pixels.astype(np.float64)) < np.finfo(np.float32).max)
        np.testing.assert_array_equal(reader.known(0, 9, 0, 9), there.all(2) if dtype == np.float32 else there.any(2))


def test_an_image_that_is_alpha_alone_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4), np.uint8), photometric="minisblack", resolutionunit=2)
    content = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        entry = file.pages[0].tags[296]  # in place of the unit of the resolution: ExtraSamples, one unassociated alpha
    content[entry.offset : entry.offset + 2] = (338).to_bytes(2, "little")
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(DataError, match=r"a.tif is a damaged or truncated TIFF: it has no channel beside its alpha"):
        open_image(tmp_path / "a.tif")


def test_values_of_no_bits_and_indices_beyond_the_palette_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((4, 4), np.uint8))
    content = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        places = {tag: file.pages[0].tags[tag].valueoffset for tag in (258, 279)}
    for place in places.values():
        content[place : place + 2] = b"\0\0"
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(DataError, match=r"a.tif is a damaged or truncated TIFF: its BitsPerSample is 0"):
        open_image(tmp_path / "a.tif")
    table = np.zeros((3, 4), np.uint16)
    tifffile.imwrite(
        tmp_path / "b.tif", np.full((4, 4), 9, np.uint8), photometric="palette", colormap=np.zeros((3, 256), np.uint16)
    )
    content = bytearray((tmp_path / "b.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        place = file.pages[0].tags[320].offset
    content[place + 4 : place + 8] = table.size.to_bytes(4, "little")
    (tmp_path / "b.tif").write_bytes(content)
    with (
        pytest.raises(DataError, match=r"b.tif (holds the index 9 of a palette of 4 colours|is a damaged)"),
        open_image(tmp_path / "b.tif") as reader,
    ):
        reader.read(0, 4, 0, 4)
    content[place + 4 : place + 8] = (5).to_bytes(4, "little")  # no three values for each colour
    (tmp_path / "b.tif").write_bytes(content)
    with pytest.raises(DataError, match=r"b.tif is a damaged or truncated TIFF: its palette has the shape \(5,\)"):
        open_image(tmp_path / "b.tif")


@pytest.mark.parametrize(
    ("options", "part"), [({"compression": "zlib"}, "segment 0 of 1 begins"), ({}, "the pixels begin")]
)
def test_pixels_within_the_header_are_refused(tmp_path, options, part):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((4, 4), np.uint8), **options)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        place = file.pages[0].tags["StripOffsets"].valueoffset
    content = bytearray((tmp_path / "a.tif").read_bytes())
    content[place : place + 2] = (4).to_bytes(2, "little")
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(DataError, match=rf"a.tif is a damaged or truncated TIFF: {part} at byte 4, within the header"):
        open_image(tmp_path / "a.tif")


def test_what_the_library_finds_odd_is_no_line_on_the_terminal(tmp_path, capfd):
    values = np.zeros((8, 8), np.float32)
    values[0] = np.finfo(np.float32).min
    tags = [(42113, "s", 0, "-3.4028234663852886e+38", True)]
    tifffile.imwrite(tmp_path / "a.tif", values, metadata=None, extratags=tags)
    with open_image(tmp_path / "a.tif") as reader:
        np.testing.assert_array_equal(reader.known(0, 8, 0, 8)[:, 0], np.arange(8) > 0)
    assert capfd.readouterr() == ("", "")
