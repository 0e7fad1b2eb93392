"""A picture is read as it is or refused with its name, what is wrong and what to do; nothing is converted silently."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.data.pictures import png, png_of_bits, random_pair
from unet_dist.data.decoded.decode import ImageRules, decode_pair, read_header
from unet_dist.data.decoded.labels import LabelRules
from unet_dist.data.sources.pairs import RawPair
from unet_dist.errors import RefusedError

RULES = LabelRules(num_classes=3)


def make_pair(image, mask) -> RawPair:
    return RawPair(id="a", image=image, mask=mask, image_name="a.png", mask_name="a_mask.png")


def encode(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def refuse(pair: RawPair, max_pixels: int = 10**6) -> str:
    """Give the message, which header and pixels must agree on where the header can know."""
    with pytest.raises(RefusedError) as caught:
        decode_pair(pair, RULES, max_pixels)
    return str(caught.value)


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_and_sums_are_exact(channels):
    image, label = random_pair(0, channels=channels)
    pair = make_pair(png(image), png(label))
    assert read_header(pair, RULES, 10**6, ImageRules()).shape == image.shape
    decoded = decode_pair(pair, RULES, 10**6)
    assert decoded.image.shape == image.shape
    assert (decoded.image == image).all()
    assert (decoded.label == label).all()
    assert decoded.moments["sums"].tolist() == image.astype(int).sum(axis=(0, 1)).tolist()
    squares = (image.astype(int) ** 2).sum(axis=(0, 1)).tolist()
    assert decoded.moments["square_sums"].tolist() == [[0, square] for square in squares]
    assert decoded.class_counts[:3].tolist() == [int((label == c).sum()) for c in range(3)]


def test_a_palette_image_is_read_as_its_colours():
    image, label = random_pair(1)
    few = (image // 128 * 128).astype(np.uint8)
    palette = Image.fromarray(few).quantize(8)
    decoded = decode_pair(make_pair(encode(palette), png(label)), RULES, 10**6)
    assert (decoded.image == np.asarray(palette.convert("RGB"))).all()


def test_an_opaque_alpha_channel_is_dropped_and_a_half_transparent_one_refused():
    image, label = random_pair(2)
    alpha = np.full((*image.shape[:2], 1), 255, dtype=np.uint8)
    pair = make_pair(png(np.concatenate([image, alpha], axis=2)), png(label))
    assert (decode_pair(pair, RULES, 10**6).image == image).all()
    alpha[0, :2] = 7
    pair = make_pair(png(np.concatenate([image, alpha], axis=2)), png(label))
    assert refuse(pair) == (
        "image a.png has 2 half transparent pixels. Expected pixels that are opaque, or transparent where there are no data: "
        "flatten it onto the background it is meant for."
    )


def test_sizes_that_differ_are_refused_from_the_headers():
    image, label = random_pair(3)
    pair = make_pair(png(image), png(label[:, :-1]))
    expected = (
        "image a.png is 6 x 8 and its mask a_mask.png is 6 x 7 (height x width). "
        "A mask has one id for each pixel of its image: write it again at that size, without interpolation."
    )
    with pytest.raises(RefusedError) as caught:
        read_header(pair, RULES, 10**6, ImageRules())
    assert str(caught.value) == expected == refuse(pair)
    turned = make_pair(png(image), png(np.ascontiguousarray(label.T)))
    assert "One of the two may say that it is stored turned (the orientation of Exif)" in refuse(turned)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP"])
def test_a_truncated_image_is_refused(kind):
    image, label = random_pair(4, height=64, width=64)
    whole = encode(Image.fromarray(image), kind)
    for share in (0.1, 0.6, 0.9):
        message = refuse(make_pair(whole[: int(len(whole) * share)], png(label)))
        assert message.startswith(
            f"image a.png {'is a damaged or truncated TIFF: ' if kind == 'TIFF' else 'cannot be read ('}"
        )
        assert message.endswith(("Copy it again, or write it anew.", "fetch it again, or leave it out."))
        assert "BytesIO" not in message


def test_what_is_no_image_is_refused():
    _, label = random_pair(5)
    assert "is empty (0 bytes)" in refuse(make_pair(b"", png(label)))
    assert "is not an image" in refuse(make_pair(b"<html>404</html>", png(label)))


def test_a_file_that_is_gone_is_refused(tmp_path):
    _, label = random_pair(5)
    assert "does not exist" in refuse(make_pair(tmp_path / "gone.png", png(label)))


def test_more_than_8_bits_are_kept_as_stored():
    label = png(np.zeros((1, 2), dtype=np.uint8))
    deep = decode_pair(make_pair(png_of_bits([[0, 40000]], 16), label), RULES, 10**6)
    assert (deep.image.dtype, deep.image.ravel().tolist()) == (np.uint16, [0, 40000])
    floats = decode_pair(
        make_pair(encode(Image.fromarray(np.array([[0.5, np.nan]], "f4")), "TIFF"), label), RULES, 10**6
    )
    assert (floats.image.dtype, floats.label.tolist()) == (np.float32, [[0, 255]])
    assert "colour space SEPARATED" in refuse(make_pair(encode(Image.new("CMYK", (2, 1)), "TIFF"), label))


def test_16_bit_colour_is_kept_though_pillow_shows_it_as_8():
    import struct
    import zlib

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" + b"\1\2" * 3))
    content += chunk(b"IEND", b"")
    assert Image.open(io.BytesIO(content)).mode == "RGB"
    label = png(np.zeros((1, 1), dtype=np.uint8))
    assert decode_pair(make_pair(content, label), RULES, 10**6).image.tolist() == [[[0x0102] * 3]]


def test_several_frames_are_refused():
    frames = [Image.new("L", (8, 6), value) for value in (0, 1)]
    content = encode(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    assert "image a.png is a stack of images (axes I 2, Y 6, X 8)" in refuse(make_pair(content, png(random_pair(6)[1])))


def test_a_mask_as_jpeg_is_refused():
    image, label = random_pair(7)
    message = refuse(make_pair(png(image), encode(Image.fromarray(label), "JPEG")))
    assert message.startswith("mask a_mask.png is a JPEG, which changes ids when it compresses.")


def test_a_decompression_bomb_is_refused_by_its_header():
    """9000 x 9000 zeros are a few KiB; the limit is ours, below and above Pillow's own."""
    bomb = encode(Image.new("1", (9000, 9000)))
    assert len(bomb) < 20_000
    pair = make_pair(bomb, bomb)
    message = (
        "image a.png must be decoded in one piece of 9000 x 9000 = 81,000,000 px, and max_pixels is 80,999,999. If"
    )
    with pytest.raises(RefusedError, match=message):
        read_header(pair, RULES, 80_999_999, ImageRules())
    assert read_header(pair, RULES, 81_000_000, ImageRules()).shape == (9000, 9000, 1)
    larger = make_pair(encode(Image.new("1", (14000, 14000))), b"")  # Pillow's own limit raises from 179 million on
    with pytest.raises(RefusedError, match="max_pixels is 1,000,000"):
        read_header(larger, RULES, 1_000_000, ImageRules())


