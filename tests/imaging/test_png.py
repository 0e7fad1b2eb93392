"""Proves that PNGs written by bands are read by others as the pixels that went in, whatever the bands."""

import numpy as np
import pytest
from PIL import Image

from unet_dist.imaging.png import write_rgb_png


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (7, 1), (150, 33)])
@pytest.mark.parametrize("rows", [1, 4, 200])
@pytest.mark.parametrize("kind", ["noise", "flat", "slope"])
def test_what_is_written_is_read(tmp_path, height, width, rows, kind):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    if kind == "flat":
        pixels[:] = (255, 0, 7)
    elif kind == "slope":
        pixels[:] = np.arange(height, dtype=np.uint8)[:, None, None]
    bands = (pixels[start : start + rows] for start in range(0, height, rows))
    write_rgb_png(tmp_path / "a.png", bands, height, width)
    with Image.open(tmp_path / "a.png") as picture:
        picture.verify()  # the checksums of all chunks
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(picture), pixels)
    assert kind != "flat" or (tmp_path / "a.png").stat().st_size < 400


def test_the_bands_leave_no_trace_in_the_pixels_of_a_turned_picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    turned = pixels.transpose(1, 0, 2)  # rows that do not lie in one piece
    write_rgb_png(tmp_path / "a.png", iter([turned[:11], turned[11:]]), 30, 20)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), turned)
