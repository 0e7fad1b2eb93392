"""Proves that pictures become the pixels a person sees, that nothing is lost in silence and that a bomb stays unlit."""

import io
import zlib

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from unet_dist.errors import DataError
from unet_dist.imaging.reader import as_reader, open_image


def whole(reader):
    height, width, _ = reader.shape
    return reader.read(0, height, 0, width)


@pytest.mark.parametrize("suffix", ["png", "webp", "bmp"])
def test_lossless_formats_come_back(rgb, tmp_path, suffix):
    Image.fromarray(rgb).save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    with open_image(tmp_path / f"a.{suffix}") as reader:
        np.testing.assert_array_equal(whole(reader), rgb)
        np.testing.assert_array_equal(reader.read(5, 20, 7, 8), rgb[5:20, 7:8])


def test_jpeg_reads_as_pillow_decodes_it(rgb, tmp_path):
    Image.fromarray(rgb).save(tmp_path / "a.jpg")
    np.testing.assert_array_equal(whole(open_image(tmp_path / "a.jpg")), np.asarray(Image.open(tmp_path / "a.jpg")))


def test_a_picture_is_decoded_once_and_not_before_it_is_read(rgb, tmp_path, monkeypatch):
    from unet_dist.imaging import picture

    decoded = []
    original = picture.picture_pixels
    monkeypatch.setattr(picture, "picture_pixels", lambda *a, **k: decoded.append(1) or original(*a, **k))
    Image.fromarray(rgb).save(tmp_path / "a.png")
    reader = open_image(tmp_path / "a.png")
    assert reader.shape == rgb.shape
    assert decoded == []
    for row in range(30):
        reader.read(row, row + 1, 0, 53)
    assert decoded == [1]


