"""Proves that a share too large to be held is the same share, read micro-batch by micro-batch, and that few are ever in memory."""

from __future__ import annotations

import gc
import itertools
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from tests.data.batches.test_borders import Cells
from tests.tiling.scenes import Scenes, build_model, build_shares
from unet_dist.data.batches.ahead import AHEAD, read_ahead
from unet_dist.data.batches.augment import Augmentation
from unet_dist.data.batches.borders import BorderWeights
from unet_dist.data.batches.label_counts import LabelCounts, count_labels, no_labels
from unet_dist.data.batches.shares import RunShares, StepShare
from unet_dist.data.batches.windows import WindowBatch
from unet_dist.data.decoded.labels import IGNORED
from unet_dist.losses.pixelwise import CrossEntropy

SHAPES = [(70, 95), (31, 120), (1, 3), (64, 64), (150, 140)]
STEPS = range(3, 9)
CASES: dict[str, dict[str, Any]] = {
    "crops": {"input_size": 92, "tile_size": 60, "batch_size": 3},
    "whole images": {"input_size": None, "tile_size": 60, "batch_size": 2},  # some steps are one window
    "a share of split samples": {
        "input_size": None, "tile_size": 60, "batch_size": 2, "splits_samples": True, "rank": 1, "world_size": 3,
    },
    "crops not cut": {"input_size": 60, "tile_size": None, "batch_size": 6},
}  # fmt: skip


def shares_of(case: str, kept_px: int, **options: Any) -> RunShares:
    samples = options.pop("samples", None) or Scenes(SHAPES)
    return build_shares(build_model(), samples, micro_batch_size=2, kept_px=kept_px, **CASES[case], **options)


def tell(batch: WindowBatch) -> tuple[Any, ...]:
    tensors = (batch.windows, batch.labels, batch.keys, batch.borders)
    return (*(None if t is None else (tuple(t.shape), t.numpy().tobytes()) for t in tensors), batch.ids)


def equal(one: LabelCounts, other: LabelCounts) -> bool:
    return torch.equal(one.pixels, other.pixels) and (one.border, one.windows) == (other.border, other.windows)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("num_workers", "passes"), [(0, 1), (0, 2), (2, 2)])
def test_a_share_read_by_and_by_is_the_one_held_at_once(case: str, num_workers: int, passes: int) -> None:
    kept, large = shares_of(case, 10**9), shares_of(case, 0)
    num_large = 0
    for share in read_ahead(large, STEPS, num_workers=num_workers, pin_memory=False, passes=passes):
        expected = kept[share.step]
        assert isinstance(expected.batches, list)
        num_large += not isinstance(share.batches, list)
        assert len(share.batches) == len(expected.batches)
        assert equal(share.counts, expected.counts)
        assert equal(large[share.step].counts, expected.counts)
        for _ in range(passes + 1):  # once more than was said
            for batch, other in zip(share.batches, expected.batches, strict=True):
                assert tell(batch) == tell(other)
    assert share.step == STEPS[-1]
    assert num_large >= 3


def test_border_weights_are_counted_as_they_are_read() -> None:
    options: dict[str, Any] = {"samples": Cells(SHAPES), "borders": BorderWeights(0)}
    for share in read_ahead(shares_of("crops", 0, **options), STEPS, num_workers=0, pin_memory=False):
        expected = shares_of("crops", 10**9, **options)[share.step]
        assert share.counts.border == expected.counts.border > 0
        assert equal(share.counts, expected.counts)
        assert list(map(tell, share.batches)) == list(map(tell, expected.batches))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("taken", [(0, 0), (1, 1), (18, 2), (2, 18)])
def test_a_pass_broken_off_loses_nobody_his_place(num_workers: int, taken: tuple[int, int]) -> None:
    """Whoever takes few of a share's micro-batches, or none, is given the next pass, and the next share, whole."""
    large = shares_of("crops", 0)
    read = read_ahead(large, STEPS, num_workers=num_workers, pin_memory=False, passes=2)
    first = next(read)
    for count in taken:
        got = [tell(batch) for batch in itertools.islice(first.batches, count)]
        assert got == [tell(batch) for batch in large[first.step].batches[:count]]
    assert [tell(batch) for batch in next(read).batches] == [tell(batch) for batch in large[STEPS[1]].batches]
    read.close()


