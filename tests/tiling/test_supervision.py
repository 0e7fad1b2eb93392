"""Proves that coarse levels are judged by the labels under the middles of their pixels, that their gradient by tiles and over ranks
is that of the whole (C2, C3), and that no model folder has their heads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.models.test_encoder_unet import alive
from tests.tiling.scenes import (
    CLASS_WEIGHTS,
    NUM_CLASSES,
    Scenes,
    build_model,
    build_shares,
    global_difference,
    gradient_of,
    relative_differences,
)
from tests.tiling.test_gradient import SHAPES, sides
from unet_dist import Config
from unet_dist.assembly.network import build_skeleton
from unet_dist.data.batches.borders import BorderWeights
from unet_dist.errors import ConfigError
from unet_dist.losses.dice import Dice
from unet_dist.losses.mixture import Mixture
from unet_dist.losses.pixelwise import CrossEntropy, Focal
from unet_dist.models.encoder_unet import EncoderUNet
from unet_dist.models.registry import load_model
from unet_dist.tiling.geometry import CoarseGrid, level_weights
from unet_dist.tiling.gradient import WindowGradient

MODELS: dict[str, dict[str, Any]] = {
    "paper": {"depth": 3},
    "bilinear, same": {"depth": 3, "upsampling": "bilinear", "padding": "same"},
    "stem, bilinear head": {"depth": 2, "stem_stride": 4, "head": "bilinear"},
    "stem, dropout, checkpointed": {"stem_stride": 2, "dropout": 0.4, "checkpoint_activations": True},
}


def supervised(**options: Any) -> Any:
    model = build_model(**options)
    model.supervise(model.depth - 1)
    for head in model.heads:  # they start small
        nn.init.normal_(head.weight, 0, 0.5)
    return model


def test_the_first_label_of_a_grid_is_the_one_at_a_middle() -> None:
    assert level_weights(0) == [1]
    assert level_weights(2) == [4 / 7, 2 / 7, 1 / 7]
    for start in (0, -2, -6, -14):
        for trim in (0, 5):
            grid = CoarseGrid(4, start)
            found = grid.places(30, trim)
            middles = {pixel: start + 4 * pixel + 2 - trim for pixel in range(20)}
            counted = [pixel for pixel, middle in middles.items() if 0 <= middle < 30]
            assert list(range(20))[found.pixels] == counted
            assert list(range(30))[found.labels] == [middles[pixel] for pixel in counted]
    assert CoarseGrid(8).places(3, 0).labels == slice(4, 3, 8), "none where no middle is"


@pytest.mark.parametrize("name", [*MODELS, "encoder"])
def test_what_a_coarse_pixel_sees_lies_evenly_about_its_middle(name: str) -> None:
    """Its grid is derived; here the pixels of the image with an influence are looked at."""
    if name == "encoder":
        torch.manual_seed(0)
        model: Any = EncoderUNet(3, NUM_CLASSES, base_channels=2, depth=3).double()
        model.supervise(1)
        alive(model)
    else:
        model = supervised(**{**MODELS[name], "dropout": 0.0})
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.abs_()
    model.train()
    side = model.window_sizes.round_up(model.window_sizes.minimum + 8 * model.window_sizes.stride)
    images = torch.rand(1, 3, side, side, dtype=torch.float64, requires_grad=True)
    _, *coarse = model(images)
    margin = model.window_sizes.margin
    places = [grid.places(side - 2 * margin, 0) for grid in model.coarse_grids]
    for logits, grid, place in zip(coarse, model.coarse_grids, places, strict=True):
        assert place.pixels.stop <= logits.shape[2]
        pixel = (place.pixels.start + place.pixels.stop) // 2
        (influence,) = torch.autograd.grad(logits[0, 0, pixel, pixel], images, retain_graph=True)
        # The centre of what is seen, by weight; poolings and strides move it by less than their own stride.
        seen = influence[0].abs().sum((0, 2))
        centre = float((seen * torch.arange(side)).sum() / seen.sum()) - margin
        middle = grid.start + grid.stride * pixel + (grid.stride - 1) / 2
        assert centre == pytest.approx(middle, abs=grid.stride / 2 if name != "encoder" else model.window_sizes.stride)


@pytest.mark.parametrize("name", MODELS)
def test_tiles_give_the_gradient_of_the_whole_crop(name: str) -> None:
    model = supervised(**MODELS[name])
    input_size, tile_size = sides(model)
    options: dict[str, Any] = {"input_size": input_size, "batch_size": 3, "borders": BorderWeights(1, 5.0, 2.0)}
    loss = Mixture([(1.0, Focal(CLASS_WEIGHTS)), (0.5, Dice()), (1.0, CrossEntropy(CLASS_WEIGHTS))])
    whole, whole_loss = gradient_of(model, build_shares(model, Scenes(SHAPES), tile_size=None, **options), loss=loss)
    shares = build_shares(model, Scenes(SHAPES), tile_size=tile_size, micro_batch_size=2, **options)
    assert sum(len(batch.ids) for batch in shares[1].batches) >= 3 * 9
    tiled, tiled_loss = gradient_of(model, shares, loss=loss)
    assert {f"heads.{level}.weight" for level in range(len(model.heads))} <= whole.keys()
    assert max(relative_differences(tiled, whole).values()) < 1e-10
    assert tiled_loss == pytest.approx(whole_loss, rel=1e-13)
    model.supervise(0)
    plain, _ = gradient_of(model, shares, loss=loss)
    assert global_difference(plain, {name: whole[name] for name in plain}) > 1e-3


def test_an_encoder_by_tiles_and_two_ranks() -> None:
    torch.manual_seed(0)
    model: Any = EncoderUNet(3, NUM_CLASSES, base_channels=2, depth=3, padding="same").double().train()
    model.supervise(1)
    planned = model.window_sizes.round_up(2 * model.locality.halo + 32)
    options: dict[str, Any] = {"input_size": planned + 24, "batch_size": 2}
    whole, _ = gradient_of(model, build_shares(model, Scenes(SHAPES), tile_size=None, **options))
    tiled, _ = gradient_of(model, build_shares(model, Scenes(SHAPES), tile_size=planned, **options))
    assert max(relative_differences(tiled, whole).values()) < 1e-10
    parts = []
    for rank in (0, 1):
        shares = build_shares(model, Scenes(SHAPES), tile_size=planned, rank=rank, world_size=2, **options)
        # Each divides by its own labels: here by those of both.
        own = float(shares[1].divisor(CrossEntropy(CLASS_WEIGHTS)))
        parts.append((own, gradient_of(model, shares)[0]))
    total = sum(own for own, _ in parts)
    both = {name: sum(grads[name] * own / total for own, grads in parts) for name in whole}
    assert max(relative_differences(both, whole).values()) < 1e-10


def test_the_loss_is_that_of_its_definition() -> None:
    """Pixel by pixel: half of the weight for each level, a coarse pixel for all of its pixels, the label at its middle."""
    model = supervised(depth=3)
    shares = build_shares(model, Scenes([(70, 95)]), input_size=108, tile_size=None, batch_size=1)
    (batch,) = shares[1].batches
    labels = batch.labels[0].long()
    gradient = WindowGradient(model, model, CrossEntropy())
    logits, *coarse = gradient.outputs(batch.windows, batch.keys)
    assert (logits.shape[2], [c.shape[2] for c in coarse]) == (labels.shape[0], [12, 8])

    def cross_entropy(scores: Tensor, label: int) -> float:
        return 0.0 if label == 255 else float(scores.logsumexp(0) - scores[label])

    levels = [(logits, 1, 0), (coarse[0], 2, -2), (coarse[1], 4, -6)]
    expected = 0.0
    for (scores, stride, start), weight in zip(levels, (4 / 7, 2 / 7, 1 / 7), strict=True):
        for row in range(scores.shape[2]):
            for col in range(scores.shape[3]):
                at = tuple(start + stride * place + stride // 2 for place in (row, col))
                if all(0 <= place < side for place, side in zip(at, labels.shape, strict=True)):
                    expected += weight * stride**2 * cross_entropy(scores[0, :, row, col].detach(), int(labels[at]))
    _, loss = gradient_of(model, shares, loss=CrossEntropy())
    assert loss * int((labels != 255).sum()) == pytest.approx(expected, rel=1e-12)


def test_a_tile_smaller_than_a_coarse_pixel_counts_where_a_middle_is() -> None:
    model = supervised(depth=3)
    samples = Scenes([(3, 3), (1, 9)])
    gradients, loss = gradient_of(
        model, build_shares(model, samples, input_size=None, tile_size=None, batch_size=2, micro_batch_size=2)
    )
    assert 0 < loss < 10
    assert gradients.keys() == dict(model.named_parameters()).keys()


def test_models_have_no_heads_and_predictions_ignore_them(tmp_path: Path) -> None:
    plain, model = build_model(depth=3), supervised(depth=3)
    images = torch.rand(1, 3, 108, 108, dtype=torch.float64)
    assert isinstance(model(images), tuple)
    assert torch.equal(model.eval()(images), plain.eval()(images)), "the other weights are those without heads"
    model.save_pretrained(tmp_path)
    assert load_file(tmp_path / "model.safetensors").keys() == plain.state_dict().keys()
    assert "deep" not in (tmp_path / "config.json").read_text()
    assert torch.equal(load_model(tmp_path).double()(images), plain(images))
    assert len(model.heads) == 2, "the training keeps them"
    assert "heads.0.weight" in model.state_dict()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"deep_supervision": 4}, "got 4, expected at most 3.*--deep_supervision 3"),
        ({"deep_supervision": 3, "model": "encoder_unet"}, "got 3, expected at most 2"),
        ({"deep_supervision": 1, "loss": "lovasz"}, "got 1 with the loss lovasz, which is no sum over pixels"),
        ({"deep_supervision": 1, "model": "tests.extending.my_parts:make"}, "got 1, which has no effect on the model"),
    ],
)
def test_what_cannot_be_supervised_is_a_sentence(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"deep_supervision: {message}"):
        build_skeleton(Config(**keys))
