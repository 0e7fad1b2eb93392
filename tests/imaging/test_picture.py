"""Proves that pictures become the pixels a person sees, that nothing is lost in silence and that a bomb stays unlit."""

import io
import os
import zlib

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from unet_dist.errors import DataError, RefusedError
from unet_dist.imaging.encoded import Encoded, parsing
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
    original = picture._colours
    monkeypatch.setattr(picture, "_colours", lambda *a, **k: decoded.append(1) or original(*a, **k))
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


def test_opaque_alpha_carries_nothing_clear_is_no_data_and_half_is_refused(rgb, tmp_path):
    alpha = np.full((37, 53, 1), 255, np.uint8)
    for pixels, expected in ((rgb, rgb), (rgb[:, :, :1], rgb[:, :, :1])):
        Image.fromarray(np.concatenate([pixels, alpha], axis=-1)).save(tmp_path / "opaque.png")
        np.testing.assert_array_equal(whole(open_image(tmp_path / "opaque.png")), expected)
    alpha[3, 4:6] = 0
    Image.fromarray(np.concatenate([rgb, alpha], axis=-1)).save(tmp_path / "holes.png")
    for image in (tmp_path / "holes.png", Image.open(tmp_path / "holes.png")):
        reader = as_reader(image)
        np.testing.assert_array_equal(whole(reader), rgb)
        np.testing.assert_array_equal(reader.known(1, 37, 0, 53), alpha[1:, :, 0] > 0)
    alpha[3, 4:6] = 254
    Image.fromarray(np.concatenate([rgb, alpha], axis=-1)).save(tmp_path / "clear.png")
    with pytest.raises(DataError, match=r"clear.png has 2 half transparent pixels.*flatten"):
        whole(open_image(tmp_path / "clear.png"))


def test_a_palette_with_a_transparent_entry_has_no_data_where_it_is_used(rgb, tmp_path):
    few = Image.fromarray((rgb[:, :, 0] > 90).astype(np.uint8))
    few.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    few.save(tmp_path / "unused.png", transparency=2)
    np.testing.assert_array_equal(whole(open_image(tmp_path / "unused.png")), np.asarray(few.convert("RGB")))
    few.save(tmp_path / "used.png", transparency=1)
    np.testing.assert_array_equal(open_image(tmp_path / "used.png").known(0, 37, 0, 53), rgb[:, :, 0] <= 90)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bits_lose_nothing_as_stored_or_by_a_range(tmp_path, channels):
    deep = np.random.default_rng(0).integers(0, 4096, (20, 30, channels)).astype(np.uint16)
    if channels in (2, 4):
        deep[:, :, -1] = 65535
    path = tmp_path / "deep.png"
    path.write_bytes(imagecodecs.png_encode(deep.squeeze()))
    colours = deep[:, :, : {1: 1, 2: 1, 3: 3, 4: 3}[channels]]
    reader = open_image(path)
    assert reader.dtype == np.uint16
    np.testing.assert_array_equal(whole(reader), colours)
    reader = open_image(path, value_range=(0, 4095))
    assert reader.shape == colours.shape
    np.testing.assert_array_equal(whole(reader), np.rint(colours / 4095 * 255))


def test_16_bit_colour_in_memory_is_refused_because_half_of_it_is_gone():
    data = io.BytesIO(imagecodecs.png_encode(np.zeros((4, 4, 3), np.uint16)))
    with pytest.raises(DataError, match=r"16 bits per colour.*Give its path"):
        as_reader(Image.open(data))


def png_chunk(kind, body):
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


def png_bomb(side):
    """A black grey PNG of side x side in a few KiB."""
    compressor = zlib.compressobj(9)
    rows = b"".join(compressor.compress(bytes(side + 1)) for _ in range(side)) + compressor.flush()

    header = side.to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")


