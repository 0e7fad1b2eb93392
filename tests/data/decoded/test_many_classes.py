"""More than 255 classes: labels of 16 bits in the cache, 65535 where nothing counts, and the same batches, losses and counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unet_dist.data.batches.augment import Augmentation
from unet_dist.data.batches.crops import CropReader
from unet_dist.data.batches.ids import ignored_of, narrowed, widened
from unet_dist.data.batches.label_counts import count_labels, no_labels
from unet_dist.data.batches.mixing import Cover
from unet_dist.data.batches.sampler import Draw
from unet_dist.data.decoded.build import prepare
from unet_dist.data.decoded.labels import LabelRules, ignored_in, label_dtype
from unet_dist.data.decoded.settings import CacheSettings
from unet_dist.data.sources.folder import FolderSource
from unet_dist.errors import ConfigError, DataError
from unet_dist.losses.dice import Dice
from unet_dist.losses.lovasz import Lovasz
from unet_dist.losses.pixelwise import CrossEntropy, Focal
from unet_dist.metrics import confusion
from unet_dist.metrics.confusion import Scores, count_confidence, count_confusion
from unet_dist.prediction.values import Recipe, blank
from unet_dist.tiling.geometry import Tile
from unet_dist.tiling.windows import classify

CLASSES = 300


def write_pairs(folder: Path, suffix: str = ".png", count: int = 6) -> list[np.ndarray]:
    """Write pairs in which every id from 0 to 299 occurs, and 65535 in a corner; gives the masks."""
    random = np.random.default_rng(0)
    masks = []
    for number in range(count):
        mask = random.integers(0, CLASSES, (40, 44)).astype(np.uint16)
        mask[:5, :7] = 65535
        image = np.dstack([mask & 255, mask >> 8, mask % 7]).astype(np.uint8)
        for kind, pixels in (("images", image), ("masks", mask)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / kind / f"s{number}{suffix}")
        masks.append(mask)
    return masks


@pytest.mark.parametrize(("suffix", "max_pixels"), [(".png", 2**26), (".tif", 100)], ids=["decoded", "in its files"])
def test_a_cache_holds_16_bit_ids_and_counts_them(tmp_path: Path, suffix: str, max_pixels: int) -> None:
    masks = write_pairs(tmp_path / "data", suffix)
    settings = CacheSettings(num_classes=CLASSES, ignore_index=65535)
    source = FolderSource(tmp_path / "data")
    cache = prepare(source, settings, seed=0, cache_path=tmp_path / "cache", max_pixels=max_pixels)
    samples = cache.split("all")
    assert cache.label_dtype == np.uint16
    assert (cache.path / "labels.bin").stat().st_size == (6 * 40 * 44 * 2 if suffix == ".png" else 0)
    for number, mask in enumerate(masks):
        label = samples.label(number)
        assert label.dtype == np.uint16
        assert np.array_equal(label[3:39, 2:], mask[3:39, 2:])
    counts = np.bincount(np.concatenate([mask.ravel() for mask in masks]), minlength=65536)
    assert samples.class_counts.tolist() == counts[:CLASSES].tolist()
    assert samples.num_ignored == counts[65535] == 6 * 35


def test_ids_beyond_254_are_refused_until_somebody_says_that_they_are_classes(tmp_path: Path) -> None:
    """They may as well number objects."""
    write_pairs(tmp_path / "data")
    settings = CacheSettings(ignore_index=65535)
    with pytest.raises(DataError, match=r"outside 0 to 254[\s\S]*--num_classes 300") as caught:
        prepare(FolderSource(tmp_path / "data"), settings, seed=0, cache_path=tmp_path / "cache")
    assert str(caught.value).count("--num_classes") == 1, "masks that end at other ids share one remedy"


def test_rules_of_many_ids() -> None:
    """Targets of a label map say how many ids there are, the ignored one does not; the largest id is 65534."""
    rules = LabelRules(num_classes=None, ignore_index=65535, label_map={7: 0, 8: 300, 9: 65535})
    assert rules.map_ids(np.array([[7, 8, 9]])).tolist() == [[0, 300, 65535]]
    assert rules.dtype == np.uint16
    narrow = LabelRules(num_classes=None, ignore_index=65535, label_map={7: 0, 8: 1, 9: 65535})
    assert narrow.map_ids(np.array([[7, 8, 9]])).tolist() == [[0, 1, 255]]
    assert narrow.dtype == np.uint8
    most = LabelRules(num_classes=65535)
    assert most.map_ids(np.array([65534])).tolist() == [65534]
    with pytest.raises(Exception, match=r"holds id 65535 \(1 px\), outside 0 to 65534 \(num_classes: 65535\)"):
        most.map_ids(np.array([65534, 65535]))
    with pytest.raises(Exception, match=r"holds id 70000 \(1 px\), outside 0 to 65535"):
        most.map_ids(np.array([70000]))
    with pytest.raises(ConfigError, match="num_classes: got 65536; expected 1 to 65535"):
        LabelRules(num_classes=65536)
    assert [label_dtype(count).name for count in (2, 255, 256, 65535)] == ["uint8", "uint8", "uint16", "uint16"]
    assert [ignored_in(label_dtype(count)) for count in (255, 256)] == [255, 65535]


class _Samples:
    ids = ("one",)

    def __init__(self, label: np.ndarray) -> None:
        self._label = label

    def __len__(self) -> int:
        return 1

    def image(self, index: int) -> np.ndarray:
        return np.zeros((*self._label.shape, 3), np.uint8)

    def label(self, index: int) -> np.ndarray:
        return self._label


@pytest.mark.parametrize("name", [None, "Deform", "Affine"])
def test_a_crop_counts_nowhere_beyond_the_image(name: str | None) -> None:
    """By 65535, not by 255, which is a class; with and without transforms that move labels in."""
    label = np.full((20, 24), 255, np.uint16)
    moving: dict[str, Any] = {"Deform": {"rotation_deg": [20, 20]}, "Affine": {"rotate": [20, 20]}}
    augmentation = None if name is None else Augmentation([{"name": name, "p": 1.0, **moving[name]}])
    reader = CropReader(_Samples(label), seed=1, window_side=36, halo=2, augmentation=augmentation)
    _, labels = reader.read(Draw(0, 0))
    assert labels.dtype == np.uint16
    assert set(np.unique(labels).tolist()) == {255, 65535}


def test_half_of_many_classes_is_pasted() -> None:
    label = np.arange(CLASSES, dtype=np.uint16).reshape(15, 20)
    reader = CropReader(_Samples(label), seed=1, window_side=24, halo=2)
    crop = reader.open(Draw(0, 0))
    shown = Cover(Draw(0, 0), classes=np.zeros(256, bool), seed=5).mask(crop, Tile(0, 0, 20, 20), (24, 24))
    labels = crop.read_window_labels(Tile(0, 0, 20, 20), (24, 24))
    assert not shown[labels == 65535].any()
    assert 0.4 < shown[labels != 65535].mean() < 0.6


def draw_batch() -> tuple[Tensor, Tensor]:
    """Logits (2, 300, 6, 7) and labels uint16, of which some count nowhere and 255 is a class."""
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(2, CLASSES, 6, 7, generator=random, dtype=torch.float64)
    labels = torch.randint(CLASSES, (2, 6, 7), generator=random).numpy().astype(np.uint16)
    labels[0, :2] = 65535
    labels[1, 0, 0] = 255
    return logits, torch.from_numpy(labels)


@pytest.mark.parametrize("is_last", [False, True])
def test_losses_are_those_of_the_formulas(is_last: bool) -> None:
    """Cross-entropy by torch's own, with weights and smoothing; focal and Dice by hand; Lovász without what counts nowhere."""
    logits, labels = draw_batch()
    logits = logits.contiguous(memory_format=torch.channels_last if is_last else torch.contiguous_format)
    targets = torch.from_numpy(labels.numpy().astype(np.int64))
    valid = targets != 65535
    counts = count_labels(labels)
    assert counts.valid == (no_labels() + counts).valid == (counts + no_labels()).valid == int(valid.sum())
    weights = torch.rand(CLASSES, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.1
    for class_weights in (None, weights):
        loss = CrossEntropy(class_weights)
        got = loss.sums(logits, labels).sum() / loss.divisor(counts)
        wanted = F.cross_entropy(logits, targets, class_weights, ignore_index=65535)
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=0)
        assert loss.divisor(no_labels()) == 0
    smooth = CrossEntropy(label_smoothing=0.1)
    wanted = F.cross_entropy(logits, targets, ignore_index=65535, label_smoothing=0.1)
    torch.testing.assert_close(smooth.sums(logits, labels).sum() / smooth.divisor(counts), wanted, rtol=1e-12, atol=0)

    shares = logits.softmax(1).permute(0, 2, 3, 1)[valid]  # (P, K)
    truth = F.one_hot(targets[valid], CLASSES).double()
    of_label = (shares * truth).sum(1)
    focal = Focal(focal_gamma=2.0).sums(logits, labels).sum()
    torch.testing.assert_close(focal, -((1 - of_label) ** 2 * of_label.log()).sum(), rtol=1e-12, atol=0)
    found = truth.sum(0) > 0
    scores = 2 * (shares * truth).sum(0) / (shares.sum(0) + truth.sum(0))
    dice = Dice()
    value = dice.sums(logits, labels, totals=dice.statistics(logits, labels)).sum() / dice.divisor(counts)
    torch.testing.assert_close(value, 1 - scores[found].mean(), rtol=1e-12, atol=0)

    changed = logits.clone()
    changed[0, :, :2] += torch.randn(CLASSES, 2, 7, generator=torch.Generator().manual_seed(2))
    assert torch.equal(Lovasz().sums(logits, labels), Lovasz().sums(changed, labels))
    assert Lovasz().sums(logits, torch.full_like(labels, 65535)).abs().max() == 0


