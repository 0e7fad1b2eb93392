"""Proves exact tiles: labels and logits do not depend on tile size, order, batch or number of processes.

The reference is one forward pass over the whole image, padded by numpy. Comparisons are in float64, where rounding (about
1e-13) and another function (1e-3 and more) are far apart; a plan whose tiles are off the grid shows that the test can fail.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from unet_dist import UNet, predict_image
from unet_dist.errors import DataError, LocalityError, SizeError
from unet_dist.imaging.reader import ArrayReader, read_window
from unet_dist.prediction.exact import ExactTiles
from unet_dist.prediction.image import predict_logits, predict_rasters, predict_tiles
from unet_dist.prediction.values import Recipe
from unet_dist.tiling.batches import plan_batches
from unet_dist.tiling.geometry import TilePlan, aligned_halo, assign, covering_tile_size, plan_tiles, smallest_tile_size
from unet_dist.tiling.windows import require_locality, window_logits


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Small float64 products gain nothing from threads, and wait for one another for seconds on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


OPTIONS: dict[str, dict[str, Any]] = {
    "paper": {},
    "bilinear": {"upsampling": "bilinear"},
    "same": {"padding": "same"},
    "same-bilinear": {"padding": "same", "upsampling": "bilinear"},
    "weight": {"norm": "weight"},
    "batch": {"norm": "batch"},
    "stem stride": {"stem_stride": 2, "upsampling": "bilinear"},
}


def build(*, depth: int = 2, in_channels: int = 3, dtype: torch.dtype = torch.float64, **options: Any) -> UNet:
    """Build a small U-Net in evaluation mode, each channel with a mean and deviation of its own."""
    torch.manual_seed(0)
    mean, std = [100.0, 120.0, 90.0][:in_channels], [50.0, 60.0, 40.0][:in_channels]
    model = UNet(in_channels, 5, base_channels=2, depth=depth, mean=mean, std=std, **options).to(dtype)
    model.train()
    side = model.window_sizes.round_up(60)
    if options.get("norm") == "batch":
        with torch.no_grad():  # running statistics that are not those of a fresh network
            model(torch.randn(2, in_channels, side, side, dtype=dtype))
    return model.eval()


def draw_image(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def whole_image_logits(model: UNet, image: np.ndarray) -> Tensor:
    """Forward one window over the whole image, mirrored by numpy: (K, H, W)."""
    locality = require_locality(model)
    halo = aligned_halo(model.window_sizes, locality)
    side = model.window_sizes.round_up(max(image.shape[:2]) + 2 * halo)
    padded = image
    for axis in (0, 1):
        pads = [(0, 0)] * 3
        pads[axis] = (halo, side - halo - image.shape[axis])
        padded = np.pad(padded, pads, mode="reflect" if image.shape[axis] > 1 else "edge")
    pixels = torch.from_numpy((padded - np.array(model.mean)) / np.array(model.std)).permute(2, 0, 1)[None]
    with torch.no_grad():
        logits: Tensor = model(pixels.contiguous())[0]
    trim = halo - model.window_sizes.margin
    return logits[:, trim : trim + image.shape[0], trim : trim + image.shape[1]]


def difference(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max())


# --------------------------------------------------------------------------------------------------------- exact tiles


@pytest.mark.parametrize("name", OPTIONS)
def test_tiles_of_any_size_equal_the_whole_image(name: str) -> None:
    model = build(**OPTIONS[name])
    image = draw_image(33, 27)
    whole = whole_image_logits(model, image)
    assert whole.std() > 0.1
    assert difference(predict_logits(model, image), whole) < 1e-10
    smallest = smallest_tile_size(model.window_sizes, require_locality(model))
    for more in (4, 12, 20):
        tile_size = model.window_sizes.round_up(smallest + more)
        assert difference(predict_logits(model, image, tile_size), whole) < 1e-10, tile_size


@settings(max_examples=12)
@given(
    st.integers(1, 3),
    st.sampled_from(["valid", "same"]),
    st.sampled_from(["transposed", "bilinear"]),
    st.tuples(st.integers(1, 24), st.integers(1, 24)),
    st.integers(0, 20),
)
def test_tiles_equal_the_whole_image_for_any_network_and_shape(
    depth: int, padding: str, upsampling: str, shape: tuple[int, int], more: int
) -> None:
    model = build(depth=depth, padding=padding, upsampling=upsampling)
    image = draw_image(*shape)
    tile_size = model.window_sizes.round_up(smallest_tile_size(model.window_sizes, require_locality(model)) + more)
    assert difference(predict_logits(model, image, tile_size), whole_image_logits(model, image)) < 1e-10


@pytest.mark.parametrize("shape", [(37, 30), (1, 40), (7, 1), (1, 1)])
def test_the_papers_depth_and_images_smaller_than_the_halo(shape: tuple[int, int]) -> None:
    model = build(depth=4)
    assert require_locality(model).halo == 92
    image = draw_image(*shape)
    whole = whole_image_logits(model, image)
    assert difference(predict_logits(model, image, 204), whole) < 1e-10
    assert difference(predict_logits(model, image, 220), whole) < 1e-10
    np.testing.assert_array_equal(predict_image(model, image), whole.argmax(0).numpy())


def test_tiles_off_the_grid_are_another_function() -> None:
    """Abutting outputs at a step that is no multiple of the stride differ: the comparison above can fail."""
    model = build(depth=3)
    image = draw_image(40, 40)
    whole = whole_image_logits(model, image)
    plan = plan_tiles((40, 40), 124, model.window_sizes, require_locality(model))
    assert difference(_assemble(model, image, plan), whole) < 1e-10
    step = plan.step[0] - 4
    count = -(-40 // step)
    shifted = dataclasses.replace(plan, step=(step, step), grid=(count, count))
    assert difference(_assemble(model, image, shifted), whole) > 1e-3


def _assemble(model: UNet, image: np.ndarray, plan: TilePlan) -> Tensor:
    logits = torch.zeros(model.num_classes, *plan.image_shape, dtype=torch.float64)
    for tile in plan:
        pixels = read_window(ArrayReader(image), *plan.window_origin(tile), *plan.window_shape)
        part = window_logits(model, torch.from_numpy(pixels.copy())[None], halo=plan.halo)[0]
        logits[:, tile.row : tile.row + tile.height, tile.col : tile.col + tile.width] = part[
            :, : tile.height, : tile.width
        ]
    return logits


@pytest.mark.parametrize("window_batch", [1, 3])
def test_labels_do_not_depend_on_tile_size_or_window_batch(window_batch: int) -> None:
    model = build()
    image = draw_image(33, 27)
    expected = whole_image_logits(model, image).argmax(0).numpy()
    assert len(np.unique(expected)) > 1
    for tile_size in (None, 60, 76, 92):
        labels = predict_image(model, image, tile_size, window_batch=window_batch)
        assert labels.dtype == np.uint8
        np.testing.assert_array_equal(labels, expected)


def test_tiles_come_in_the_order_of_the_plan() -> None:
    model = build()
    image = draw_image(33, 27)
    tiles = ExactTiles(model, window_batch=2)
    plan = tiles.plan((33, 27), 60)
    labels = np.full((33, 27), 255, dtype=np.uint8)
    seen = []
    for tile, values in predict_tiles(tiles, ArrayReader(image), plan):
        assert values["labels"].shape == (tile.height, tile.width)
        labels[tile.row : tile.row + tile.height, tile.col : tile.col + tile.width] = values["labels"]
        seen.append(tile)
    assert seen == list(plan)
    np.testing.assert_array_equal(labels, predict_image(model, image))


# ------------------------------------------------------------------------------------------------ many images and ranks


@pytest.mark.parametrize("window_batch", [2, 3])
def test_world_size_changes_no_bit(window_batch: int) -> None:
    """In float32, where the composition of a batch does change bits, ranks compute the batches of one process."""
    model = build(dtype=torch.float32)
    images = [draw_image(33, 27, seed=1), draw_image(20, 25, seed=2), draw_image(33, 27, seed=3)]
    readers = [ArrayReader(image) for image in images]
    plans = [plan_tiles(image.shape[:2], 60, model.window_sizes, require_locality(model)) for image in images]
    batches = plan_batches(plans, window_batch)
    expected = [predict_image(model.double(), image) for image in images]
    model.float()
    tiles = ExactTiles(model, window_batch=window_batch)

    def run(world_size: int) -> tuple[list[np.ndarray], dict[tuple[int, int], Tensor]]:
        labels = [np.full(image.shape[:2], 255, dtype=np.uint8) for image in images]
        logits: dict[tuple[int, int], Tensor] = {}
        for rank in range(world_size):
            for number in assign(len(batches), rank, world_size):
                refs = batches[number]
                pieces = [tiles.read(i, readers[i], plans[i], plans[i][tile]) for i, tile in refs]
                for piece, values in zip(pieces, tiles.compute(pieces), strict=True):
                    row, col, height, width = piece.tile
                    labels[piece.image][row : row + height, col : col + width] = values["labels"].numpy()
                logits.update(zip(refs, tiles.logits(pieces), strict=True))
        return labels, logits

    labels, logits = run(1)
    for got, want in zip(labels, expected, strict=True):
        assert (got != want).mean() < 0.01, "float32 may flip a tie, no more"
    for world_size in (2, 3):
        again, logits_again = run(world_size)
        assert logits_again.keys() == logits.keys()
        assert all(torch.equal(logits_again[ref], logits[ref]) for ref in logits)
        for one, other in zip(labels, again, strict=True):
            np.testing.assert_array_equal(one, other)


# ------------------------------------------------------------------------------------------------------- bounded memory


class _Recorder(ArrayReader):
    """Remembers the largest rectangle that was read."""

    largest_px = 0

    def read(self, row_start: int, row_stop: int, col_start: int, col_stop: int) -> np.ndarray:
        self.largest_px = max(self.largest_px, (row_stop - row_start) * (col_stop - col_start))
        return super().read(row_start, row_stop, col_start, col_stop)


def test_reads_are_no_larger_than_a_window() -> None:
    model = build(dtype=torch.float32)
    reader = _Recorder(np.zeros((90, 300, 3), dtype=np.uint8))
    predict_image(model, reader, 60)
    assert 0 < reader.largest_px <= 60 * 60


def test_tiles_are_computed_when_they_are_asked_for() -> None:
    """An image of 10^10 pixels, of which the first tiles are taken: nothing grows with the image."""
    model = build(dtype=torch.float32)
    image = np.broadcast_to(np.uint8(7), (100_000, 100_000, 3))
    tiles = ExactTiles(model, window_batch=2)
    plan = tiles.plan(image.shape[:2], 60)
    predicted = predict_tiles(tiles, ArrayReader(image), plan)
    assert [next(predicted)[0] for _ in range(5)] == [plan[index] for index in range(5)]


# ------------------------------------------------------------------------------------------------------ inputs and model


def test_accepts_arrays_pictures_paths_and_readers(tmp_path: Path) -> None:
    model = build()
    image = draw_image(30, 40)
    expected = predict_image(model, image)
    picture = Image.fromarray(image)
    picture.save(tmp_path / "image.png")
    reader = ArrayReader(image)
    for form in (picture, tmp_path / "image.png", str(tmp_path / "image.png"), reader):
        np.testing.assert_array_equal(predict_image(model, form), expected)


def test_grey_images_have_one_channel() -> None:
    model = build(in_channels=1)
    image = draw_image(30, 40, channels=1)
    labels = predict_image(model, image[:, :, 0])
    np.testing.assert_array_equal(labels, predict_image(model, image))
    np.testing.assert_array_equal(labels, whole_image_logits(model, image).argmax(0).numpy())


def test_grey_is_colour_to_a_network_of_colour() -> None:
    model, grey = build(), draw_image(30, 40, channels=1)
    expected = predict_image(model, np.repeat(grey, 3, axis=2))
    for form in (grey, grey[:, :, 0], Image.fromarray(grey[:, :, 0]), ArrayReader(grey)):
        np.testing.assert_array_equal(predict_image(model, form), expected)


def test_wrong_channels_are_named() -> None:
    with pytest.raises(DataError) as error:
        predict_image(build(), draw_image(30, 40, channels=2))
    assert str(error.value) == (
        "Got an image with 2 channels. Expected 3 channels (colour), as the network was trained on. "
        "Convert the image, or use a network trained on such images."
    )
    with pytest.raises(DataError, match=r"^Got an image with 3 channels \(colour\)\. Expected 1 channel \(grey\)"):
        predict_image(build(in_channels=1), draw_image(30, 40))


def test_wrong_tile_size_is_named_with_its_neighbours() -> None:
    with pytest.raises(SizeError, match=r"^Got tile_size = 61\. .* Set tile_size to 60 or 64\.$"):
        predict_image(build(), draw_image(30, 40), 61)


def test_network_without_a_halo_is_refused_by_the_name_of_its_layer() -> None:
    model = UNet(3, 5, base_channels=4, depth=2, norm="group")
    assert model.locality_obstacle is not None
    with pytest.raises(LocalityError) as error:
        predict_image(model, draw_image(30, 40))
    assert str(error.value).startswith(f"Got a network without a finite halo: {model.locality_obstacle}. Expected one ")
    assert str(error.value).endswith("(of the U-Net's norms: none, weight and batch).")
    with pytest.raises(LocalityError):
        predict_logits(model, draw_image(30, 40))


def test_training_flags_are_restored_and_dropout_is_off() -> None:
    model = build(norm="batch", dropout=0.5)
    image = draw_image(30, 40)
    expected = predict_logits(model, image)
    statistics = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    frozen = model.encoder[0]
    frozen.eval()
    assert difference(predict_logits(model, image), expected) == 0
    np.testing.assert_array_equal(predict_image(model, image), expected.argmax(0).numpy())
    assert model.training
    assert not frozen.training
    assert model.bottleneck.training
    assert all(torch.equal(value, statistics[name]) for name, value in model.state_dict().items())


def test_caller_is_not_left_in_inference_mode() -> None:
    model = build()
    tiles = ExactTiles(model)
    for _ in predict_tiles(tiles, ArrayReader(draw_image(33, 27)), tiles.plan((33, 27), 60)):
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()


def test_device_moves_the_model() -> None:
    model = build()
    image = draw_image(20, 20)
    np.testing.assert_array_equal(predict_image(model, image, device="cpu"), predict_image(model, image))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_tiles_equal_the_whole_image_on_a_gpu() -> None:
    model = build()
    image = draw_image(33, 27)
    expected = predict_image(model, image)
    for tile_size in (60, 92):
        labels = predict_image(model, image, tile_size, window_batch=3, device="cuda")
        np.testing.assert_array_equal(labels, expected)


def test_ignored_class_is_masked_in_prediction() -> None:
    image = draw_image(40, 40)
    logits = whole_image_logits(build(), image)
    usual = int(logits.argmax(0).flatten().mode().values)
    labels = predict_image(build(ignore_index=usual), image)
    assert usual not in labels
    logits[usual] = -torch.inf
    np.testing.assert_array_equal(labels, logits.argmax(0).numpy())


@pytest.mark.parametrize("ignore_index", [None, 0, 3])
def test_confidence_is_the_softmax_of_the_label(ignore_index: int | None) -> None:
    model = build(ignore_index=ignore_index)
    image = draw_image(70, 90)
    logits = whole_image_logits(model, image)
    if ignore_index is not None:
        logits[ignore_index] = -torch.inf
    probability, labels = logits.softmax(dim=0).max(dim=0)
    found = predict_rasters(ExactTiles(model, Recipe("float32", "float32")), image, 92)
    np.testing.assert_array_equal(found["labels"], labels.numpy())
    np.testing.assert_array_equal(found["confidence"], probability.float().numpy())
    np.testing.assert_array_equal(found["probabilities"], logits.softmax(dim=0).float().numpy())


def test_covering_tile_size_takes_one_window() -> None:
    model = build()
    side = covering_tile_size((33, 27), model.window_sizes, require_locality(model))
    assert len(plan_tiles((33, 27), side, model.window_sizes, require_locality(model))) == 1


@pytest.mark.parametrize("tile_size", [44, 76])
def test_where_the_file_has_no_data_there_is_no_class(tmp_path: Path, tile_size: int) -> None:
    """All channels hold the value; elsewhere the labels are those of the image with what becomes 0 in its place."""
    model, pixels = build(), np.random.default_rng(0).integers(0, 256, (60, 50, 3), dtype=np.uint8)
    pixels[:20] = 7
    pixels[30, 30] = (7, 7, 8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extratags=[(42113, "s", 0, "7", True)])
    labels = predict_image(model, tmp_path / "a.tif", tile_size)
    pixels[:20] = (100, 120, 90)  # the network's means
    expected = predict_image(model, pixels, tile_size)
    expected[:20] = 255
    np.testing.assert_array_equal(labels, expected)
