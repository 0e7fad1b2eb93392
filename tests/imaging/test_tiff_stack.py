"""Each image of a TIFF stack is read as it stands in the whole, whatever wrote the file; no other TIFF counts as a stack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from unet_dist.errors import DataError
from unet_dist.imaging.encoded import split_page, stem_of
from unet_dist.imaging.reader import open_image
from unet_dist.imaging.stacks import images_in

STACK = np.random.default_rng(3).integers(0, 256, (6, 37, 53), dtype=np.uint8)


def read(path: Path) -> np.ndarray:
    with open_image(path) as reader:
        return reader.read(0, reader.shape[0], 0, reader.shape[1])


@pytest.mark.parametrize(
    "options",
    [
        {"photometric": "minisblack"},
        {"photometric": "minisblack", "compression": "zlib"},
        {"photometric": "minisblack", "metadata": None},
        {"photometric": "minisblack", "truncate": True},
        {"photometric": "minisblack", "compression": "zlib", "tile": (32, 32)},
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        {"ome": True, "metadata": {"axes": "TYX"}},
    ],
)
def test_every_page_is_an_image(tmp_path, options):
    tifffile.imwrite(tmp_path / "v.tif", STACK, **options)
    pages = images_in(tmp_path / "v.tif")
    assert [page.name for page in pages] == [f"v.tif#{number}" for number in range(1, 7)]
    assert (np.stack([read(page)[..., 0] for page in pages]) == STACK).all()


@pytest.mark.parametrize(
    ("axes", "options"),
    [
        ("ZCYX", {"imagej": True}),
        ("CZYX", {"ome": True, "photometric": "minisblack"}),
        ("CZYX", {"ome": True, "photometric": "minisblack", "compression": "zlib"}),
    ],
)
def test_channels_stay_together(tmp_path, axes, options):
    values = STACK.reshape(3, 2, 37, 53) if axes == "ZCYX" else STACK.reshape(2, 3, 37, 53)
    tifffile.imwrite(tmp_path / "v.tif", values, metadata={"axes": axes}, **options)
    expected = np.moveaxis(values, axes.index("C"), -1).transpose(0, 1, 2, 3)
    found = [read(page) for page in images_in(tmp_path / "v.tif")]
    assert len(found) == 3
    assert (np.stack(found) == expected).all()


def test_colour_pages(tmp_path):
    values = np.random.default_rng(4).integers(0, 256, (4, 37, 53, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "v.tif", values, photometric="rgb", compression="zlib")
    assert (np.stack([read(page) for page in images_in(tmp_path / "v.tif")]) == values).all()


def test_overviews_and_bands_are_no_stack(tmp_path):
    with tifffile.TiffWriter(tmp_path / "pyramid.tif") as writer:
        writer.write(STACK[0], subifds=1)
        writer.write(STACK[0][::2, ::2], subfiletype=1)
    with tifffile.TiffWriter(tmp_path / "cog.tif") as writer:
        writer.write(STACK[0], metadata=None)
        writer.write(STACK[0][::2, ::2], subfiletype=1, metadata=None)
    tifffile.imwrite(tmp_path / "bands.tif", STACK, photometric="minisblack", planarconfig="separate")
    tifffile.imwrite(tmp_path / "channels.tif", STACK, imagej=True, metadata={"axes": "CYX"})
    for name in ("pyramid", "cog", "bands", "channels"):
        assert images_in(tmp_path / f"{name}.tif") == [tmp_path / f"{name}.tif"]
    assert read(tmp_path / "bands.tif").shape == read(tmp_path / "channels.tif").shape == (37, 53, 6)


def test_a_page_that_is_not_there_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "v.tif", STACK, photometric="minisblack")
    with pytest.raises(DataError, match=r"holds 6 images\. Name one of them"):
        open_image(tmp_path / "v.tif#7")
    (tmp_path / "a#1").write_bytes(b"")
    assert split_page(tmp_path / "a#1") == (tmp_path / "a#1", None)
    assert stem_of(tmp_path / "v.tif#7") == "v_p0007"