def test_grey_is_one_channel_and_a_palette_is_colour(rgb, tmp_path):
    grey = Image.fromarray(rgb[:, :, 2])
    grey.save(tmp_path / "grey.png")
    np.testing.assert_array_equal(whole(open_image(tmp_path / "grey.png")), rgb[:, :, 2:])
    few = Image.fromarray(rgb).quantize(16)
    few.save(tmp_path / "few.png")
    np.testing.assert_array_equal(whole(open_image(tmp_path / "few.png")), np.asarray(few.convert("RGB")))
    bits = Image.fromarray(rgb[:, :, 2] > 100)
    bits.save(tmp_path / "bits.png")
    np.testing.assert_array_equal(whole(open_image(tmp_path / "bits.png"))[:, :, 0], (rgb[:, :, 2] > 100) * 255)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_stands_upright(rgb, tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(rgb).save(tmp_path / "a.png", exif=exif)
    upright = {
        1: rgb,
        2: rgb[:, ::-1],
        3: rgb[::-1, ::-1],
        4: rgb[::-1],
        5: rgb.transpose(1, 0, 2),
        6: np.rot90(rgb, -1),
        7: rgb[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(rgb),
    }[orientation]
    reader = open_image(tmp_path / "a.png")
    assert reader.shape == upright.shape
    np.testing.assert_array_equal(whole(reader), upright)


def test_opaque_alpha_carries_nothing_and_transparency_is_refused(rgb, tmp_path):
    alpha = np.full((37, 53, 1), 255, np.uint8)
    for pixels, expected in ((rgb, rgb), (rgb[:, :, :1], rgb[:, :, :1])):
        Image.fromarray(np.concatenate([pixels, alpha], axis=-1)).save(tmp_path / "opaque.png")
        np.testing.assert_array_equal(whole(open_image(tmp_path / "opaque.png")), expected)
    alpha[3, 4:6] = 254
    Image.fromarray(np.concatenate([rgb, alpha], axis=-1)).save(tmp_path / "clear.png")
    with pytest.raises(DataError, match=r"clear.png has 2 transparent pixels.*flatten"):
        whole(open_image(tmp_path / "clear.png"))


def test_a_palette_with_a_transparent_entry_is_refused_only_where_it_is_used(rgb, tmp_path):
    few = Image.fromarray((rgb[:, :, 0] > 90).astype(np.uint8))
    few.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    few.save(tmp_path / "unused.png", transparency=2)
    np.testing.assert_array_equal(whole(open_image(tmp_path / "unused.png")), np.asarray(few.convert("RGB")))
    few.save(tmp_path / "used.png", transparency=1)
    with pytest.raises(DataError, match="transparent pixels"):
        whole(open_image(tmp_path / "used.png"))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bits_need_a_range_and_lose_nothing(tmp_path, channels):
    deep = np.random.default_rng(0).integers(0, 4096, (20, 30, channels)).astype(np.uint16)
    if channels in (2, 4):
        deep[:, :, -1] = 65535
    path = tmp_path / "deep.png"
    path.write_bytes(imagecodecs.png_encode(deep.squeeze()))
    with pytest.raises(DataError, match=r"deep.png holds (uint16|int32) values.*value_range"):
        open_image(path)
    reader = open_image(path, value_range=(0, 4095))
    colours = deep[:, :, : {1: 1, 2: 1, 3: 3, 4: 3}[channels]]
    assert reader.shape == colours.shape
    np.testing.assert_array_equal(whole(reader), np.rint(colours / 4095 * 255))


def test_16_bit_colour_in_memory_is_refused_because_half_of_it_is_gone():
    data = io.BytesIO(imagecodecs.png_encode(np.zeros((4, 4, 3), np.uint16)))
    with pytest.raises(DataError, match=r"16 bits a colour.*Give its path"):
        as_reader(Image.open(data))


def png_bomb(side):
    """A black grey PNG of side x side in a few KiB."""
    compressor = zlib.compressobj(9)
    rows = b"".join(compressor.compress(bytes(side + 1)) for _ in range(side)) + compressor.flush()

    def chunk(kind, body):
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    header = side.to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_decompression_bomb_is_refused_from_its_header_unless_the_limit_is_raised(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png_bomb(9000))
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(
        DataError, match=r"bomb.png .* 9000 x 9000 = 81000000 px, and the limit is 67108864 px.*max_pixels"
    ):
        open_image(tmp_path / "bomb.png")
    assert open_image(tmp_path / "bomb.png", max_pixels=81_000_000).shape == (9000, 9000, 1)
    assert before == Image.MAX_IMAGE_PIXELS  # Pillow's own limit, a global of everybody's, is as it was


def test_more_pixels_than_pillow_allows_are_read_when_the_user_says_so(rgb, tmp_path, monkeypatch):
    Image.fromarray(rgb).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(tmp_path / "a.png")
    np.testing.assert_array_equal(whole(open_image(tmp_path / "a.png")), rgb)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_truncated_picture_is_named(rgb, tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"cut.* cannot be decoded: .*damaged or truncated"):
        whole(open_image(path))


def test_a_truncated_16_bit_picture_is_named(tmp_path):
    path = tmp_path / "cut.png"
    noise = np.random.default_rng(0).integers(0, 65536, (64, 64, 3), dtype=np.uint16)
    path.write_bytes(imagecodecs.png_encode(noise)[:3000])
    with pytest.raises(DataError, match=r"cut.png cannot be decoded: .*damaged or truncated"):
        whole(open_image(path, value_range=(0, 65535)))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"hello", r"a.txt is not an image.*PNG, JPEG"),
        ("empty.png", b"", "empty.png is not an image"),
        ("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "a.eps is not an image"),
    ],
)
def test_what_is_no_picture_is_named(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        open_image(tmp_path / name)


def test_other_colour_spaces_are_refused(tmp_path):
    Image.new("CMYK", (4, 4)).save(tmp_path / "print.jpg")
    with pytest.raises(DataError, match=r"colour space CMYK. Expected grey or RGB"):
        open_image(tmp_path / "print.jpg")
