"""Proves where a crop lies, what it shows and what it counts, and that workers and ranks change nothing of it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unet_dist.data.batches.ahead import read_ahead
from unet_dist.data.batches.augment import Augmentation
from unet_dist.data.batches.crops import CropReader
from unet_dist.data.batches.sampler import Draw, draw_batch
from unet_dist.data.batches.shares import RunShares, StepShare
from unet_dist.data.decoded.labels import IGNORED
from unet_dist.tiling.crop_plan import CropPlanner
from unet_dist.tiling.geometry import Locality, WindowSizes

# Of a valid U-Net of depth 1: 8 px of halo, sides = 0 (mod 2).
SIZES, LOCALITY = WindowSizes(stride=2, remainder=0, minimum=18, margin=8), Locality(halo=8, stride=2)


class Pictures:
    """Pictures of given shapes, each pixel of which tells where it lies; labels are 0 to 99, some of them ignored."""

    def __init__(self, shapes: Sequence[tuple[int, int]]) -> None:
        self.images, self.labels = [], []
        for number, (height, width) in enumerate(shapes):
            rows, cols = np.mgrid[:height, :width]
            self.images.append(np.stack([rows, cols, rows * 0 + number], axis=-1).astype(np.uint8))
            label = ((rows * 7 + cols * 3) % 100).astype(np.uint8)
            label[(rows + cols) % 5 == 0] = IGNORED
            self.labels.append(label)
            self.images[-1].flags.writeable = self.labels[-1].flags.writeable = False  # as a cache's are
        self.ids = [f"picture-{number}" for number in range(len(shapes))]

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> np.ndarray:
        return self.images[index]

    def label(self, index: int) -> np.ndarray:
        return self.labels[index]


def mirrored(image: np.ndarray, row: int, col: int, side: int) -> np.ndarray:
    """The window of a picture whose outside is its mirror image, by numpy's own padding."""
    height, width = image.shape[:2]
    before_row, before_col = max(0, -row), max(0, -col)
    after_row, after_col = max(0, row + side - height), max(0, col + side - width)
    padded = np.pad(image, ((before_row, after_row), (before_col, after_col), (0, 0)), mode="reflect")
    return padded[row + before_row :, col + before_col :][:side, :side]


def counted(label: np.ndarray, row: int, col: int, side: int) -> np.ndarray:
    """The labels of a crop, pixel by pixel: nothing counts beyond the picture."""
    result = np.full((side, side), IGNORED, np.uint8)
    for r, c in itertools.product(range(side), range(side)):
        if 0 <= row + r < label.shape[0] and 0 <= col + c < label.shape[1]:
            result[r, c] = label[row + r, col + c]
    return result


@given(
    shape=st.tuples(st.integers(2, 40), st.integers(2, 40)),
    output=st.integers(1, 20),
    halo=st.integers(0, 12),
    seed=st.integers(0, 2**63 - 1),
    position=st.integers(0, 10**6),
    horizontal_flip=st.booleans(),
)
def test_window_and_labels_are_those_of_one_place(
    shape: tuple[int, int], output: int, halo: int, seed: int, position: int, horizontal_flip: bool
) -> None:
    """Against numpy's padding: at one admissible place, flipped or not, both window and labels agree with the picture."""
    pictures = Pictures([shape])
    reader = CropReader(pictures, seed, output + 2 * halo, halo, horizontal_flip=horizontal_flip)
    window, labels = reader.read(Draw(position, 0))
    assert (window.shape, window.dtype) == ((output + 2 * halo, output + 2 * halo, 3), np.uint8)
    assert (labels.shape, labels.dtype) == ((output, output), np.uint8)
    places = itertools.product(
        *(range(max(size - output, 0) + 1) for size in shape), (False, True)[: 1 + horizontal_flip]
    )
    found = []
    for row, col, is_flipped in places:
        expected = mirrored(pictures.images[0], row - halo, col - halo, output + 2 * halo)
        if np.array_equal(expected[:, ::-1] if is_flipped else expected, window):
            found.append((row, col, is_flipped))
    assert found, "no admissible place looks like this"
    label = pictures.labels[0]
    candidates = [counted(label, row, col, output) for row, col, _ in found]
    flips = [is_flipped for _, _, is_flipped in found]
    assert any(
        np.array_equal(c[:, ::-1] if is_flipped else c, labels) for c, is_flipped in zip(candidates, flips, strict=True)
    )


