"""Proves that somebody else's transform is made from its word, sees crops it cannot spoil, and is blamed by name and line."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from unet_dist.config.sections import Config
from unet_dist.data.batches.transforms import build_transform
from unet_dist.errors import ConfigError

SOURCE = """
def shift(by=1):
    return lambda *planes, seed: tuple(plane + plane.dtype.type(by * seed) for plane in planes)

def spoil():
    def transform(image, labels, border=None, *, seed):
        image[0] = seed
        return image, labels
    return transform
"""
IMAGE, LABELS = np.full((4, 6, 3), 7, np.uint8), np.full((4, 6), 1, np.uint8)


@pytest.fixture(autouse=True)
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "shifts.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "shifts", raising=False)
    return tmp_path / "shifts.py"


def test_it_is_made_with_its_arguments_and_gets_the_seed() -> None:
    config = Config(data_path="pairs", augmentation="shifts:shift( by=3 )")
    assert config.data.augmentation == "shifts:shift(by=3)", "one way of spelling"
    assert "shifts" not in sys.modules, "a config imports nothing"
    assert isinstance(config.data.augmentation, str)
    moved, labels = build_transform(config.data.augmentation)(IMAGE, LABELS, seed=2)
    assert (moved == 13).all()
    assert (labels == 7).all()


def test_what_it_is_given_cannot_be_written_to(outside: Path) -> None:
    image = IMAGE.copy()
    with pytest.raises(
        ConfigError, match=r"shifts:spoil failed: ValueError: assignment destination is read-only"
    ) as said:
        build_transform("shifts:spoil")(image, LABELS, seed=2)
    assert f"({outside}, line 7)" in str(said.value)
    assert (image == 7).all()
    assert image.flags.writeable


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        ("stret", r'^augmentation: got .stret.*Did you mean "street"'),
        ("street(p=0.5)", r"^augmentation: got 'street\(p=0.5\)', expected street without brackets"),
    ],
)
def test_a_word_is_refused_before_anything_is_read(word: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        Config(data_path="pairs", augmentation=word)
