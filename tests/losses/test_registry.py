"""Proves that losses are found by name or import path, which keys ours take, and which words are refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from tests.losses.batches import draw_batch, loss_of
from unet_dist.assembly.objective import refuse_whole_images, require_loss
from unet_dist.config.loss_terms import LOSS_KEYS, LOSSES, _takes
from unet_dist.config.sections import ScheduleConfig
from unet_dist.errors import ConfigError
from unet_dist.losses.contract import Loss
from unet_dist.losses.mixture import build_loss

THEIRS = """
import torch
from unet_dist.losses.one_pass import OnePass

class Squares(OnePass):
    "The squared distance of the probabilities, times a factor."
    def __init__(self, factor=1.0, class_weights=None):
        self.factor = factor
    def divisor(self, counts):
        return torch.tensor(counts.valid, dtype=torch.float64)
    def sums(self, logits, labels, *, borders=None, totals=None):
        valid = (labels != 255)[:, None]
        hot = labels[:, None] == torch.arange(logits.shape[1])[:, None, None]
        return self.factor * ((logits.softmax(1) - hot.to(logits)).square() * valid).sum((1, 2, 3))

class Whole(Squares):
    sees_whole_images = True

class Half:
    has_statistics = False
    def sums(self, logits, labels): ...
"""


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of somebody else's."""
    (tmp_path / "their_losses.py").write_text(THEIRS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "their_losses", raising=False)
    return "their_losses"


def test_ours_declare_themselves_and_take_these_keys() -> None:
    taken = {name: {key for key in LOSS_KEYS if _takes(name, key)} for name in LOSSES.own}
    both = {"class_weights", "border_class"}
    assert taken == {
        "cross_entropy": both | {"label_smoothing"},
        "focal": both | {"focal_gamma"},
        "dice": set(),
        "lovasz": set(),
    }
    assert all(isinstance(build_loss({name: 1.0}), Loss) for name in taken)


def test_a_loss_of_somebody_else_joins_a_sum(theirs: str) -> None:
    logits, labels = draw_batch()
    alone, mixed, ours = (
        loss_of(build_loss(terms), logits, labels)
        for terms in ({f"{theirs}:Squares(factor=2)": 1.0}, {"dice": 1.0, f"{theirs}:Squares": 0.5}, {"dice": 1.0})
    )
    p, valid = logits.softmax(1), labels != 255
    hot = torch.nn.functional.one_hot(labels.long().clamp(max=4), 5).movedim(3, 1)
    expected = ((p - hot).square().sum(1) * valid).sum() / valid.sum()
    torch.testing.assert_close(alone, 2 * expected)
    torch.testing.assert_close(mixed, ours + 0.5 * expected)


def test_what_it_takes_and_whether_it_can_be_cut_is_asked_of_it(theirs: str) -> None:
    require_loss(ScheduleConfig(loss=f"{theirs}:Squares", class_weights="median"))
    with pytest.raises(
        ConfigError, match=r"focal_gamma: got 3\.0, which has no effect as the loss is their_losses:Squares"
    ):
        require_loss(ScheduleConfig(loss=f"{theirs}:Squares", focal_gamma=3.0))
    with pytest.raises(ConfigError, match=r"border_class: got 1, which has no effect"):
        require_loss(ScheduleConfig(loss=f"{theirs}:Squares", border_class=1))
    refuse_whole_images(f"{theirs}:Squares", "tile_size")
    with pytest.raises(
        ConfigError, match=r"got their_losses:Whole, which sees an image as a whole.*together with tile_size"
    ):
        refuse_whole_images(f"dice + {theirs}:Whole", "tile_size")


def test_what_is_no_loss_is_answered(theirs: str) -> None:
    with pytest.raises(
        ConfigError, match=r"their_losses:Half is a Half without sees_whole_images, takes_borders, divisor, stat"
    ):
        build_loss({f"{theirs}:Half": 1.0})
    with pytest.raises(ConfigError, match=r"loss: their_losses:Squares\(.*does not fit.*factr"):
        build_loss({f"{theirs}:Squares(factr=2)": 1.0})
