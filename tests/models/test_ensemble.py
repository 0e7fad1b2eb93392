"""An ensemble is a network: its probabilities are the members' mean, by exact tiles, whatever sides and halos the members have."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unet_dist.errors import ConfigError
from unet_dist.models.contract import Network
from unet_dist.models.ensemble import Ensemble
from unet_dist.models.registry import build_model
from unet_dist.prediction.image import predict_logits
from unet_dist.testing.models import check_locality
from unet_dist.tiling.geometry import covering_tile_size, smallest_tile_size

KINDS: dict[str, list[dict[str, Any]]] = {
    "alike": [{}, {}, {}],
    "other halos": [{"depth": 1}, {"depth": 3}, {"depth": 2, "upsampling": "bilinear"}],
    "other phases": [{"padding": "same"}, {"stem_stride": 2, "depth": 1}, {}],
}


def member(seed: int, **options: Any) -> Any:
    torch.manual_seed(seed)
    options = {"base_channels": 2, "depth": 2, "mean": [100.0 + seed], "std": [40.0 + seed], **options}
    model: Any = build_model("unet", in_channels=1, num_classes=4, ignore_index=2, **options)
    for weight in model.parameters():
        nn.init.normal_(weight, 0, 0.3)
    return model.double().eval()


def probabilities(model: Network, image: Tensor, tile_size: int) -> Tensor:
    logits = predict_logits(model, image.numpy(), tile_size)
    logits[2] = -torch.inf
    return logits.softmax(0)


@pytest.mark.parametrize("name", ["alike", "other halos", pytest.param("other phases", marks=pytest.mark.slow)])
def test_probabilities_are_the_mean_at_every_tile_size(name: str) -> None:
    members = [member(number, **options) for number, options in enumerate(KINDS[name])]
    model: Any = Ensemble(members).eval()
    image = torch.randint(0, 256, (70, 93, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    shape = 70, 93
    expected = sum(probabilities(m, image, covering_tile_size(shape, m.window_sizes, m.locality)) for m in members) / 3
    assert float(expected.std()) > 0.1
    sizes, locality = model.window_sizes, model.locality
    smallest = smallest_tile_size(sizes, locality)
    for tile_size in (smallest, smallest + 3 * sizes.stride, covering_tile_size(shape, sizes, locality)):
        found = probabilities(model, image, tile_size)
        assert (found - expected).abs().max() < 1e-12
    check_locality(model)


def test_alike_members_cost_no_wider_window() -> None:
    one = member(0)
    model = Ensemble([one, member(1)])
    assert model.window_sizes == one.window_sizes
    assert model.locality == one.locality


def test_who_has_no_halo_is_named() -> None:
    model = Ensemble([member(0), member(1, norm="group")])
    assert model.locality is None
    assert "GroupNorm" in str(model.locality_obstacle)


@pytest.mark.parametrize(
    ("key", "value"), [("num_classes", 5), ("class_names", ["a", "b", "c", "d"]), ("ignore_index", 1)]
)
def test_members_that_do_not_go_together_are_refused(key: str, value: Any) -> None:
    other = member(1)
    setattr(other, key, value)
    with pytest.raises(ConfigError, match=f"^Got an ensemble whose runs differ in {key}: "):
        Ensemble([member(0), other])
