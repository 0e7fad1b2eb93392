"""Proves that windows of a slide equal its whole at every level, through the real OpenSlide."""

import importlib.util
import sys

import numpy as np
import pytest
import tifffile

from tests.imaging.windows import assert_windows_equal, whole
from unet_dist.errors import DataError, ExtraError
from unet_dist.imaging.reader import open_image

needs_openslide = pytest.mark.skipif(
    importlib.util.find_spec("openslide") is None, reason="the extra slides is not installed"
)


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """An Aperio slide of three levels; the factor of the last is no whole number."""
    path = tmp_path_factory.mktemp("slide") / "a.svs"
    rows, cols = np.mgrid[:1400, :1800]
    pixels = np.stack([rows % 251, cols % 241, (rows + cols) % 256], axis=-1).astype(np.uint8)
    text = "Aperio Image Library v12.0.15\r\n1800x1400 [0,0 1800x1400] (240x240) JPEG/RGB Q=90|AppMag = 20|MPP = 0.5"
    common = {"photometric": "rgb", "tile": (240, 240), "compression": "jpeg", "metadata": None}
    with tifffile.TiffWriter(path) as file:
        file.write(pixels, description=text, **common)
        file.write(pixels[::2, ::2].copy(), subfiletype=1, description=text, **common)
        file.write(pixels[::4, ::4][:349].copy(), subfiletype=1, description=text, **common)
    return path


@needs_openslide
@pytest.mark.parametrize("level", [0, 1, 2])
def test_windows_equal_the_whole_at_every_level(slide, level):
    with open_image(slide, level=level) as reader:
        pixels = whole(reader)
    with open_image(slide, level=level) as reader:
        assert_windows_equal(reader, pixels, num_windows=15)
        assert reader.placement.microns_per_px == pytest.approx(0.5 * 1800 / reader.shape[1])
    with tifffile.TiffFile(slide) as file:
        expected = file.pages[level].asarray()
    assert (
        np.abs(pixels.astype(int) - expected).mean() < 3
    )  # another JPEG decoder; 40 and more where a block is misplaced


@needs_openslide
def test_the_level_is_found_by_the_size_of_its_pixels(slide):
    with open_image(slide, mpp=1.0) as reader:
        assert reader.shape == (700, 900, 3)
    with pytest.raises(DataError, match=r"no level of 0.7 µm/px .*0 \(1400 x 1800 px, 0.5 µm/px\)"):
        open_image(slide, mpp=0.7)


@needs_openslide
def test_what_is_no_slide_is_a_sentence(tmp_path):
    (tmp_path / "a.svs").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"a.svs cannot be read as a slide: .*Copy it again"):
        open_image(tmp_path / "a.svs")


def test_without_openslide_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.ndpi").write_bytes(b"nothing")
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(ExtraError, match=r"a.ndpi is a slide.*pip install 'unet_dist\[slides\]'"):
        open_image(tmp_path / "a.ndpi")
