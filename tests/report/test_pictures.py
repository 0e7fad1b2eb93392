"""Proves how the pictures of an evaluation travel in the page."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unet_dist.data.decoded.labels import IGNORED
from unet_dist.data.decoded.planes import pack
from unet_dist.report.figures import Sample
from unet_dist.report.pictures import MAX_SIDE_PX, embed_picture, write_sample


@pytest.mark.parametrize("num_classes", [2, 9, 32])
def test_overlapping_classes_of_a_picture_travel_as_planes(tmp_path: Path, num_classes: int) -> None:
    """Four classes in a grey value, two bits each: 0 absent, 1 present, 3 counts nowhere."""
    rng = np.random.default_rng(0)
    planes = rng.choice(np.array([0, 1, IGNORED], np.uint8), (12, 10, num_classes))
    planes[..., 0] = 0
    guessed = rng.integers(0, 2, (num_classes, 12, 10)).astype(np.uint8)
    guessed[0] = 0
    write_sample(tmp_path, "a", Sample(np.zeros((12, 10, 3), np.uint8), pack(planes), guessed), num_classes)
    shown = embed_picture(tmp_path, "a")
    assert shown is not None
    assert shown["overlap"]
    assert shown["classes"] == list(range(1, num_classes))
    for kind, expected in (("label", planes.transpose(2, 0, 1)), ("prediction", guessed)):
        grey = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown[kind].partition(",")[2])))).reshape(-1, 12, 10)
        codes = np.stack([grey[k // 4] >> 2 * (k % 4) & 3 for k in range(num_classes)])
        assert np.array_equal(np.where(codes == 3, IGNORED, codes), expected)


def test_a_picture_larger_than_ours_is_left_out(tmp_path: Path) -> None:
    """A short file may unfold to gigabytes."""
    side = MAX_SIDE_PX + 1
    for suffix, kind in ((".webp", "WEBP"), ("-label.png", "PNG"), ("-prediction.png", "PNG")):
        Image.new("RGB" if kind == "WEBP" else "L", (side, 20)).save(tmp_path / f"a{suffix}")
    assert embed_picture(tmp_path, "a") is None
