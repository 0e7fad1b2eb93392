"""Blur and noise are as large as they say, leave the other windows alone, and keep flat areas and means."""

from __future__ import annotations

import torch

from unet_dist.data.batches.texture import MARGIN_PX, add_noise, blur, draw_textures

KEYS = [(position, 0, 0) for position in range(400)]


def test_about_as_many_are_changed_as_was_said() -> None:
    textures = draw_textures(3, KEYS, blur_p=0.25, noise_p=0.5)
    assert 70 < len(textures.blurred) < 130
    assert 160 < len(textures.noisy) < 240
    assert 0 < len(set(textures.blurred) & set(textures.noisy)) < len(textures.blurred)
    again = draw_textures(3, KEYS[5:6], blur_p=0.25, noise_p=0.5)
    assert bool(again.blurred) == (5 in textures.blurred)
    assert draw_textures(3, KEYS, blur_p=0, noise_p=0).margin == 0


def test_a_blur_keeps_flat_areas_and_smooths_edges() -> None:
    textures = draw_textures(0, KEYS[:30], blur_p=0.5, noise_p=0)
    windows = torch.full((30, 8 + 2 * MARGIN_PX, 9 + 2 * MARGIN_PX, 3), 200, dtype=torch.uint8)
    assert torch.equal(blur(windows, textures), windows[:, 2:-2, 2:-2])
    windows[:, :, 7:] = 0
    blurred = blur(windows, textures)
    others = [number for number in range(30) if number not in textures.blurred]
    assert torch.equal(blurred[others], windows[others, 2:-2, 2:-2])
    row = blurred[textures.blurred][:, 0, :, 0].int()
    assert bool((row.diff(dim=1) <= 0).all())
    assert bool((row[:, 4] < 200).all())
    assert bool((row[:, 5] > 0).all())
    assert set((row[:, 4] + row[:, 5]).tolist()) <= {200, 201}, "halves are rounded up"
    turned = blur(windows.transpose(1, 2), textures).transpose(1, 2)
    assert torch.equal(turned, blurred), "rows and columns alike"


def test_noise_has_its_deviation_and_no_mean() -> None:
    textures = draw_textures(0, KEYS[:60], blur_p=0, noise_p=0.5)
    windows = torch.full((60, 40, 50, 3), 120, dtype=torch.uint8)
    moved = add_noise(windows, textures)[textures.noisy].double() - 120
    expected = textures.factors.double() * (4 * (256**2 - 1) / 12) ** 0.5 / 2**16
    assert torch.allclose(moved.flatten(1).std(1), expected, rtol=0.05, atol=0.4)
    assert float(moved.flatten(1).mean(1).abs().max()) < 0.5
    assert 8 < float(expected.max()) <= 12
    quiet = [number for number in range(60) if number not in textures.noisy]
    assert torch.equal(add_noise(windows, textures)[quiet], windows[quiet])
    bright = torch.full_like(windows, 254)
    assert int(add_noise(bright, textures)[textures.noisy].min()) > 150, "nothing wraps around"