def test_augmented_crops_are_held_at_once() -> None:
    """A transform sees the whole crop, and is made once for all of its tiles."""

    class Counting(Augmentation):
        num_calls = 0

        def __call__(self, *planes: Any, **options: Any) -> Any:
            Counting.num_calls += 1
            return super().__call__(*planes, **options)

    share = shares_of("crops", 0, augmentation=Counting([{"name": "D4"}]))[1]
    assert isinstance(share.batches, list)
    assert Counting.num_calls == 3


def test_counts_add_up_and_divide_as_the_whole() -> None:
    labels = torch.randint(0, 4, (5, 6, 7), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels[1] = labels[3, :4] = IGNORED
    borders = torch.rand(labels.shape)
    parts = [slice(0, 2), slice(2, 5)]
    summed = sum((count_labels(labels[part], borders[part]) for part in parts), no_labels())
    whole = count_labels(labels, borders)
    valid = labels != IGNORED
    assert torch.equal(summed.pixels, torch.tensor([int((labels == value).sum()) for value in range(256)]))
    assert (whole.valid, whole.windows) == (int(valid.sum()), 4)
    assert whole.border == pytest.approx(float(borders[valid].double().sum()), rel=1e-12)
    assert summed.border == pytest.approx(whole.border, rel=1e-12)
    assert CrossEntropy().divisor(summed) == whole.valid + summed.border


# ------------------------------------------------------------------------------------------------------------ in memory


@dataclass
class Alive:
    """The bytes of windows that are in memory, now and at most."""

    now: int = 0
    most: int = 0

    def add(self, nbytes: int) -> None:
        self.now += nbytes
        self.most = max(self.most, self.now)


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> Alive:
    """Watch the windows of every micro-batch that is read in this process."""
    found, read = Alive(), RunShares.read_batch

    def watched(self: RunShares, *arguments: Any, **options: Any) -> WindowBatch:
        batch = read(self, *arguments, **options)
        found.add(batch.windows.nbytes)
        weakref.finalize(batch.windows, found.add, -batch.windows.nbytes)
        return batch

    monkeypatch.setattr(RunShares, "read_batch", watched)
    return found


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("side", [400, pytest.param(1600, marks=pytest.mark.slow)])
def test_few_windows_are_alive_whatever_the_image(alive: Alive, side: int, passes: int) -> None:
    """Two steps of 36 and of 2,116 windows, two at a time: at most those computed, those before them and those ahead."""
    shares = build_shares(
        build_model(),
        Scenes([(side, side)]),
        input_size=None,
        tile_size=76,
        batch_size=1,
        micro_batch_size=2,
        kept_px=0,
    )
    num_batches = 0
    for share in read_ahead(shares, range(1, 3), num_workers=0, pin_memory=False, passes=passes):
        for _ in range(passes):
            for _batch in share.batches:
                num_batches += 1
    assert num_batches == 2 * passes * -(-len(shares.planner.plan((side, side))) // 2)
    assert 0 < alive.most <= (AHEAD + 2) * 2 * 76 * 76 * 3
    del share, _batch
    gc.collect()
    assert alive.now == 0


def test_the_watch_sees_windows_that_are_held(alive: Alive) -> None:
    shares = build_shares(
        build_model(), Scenes([(400, 400)]), input_size=None, tile_size=76, batch_size=1, kept_px=10**9
    )
    held: StepShare = shares[1]
    assert alive.most == alive.now == sum(batch.windows.nbytes for batch in held.batches) > 10 * 76 * 76 * 3


def test_of_labels_a_micro_batch_is_in_memory_while_they_are_counted() -> None:
    class Watched(np.ndarray):
        most = 0

        def __getitem__(self, part: Any) -> Any:
            cut = super().__getitem__(part)
            Watched.most = max(Watched.most, cut.size)
            return cut

    samples = Scenes([(500, 500)])
    samples.labels = [label.view(Watched) for label in samples.labels]
    shares = build_shares(build_model(), samples, input_size=None, tile_size=76, batch_size=1, kept_px=0)
    assert shares[1].counts.valid == int((np.asarray(samples.labels[0]) != IGNORED).sum())
    assert 0 < Watched.most <= 36 * 36
