"""The size in the header of an encoded picture is read as its own encoder wrote it."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest

from unet_dist.imaging.stated_sizes import stated_size

PICTURES = {
    "jpeg": lambda pixels: imagecodecs.jpeg8_encode(pixels),
    "png": imagecodecs.png_encode,
    "webp": lambda pixels: imagecodecs.webp_encode(pixels, lossless=True),
    "webp lossy": lambda pixels: imagecodecs.webp_encode(pixels, level=50),
    "jpeg 2000": lambda pixels: imagecodecs.jpeg2k_encode(pixels, codecformat="j2k"),
    "jpeg 2000 in boxes": lambda pixels: imagecodecs.jpeg2k_encode(pixels, codecformat="jp2"),
    "lerc": imagecodecs.lerc_encode,
    "jpeg xl": imagecodecs.jpegxl_encode,
}


@pytest.mark.parametrize("size", [(40, 64), (64, 64), (48, 96), (301, 517), (1, 5000)])
@pytest.mark.parametrize("kind", PICTURES)
def test_a_size_is_what_was_encoded(kind, size):
    if kind == "jpeg xl" and not imagecodecs.JPEGXL.available:
        pytest.skip("imagecodecs has no JPEG XL here")
    encoded = PICTURES[kind](np.zeros((*size, 3), np.uint8))
    assert stated_size(bytes(encoded)) == size
    assert kind == "jpeg xl" or stated_size(bytes(encoded)[:9]) is None  # whose sizes may take a byte


def test_other_bytes_state_nothing():
    for content in (b"", b"\xff\xd8", b"\xff\xd8\xff\xda\0\4", b"x\x9c" + bytes(40), b"RIFF    WEBPABCD" + bytes(20)):
        assert stated_size(content) is None
