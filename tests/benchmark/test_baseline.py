"""Proves that the loop to compare with is the same task: the same function of the pixels, on crops of the same pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from unet_dist.benchmark.baseline import Baseline, DecodedPairs, PlainUNet, write_pairs
from unet_dist.models.unet import UNet


def test_the_plain_network_is_the_same_function() -> None:
    ours, plain = UNet(3, 5, base_channels=4, depth=3).double(), PlainUNet(3, 5, 4, 3).double()
    blocks = [*ours.encoder, ours.bottleneck]
    theirs = plain.state_dict()
    own = [
        *(convolution for block in blocks for convolution in (block.conv1, block.conv2)),
        *(upsample.conv for upsample in ours.upsample),
        *(convolution for block in ours.decoder for convolution in (block.conv1, block.conv2)),
        ours.classifier,
    ]
    values = [tensor for module in own for tensor in (module.weight, module.bias)]
    assert [tensor.shape for tensor in values] == [tensor.shape for tensor in theirs.values()]
    plain.load_state_dict(dict(zip(theirs, values, strict=True)))
    images = torch.randn(2, 3, 92, 92, dtype=torch.float64)
    assert torch.allclose(ours(images), plain(images), rtol=0, atol=1e-12)


def test_pairs_are_decoded_and_cropped_together(tmp_path: Path) -> None:
    rows = np.arange(50, dtype=np.uint8)[:, None].repeat(
        70, axis=1
    )  # the mask is the row, and so is the grey of the picture
    pictures = ((np.repeat(rows[:, :, None] * 4, 3, axis=2), rows) for _ in range(3))
    write_pairs(tmp_path / "pairs", pictures)
    pairs = DecodedPairs(tmp_path / "pairs", side=36)
    assert len(pairs) == 3
    pixels, mask = pairs[1]
    assert (pixels.shape, pixels.dtype, mask.shape, mask.dtype) == ((3, 36, 36), torch.float32, (36, 36), torch.int64)
    red = (pixels[0] * 0.229 + 0.485) * 255 / 4
    assert (red - mask).abs().max() < 1.5  # JPEG is not exact


def test_the_loop_trains(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (60, 60, 3), dtype=np.uint8) for _ in range(3)]
    write_pairs(tmp_path / "pairs", ((image, image[:, :, 0] // 64) for image in images))
    options = {"in_channels": 3, "num_classes": 4, "base_channels": 2, "depth": 2}
    torch.manual_seed(0)
    baseline = Baseline(
        tmp_path / "pairs", options, side=60, batch_size=2, device=torch.device("cpu"), learning_rate=0.1
    )
    before = [p.detach().clone() for p in baseline._model.parameters()]
    assert baseline.seconds(2) > 0
    assert baseline.read_seconds(2) > 0  # beyond an epoch of one batch
    assert any(not torch.equal(was, p) for was, p in zip(before, baseline._model.parameters(), strict=True))