def test_every_admissible_origin_and_both_flips_occur() -> None:
    """A 4x5 picture and an output of 3: 2 x 3 places, each as it is and mirrored, about equally often."""
    reader = CropReader(Pictures([(4, 5)]), 0, 3, 0)
    seen: dict[tuple[int, int, bool], int] = {}
    for position in range(2400):
        window, _ = reader.read(Draw(position, 0))
        rows, cols = window[:, 0, 0], window[0, :, 1]
        place = (int(rows.min()), int(cols.min()), bool(cols[0] > cols[-1]))
        seen[place] = seen.get(place, 0) + 1
    assert set(seen) == set(itertools.product(range(2), range(3), (False, True)))
    assert min(seen.values()) > 130, seen  # 200 expected; five deviations of a binomial below it
    assert max(seen.values()) < 270, seen


def test_crop_larger_than_the_picture_covers_it() -> None:
    pictures = Pictures([(6, 9)])
    for position in range(20):
        _, labels = CropReader(pictures, 1, 12 + 2 * 4, 4, horizontal_flip=False).read(Draw(position, 0))
        np.testing.assert_array_equal(labels[:6, :9], pictures.labels[0])
        assert (labels[6:] == IGNORED).all()
        assert (labels[:, 9:] == IGNORED).all()


def test_crop_is_a_function_of_seed_and_position_alone() -> None:
    pictures = Pictures([(30, 40), (25, 25)])
    draws = [Draw(position, position % 2) for position in range(12)]
    one = [CropReader(pictures, 5, 20, 3).read(draw) for draw in draws]
    other = [CropReader(pictures, 5, 20, 3).read(draw) for draw in reversed(draws)][::-1]
    for (a, b), (c, d) in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d)
    assert len({window.tobytes() for window, _ in one}) == 12
    assert CropReader(pictures, 6, 20, 3).read(draws[0])[0].tobytes() != one[0][0].tobytes()


@pytest.mark.parametrize("shape", [(30, 40), (6, 9)])
def test_a_crop_is_centred_on_a_pixel_of_its_class_as_near_as_the_border_lets_it(shape: tuple[int, int]) -> None:
    pictures = Pictures([shape])
    reader = CropReader(pictures, 5, 10 + 2 * 3, 3, horizontal_flip=False)
    wanted = 7 * 3 + 3 * 5  # of pixel (3, 5), among others
    places = set(zip(*np.nonzero(pictures.labels[0] == wanted), strict=True))
    seen = set()
    for position in range(60):
        row, col = reader.open(Draw(position, 0, centre=wanted)).output_origin
        reach = [max(size - 10, 0) for size in shape]
        fitting = {
            place
            for place in places
            if (row, col) == tuple(min(max(at - 5, 0), most) for at, most in zip(place, reach, strict=True))
        }
        assert fitting, (row, col)
        seen |= fitting
        _, labels = reader.read(Draw(position, 0, centre=wanted))
        assert (labels == wanted).any()
    assert seen == places, "every pixel of the class has its turn"


def test_labels_move_with_an_augmented_window() -> None:
    """Moved by 4 px the labels come from the halo, and pixels beyond the picture stay ignored."""
    pictures = Pictures([(10, 10)])
    shift = Augmentation([{"name": "Affine", "translate_px": {"x": [4, 4], "y": [0, 0]}, "p": 1.0}])
    plain = CropReader(pictures, 0, 6 + 2 * 5, 5, horizontal_flip=False)
    moved = CropReader(pictures, 0, 6 + 2 * 5, 5, horizontal_flip=False, augmentation=shift)
    for position in range(10):
        col = int(plain.read(Draw(position, 0))[0][0, :, 1][5:11].min())  # where the output lies
        row = int(plain.read(Draw(position, 0))[0][:, 0, 0][5:11].min())
        _, labels = moved.read(Draw(position, 0))
        np.testing.assert_array_equal(labels, counted(pictures.labels[0], row, col - 4, 6))


