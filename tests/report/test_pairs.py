"""The picture of pairs shows each image beside its label in the colours of the classes, whatever the type of its values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unet_dist.imaging.palette import class_palette
from unet_dist.report.figures import Pair, draw_pairs


@pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, 1), (np.uint16, 7), (np.float32, 2)])
def test_pairs_of_any_type(tmp_path: Path, dtype: type, channels: int) -> None:
    label = np.zeros((40, 60), np.uint8)
    label[10:, 30:] = 2
    label[:5] = 255
    pairs = [Pair(np.full((40, 60, channels), 7 * number, dtype), label, f"name_{number}$") for number in range(3)]
    draw_pairs(tmp_path / "figures/pairs.png", pairs, ["sky", "road", "tree"])
    with Image.open(tmp_path / "figures/pairs.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    shares = [(pixels == colour).all(axis=1).mean() for colour in class_palette(3)]
    assert shares[2] > shares[1] * 10
    assert shares[0] > shares[1] * 10, "no pixel is road"
