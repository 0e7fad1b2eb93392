"""Proves that classes are matched by name alone, and that a class which the network lacks is never answered."""

from __future__ import annotations

import pytest
import torch

from unet_dist.errors import DataError
from unet_dist.models.alignment import AlignedClasses, align_names, has_plain_names
from unet_dist.models.unet import UNet


def test_case_blanks_and_dashes_do_not_count() -> None:
    alignment = align_names(["Flat Road", "sky", "human_person"], ["human-person", "car", "flat-road"])
    assert alignment.source == [2, None, 0]
    assert alignment.only_data == ["car"]
    assert alignment.only_model == ["sky"]
    assert not alignment.is_identity
    assert align_names(["a", "b"], ["A", "b"]).is_identity
    assert not align_names(["a", "b"], ["a"]).is_identity


def test_names_that_tell_nothing_apart_are_refused() -> None:
    with pytest.raises(DataError, match='The network has two classes "a-b"'):
        align_names(["a b", "a_b"], ["a"])
    with pytest.raises(DataError, match=r"share no class by name\. The network's: sky\. The data's: road"):
        align_names(["sky"], ["road"])


def test_numbers_are_no_names() -> None:
    assert has_plain_names(["class_0", "class_1"])
    assert has_plain_names(["LABEL_0", "LABEL_1"])
    assert not has_plain_names(["class_0", "road"])


def test_logits_come_in_the_datas_order_and_a_missing_class_never_wins() -> None:
    torch.manual_seed(0)
    network = UNet(3, 3, base_channels=2, depth=1, padding="same").eval()
    aligned = AlignedClasses(network, align_names(["a", "b", "c"], ["c", "x", "a"]), ["c", "x", "a"], None).eval()
    images = torch.randn(1, 3, 8, 8)
    logits, theirs = aligned(images), network(images)
    assert torch.equal(logits[:, 0], theirs[:, 2])
    assert torch.equal(logits[:, 2], theirs[:, 0])
    assert logits[:, 1].max() < -1e30
    assert torch.isfinite(torch.nn.functional.interpolate(logits, scale_factor=2.0, mode="bilinear")).all()