def test_augmentation_is_a_function_of_the_sample() -> None:
    pictures = Pictures([(30, 40)])
    jitter = Augmentation([{"name": "ColorJitter", "p": 1.0}, {"name": "Affine", "rotate": [-40, 40], "p": 1.0}])
    reader = CropReader(pictures, 0, 20, 4, augmentation=jitter)
    first = [reader.read(Draw(position, 0)) for position in (3, 4)]
    again = [reader.read(Draw(position, 0)) for position in (4, 3)][::-1]
    for (a, b), (c, d) in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d)
    assert first[0][0].tobytes() != first[1][0].tobytes()


# -------------------------------------------------------------------------------------------------- shares of a run


def run_shares(
    rank: int = 0, world_size: int = 1, micro_batch_size: int = 2, augmentation: Augmentation | None = None
) -> RunShares:
    pictures = Pictures([(24, 33), (40, 30), (20, 50)])
    return RunShares(
        CropReader(pictures, 3, 26, 8, augmentation=augmentation),
        planner=CropPlanner(SIZES, LOCALITY, 8),
        batch_size=12,
        micro_batch_size=micro_batch_size,
        rank=rank,
        world_size=world_size,
    )


def crops_by_position(share: StepShare) -> dict[int, tuple[bytes, bytes, str]]:
    """Every crop of a share by its sample's position in the run."""
    return {
        int(batch.keys[i, 0]): (batch.windows[i].numpy().tobytes(), batch.labels[i].numpy().tobytes(), batch.ids[i])
        for batch in share.batches
        for i in range(len(batch.ids))
    }


@pytest.mark.parametrize(("world_size", "micro_batch_size"), [(1, 12), (1, 4), (2, 3), (3, 4), (4, 1), (12, 1)])
def test_ranks_and_micro_batches_only_cut_the_batch(world_size: int, micro_batch_size: int) -> None:
    whole = crops_by_position(run_shares()[2])
    assert list(whole) == [draw.position for draw in draw_batch(3, 2, 12, 3)]
    parts = [run_shares(rank, world_size, micro_batch_size)[2] for rank in range(world_size)]
    assert {len(batch.ids) for part in parts for batch in part.batches} == {micro_batch_size}
    cut = [crops_by_position(part) for part in parts]
    assert sum(len(part) for part in cut) == 12
    assert {position: crop for part in cut for position, crop in part.items()} == whole


@pytest.mark.parametrize("augmented", [False, True])
def test_workers_change_nothing(augmented: bool) -> None:
    """Read by a thread ahead, or by two processes that share the steps: the same bytes in the same order."""
    augmentation = Augmentation([{"name": "ColorJitter", "p": 1.0}]) if augmented else None
    shares = run_shares(augmentation=augmentation)
    steps = range(4, 11)
    by_thread = list(read_ahead(shares, steps, num_workers=0, pin_memory=False))
    by_workers = list(read_ahead(shares, steps, num_workers=2, pin_memory=False))
    assert [share.step for share in by_thread] == [share.step for share in by_workers] == list(steps)
    for one, other in zip(by_thread, by_workers, strict=True):
        assert crops_by_position(one) == crops_by_position(other) == crops_by_position(shares[one.step])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_error_of_a_reader_arrives(num_workers: int) -> None:
    shares = run_shares()
    shares.crops.samples.labels[1] = None  # type: ignore[attr-defined]
    with pytest.raises(AttributeError) as error:
        list(read_ahead(shares, range(1, 4), num_workers=num_workers, pin_memory=False))
    assert not torch.multiprocessing.active_children(), f"workers outlive {error}, and would hang the process at exit"


@pytest.mark.parametrize("num_workers", [0, 2])
def test_reading_ends_early_without_a_trace(num_workers: int) -> None:
    """A run that stops half-way leaves neither thread nor worker behind."""
    before = set(threading.enumerate())
    shares = read_ahead(run_shares(), range(1, 1000), num_workers=num_workers, pin_memory=False)
    assert next(shares).step == 1
    shares.close()
    left = set(threading.enumerate()) - before
    for thread in left:  # the feeders of the workers' queues were told to end, and do so in their own time
        thread.join(timeout=60)
    assert not [thread for thread in left if thread.is_alive()]
    assert not torch.multiprocessing.active_children()


def test_blank_window_counts_nowhere() -> None:
    blank = run_shares().blank()
    assert (blank.labels == IGNORED).all()
    assert blank.windows.shape[1] == blank.labels.shape[1] + 2 * 8
