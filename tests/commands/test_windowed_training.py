"""Proves that training and evaluation on files read by windows are, to the byte, those on a decoded copy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.data.decoded.test_windowed import draw_pair, write_tiff
from unet_dist.cli import main

pytestmark = pytest.mark.usefixtures("own_process")


def call(*words: str) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(list(words))
    assert leaving.value.code == 0


@pytest.mark.parametrize("size", ["40", "full"])
@pytest.mark.slow
def test_no_byte_depends_on_a_decoded_copy(tmp_path: Path, size: str) -> None:
    for number in range(5):
        image, label = draw_pair(number, 60 + number, 90)
        write_tiff(tmp_path / "data" / "images" / f"{number}.tif", image)
        write_tiff(tmp_path / "data" / "masks" / f"{number}.tif", label)
    results = []
    for max_pixels in ("1000", "1000000"):
        run = tmp_path / max_pixels
        common = ["--data_path", str(tmp_path / "data"), "--cache_path", str(run / "cache"), "--max_pixels", max_pixels]
        common += ["--ignore_index", "200", "--depth", "1", "--base_channels", "2", "--input_size", size]
        common += ["--tile_size", "40", "--batch_size", "2", "--total_steps", "3", "--trackers", "[]"]
        call("train", *common, "--output_path", str(run / "run"), "--mixed_precision", "no")
        call("evaluate", str(run / "run"), "--split", "all", "--mixed_precision", "no", "--pictures", "1")
        (pixels,) = (run / "cache").glob("*/images.bin")
        assert (pixels.stat().st_size == 0) == (max_pixels == "1000"), "one of the two keeps no copy"
        scores = json.loads((run / "run" / "evaluation-all.json").read_text())
        assert list((run / "run" / "figures").glob("all-*.png"))
        results.append(((run / "run" / "last" / "model.safetensors").read_bytes(), scores["confusion"]))
    assert results[0] == results[1]
