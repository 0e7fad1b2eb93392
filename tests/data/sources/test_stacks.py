"""Two stacks of as many pages are as many pairs, by folders and by lists; anything else is refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.data.pictures import png, random_pair
from unet_dist.data.decoded.build import prepare
from unet_dist.data.decoded.cache import CacheSettings
from unet_dist.data.sources.registry import open_source
from unet_dist.errors import DataError


def write_stack(root: Path, num_masks: int = 6, name: str = "v") -> tuple[np.ndarray, np.ndarray]:
    images, masks = (np.stack(planes) for planes in zip(*(random_pair(seed, 37, 53) for seed in range(6)), strict=True))
    for kind, pages in (("images", images[..., 0]), ("masks", masks[:num_masks])):
        (root / kind).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(root / kind / f"{name}.tif", pages, photometric="minisblack", compression="zlib")
    return images[..., 0], masks


@pytest.mark.parametrize("max_pixels", [10**6, 100])
def test_each_page_is_a_pair_decoded_or_read_by_windows(tmp_path, max_pixels):
    images, masks = write_stack(tmp_path / "d")
    source = open_source(tmp_path / "d")
    cache = prepare(source, CacheSettings(), seed=0, cache_path=tmp_path / "c", max_pixels=max_pixels)
    assert cache.ids == [f"v_p{number:04d}" for number in range(1, 7)]
    assert sorted(map(len, cache.splits.values())) == [1, 1, 4]
    everything = cache.split("all")
    for index in range(6):
        image = everything.image(index)
        pixels = image if isinstance(image, np.ndarray) else image.read(0, 37, 0, 53)
        assert (pixels[..., 0] == images[index]).all()
        assert (everything.label(index)[:37, :53] == masks[index]).all()


def test_a_mask_of_other_pages_is_refused(tmp_path):
    write_stack(tmp_path / "d", num_masks=5)
    with pytest.raises(DataError, match=r"v.tif: it holds 6 images, and its mask .*v.tif 5. Write as many pages"):
        _ = open_source(tmp_path / "d").splits
    (tmp_path / "d/masks/v.tif").unlink()
    (tmp_path / "d/masks/v.png").write_bytes(png(random_pair(0, 37, 53)[1]))
    with pytest.raises(DataError, match=r"v.tif: it holds 6 images, and its mask .*v.png 1."):
        _ = open_source(tmp_path / "d").splits


def test_lists_name_stacks(tmp_path):
    write_stack(tmp_path / "d")
    write_stack(tmp_path / "d", name="w")
    (tmp_path / "d/train.txt").write_text("v\n")
    (tmp_path / "d/val.txt").write_text("w.tif\n")
    assert open_source(tmp_path / "d").splits == {"train": 6, "validation": 6}
