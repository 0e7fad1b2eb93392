"""Proves that rectangles written by many processes in any order, killed or not, make the raster they were cut from."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.imaging.windows import rectangles
from unet_dist.errors import DataError
from unet_dist.imaging.scratch import Scratch


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_rectangles_land_where_they_belong(tmp_path_factory, data):
    height, width = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 30))
    planes = data.draw(st.sampled_from([(), (1,), (3,)]))
    dtype = data.draw(st.sampled_from([np.uint8, np.float16]))
    expected = np.zeros((*planes, height, width), dtype)
    with Scratch(tmp_path_factory.mktemp("s") / "a.raw", expected.shape, dtype) as scratch:
        for number in range(1, data.draw(st.integers(1, 5)) + 1):
            top, bottom, left, right = data.draw(rectangles(height, width))
            piece = np.random.default_rng(number).integers(0, 200, (*planes, bottom - top, right - left)).astype(dtype)
            expected[..., top:bottom, left:right] = piece
            scratch.write(top, left, piece)
        np.testing.assert_array_equal(scratch.values(), expected)
        assert scratch.values().dtype == dtype


def test_a_piece_cut_from_something_larger_needs_no_copy_by_the_caller(tmp_path):
    source = np.arange(200, dtype=np.uint8).reshape(10, 20)
    with Scratch(tmp_path / "a.raw", (4, 5)) as scratch:
        scratch.write(0, 0, source[3:7, 2:12:2])
        np.testing.assert_array_equal(scratch.values(), source[3:7, 2:12:2])


def test_processes_fill_one_scratch_together_and_one_that_dies_loses_nothing_it_wrote(tmp_path):
    code = """
import os, sys, numpy as np
from unet_dist.imaging.scratch import Scratch
rank = int(sys.argv[2])
scratch = Scratch(sys.argv[1], (300, 517))
for row in range(rank, 300, 3):
    scratch.write(row, 0, np.full((1, 517), row % 256, np.uint8))
os.kill(os.getpid(), 9)
"""
    path = tmp_path / "a.raw"
    ranks = [subprocess.Popen([sys.executable, "-c", code, str(path), str(rank)]) for rank in range(3)]
    assert [rank.wait() for rank in ranks] == [-9, -9, -9]
    with Scratch(path, (300, 517)) as scratch:  # opened again, it keeps what is in it
        np.testing.assert_array_equal(scratch.values(), np.arange(300).astype(np.uint8)[:, None].repeat(517, 1))


def test_neighbours_write_into_one_file_page(tmp_path):
    """Two writers of interleaved single columns: with copies of whole pages one would undo the other."""
    path = tmp_path / "a.raw"
    with Scratch(path, (64, 64)) as one, Scratch(path, (64, 64)) as other:
        for col in range(64):
            (one, other)[col % 2].write(0, col, np.full((64, 1), col, np.uint8))
        one.flush()
        np.testing.assert_array_equal(one.values(), np.arange(64, dtype=np.uint8)[None].repeat(64, 0))


def test_it_occupies_what_was_written_only(tmp_path):
    with Scratch(tmp_path / "a.raw", (10_000, 10_000)):
        status = os.stat(tmp_path / "a.raw")
    assert status.st_size == 10**8
    assert status.st_blocks * 512 < 10**6


def test_a_file_of_another_size_is_refused(tmp_path):
    Scratch(tmp_path / "a.raw", (10, 10)).close()
    with pytest.raises(DataError, match=r"a.raw holds 100 bytes, and a raster of \(10, 11\) uint8 has 110.*delete it"):
        Scratch(tmp_path / "a.raw", (10, 11))


def test_too_little_room_is_noticed_before_anything_is_computed(tmp_path):
    with pytest.raises(DataError, match=r"a.raw needs [\d.,]+ GiB more, and its disk has [\d.,]+ .iB free. Make room"):
        Scratch(tmp_path / "a.raw", (10**8, 10**8))


def test_a_folder_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(DataError, match=r"a.raw could not be written: No such file or directory"):
        Scratch(tmp_path / "nowhere" / "a.raw", (10, 10))


@pytest.mark.parametrize(
    ("row", "col", "values"),
    [
        (0, 0, np.zeros((11, 1), np.uint8)),
        (-1, 0, np.zeros((1, 1), np.uint8)),
        (0, 10, np.zeros((1, 1), np.uint8)),
        (0, 0, np.zeros((1, 1), np.int64)),
        (0, 0, np.zeros((2, 1, 1), np.uint8)),
    ],
)
def test_a_broken_plan_is_a_broken_invariant(tmp_path, row, col, values):
    with Scratch(tmp_path / "a.raw", (10, 10)) as scratch, pytest.raises(AssertionError):
        scratch.write(row, col, values)
