"""Proves that the gradient of a crop computed tile by tile is the gradient of the whole crop (C2), for every option that
keeps it so, and that the others are refused by name.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiling.scenes import Scenes, build_model, build_shares, global_difference, gradient_of, relative_differences
from unet_dist.data.batches.augment import Augmentation
from unet_dist.errors import LocalityError
from unet_dist.imaging.reader import ArrayReader
from unet_dist.tiling.crop_plan import CropPlanner, require_separable

SHAPES = [(70, 95), (31, 120), (64, 64)]  # one narrower than the crop's output, which is 52 px of a window of 92

MODELS: dict[str, dict[str, Any]] = {
    "paper": {},
    "deeper": {"depth": 3, "base_channels": 1},
    "weight norm": {"norm": "weight"},
    "bilinear": {"upsampling": "bilinear"},
    "same": {"padding": "same"},
    "residual": {"blocks": "residual", "norm": "weight", "base_channels": 4},
    "dilated": {"bottleneck_dilations": [1, 2], "norm": "weight", "base_channels": 4},
    "dilated, same": {"bottleneck_dilations": [3], "depth": 1, "padding": "same", "upsampling": "bilinear"},
    "stem stride": {"stem_stride": 2, "depth": 1, "dropout": 0.4},
    "bilinear head": {"stem_stride": 2, "depth": 1, "head": "bilinear"},
    "bilinear head, same": {"stem_stride": 4, "depth": 1, "head": "bilinear", "padding": "same"},
    "dropout": {"dropout": 0.4},
    "checkpointed dropout": {"dropout": 0.4, "checkpoint_activations": True},
}


def sides(model: Any) -> tuple[int, int]:
    """A crop of three tiles and some more a side, and the tile."""
    planner = CropPlanner.of(model, side=None)
    tile = model.window_sizes.round_up(planner.smallest_side + 2 * model.window_sizes.stride)
    return model.window_sizes.round_up(tile + 8 * model.window_sizes.stride + 2), tile


@pytest.mark.parametrize("name", MODELS)
def test_tiles_give_the_gradient_of_the_whole_crop(name: str) -> None:
    model = build_model(**MODELS[name])
    input_size, tile_size = sides(model)
    options: dict[str, Any] = {"input_size": input_size, "batch_size": 3}
    whole, whole_loss = gradient_of(model, build_shares(model, Scenes(SHAPES), tile_size=None, **options))
    shares = build_shares(model, Scenes(SHAPES), tile_size=tile_size, micro_batch_size=2, **options)
    share = shares[1]
    assert sum(len(batch.ids) for batch in share.batches) >= 3 * 9
    assert max(max(batch.windows.shape[1:3]) for batch in share.batches) <= tile_size
    assert max(len(batch.ids) for batch in share.batches) == 2
    tiled, tiled_loss = gradient_of(model, shares)
    assert max(relative_differences(tiled, whole).values()) < 1e-10
    assert tiled_loss == pytest.approx(whole_loss, rel=1e-13)


def test_tiles_give_the_gradient_of_the_whole_crop_in_float32() -> None:
    model = build_model(torch.float32)
    options: dict[str, Any] = {"input_size": 156, "batch_size": 1}
    samples = Scenes([(150, 140)])
    whole, _ = gradient_of(model, build_shares(model, samples, tile_size=None, **options))
    tiled, _ = gradient_of(model, build_shares(model, samples, tile_size=76, **options))
    assert global_difference(tiled, whole) < 1e-4


def test_augmentation_happens_before_the_cut() -> None:
    transforms = [{"name": "ElasticTransform", "alpha": 20, "sigma": 4, "p": 1.0}, {"name": "RandomGamma", "p": 1.0}]
    model = build_model()
    options: dict[str, Any] = {"input_size": 92, "batch_size": 2, "augmentation": Augmentation(transforms)}
    whole, _ = gradient_of(model, build_shares(model, Scenes(SHAPES), tile_size=None, **options))
    tiled, _ = gradient_of(model, build_shares(model, Scenes(SHAPES), tile_size=60, **options))
    plain, _ = gradient_of(
        model, build_shares(model, Scenes(SHAPES), tile_size=None, **{**options, "augmentation": None})
    )
    assert max(relative_differences(tiled, whole).values()) < 1e-10
    assert global_difference(plain, whole) > 1e-3  # it does something


@pytest.mark.parametrize("tile_size", [60, 76])
def test_whole_images_of_different_shapes(tile_size: int) -> None:
    model = build_model(dropout=0.3)
    samples = Scenes([(70, 95), (1, 3), (64, 64), (33, 130)])
    options: dict[str, Any] = {"input_size": None, "batch_size": 4}
    whole, whole_loss = gradient_of(model, build_shares(model, samples, tile_size=None, **options))
    tiled, tiled_loss = gradient_of(
        model, build_shares(model, samples, tile_size=tile_size, micro_batch_size=3, **options)
    )
    assert max(relative_differences(tiled, whole).values()) < 1e-10
    assert tiled_loss == pytest.approx(whole_loss, rel=1e-13)
    counted = sum(
        int((b.labels != 255).sum()) for b in build_shares(model, samples, tile_size=60, **options)[1].batches
    )
    assert counted == sum(int((label != 255).sum()) for label in samples.labels)  # every pixel of every image, once


def test_mixed_precision_reaches_its_own_accuracy() -> None:
    model = build_model(torch.float32)
    options: dict[str, Any] = {"input_size": 76, "batch_size": 1}

    def wrapped(*arguments: Any) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            logits: torch.Tensor = model(*arguments)
        return logits

    whole, _ = gradient_of(model, build_shares(model, Scenes(SHAPES), tile_size=None, **options))
    tiled, _ = gradient_of(model, build_shares(model, Scenes(SHAPES), tile_size=60, **options), wrapped=wrapped)
    assert 1e-4 < global_difference(tiled, whole) < 0.1  # bf16 has 8 bits


def shifted_grid(shares: Any) -> None:
    """Tiles off the network's grid, as abutting outputs are."""
    plan = replace(shares.planner.plan((52, 52)), step=(18, 18), grid=(3, 3))
    shares.planner = SimpleNamespace(plan=lambda _: plan, sizes=shares.planner.sizes, halo=plan.halo)


