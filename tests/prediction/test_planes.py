"""Proves that overlapping classes are predicted by the same exact tiles, views, ensembles, journal and files as others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from tests.prediction.parts import build, draw, make_tiles, write_images
from unet_dist import predict_files
from unet_dist.imaging.reader import open_image
from unet_dist.models.answers import answers_of
from unet_dist.models.ensemble import Ensemble
from unet_dist.models.registry import load_model
from unet_dist.prediction.image import predict_logits, predict_rasters
from unet_dist.prediction.values import Recipe

THRESHOLDS = [0.4, 0.5, 0.6, 0.5, 0.3]


def build_planes(**options: Any) -> Any:
    """A small U-Net of five overlapping classes."""
    model: Any = build(class_names=["road", "car", "a/b", "a b", "sky & <sea>"], **options)
    with torch.no_grad():
        for weights in model.parameters():
            weights.normal_(0, 0.4, generator=torch.Generator().manual_seed(len(weights)))
    model.thresholds = THRESHOLDS
    return model


def present(probabilities: np.ndarray) -> np.ndarray:
    """Labels by the definition."""
    return (probabilities >= np.array(THRESHOLDS)[:, None, None]).astype(np.uint8)


@pytest.mark.parametrize("tile_size", [44, 60])
@pytest.mark.parametrize("flip", [False, True])
def test_tiles_are_the_whole_image(tile_size: int, flip: bool) -> None:
    model, image = build_planes(), draw(70, 131)
    got = predict_rasters(make_tiles(model, Recipe(probabilities="float32", flip=flip)), image, tile_size)
    whole = predict_logits(model, image).sigmoid()
    if flip:
        mirrored = predict_logits(model, np.ascontiguousarray(image[:, ::-1])).sigmoid().flip(2)
        whole = (whole + mirrored) / 2
    np.testing.assert_allclose(got["probabilities"], whole.numpy(), rtol=0, atol=1e-7)  # kept in float32
    np.testing.assert_array_equal(got["labels"], present(whole.numpy()))
    assert 0.02 < got["labels"].mean() < 0.98
    tiles = predict_logits(model, image, tile_size)
    assert (tiles - predict_logits(model, image)).abs().max() < 1e-10


def test_blended_tiles_average_sigmoids() -> None:
    model, image = build_planes(), draw(50, 60)
    got = predict_rasters(make_tiles(model, Recipe(probabilities="float32"), blend=True), image, 60)
    assert got["labels"].shape == (5, 50, 60)
    np.testing.assert_array_equal(got["labels"], present(got["probabilities"].astype(np.float64)))
    whole = predict_logits(model, image).sigmoid().numpy()
    np.testing.assert_allclose(got["probabilities"], whole, atol=1e-6)  # every window of a local network says the same


def test_ensemble_averages_sigmoids_and_thresholds() -> None:
    one, other = build_planes(), build_planes()
    with torch.no_grad():
        for weights in other.parameters():
            weights.mul_(0.9)
    other.thresholds = [0.6] * 5
    both: Any = Ensemble([one, other]).double().eval()
    assert both.thresholds == pytest.approx([(a + 0.6) / 2 for a in THRESHOLDS])
    image = draw(40, 50)
    mean = (predict_logits(one, image).sigmoid() + predict_logits(other, image).sigmoid()) / 2
    torch.testing.assert_close(answers_of(both).probabilities(predict_logits(both, image)), mean, rtol=0, atol=1e-12)
    other.thresholds = None
    with pytest.raises(Exception, match="with and without multi_label"):
        Ensemble([one, other])


def test_thresholds_travel_with_the_model_and_change_its_digest(tmp_path: Path) -> None:
    from unet_dist.models.digest import digest_of

    model = build_planes(dtype=torch.float32)
    model.save_pretrained(tmp_path / "model")
    loaded: Any = load_model(tmp_path / "model")
    assert answers_of(loaded).thresholds == tuple(THRESHOLDS)
    before = digest_of(loaded)
    loaded.thresholds = [0.5] * 5
    assert digest_of(loaded) != before
    plain: Any = build(dtype=torch.float32)
    assert "thresholds" not in plain.config()


def test_files_hold_a_band_for_each_class(tmp_path: Path) -> None:
    model = build_planes(dtype=torch.float32)
    (source,) = write_images(tmp_path / "images", [(70, 90)])
    found = predict_files(model, source, tmp_path / "out", tile_size=44, probabilities="uint8", mixed_precision="no")
    (outputs,) = found.outputs.values()
    expected = predict_rasters(make_tiles(model, Recipe()), tifffile.imread(source), 60)["labels"]
    with open_image(outputs["labels"]) as reader:
        assert reader.placement.band_names == ("road", "car", "a/b", "a b", "sky & <sea>")
        np.testing.assert_array_equal(reader.read(0, 70, 0, 90), expected.transpose(1, 2, 0))
    with Image.open(tmp_path / "out" / "image0_overlay.png") as overlay:
        shown = np.asarray(overlay)
    nothing = expected.sum(axis=0) == 0
    assert shown.shape == (70, 90, 3)
    assert (shown[~nothing] != tifffile.imread(source)[~nothing]).any(axis=1).mean() > 0.9


def test_png_is_a_file_for_each_class_and_resumes(tmp_path: Path) -> None:
    model = build_planes(dtype=torch.float32)
    sources = write_images(tmp_path / "images", [(70, 90), (50, 40)])
    keys: dict[str, Any] = {"tile_size": 44, "format": "png", "mixed_precision": "no", "overlay": False}
    found = predict_files(model, sources, tmp_path / "out", **keys)
    expected = predict_rasters(make_tiles(model, Recipe()), tifffile.imread(sources[0]), 60)["labels"]
    names = ["road", "car", "a_b", "a_b~2", "sky_sea_"]
    for plane, name in zip(expected, names, strict=True):
        with Image.open(tmp_path / "out" / f"image0_{name}.png") as picture:
            np.testing.assert_array_equal(np.asarray(picture), plane)
    assert len(found.outputs[str(sources[0])]) == 5
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert len(before) == 10
    predict_files(model, sources, tmp_path / "out", **keys)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
