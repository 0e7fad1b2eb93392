"""Light and colour are a pure function of (seed, sample), the same bytes however a batch or a crop is cut, and do what they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.tiling.scenes import Scenes, build_model, build_shares, global_difference, gradient_of, relative_differences
from unet_dist.data.batches.colour import draw_colours, recolour
from unet_dist.data.batches.recipes import RECIPES

POSITIONS = list(range(40))


@pytest.fixture
def windows() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (len(POSITIONS), 9, 11, 3), dtype=np.uint8))


def test_no_byte_depends_on_the_cut(windows: torch.Tensor) -> None:
    colours = draw_colours(7, POSITIONS)
    at_once = recolour(windows, colours)
    assert at_once.dtype == torch.uint8
    one_by_one = [recolour(windows[n : n + 1], draw_colours(7, [n])) for n in reversed(POSITIONS)][::-1]
    assert torch.equal(torch.cat(one_by_one), at_once)
    pieces = [recolour(part, colours) for part in windows.split(4, dim=2)]
    assert torch.equal(torch.cat(pieces, dim=2), at_once)
    strided = recolour(windows.permute(0, 2, 1, 3), colours).permute(0, 2, 1, 3)
    assert torch.equal(strided, at_once)
    assert not torch.equal(recolour(windows, draw_colours(8, POSITIONS)), at_once)


def test_a_fifth_stays_as_it_is_and_the_others_change_by_a_lot(windows: torch.Tensor) -> None:
    positions = list(range(1000))
    colours = draw_colours(3, positions)
    is_same = (colours[:, :256] == torch.arange(256)).all(1) & (colours[:, 256] == 4096)
    assert 150 < int(is_same.sum()) < 250
    same = is_same.nonzero().flatten()[: len(windows)]
    assert torch.equal(recolour(windows[: len(same)], colours[same]), windows[: len(same)])
    middle = colours[~is_same][:, 128].double()
    assert 15 < float(middle.std()) < 40
    assert bool((colours[:, 1:256] >= colours[:, :255]).all()), "no order of brightness turns round"


def test_saturation_moves_colours_to_and_from_their_grey() -> None:
    red = torch.tensor([[[[200, 100, 50]]]], dtype=torch.uint8)
    keep = torch.cat([torch.arange(256), torch.tensor([0])])[None].int()
    grey = recolour(red, keep)[0, 0, 0].tolist()
    assert grey == [124] * 3  # 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2
    keep[0, 256] = 6144  # by half as much again
    assert recolour(red, keep)[0, 0, 0].tolist() == [238, 88, 13]
    pale = torch.tensor([[[[9], [250]]]], dtype=torch.uint8)
    assert torch.equal(recolour(pale, keep), pale), "grey images have no saturation"


def test_tiles_of_a_crop_see_one_transform() -> None:
    model = build_model()
    options: dict[str, Any] = {"input_size": 92, "batch_size": 3, "recipe": RECIPES["colour"]}
    samples = Scenes([(70, 95), (31, 120), (64, 64)])
    whole, _ = gradient_of(model, build_shares(model, samples, tile_size=None, **options))
    tiled, _ = gradient_of(model, build_shares(model, samples, tile_size=60, micro_batch_size=2, **options))
    plain, _ = gradient_of(model, build_shares(model, samples, tile_size=None, **{**options, "recipe": None}))
    assert max(relative_differences(tiled, whole).values()) < 1e-10
    assert global_difference(plain, whole) > 1e-3