def test_a_decompression_bomb_is_refused_from_its_header_unless_the_limit_is_raised(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png_bomb(9000))
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(
        DataError, match=r"bomb.png .* 9000 x 9000 = 81,000,000 px, and max_pixels is 67,108,864.*raise max_pixels"
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
    with pytest.raises(DataError, match=r"cut.* cannot be read \(.*truncated.*fetch it again"):
        whole(open_image(path))


def test_a_truncated_16_bit_picture_is_named(tmp_path):
    path = tmp_path / "cut.png"
    noise = np.random.default_rng(0).integers(0, 65536, (64, 64, 3), dtype=np.uint16)
    path.write_bytes(imagecodecs.png_encode(noise)[:3000])
    with pytest.raises(DataError, match=r"cut.png cannot be read \(PngError: .*fetch it again"):
        whole(open_image(path, value_range=(0, 65535)))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"hello", r"a.txt is not an image.*it is text"),
        ("empty.png", b"", r"empty.png is empty \(0 bytes\)"),
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


@pytest.mark.parametrize(
    ("suffix", "options"), [("gif", {}), ("ppm", {}), ("jp2", {"irreversible": False}), ("tga", {})]
)
def test_other_pictures_come_back(rgb, tmp_path, suffix, options):
    picture = Image.fromarray(rgb).quantize(200) if suffix == "gif" else Image.fromarray(rgb)
    picture.save(tmp_path / f"a.{suffix}", **options)
    np.testing.assert_array_equal(whole(open_image(tmp_path / f"a.{suffix}")), np.asarray(picture.convert("RGB")))


def test_avif_reads_as_pillow_decodes_it(rgb, tmp_path):
    Image.fromarray(rgb).save(tmp_path / "a.avif")
    np.testing.assert_array_equal(whole(open_image(tmp_path / "a.avif")), np.asarray(Image.open(tmp_path / "a.avif")))


@pytest.mark.parametrize("channels", [1, 3])
def test_deep_jpeg_2000_and_avif_lose_nothing(tmp_path, channels):
    deep = np.random.default_rng(0).integers(0, 1024, (20, 30, channels)).astype(np.uint16)
    (tmp_path / "a.jp2").write_bytes(imagecodecs.jpeg2k_encode(deep.squeeze(), level=0))
    np.testing.assert_array_equal(whole(open_image(tmp_path / "a.jp2")), deep)
    reader = open_image(tmp_path / "a.jp2", value_range=(0, 1023))
    np.testing.assert_array_equal(whole(reader), np.rint(deep / 1023 * 255))
    if channels == 3:
        (tmp_path / "a.avif").write_bytes(imagecodecs.avif_encode(deep, level=100, bitspersample=10))
        assert open_image(tmp_path / "a.avif").dtype == np.uint16


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [8, 10, 12])
def test_transparency_of_avif_is_no_data(tmp_path, channels, bits):
    """Opaque is the largest of so many bits, and grey stays grey."""
    stored = np.random.default_rng(0).integers(0, 2**bits, (20, 30, channels + 1))
    stored[..., -1] = np.where(np.arange(30) < 9, 0, 2**bits - 1)
    code = stored.astype(np.uint8 if bits == 8 else np.uint16)
    (tmp_path / "a.avif").write_bytes(imagecodecs.avif_encode(code, level=100, bitspersample=bits))
    with open_image(tmp_path / "a.avif") as reader:
        np.testing.assert_array_equal(whole(reader), stored[..., :-1])
        np.testing.assert_array_equal(reader.known(0, 20, 0, 30), stored[..., -1] > 0)
    damaged = (tmp_path / "a.avif").read_bytes().replace(b"av1C", b"av1X")
    (tmp_path / "b.avif").write_bytes(damaged)
    with pytest.raises(RefusedError, match=r"b\.avif"):
        open_image(tmp_path / "b.avif")


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    ("dtype", "bits"), [("uint16", 12), ("uint16", 15), ("int16", 16), ("int8", 8), ("uint32", 22)]
)
def test_values_of_jpeg_2000_are_those_stored(tmp_path, channels, dtype, bits):
    """Pillow scales 12 bits of grey to 16, as Sentinel-2 has them, and moves signed values up; a fourth plane is no alpha."""
    low = 0 if dtype[0] == "u" else -(2 ** (bits - 1))
    stored = np.random.default_rng(0).integers(low, low + 2**bits, (20, 30, channels)).astype(dtype)
    code = imagecodecs.jpeg2k_encode(stored.squeeze(), level=0, reversible=True, bitspersample=bits, codecformat="jp2")
    (tmp_path / "a.jp2").write_bytes(code)
    with open_image(tmp_path / "a.jp2") as reader:
        assert reader.dtype == {"int8": "int16", "uint32": "float32"}.get(dtype, dtype)
        np.testing.assert_array_equal(whole(reader), stored)


