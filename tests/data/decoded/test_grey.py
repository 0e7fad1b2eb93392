"""Grey images among colour ones are refused, or read as colour where three channels are asked for; it is printed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.data.pictures import png, random_pair, write_folder
from unet_dist.assembly.data_set import open_data
from unet_dist.assembly.planned import know_data
from unet_dist.config.options import PlanOptions
from unet_dist.config.sections import Config
from unet_dist.data.decoded.cache import Cache
from unet_dist.errors import DataError
from unet_dist.terminal import Teller


def open_with(root: Path, said: list[str], **keys: object) -> Cache:
    teller = Teller(speaks=False)
    teller.say = said.append  # type: ignore[method-assign]
    return open_data(Config(data_path=str(root), cache_path=str(root.parent / "cache"), **keys), teller)  # type: ignore[arg-type]


def read(cache: Cache, index: int) -> np.ndarray:
    image = cache.split("all").image(index)
    return image if isinstance(image, np.ndarray) else image.read(0, image.shape[0], 0, image.shape[1])


def test_all_that_differ_from_most_are_named(tmp_path):
    """Also where there are several kinds of them, or as many of one as of the other."""
    root = write_folder(tmp_path / "d", num_pairs=4)
    grey = random_pair(77)[0][..., 0]
    (root / "images/sample001.png").write_bytes(png(grey))
    (root / "images/sample002.png").unlink()
    tifffile.imwrite(root / "images/sample002.tif", np.zeros((6, 8, 5), np.uint8), planarconfig="contig")
    with pytest.raises(DataError) as caught:
        open_with(root, [])
    assert "2 of 4 pairs cannot be used" in str(caught.value)
    assert "sample001.png is grey, and 2 others are in colour" in str(caught.value)
    assert "sample002.tif is of 5 channels, and 2 others are in colour" in str(caught.value)
    (root / "images/sample002.tif").unlink()
    (root / "images/sample002.png").write_bytes(png(grey))
    with pytest.raises(DataError, match=r"sample001.png is grey, and 2 others are in colour"):
        open_with(root, [])


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_one_grey_image_among_colour(tmp_path, suffix):
    root, said = write_folder(tmp_path / "d"), list[str]()
    grey, mask = random_pair(77, 10, 12)
    grey = grey[..., 0]
    for kind, pixels in (("images", grey), ("masks", mask)):
        (root / kind / "sample003.png").unlink()
        if suffix == "png":
            (root / kind / "sample003.png").write_bytes(png(pixels))
        else:  # read by windows: it has more pixels than max_pixels, and the others have not
            tifffile.imwrite(root / kind / "sample003.tif", pixels)
    with pytest.raises(DataError, match=r"sample003.\w+ is grey, and 9 others are in colour\n.*set --in_channels 3"):
        open_with(root, said)
    cache = open_with(root, said, in_channels=3, max_pixels=10**6 if suffix == "png" else grey.size - 1)
    assert set(cache.windowed) == (set() if suffix == "png" else {3})
    assert (read(cache, 3) == grey[..., None]).all()
    assert cache.channels == 3
    assert cache.table["sums"][3].tolist() == [int(grey.sum())] * 3
    assert any("1 grey image read as colour" in line for line in said)


def test_colour_is_one_cache_with_and_without_the_key(tmp_path):
    root, said = write_folder(tmp_path / "d"), list[str]()
    assert open_with(root, said).path == open_with(root, said, in_channels=3).path
    assert not any("grey" in line for line in said)


def test_the_plan_finds_the_cache_of_grey_images_read_as_colour(tmp_path):
    root = tmp_path / "d"
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for number in range(3):
        pixels, mask = random_pair(number, 30, 50)
        tifffile.imwrite(root / "images" / f"{number}.tif", pixels[..., 0].astype(np.uint16) * 9)
        (root / "masks" / f"{number}.png").write_bytes(png(mask))
    config = Config(data_path=str(root), cache_path=str(tmp_path / "cache"), in_channels=3)
    assert know_data(config, PlanOptions()).known_from.startswith("the largest of 3 images")
    open_data(config, Teller(speaks=False))
    known = know_data(config, PlanOptions())
    assert (known.image_shape, known.channels, known.pixel_bytes) == ((30, 50), 3, 2)


def test_grey_alone_is_grey_unless_colour_is_asked_for(tmp_path):
    root, said = write_folder(tmp_path / "d"), list[str]()
    for path in (root / "images").iterdir():
        Image.open(path).convert("L").save(path)
    assert open_with(root, said).channels == 1
    assert open_with(root, said, in_channels=3).channels == 3
    assert open_with(root, said, in_channels=1).channels == 1
