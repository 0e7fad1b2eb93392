"""Proves what happens to windows on their way through a network: normalised, computed as asked, labelled by the best class.

That tiles of them are exact is proved in tests/prediction/test_image.py.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.prediction.test_image import build, draw_image
from unet_dist.errors import SizeError
from unet_dist.tiling.windows import classify, normalise, window_logits


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_normalise(dtype: torch.dtype) -> None:
    pixels = draw_image(4, 6)[None].repeat(2, axis=0)
    mean, std = [10.5, 100.0, 200.0], [3.0, 50.0, 70.0]
    images = normalise(torch.from_numpy(pixels), mean, std, dtype)
    assert images.shape == (2, 3, 4, 6)
    assert images.dtype == dtype
    compute = np.float64 if dtype == torch.float64 else np.float32
    expected = (pixels.astype(compute) - np.array(mean, compute)) / np.array(std, compute)
    # Rounded once, at the end: narrow types lose nothing on the way.
    assert torch.equal(images, torch.from_numpy(expected).permute(0, 3, 1, 2).to(dtype))


def test_normalise_leaves_the_pixels() -> None:
    pixels = torch.full((1, 2, 2, 1), 9, dtype=torch.uint8)
    normalise(pixels, [1.0], [2.0], torch.float32)
    assert (pixels == 9).all()


@pytest.mark.parametrize("ignored", [0, 2, 4])
def test_classify_never_answers_the_ignored_class(ignored: int) -> None:
    # Of few values, so that many are equal: the first of them is the answer.
    logits = torch.randint(0, 3, (2, 5, 7, 6), generator=torch.Generator().manual_seed(0)).float()
    logits[:, ignored] += 10
    before = logits.clone()
    labels = classify(logits, ignored)
    assert labels.dtype == torch.uint8
    assert labels.shape == (2, 7, 6)
    masked = logits.clone()
    masked[:, ignored] = -torch.inf
    assert torch.equal(labels.long(), masked.argmax(1))
    assert torch.equal(logits, before)
    for outside in (None, 255, -1):
        assert (classify(logits, outside) == ignored).all()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_classify_equals_argmax(dtype: torch.dtype, memory_format: torch.memory_format, threads: int) -> None:
    """Ties, zeros of both signs, infinities and values that are no number; many classes, and a part of a larger tensor.

    No class where the largest is not finite.
    """
    values = torch.tensor([-torch.inf, -1.5, -0.0, 0.0, 2.25, torch.inf])
    before, draws = torch.get_num_threads(), torch.Generator().manual_seed(3)
    torch.set_num_threads(threads)
    try:
        for num_classes, limit in ((1, 6), (2, 6), (35, 5), (35, 4), (35, 1), (255, 5), (300, 6)):
            picks = torch.randint(0, limit, (2, num_classes, 96, 40), generator=draws)
            logits = values[picks].to(dtype).contiguous(memory_format=memory_format)
            for part in (logits, logits[:, :, 3:-2, 5:-4]):
                assert torch.equal(classify(part, None).to(torch.int64), answer(part))
            logits[1, num_classes // 2, 50, 7] = torch.nan
            assert torch.equal(classify(logits, None).to(torch.int64), answer(logits))
    finally:
        torch.set_num_threads(before)


def answer(logits: torch.Tensor) -> torch.Tensor:
    """Labels by the definition."""
    best = logits.max(1)
    return torch.where(best.values.isfinite(), best.indices, 255 if logits.shape[1] <= 255 else 65535)


def test_classify_of_a_single_class() -> None:
    assert (classify(torch.randn(1, 1, 3, 3), 0) == 0).all()


def test_flags_are_restored_when_the_network_fails() -> None:
    model = build().train()
    with pytest.raises(SizeError):
        window_logits(model, torch.zeros(1, 61, 60, 3, dtype=torch.uint8), halo=20)
    assert model.training


def test_autocast_is_used_and_only_then() -> None:
    model = build(depth=1, dtype=torch.float32)
    pixels = torch.from_numpy(draw_image(32, 32))[None]
    assert window_logits(model, pixels, halo=8).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):  # the caller's own context stays in force
        assert window_logits(model, pixels, halo=8).dtype == torch.bfloat16