def test_a_jpeg_2000_says_whether_its_last_plane_is_transparency(rgb, tmp_path):
    alpha = np.where(rgb[:, :, :1] > 99, 255, 0).astype(np.uint8)
    Image.fromarray(np.concatenate([rgb, alpha], axis=2)).save(tmp_path / "a.jp2", irreversible=False)
    with open_image(tmp_path / "a.jp2") as reader:
        assert reader.shape[2] == 3
        np.testing.assert_array_equal(reader.known(0, rgb.shape[0], 0, rgb.shape[1]), alpha[:, :, 0] > 0)
    code = imagecodecs.jpeg2k_encode(np.concatenate([rgb, alpha], axis=2), level=0, codecformat="jp2")
    (tmp_path / "b.jp2").write_bytes(code)
    with open_image(tmp_path / "b.jp2") as reader:
        np.testing.assert_array_equal(whole(reader), np.concatenate([rgb, alpha], axis=2))


def test_few_bits_and_many_planes_of_jpeg_2000_are_refused(tmp_path):
    few = np.arange(600, dtype=np.uint8).reshape(20, 30) % 16
    (tmp_path / "a.jp2").write_bytes(imagecodecs.jpeg2k_encode(few, level=0, bitspersample=4, codecformat="jp2"))
    with pytest.raises(DataError, match=r"holds 4-bit values\. Say which are black and white: --value_range 0,15"):
        open_image(tmp_path / "a.jp2")
    np.testing.assert_array_equal(whole(open_image(tmp_path / "a.jp2", value_range=(0, 15)))[:, :, 0], few * 17)
    many = np.zeros((20, 30, 5), np.uint16)
    (tmp_path / "b.jp2").write_bytes(imagecodecs.jpeg2k_encode(many, level=0, codecformat="jp2"))
    with pytest.raises(DataError, match=r"b.jp2 is a JPEG 2000 of 5 planes.*\. Expected one to four: write it as TIFF"):
        open_image(tmp_path / "b.jp2")


def test_16_bit_grey_with_a_transparent_value_keeps_its_bits(tmp_path):
    grey = np.random.default_rng(0).integers(0, 65536, (20, 30)).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png", transparency=int(grey[3, 4]))
    with open_image(tmp_path / "a.png") as reader:
        np.testing.assert_array_equal(whole(reader)[:, :, 0], grey)
        np.testing.assert_array_equal(reader.known(0, 20, 0, 30), grey != grey[3, 4])


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "avif"])
def test_an_animation_is_refused(rgb, tmp_path, suffix):
    frames = [Image.fromarray(rgb), Image.fromarray(255 - rgb)]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=rf"a.{suffix} holds (2|several) frames. Write each frame"):
        open_image(tmp_path / f"a.{suffix}")


def test_an_orientation_without_a_meaning_turns_nothing(rgb, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 99
    Image.fromarray(rgb).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(whole(open_image(tmp_path / "a.png")), rgb)


def test_an_index_beyond_the_palette_is_refused(tmp_path):
    rows = zlib.compress(b"".join(b"\0" + bytes([0, 1, 2, 3]) for _ in range(3)))
    content = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", bytes([0, 0, 0, 4, 0, 0, 0, 3, 8, 3, 0, 0, 0]))
    content += png_chunk(b"PLTE", bytes([1, 2, 3, 4, 5, 6])) + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=r"a.png holds the index 3 of a palette of 2 colours"):
        whole(open_image(tmp_path / "a.png"))


