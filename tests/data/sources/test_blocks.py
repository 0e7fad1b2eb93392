"""One image or two are cut into blocks of train, validation and test, with gaps between, whatever holds the image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.data.pictures import png, random_pair, write_parquet
from unet_dist.assembly.data_set import open_data
from unet_dist.config.sections import Config
from unet_dist.data.decoded.cache import Cache
from unet_dist.errors import DataError
from unet_dist.terminal import Teller


def open_with(root: Path, said: list[str], *, cuts: bool = True, **keys: object) -> Cache:
    teller = Teller(speaks=False)
    teller.say = said.append  # type: ignore[method-assign]
    config = Config(data_path=str(root), cache_path=str(root.parent / "cache"), **{"depth": 1, **keys})  # type: ignore[arg-type]
    return open_data(config, teller, cuts_blocks=cuts)


def write(root: Path, num: int = 1) -> list[tuple[np.ndarray, np.ndarray]]:
    pairs = [random_pair(seed, 40, 60) for seed in range(num)]
    for seed, (image, mask) in enumerate(pairs):
        for kind, pixels in (("images", image), ("masks", mask)):
            (root / kind).mkdir(parents=True, exist_ok=True)
            (root / kind / f"s{seed}.png").write_bytes(png(pixels))
    return pairs


def blocks(gap: int) -> dict[str, slice]:
    left = 60 - 2 * gap
    train, validation = round(left * 0.7), round(left * 0.1)
    first = slice(0, train), slice(train + gap, train + gap + validation)
    return dict(zip(("train", "validation", "test"), (*first, slice(first[1].stop + gap, 60)), strict=True))


@pytest.mark.parametrize("num", [1, 2])
def test_blocks_of_folders(tmp_path, num):
    pairs, said = write(tmp_path / "d", num), list[str]()
    cache = open_with(tmp_path / "d", said)
    gap = 8  # the paper's U-Net with one pooling: 2 px by two convolutions, 4 at half the side, 2 again
    assert any(
        "the 40 x 60 px (height x width) are cut by columns: train 0 to 30, validation 39 to 42, test 51 to 59, with gaps of 8 px"
        in line
        for line in said
    )
    for split, columns in blocks(gap).items():
        part = cache.split(split)
        assert len(part) == num
        for index, (image, mask) in enumerate(pairs):
            assert (part.image(index) == image[:, columns]).all()
            assert (part.label(index)[:, :] == mask[:, columns]).all()
    trained = np.concatenate([image[:, blocks(gap)["train"]].reshape(-1, 3) for image, _ in pairs])
    assert cache.mean == pytest.approx(trained.mean(axis=0))


def test_an_image_that_stays_in_its_file(tmp_path):
    import tifffile

    ((image, mask),) = write(tmp_path / "d")
    for kind, pixels in (("images", image), ("masks", mask)):
        (tmp_path / f"d/{kind}/s0.png").unlink()
        tifffile.imwrite(tmp_path / f"d/{kind}/s0.tif", pixels, tile=(16, 16))
    cache = open_with(tmp_path / "d", [], max_pixels=100)
    assert cache.windowed
    for split, columns in blocks(8).items():
        read = cache.split(split).image(0).read(0, 40, 0, columns.stop - columns.start)  # type: ignore[union-attr]
        assert (read == image[:, columns]).all()
        assert (cache.split(split).label(0)[0:40, 0:60] == mask[:, columns]).all()


def test_a_table_of_one_row(tmp_path):
    image, mask = random_pair(0, 40, 60)
    write_parquet(tmp_path / "d/a.parquet", [(png(image), png(mask))])
    cache = open_with(tmp_path / "d", [])
    assert (cache.split("validation").image(0) == image[:, 39:43]).all()


def test_whole_where_nothing_is_to_be_shared_out(tmp_path):
    write(tmp_path / "d")
    assert len(open_with(tmp_path / "d", [], cuts=False).split("all")) == 1


def test_an_image_too_short_is_refused(tmp_path):
    write(tmp_path / "d")
    with pytest.raises(DataError, match=r"image 1 has 40 x 60 px, too few for blocks .* with gaps of \d+ px"):
        open_with(tmp_path / "d", [], depth=3)
