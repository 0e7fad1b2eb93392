"""Proves that a training window of mostly context names the key that lets all of it count."""

from __future__ import annotations

from typing import Any

import pytest

from unet_dist.assembly.sizes import resolve_input_size
from unet_dist.errors import SizeError
from unet_dist.models.unet import UNet
from unet_dist.terminal import Teller


class Heard(Teller):
    def __init__(self) -> None:
        super().__init__(speaks=False)
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def resolve(side: int, context_px: int | None = None, **options: Any) -> list[str]:
    heard = Heard()
    network = UNet(3, 2, base_channels=2, **options)
    assert resolve_input_size(side, network, heard, context_px=context_px) == side
    return heard.lines


def test_a_padded_window_that_is_all_context_is_refused_with_both_remedies() -> None:
    with pytest.raises(
        SizeError, match=r"got 128, expected 208 .* Set --input_size 208, or --context_px 0, with which all"
    ):
        resolve(128, padding="same", depth=4)
    with pytest.raises(SizeError, match=r"Set --input_size \d+\.$"):
        resolve(140, padding="valid", depth=4)


def test_a_padded_window_that_is_mostly_context_is_described() -> None:
    (line,) = resolve(240, padding="same", depth=4)
    assert line.startswith(
        "Only 48x48 of the 240x240 px of a training window count, as the rest is context. --context_px 0 "
    )
    assert resolve(240, context_px=0, padding="same", depth=4) == []
    assert resolve(576, padding="same", depth=4) == []
    assert resolve(204, padding="valid", depth=4) == [], "the paper's network has no other way"