def test_a_ppm_of_another_scale_is_refused(tmp_path):
    (tmp_path / "a.ppm").write_bytes(b"P6 2 1 100 " + bytes([0, 50, 100, 1, 2, 3]))
    with pytest.raises(DataError, match=r"a.ppm counts to 100. Expected 255"):
        open_image(tmp_path / "a.ppm")


def test_postscript_is_never_started_whatever_the_file_is_called(tmp_path, monkeypatch):
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *a, **k: pytest.fail("Ghostscript was started"))
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    (tmp_path / "3.png").write_bytes(content)
    for image in (tmp_path / "3.png", Encoded(content, "row 3")):
        with pytest.raises(DataError, match="is not an image that can be read"):
            whole(open_image(image))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"Dear all,\nthe pictures are", 'it is text, which begins with "Dear all, the pi"'),
        (b"version https://git-lfs.github.com/spec/v1\n", "It stands for a file in Git LFS: git lfs pull fetches"),
        (b"\x1b[31mred", r"it begins with the bytes 1b 5b 33 31 6d 72 65 64\. Expected PNG"),
    ],
)
def test_no_picture_under_a_picture_s_name_shows_how_it_begins(tmp_path, content, said):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.png is not an image that can be read: .*{said}"):
        open_image(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.dcm"])
def test_a_volume_is_refused_with_the_way_out(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x5c\x01\0\0" + bytes(400))
    with pytest.raises(
        DataError, match=r"Write each slice of a volume as TIFF or \.npy: nibabel reads NIfTI, pydicom DICOM"
    ):
        open_image(tmp_path / name)


@pytest.mark.parametrize("name", ["a.icns", "a.png"])
def test_a_format_that_is_not_on_the_list_is_refused_by_any_name(rgb, tmp_path, name):
    """ICNS: 241 KB took 6 GiB."""
    Image.fromarray(rgb).resize((128, 128)).save(tmp_path / name, "ICNS")
    with pytest.raises(DataError, match="is not an image that can be read"):
        open_image(tmp_path / name)


@pytest.mark.parametrize("kind", ["png", "webp", "jpg"])
def test_broken_exif_turns_nothing_or_is_a_sentence(rgb, tmp_path, kind):
    for exif in (
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x63\0\xff\xff\xff\x7f",
    ):
        Image.fromarray(rgb).save(tmp_path / f"a.{kind}", exif=exif, lossless=True)
        try:
            assert whole(open_image(tmp_path / f"a.{kind}")).shape == rgb.shape
        except DataError as error:
            assert f"a.{kind} cannot be read" in str(error)  # noqa: PT017


@pytest.mark.parametrize("kind", ["png", "bmp", "gif"])
def test_a_palette_of_one_bit_is_read_by_its_colours(tmp_path, kind):
    indices = np.array([[0, 1, 1], [1, 0, 0]], np.uint8)
    picture = Image.fromarray(indices)
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.save(tmp_path / f"a.{kind}", bits=1)
    colours = np.array([[10, 20, 30], [200, 100, 50]], np.uint8)
    np.testing.assert_array_equal(whole(open_image(tmp_path / f"a.{kind}")), colours[indices])


def test_a_pipe_is_no_image(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a.png is not a regular file"):
        open_image(tmp_path / "a.png")


@pytest.mark.parametrize("error", [KeyError("x"), ZeroDivisionError("by zero"), MemoryError(), RecursionError("deep")])
def test_whatever_a_parser_raises_is_the_refusal_of_one_image(error):
    with pytest.raises(RefusedError, match="image 7 "), parsing("image 7"):
        raise error
