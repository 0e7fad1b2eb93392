"""Light and colour are a pure function of (seed, sample), the same bytes however a batch or a crop is cut, and do what they say."""

from __future__ import annotations

import cmath
import colorsys
import math
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiling.scenes import Scenes, build_model, build_shares, global_difference, gradient_of, relative_differences
from unet_dist.data.batches.colour import Colours, draw_colours, recolour
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
    colours = draw_colours(3, positions).rows
    is_same = (colours[:, :256] == torch.arange(256)).all(1) & (colours[:, 256] == 4096)
    assert 150 < int(is_same.sum()) < 250
    same = is_same.nonzero().flatten()[: len(windows)]
    kept = Colours(colours[same], [], torch.empty(0, 3, 3))
    assert torch.equal(recolour(windows[: len(same)], kept), windows[: len(same)])
    middle = colours[~is_same][:, 128].double()
    assert 15 < float(middle.std()) < 40
    assert bool((colours[:, 1:256] >= colours[:, :255]).all()), "no order of brightness turns round"


def test_saturation_moves_colours_to_and_from_their_grey() -> None:
    red = torch.tensor([[[[200, 100, 50]]]], dtype=torch.uint8)
    keep = Colours.of([np.arange(256)[None]], [0.0], [0.0])
    grey = recolour(red, keep)[0, 0, 0].tolist()
    assert grey == [124] * 3  # 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2
    keep = Colours.of([np.arange(256)[None]], [1.5], [0.0])
    assert recolour(red, keep)[0, 0, 0].tolist() == [238, 88, 13]
    pale = torch.tensor([[[[9], [250]]]], dtype=torch.uint8)
    assert torch.equal(recolour(pale, keep), pale), "grey images have no saturation"


def test_hues_turn_about_grey_and_keep_their_luma() -> None:
    """Against colorsys, whose YIQ has other digits: within two of 255."""
    values = [[200, 100, 50], [77, 77, 77], [10, 60, 120]]
    windows = torch.tensor(values, dtype=torch.uint8)[None, None].expand(2, 1, 3, 3)
    turned = recolour(windows, Colours.of([np.arange(256)[None]] * 2, [1.0, 1.0], [0.0, 30.0]))
    assert torch.equal(turned[0], windows[0]), "an angle of 0 turns nothing"
    for before, after in zip(values, turned[1, 0].tolist(), strict=True):
        y, i, q = colorsys.rgb_to_yiq(*before)
        moved = complex(i, q) * cmath.rect(1, math.radians(30))
        # colorsys clips to 1, so that values are taken as parts of 255.
        expected = colorsys.yiq_to_rgb(y / 255, moved.real / 255, moved.imag / 255)
        assert after == pytest.approx([255 * part for part in expected], abs=2)
    assert turned[1, 0, 1].tolist() == [77] * 3


def test_channels_have_tables_of_their_own(windows: torch.Tensor) -> None:
    tables = np.stack([np.arange(256), np.full(256, 7), 255 - np.arange(256)])
    assert torch.equal(
        recolour(windows[..., :2], Colours.of([tables[:2]] * len(windows), [1.0] * len(windows), [0.0] * len(windows))),
        torch.stack([windows[..., 0], torch.full_like(windows[..., 0], 7)], dim=-1),
    )
    mixed = recolour(windows[:2], Colours.of([tables[:1], tables], [1.0] * 2, [0.0] * 2))
    assert torch.equal(mixed[0], windows[0])
    assert torch.equal(mixed[1, ..., 2], 255 - windows[1, ..., 2])


def test_tiles_of_a_crop_see_one_transform() -> None:
    model = build_model()
    options: dict[str, Any] = {"input_size": 92, "batch_size": 3, "recipe": RECIPES["colour"]}
    samples = Scenes([(70, 95), (31, 120), (64, 64)])
    whole, _ = gradient_of(model, build_shares(model, samples, tile_size=None, **options))
    tiled, _ = gradient_of(model, build_shares(model, samples, tile_size=60, micro_batch_size=2, **options))
    plain, _ = gradient_of(model, build_shares(model, samples, tile_size=None, **{**options, "recipe": None}))
    assert max(relative_differences(tiled, whole).values()) < 1e-10
    assert global_difference(plain, whole) > 1e-3
