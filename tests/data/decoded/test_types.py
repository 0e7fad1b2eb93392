"""Proves that the cache keeps pixels of other types than uint8 as stored, and that statistics leave out pixels without data."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from unet_dist.data.batches.crops import CropReader
from unet_dist.data.batches.sampler import Draw
from unet_dist.data.decoded.build import prepare
from unet_dist.data.decoded.cache import Cache
from unet_dist.data.decoded.moments import ChannelSums, percentiles
from unet_dist.data.decoded.settings import CacheSettings
from unet_dist.data.sources.registry import open_source
from unet_dist.errors import DataError, RefusedError
from unet_dist.imaging.pixels import Pixels
from unet_dist.imaging.reader import as_reader, open_image

BANDS, SIDE = 5, 40


def draw(number: int, dtype: type) -> np.ndarray:
    """An image (40, 40, 5) with a corner without data: 0 in whole numbers, NaN in one band of floats."""
    random = np.random.default_rng(number)
    image = random.normal(1000, 300, (SIDE, SIDE, BANDS)).clip(1, 30000).astype(dtype)
    if np.dtype(dtype).kind == "f":
        image[: 5 + number, :7, 2] = np.nan
    else:
        image[: 5 + number, :7] = 0
        image[20, 20, 0] = 0  # of one band alone it is a value
    return image


def write(folder: Path, dtype: type, count: int = 4) -> list[np.ndarray]:
    images = [draw(number, dtype) for number in range(count)]
    tag = [(42113, "s", 0, "0", True)] if np.dtype(dtype).kind != "f" else []
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number, image in enumerate(images):
        options: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "contig", "metadata": None}
        tifffile.imwrite(folder / "images" / f"{number}.tif", image, extratags=tag, tile=(16, 16), **options)
        tifffile.imwrite(folder / "masks" / f"{number}.tif", np.tile(np.arange(SIDE, dtype=np.uint8) // 20, (SIDE, 1)))
    return images


def make(root: Path, cache: Path, *, max_pixels: int = 10**6, **settings: Any) -> Cache:
    source = open_source(root)
    return prepare(source, CacheSettings(**settings), seed=0, cache_path=cache, max_pixels=max_pixels)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
def test_pixels_are_as_stored_and_statistics_leave_out_no_data(tmp_path: Path, dtype: type) -> None:
    """Decoded and read by windows alike."""
    images = write(tmp_path / "data", dtype)
    decoded, windowed = (
        make(tmp_path / "data", tmp_path / name, max_pixels=pixels) for name, pixels in (("d", 10**6), ("w", 9))
    )
    assert (len(decoded.windowed), len(windowed.windowed)) == (0, 4)
    is_float = np.dtype(dtype).kind == "f"
    for cache in (decoded, windowed):
        assert (cache.dtype, cache.channels, cache.has_nodata) == (dtype, BANDS, True)
        valid = []
        train = cache.split("train").positions
        for index, image in enumerate(images):
            known = np.isfinite(image).all(2) if is_float else (image != 0).any(2)
            reader = as_reader(cache.split("all").image(index))
            assert reader.dtype == dtype
            np.testing.assert_array_equal(reader.read(0, SIDE, 0, SIDE), image)
            np.testing.assert_array_equal(reader.known(3, SIDE, 0, SIDE), known[3:])
            label = cache.split("all").label(index)[0:SIDE, 0:SIDE]
            np.testing.assert_array_equal(label == 255, ~known)
            if index in train:
                valid.append(image[known])
        pixels = np.concatenate(valid).astype(np.float64)
        assert cache.mean == pytest.approx(pixels.mean(0).tolist(), rel=1e-13)
        assert cache.std == pytest.approx(pixels.std(0).tolist(), rel=1e-12)
        found = np.array(cache.percentiles((0.5, 99.5)))
        np.testing.assert_allclose(
            found, np.percentile(pixels, (0.5, 99.5), axis=0, method="inverted_cdf").T, rtol=1 / 32
        )
    assert decoded.identity == windowed.identity
    assert decoded.mean == pytest.approx(windowed.mean, rel=1e-14)


def test_a_crop_sees_what_becomes_zero_where_there_are_no_data(tmp_path: Path) -> None:
    images = write(tmp_path / "data", np.uint16)
    cache = make(tmp_path / "data", tmp_path)
    crops = CropReader(cache.split("all"), 3, SIDE + 2 * 8, 8, horizontal_flip=False, zero=(9.4, 9.6, -3.0, 1e6, 0.0))
    for index, image in enumerate(images):
        window, labels = crops.read(Draw(0, index))
        expected = np.where((image != 0).any(2)[..., None], image, np.array([9, 10, 0, 65535, 0], np.uint16))
        np.testing.assert_array_equal(window[8:-8, 8:-8], expected)
        np.testing.assert_array_equal(window, np.pad(expected, ((8, 8), (8, 8), (0, 0)), mode="reflect"))
        assert (labels[: 5 + index, :7] == 255).all()


def test_sums_of_16_bits_never_overflow() -> None:
    sums = ChannelSums(1, np.dtype(np.uint16))
    for _ in range(3):
        sums.add(np.full((2, 2, 1), 65535, np.uint16), None)
    record = sums.record()
    assert record["sums"].tolist() == [12 * 65535]
    assert [(high << 32) + low for high, low in record["square_sums"].tolist()] == [12 * 65535**2]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_percentiles_are_read_off_the_histogram(dtype: type) -> None:
    values = np.random.default_rng(0).normal(0, 40, 20_000)
    pixels = (values.clip(0, 255) if dtype == np.uint8 else values).astype(dtype).reshape(100, 200, 1)
    sums = ChannelSums(1, np.dtype(dtype))
    sums.add(pixels, None)
    for share in (0.5, 30.0, 50.0, 99.5):
        (found,) = percentiles(sums.histogram, np.dtype(dtype), [share])[0]
        expected = np.percentile(pixels, share, method="inverted_cdf")
        assert found == pytest.approx(expected, rel=0 if dtype == np.uint8 else 1 / 32, abs=0.05), share


def test_bands_are_chosen_in_their_order_and_a_missing_one_is_named(tmp_path: Path) -> None:
    images = write(tmp_path / "data", np.int16)
    for pixels in (10**6, 9):
        cache = make(tmp_path / "data", tmp_path / f"cache{pixels}", bands=(4, 1), max_pixels=pixels)
        read = as_reader(cache.split("all").image(1)).read(0, SIDE, 0, SIDE)
        np.testing.assert_array_equal(read, images[1][..., [3, 0]])
    with pytest.raises(DataError, match="has 5 bands, and bands asks for number 6"):
        make(tmp_path / "data", tmp_path, bands=(6,))


def test_bands_are_chosen_by_the_names_that_each_file_gives(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 999, (20, 30, 3), np.uint16)
    for name, order in (("a", [0, 1, 2]), ("b", [2, 0, 1])):
        items = "".join(
            f'<Item name="DESCRIPTION" sample="{place}" role="description">{("red", "nir", "swir 1")[band]}</Item>'
            for place, band in enumerate(order)
        )
        tags = [(42112, "s", 0, f"<GDALMetadata>{items}</GDALMetadata>", True)]
        form = {"photometric": "minisblack", "planarconfig": "contig", "metadata": None}
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels[..., order], **form, extratags=tags)
        with open_image(tmp_path / f"{name}.tif", bands=("swir 1", "red")) as reader:
            assert reader.placement.band_names == ("swir 1", "red")
            np.testing.assert_array_equal(reader.read(0, 20, 0, 30), pixels[..., [2, 0]])
    with pytest.raises(RefusedError, match=r"has 3 bands, called swir 1, red, nir, and bands asks for blue"):
        open_image(tmp_path / "b.tif", bands=("blue",))
    tifffile.imwrite(tmp_path / "c.tif", pixels, photometric="minisblack", planarconfig="contig")
    with pytest.raises(RefusedError, match=r"has 3 bands, without names, and bands asks for red"):
        open_image(tmp_path / "c.tif", bands=("red",))
    assert Pixels.of(Pixels(bands=("red", 2)).record(), 2).bands == ("red", 2)


def test_images_of_two_types_are_refused_by_name(tmp_path: Path) -> None:
    images = write(tmp_path / "data", np.uint16)
    tifffile.imwrite(
        tmp_path / "data" / "images" / "2.tif",
        images[2].astype(np.int16),
        photometric="minisblack",
        planarconfig="contig",
    )
    with pytest.raises(
        DataError, match=r"2.tif is of int16 values, and 3 others are of uint16 values(.|\n)*of one type"
    ):
        make(tmp_path / "data", tmp_path)
