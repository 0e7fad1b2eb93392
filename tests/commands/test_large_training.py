"""Proves that training on images larger than memory holds a few windows of them, and takes the steps of one that holds all."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.batches.test_shares import Alive, alive  # noqa: F401 a fixture
from tests.data.decoded.test_windowed import draw_pair, write_tiff
from unet_dist.assembly.network import build_skeleton
from unet_dist.assembly.sizes import CropSizes, refuse_beyond_memory
from unet_dist.cli import main
from unet_dist.config.batch_cut import BatchCut
from unet_dist.config.sections import Config
from unet_dist.data.batches.ahead import AHEAD
from unet_dist.data.batches.shares import RunShares, SharePlan
from unet_dist.data.decoded import windowed
from unet_dist.data.decoded.windowed import WindowedFiles
from unet_dist.data.sources.splits import FRACTIONS, cut
from unet_dist.errors import ConfigError
from unet_dist.tiling.crop_plan import CropPlanner
from unet_dist.training.adamw import FusedAdamW

SMALL = ["--depth", "1", "--base_channels", "1", "--ignore_index", "200", "--mixed_precision", "no", "--trackers", "[]"]


pytestmark = pytest.mark.usefixtures("own_process")


def call(*words: Any, code: int = 0) -> None:
    with pytest.raises(SystemExit) as leaving:
        main([str(word) for word in words])
    assert leaving.value.code == code


def write_pairs(root: Path, pairs: list[tuple[np.ndarray, np.ndarray]], **options: Any) -> None:
    for number, (image, label) in enumerate(pairs):
        write_tiff(root / "images" / f"{number}.tif", image, **options)
        write_tiff(root / "masks" / f"{number}.tif", label, **options)


WAYS: dict[str, list[str]] = {
    "whole images": ["--input_size", "full", "--tile_size", "40", "--batch_size", "2"],
    "dice, class weights, workers": [
        "--input_size", "76", "--tile_size", "40", "--batch_size", "2", "--loss", "cross_entropy+dice",
        "--class_weights", "median", "--num_workers", "2",
    ],
    "accumulation, checkpointing": [
        "--input_size", "76", "--tile_size", "40", "--batch_size", "4", "--gradient_accumulation_steps", "2",
        "--checkpoint_activations", "true", "--dropout", "0.2",
    ],
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.slow
def test_no_byte_depends_on_when_windows_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    write_pairs(tmp_path / "data", [draw_pair(number, 60 + number, 90) for number in range(5)])
    plan, kept = RunShares.plan, []

    def watched(self: RunShares, step: int) -> SharePlan:
        made = plan(self, step)
        kept.append(made.is_kept)
        return made

    monkeypatch.setattr(RunShares, "plan", watched)
    weights = []
    for kept_px in (0, 10**9):
        monkeypatch.setitem(RunShares.__init__.__kwdefaults__, "kept_px", kept_px)
        run = tmp_path / str(kept_px)
        common = ["--data_path", tmp_path / "data", "--cache_path", tmp_path / "cache", "--max_pixels", 1000]
        call("train", *common, *SMALL, *WAYS[way], "--total_steps", 3, "--output_path", run)
        assert all(kept) == (kept_px > 0)
        kept.clear()
        weights.append((run / "last" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_a_step_on_a_whole_image_holds_a_few_windows(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    alive: Alive,  # noqa: F811
) -> None:
    """The bounds know nothing of the side. Image and labels are 34 MiB; a window of them is read at a time."""
    side = 3000
    monkeypatch.setattr(windowed, "_BLOCK_BYTES", 8 * 2**20)
    image, label = draw_pair(0, 250, 250)
    pairs = [draw_pair(number) for number in range(3)]
    (trained,) = cut(3, FRACTIONS, seed=0)["train"]
    pairs[trained] = (np.tile(image, (side // 250, side // 250, 1)), np.tile(label, (side // 250, side // 250)))
    write_pairs(tmp_path / "data", pairs, tile=(256, 256), compression=None)
    del pairs
    read, sizes, peaks = WindowedFiles.read, [], []
    add = FusedAdamW.step

    def noted(self: WindowedFiles, number: int, kind: str, rectangle: tuple[int, int, int, int]) -> np.ndarray:
        if not tracemalloc.is_tracing():
            tracemalloc.start()  # with the first window of the first step
        top, bottom, left, right = rectangle
        sizes.append((bottom - top) * (right - left))
        return read(self, number, kind, rectangle)

    def stepped(self: FusedAdamW, *arguments: Any, **options: Any) -> Any:
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        return add(self, *arguments, **options)

    monkeypatch.setattr(WindowedFiles, "read", noted)
    monkeypatch.setattr(FusedAdamW, "step", stepped)
    common = ["--data_path", tmp_path / "data", "--cache_path", tmp_path / "cache", "--max_pixels", 100_000]
    common += ["--input_size", "full", "--tile_size", 252, "--batch_size", 1, "--total_steps", 1, "--seed", 0]
    call("train", *common, *SMALL, "--output_path", tmp_path / "run")
    num_windows = (-(-side // 236)) ** 2
    assert len(sizes) >= 3 * num_windows, "of each an image, its labels and those again that are counted"
    assert max(sizes) <= 252 * 252
    assert 0 < alive.most <= (AHEAD + 2) * 252 * 252 * 3
    assert peaks[0] < 24 * 2**20  # twice the blocks that a reader keeps, and some windows


def test_only_an_augmentation_that_would_need_the_whole_image_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pairs(tmp_path / "data", [draw_pair(number) for number in range(3)])
    common = ["--data_path", tmp_path / "data", "--cache_path", tmp_path / "cache", *SMALL, "--batch_size", 1]
    common += ["--tile_size", 40, "--total_steps", 1, "--output_path", tmp_path / "run"]
    call("train", *common, "--max_pixels", 1000, "--input_size", "full", "--augmentation", "[{name: D4}]", code=2)
    said = " ".join(capsys.readouterr().err.split())
    assert "augmentation: got D4, which sees a crop as a whole, for " in said
    assert "read by windows and whose crops of 90x130 px are cut into tiles of 40. Remove augmentation" in said
    assert not list((tmp_path / "run").glob("*.yaml"))
    # One window a crop is read and augmented as any other; and so are the tiles of a decoded copy.
    call("train", *common, "--max_pixels", 1000, "--input_size", 40, "--augmentation", "[{name: D4}]")
    common[-1] = tmp_path / "by_windows"
    call("train", *common, "--max_pixels", 1000, "--input_size", "full", "--augmentation", "strong")
    common[3], common[-1] = tmp_path / "decoded", tmp_path / "other"
    call("train", *common, "--max_pixels", 10**6, "--input_size", "full", "--augmentation", "[{name: D4}]")


def test_of_a_crop_in_tiles_a_tile_must_fit_the_memory() -> None:
    skeleton, cut = build_skeleton(Config()), BatchCut(1, 1, 1)
    tiled, undivided = (CropPlanner.of(skeleton, side=10**7, tile_size=size) for size in (572, None))
    refuse_beyond_memory(skeleton, CropSizes(10**7, tiled, cut))
    refuse_beyond_memory(skeleton, CropSizes(None, tiled, cut))
    with pytest.raises(ConfigError, match=r"got 1 windows of 10000000x10000000 .* or a --tile_size\.$"):
        refuse_beyond_memory(skeleton, CropSizes(10**7, undivided, cut))