def test_orientation_is_followed_as_viewers_do():
    image, label = random_pair(8)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter when shown
    stored = np.rot90(image)  # what is shown is `image`
    pair = make_pair(encode(Image.fromarray(stored), "PNG", exif=exif), png(label))
    assert read_header(pair, RULES, 10**6, ImageRules()).shape == image.shape
    assert (decode_pair(pair, RULES, 10**6).image == image).all()
    turned_mask = encode(Image.fromarray(np.rot90(label)), "PNG", exif=exif)
    assert (decode_pair(make_pair(png(image), turned_mask), RULES, 10**6).label == label).all()


def test_arrays_pass_as_they_are():
    image, label = random_pair(9)
    decoded = decode_pair(make_pair(image, label), RULES, 10**6)
    assert np.shares_memory(decoded.image, image)
    with pytest.raises(RefusedError, match=r"mask a_mask.png holds id 9 \(48 px\)"):
        decode_pair(make_pair(image, np.full_like(label, 9)), RULES, 10**6)


def test_channels_that_come_first_are_named():
    label = random_pair(0)[1]
    said = refuse(make_pair(np.zeros((4, *label.shape), np.float32), label))
    assert (
        "is 4 x 6 and its mask a_mask.png is 6 x 8 (height x width). Its channels come first: write the image as"
        in said
    )
