"""Proves that pairs read from their files by windows train, validate and count as decoded ones do, and that each is checked."""

from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from unet_dist.data.batches.crops import CropReader
from unet_dist.data.batches.sampler import Draw
from unet_dist.data.decoded.build import prepare
from unet_dist.data.decoded.cache import Cache
from unet_dist.data.decoded.labels import IGNORED
from unet_dist.data.decoded.settings import CacheSettings
from unet_dist.data.decoded.windowed import _OPEN_PAIRS, WindowedImage
from unet_dist.data.sources import fingerprint
from unet_dist.data.sources.registry import open_source
from unet_dist.errors import DataError

TILED = {"tile": (32, 48), "compression": "zlib", "metadata": None}


def draw_pair(seed: int, height: int = 90, width: int = 130, channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (height, width, channels), dtype=np.uint8)
    label = random.integers(0, 4, (height, width), dtype=np.uint8)
    label[label == 3] = 200
    return image, label


def write_zarr(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    chunks = (40, 40, pixels.shape[2]) if pixels.ndim == 3 else (64, 32)
    zarr.create_array(str(path), shape=pixels.shape, dtype=pixels.dtype, chunks=chunks)[:] = pixels


def write_tiff(path: Path, pixels: np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, pixels, **{"photometric": "rgb" if pixels.ndim == 3 else "minisblack", **TILED, **options})


def write_data(root: Path, num_pairs: int = 10) -> list[tuple[np.ndarray, np.ndarray]]:
    """TIFF, Zarr and one PNG, of many sizes; masks of either kind."""
    pairs = [draw_pair(i, 90 + 7 * i, 130 - 3 * i) for i in range(num_pairs)]
    for number, (image, label) in enumerate(pairs):
        names = root / "images" / f"{number}", root / "masks" / f"{number}"
        if number == 0:
            for name, pixels in zip(names, (image, label), strict=True):
                name.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(f"{name}.png")
        elif number % 3:
            write_tiff(names[0].with_suffix(".tif"), image, bigtiff=number % 2 == 0)
            write_tiff(names[1].with_suffix(".tif"), label.astype(np.uint16 if number % 2 else np.uint8))
        else:
            write_zarr(names[0].with_suffix(".zarr"), image)
            write_zarr(names[1].with_suffix(".zarr"), label.astype(np.int64))
    return pairs


def make(root: Path, tmp_path: Path, max_pixels: int = 130 * 90, **settings: Any) -> Cache:
    told = CacheSettings(**{"ignore_index": 200, **settings})
    return prepare(open_source(root), told, seed=0, cache_path=tmp_path / "cache", max_pixels=max_pixels)


def refusal(root: Path, tmp_path: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        make(root, tmp_path, **options)
    return str(caught.value).replace(str(root), "ROOT")


def test_windows_labels_and_sums_are_those_of_the_pixels(tmp_path: Path) -> None:
    pairs = write_data(tmp_path / "data")
    cache = make(tmp_path / "data", tmp_path)  # the PNG is just small enough
    assert sorted(cache.windowed) == list(range(1, 10))
    samples = cache.split("all")
    assert (cache.path / "images.bin").stat().st_size == 130 * 90 * 3, "the PNG alone was copied"
    for index, (image, label) in enumerate(pairs):
        expected = np.where(label == 200, IGNORED, label)
        read = samples.image(index)
        if isinstance(read, WindowedImage):
            read = read.read(3, image.shape[0], 0, 71)
            np.testing.assert_array_equal(read, image[3:, :71])
        np.testing.assert_array_equal(samples.label(index)[5:80, 60:100], expected[5:80, 60:100])
        assert samples.label(index)[50:50, 3:9].shape == (0, 6)
    train = [pairs[position] for position in cache.splits["train"]]
    pixels = np.concatenate([image.reshape(-1, 3) for image, _ in train]).astype(np.float64)
    assert cache.mean == pytest.approx(pixels.mean(axis=0).tolist(), abs=1e-9)
    assert cache.std == pytest.approx(pixels.std(axis=0).tolist(), abs=1e-9)
    labels = np.concatenate([label.ravel() for _, label in train])
    assert cache.split("train").class_counts.tolist() == [int((labels == c).sum()) for c in range(3)]
    assert cache.split("train").num_ignored == int((labels == 200).sum())


def test_zarr_beside_pictures_is_decoded(tmp_path: Path) -> None:
    """Masks as PNG are not read by windows: such a pair is decoded whole, unless it is too large."""
    image, label = draw_pair(0)
    for number in range(4):
        write_zarr(tmp_path / "d" / "images" / f"{number}.zarr", image + number)
        (tmp_path / "d" / "masks").mkdir(exist_ok=True)
        Image.fromarray(label).save(tmp_path / "d" / "masks" / f"{number}.png")
    whole = make(tmp_path / "d", tmp_path).split("all")
    assert [np.array_equal(whole.image(i), image + i) for i in range(4)] == [True] * 4
    assert np.array_equal(whole.label(0)[:, :], np.where(label == 200, 255, label))
    assert "is neither TIFF, .npy nor Zarr" in refusal(tmp_path / "d", tmp_path / "other", max_pixels=1000)


def test_crops_are_those_of_a_decoded_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same TIFF files, once decoded and once by windows: every crop equal, also through pickling and in a worker."""
    monkeypatch.setattr(fingerprint, "_PART_PX", (32, 50))  # several windows an image, as of a large one
    for number in range(4):
        image, label = draw_pair(number)
        write_tiff(tmp_path / "data" / "images" / f"{number}.tif", image)
        write_tiff(tmp_path / "data" / "masks" / f"{number}.tif", label)
    root = tmp_path / "data"
    decoded = make(root, tmp_path / "decoded", max_pixels=10**6)
    windowed = make(root, tmp_path / "windowed", max_pixels=1000)
    assert (len(decoded.windowed), len(windowed.windowed)) == (0, 4)
    assert (decoded.mean, decoded.std, decoded.splits) == (windowed.mean, windowed.std, windowed.splits)
    assert decoded.identity == windowed.identity
    one, other = (CropReader(cache.split("all"), 3, 60, 8) for cache in (decoded, windowed))
    for position in range(12):
        for a, b in zip(one.read(Draw(position, position % 4)), other.read(Draw(position, position % 4)), strict=True):
            np.testing.assert_array_equal(a, b)
    again = CropReader(pickle.loads(pickle.dumps(windowed)).split("all"), 3, 60, 8)
    np.testing.assert_array_equal(again.read(Draw(0, 0))[0], one.read(Draw(0, 0))[0])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_worker_reads_while_the_lock_is_held_elsewhere(tmp_path: Path) -> None:
    pairs = write_data(tmp_path / "data")
    files = make(tmp_path / "data", tmp_path).files
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    with files._lock:
        child = context.Process(target=lambda: queue.put(files.read(1, "image", (0, 9, 0, 9))))
        child.start()
        np.testing.assert_array_equal(queue.get(timeout=60), pairs[1][0][:9, :9])
        child.join()


def test_few_files_are_open_at_a_time(tmp_path: Path) -> None:
    write_data(tmp_path / "data")
    cache = make(tmp_path / "data", tmp_path)
    for number in cache.windowed:
        for kind in ("image", "mask"):
            cache.files.read(number, kind, (0, 5, 0, 5))
    assert len(cache.files._open) == 2 * _OPEN_PAIRS


def test_the_folder_may_move(tmp_path: Path) -> None:
    pairs = write_data(tmp_path / "data")
    made = make(tmp_path / "data", tmp_path).path
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data").rename(tmp_path / "elsewhere" / "data")
    cache = make(tmp_path / "elsewhere" / "data", tmp_path)
    assert cache.path == made, "its content is known"
    np.testing.assert_array_equal(cache.files.read(1, "image", (0, 9, 0, 9)), pairs[1][0][:9, :9])


def test_colours_and_palettes_are_ids_through_a_label_map(tmp_path: Path) -> None:
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]], dtype=np.uint8)
    expected = []
    for number in range(3):
        image, label = draw_pair(number)
        label = label % 3
        expected.append(label)
        write_tiff(tmp_path / "data" / "images" / f"{number}.tif", image)
        if number:
            write_tiff(tmp_path / "data" / "masks" / f"{number}.tif", colours[label])
        else:
            table = np.zeros((3, 256), dtype=np.uint16)
            table[:, :3] = colours.T.astype(np.uint16) * 257
            write_tiff(tmp_path / "data" / "masks" / "0.tif", label, photometric="palette", colormap=table)
    meaning = {"#000000": 2, "#ff0000": 0, "0,0,255": 1}
    cache = make(tmp_path / "data", tmp_path, max_pixels=5000, label_map=meaning, ignore_index=None)
    assert len(cache.windowed) == 3
    for index, label in enumerate(expected):
        np.testing.assert_array_equal(cache.split("all").label(index)[:, :], np.array([2, 0, 1])[label])


def test_every_bad_pair_is_named(tmp_path: Path) -> None:
    """All of what can be wrong with huge pairs, in one refusal of ten lines."""
    root = tmp_path / "data"
    image, label = draw_pair(0)

    def write(name: str, image: np.ndarray, label: np.ndarray, **options: Any) -> None:
        write_tiff(root / "images" / f"{name}.tif", image)
        write_tiff(root / "masks" / f"{name}.tif", label, **options)

    write("deep", image.astype(np.uint16), label)
    write("float", image, label + np.float32(0.5))
    write("four", np.concatenate([image, image[..., :1]], axis=2), label)
    write_tiff(root / "images" / "four.tif", np.concatenate([image, image[..., :1]], axis=2), extrasamples=[0])
    write("good", image, label)
    write("id", image, np.where(label == 2, 77, label))
    write("size", image, label[1:])
    write("truncated", image, label)
    path = root / "images" / "truncated.tif"
    path.write_bytes(path.read_bytes()[:-4000])
    write_tiff(root / "images" / "png.tif", image)
    Image.fromarray(label).save(root / "masks" / "png.png")
    zarr.create_group(str(root / "images" / "empty.zarr"))
    write_zarr(root / "masks" / "empty.zarr", label)
    write_tiff(root / "images" / "jpeg.tif", image)
    write_tiff(root / "masks" / "jpeg.tif", label, compression="jpeg", tile=(32, 48))
    said = refusal(root, tmp_path, max_pixels=5000, num_classes=3)
    for part in (
        "data: 9 of 10 pairs cannot be used.",
        "image images/deep.tif is of uint16 values, and",
        "mask masks/float.tif holds float32 values that are no ids, such as ",
        "image images/four.tif is of 4 channels, and",
        "mask masks/id.tif holds id 77 (",
        "image images/size.tif is 90 x 130 and its mask masks/size.tif is 89 x 130",
        "image images/truncated.tif is a damaged or truncated TIFF: ",
        "mask masks/png.png is neither TIFF, .npy nor Zarr, and its pair is too large to be decoded whole",
        "image images/empty.zarr is a Zarr group with no array",
        "mask masks/jpeg.tif is a JPEG, which changes ids",
        "Write all images of one type.",
    ):
        assert part in said, f"{part!r} is not in:\n{said}"


def test_damage_inside_a_file_is_found_by_the_check(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for number in range(3):
        image, label = draw_pair(number)
        write_tiff(root / "images" / f"{number}.tif", image)
        write_tiff(root / "masks" / f"{number}.tif", label)
    path = root / "masks" / "1.tif"
    with tifffile.TiffFile(path) as file:
        offset, count = file.pages.first.dataoffsets[4], file.pages.first.databytecounts[4]
    content = bytearray(path.read_bytes())
    content[offset : offset + count] = b"\xff" * count
    path.write_bytes(content)
    assert "mask masks/1.tif is a damaged or truncated TIFF: segment 4: " in refusal(root, tmp_path, max_pixels=5000)