def test_counts_are_those_of_numpy_with_a_matrix_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """A matrix up to 1,000 classes; beyond, counts of each class, of which the same scores follow."""
    logits, labels = draw_batch()
    predictions = classify(logits, None)
    assert predictions.dtype == torch.uint16
    found, truth = predictions.numpy().astype(np.int64), labels.numpy().astype(np.int64)
    assert np.array_equal(found, logits.numpy().argmax(1))
    found[1, 1:4] = truth[1, 1:4]  # or chance would hit none of 300
    predictions = torch.from_numpy(found.astype(np.uint16))
    wanted = np.zeros((CLASSES, CLASSES), np.int64)
    np.add.at(wanted, (truth[truth != 65535], found[truth != 65535]), 1)
    matrix = count_confusion(labels, predictions, CLASSES)
    assert np.array_equal(matrix.numpy(), wanted)
    monkeypatch.setattr(confusion, "MATRIX_CLASSES", 299)
    counts = count_confusion(labels, predictions, CLASSES)
    assert counts.shape == (CLASSES, 2, 2)
    whole, single = Scores.of(matrix, 3), Scores.of(counts, 3, overlap=False)
    assert 0.1 < whole.miou < 0.9
    for name in ("iou", "miou", "miou_present", "pixel_accuracy", "precision", "recall", "dice", "shares"):
        assert getattr(single, name) == getattr(whole, name), name
    sure = torch.full(labels.shape, 0.9)
    pixels, right, _ = count_confidence(labels, predictions, sure).sum(1).tolist()
    assert (pixels, right) == ((truth != 65535).sum(), (truth == found).sum())


def test_ids_keep_their_values_as_tensors() -> None:
    values = np.array([0, 255, 256, 32767, 32768, 65534, 65535], np.uint16)
    ids = torch.from_numpy(values)
    assert widened(ids).tolist() == values.tolist()
    assert narrowed(ids.to(torch.int64), 65535).tolist() == values.tolist()
    assert narrowed(torch.tensor([0, 254]), 255).dtype == torch.uint8
    assert [ignored_of(torch.empty(0, dtype=kind)) for kind in (torch.uint8, torch.uint16, torch.int32)] == [
        255,
        65535,
        -1,
    ]


def test_a_label_map_is_16_bits_and_says_where_nobody_asked() -> None:
    assert Recipe().rasters(CLASSES)["labels"][1] == np.uint16
    assert Recipe().rasters(255)["labels"][1] == np.uint8
    labels = blank("labels", np.array([[0, 255, 299]], np.uint16), np.array([[True, True, False]]))
    assert labels.tolist() == [[0, 255, 65535]]
