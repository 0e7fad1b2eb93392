"""Proves that names and colours of classes come beside each label map, and are part of what a resumed prediction looks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.prediction.parts import Prediction, build, write_images
from unet_dist import predict_files
from unet_dist.config.options import PredictOptions
from unet_dist.errors import ConfigError
from unet_dist.prediction.jobs import Job, kinds_beside
from unet_dist.prediction.journal import Done


def test_legends_stand_beside_the_label_maps_and_count_as_made(tmp_path: Path) -> None:
    pytest.importorskip("rasterio.features")
    model = build(dtype=torch.float32, class_names=["a & b", "b", "c", "d", "e"])
    sources = write_images(tmp_path / "images", [(40, 50), (30, 30)])
    keys: dict[str, Any] = {"mixed_precision": "no", "overlay": False, "also": "qgis,geojson"}
    predict_files(model, sources, tmp_path / "out", **keys)
    expected = {f"image{i}{end}" for i in (0, 1) for end in (".tif", ".tif.aux.xml", ".qml", ".geojson")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == expected
    assert "a &amp; b" in (tmp_path / "out" / "image0.tif.aux.xml").read_text()
    predict_files(model, sources, tmp_path / "png", mixed_precision="no", overlay=False, format="png", also="qgis")
    assert {path.name for path in (tmp_path / "png").iterdir()} == {
        f"image{i}{end}" for i in (0, 1) for end in (".png", ".qml")
    }
    predict_files(build(dtype=torch.float32), sources, tmp_path / "bare", mixed_precision="no", overlay=False)
    assert {path.name for path in (tmp_path / "bare").iterdir()} == {"image0.tif", "image1.tif"}, (
        "nobody named its classes"
    )


def test_an_image_whose_legend_is_gone_is_made_again(tmp_path: Path) -> None:
    prediction = Prediction(tmp_path / "out", write_images(tmp_path / "in", [(40, 50)]), beside=["names", "qgis"])
    done = Done(images={0})
    for path in (*prediction.jobs[0].outputs.values(), *prediction.jobs[0].beside.values()):
        assert prediction.work.without_lost(done).images == set()
        path.touch()
    assert prediction.work.without_lost(done).images == {0}
    assert Job.of(json.loads(json.dumps(prediction.jobs[0].record()))) == prediction.jobs[0]


def test_legends_need_one_class_a_pixel(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="also: got qgis for a network whose classes overlap"):
        kinds_beside("qgis", overlap=True, has_names=True)
    assert kinds_beside(None, overlap=True, has_names=True) == []
    with pytest.raises(ConfigError, match="also: got svg, expected qgis, geojson or qgis,geojson"):
        PredictOptions(also="svg")
    assert PredictOptions(also="geojson,qgis").also == "geojson,qgis"