def unkeyed_dropout(shares: Any) -> None:
    """Every window drops the same values of its own corner."""
    planner = shares.planner
    shares.planner = SimpleNamespace(plan=planner.plan, sizes=SimpleNamespace(stride=10**6), halo=planner.halo)


@pytest.mark.parametrize("mistake", [shifted_grid, unkeyed_dropout])
def test_the_comparison_sees_a_mistake(mistake: Any) -> None:
    model = build_model(dropout=0.3)
    options: dict[str, Any] = {"input_size": 92, "batch_size": 2}
    whole, _ = gradient_of(model, build_shares(model, Scenes(SHAPES), tile_size=None, **options))
    shares = build_shares(model, Scenes(SHAPES), tile_size=60, **options)
    mistake(shares)
    tiled, _ = gradient_of(model, shares)
    assert global_difference(tiled, whole) > 1e-3


class CountingReader(ArrayReader):
    """Notes how much is read at a time."""

    def __init__(self, array: np.ndarray, reads: list[int]) -> None:
        super().__init__(array)
        self.reads = reads

    def read(self, row_start: int, row_stop: int, col_start: int, col_stop: int) -> np.ndarray:
        self.reads.append((row_stop - row_start) * (col_stop - col_start))
        return super().read(row_start, row_stop, col_start, col_stop)


def test_of_a_file_only_the_windows_of_the_own_tiles_are_read() -> None:
    class Files(Scenes):
        reads: list[int] = []  # noqa: RUF012

        def image(self, index: int) -> Any:
            return CountingReader(self.images[index], self.reads)

    model = build_model()
    samples = Files([(300, 300)])
    shares = build_shares(
        model, samples, input_size=None, tile_size=76, batch_size=1, rank=1, world_size=4, splits_samples=True
    )
    windows = sum(len(batch.ids) for batch in shares[1].batches)
    assert 0 < windows < 30  # of 81
    assert len(samples.reads) == windows
    assert max(samples.reads) <= 76 * 76


@pytest.mark.parametrize(
    ("norm", "by_pixels", "layer"),
    [("batch", True, "BatchNorm2d"), ("batch", False, "BatchNorm2d"), ("group", True, "GroupNorm")],
)
def test_a_network_that_couples_pixels_or_samples_is_refused_by_name(norm: str, by_pixels: bool, layer: str) -> None:
    sentence = (
        rf"^Got tile_size 572 below .*norm1 \({layer}\): .* Set --norm weight or none, or take the setting back\.$"
    )
    with pytest.raises(LocalityError, match=sentence):
        require_separable(build_model(norm=norm), "tile_size 572 below input_size 1100", by_pixels=by_pixels)


def test_group_norm_may_be_split_by_samples() -> None:
    require_separable(build_model(norm="group"), "split_sample true", by_pixels=False)
    require_separable(build_model(norm="weight", dropout=0.5), "split_sample true", by_pixels=True)
