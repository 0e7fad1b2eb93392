"""Proves that a window equals the same window of the whole mirrored image, however it is cut, and reads no more than it
needs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.imaging.windows import assert_windows_equal, whole
from unet_dist.errors import DataError
from unet_dist.imaging.image import ImageReader
from unet_dist.imaging.reader import as_reader, open_image, read_window, read_window_into
from unet_dist.imaging.readers import ArrayReader, BlockReader
from unet_dist.imaging.values import to_uint8


class Recording(ArrayReader):
    """Remembers which rectangles were asked for."""

    def __init__(self, array):
        super().__init__(array)
        self.asked = []

    def read(self, *rectangle):
        self.asked.append(rectangle)
        return super().read(*rectangle)


@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    row=st.integers(-20, 20),
    col=st.integers(-20, 20),
    window_height=st.integers(1, 25),
    window_width=st.integers(1, 25),
)
def test_a_window_is_a_cut_of_numpys_reflected_image(height, width, row, col, window_height, window_width):
    array = np.random.default_rng(height * 10 + width).integers(0, 256, (height, width, 2), dtype=np.uint8)
    whole = np.pad(array, ((50, 50), (50, 50), (0, 0)), mode="reflect" if min(height, width) > 1 else "symmetric")
    if min(height, width) == 1:  # numpy refuses or repeats the edge here: mirror each axis by hand
        whole = array
        for axis, size in enumerate((height, width)):
            pad = [(50, 50) if other == axis else (0, 0) for other in range(3)]
            whole = np.pad(whole, pad, mode="edge" if size == 1 else "reflect")
    reader = Recording(array)
    window = read_window(reader, row, col, window_height, window_width)
    expected = whole[50 + row :, 50 + col :][:window_height, :window_width]
    np.testing.assert_array_equal(window, expected)
    for is_flipped in (False, True):
        into = np.full_like(expected, 7)
        read_window_into(into, ArrayReader(array), row, col, is_flipped=is_flipped)
        np.testing.assert_array_equal(into, expected[:, ::-1] if is_flipped else expected)
    assert window.dtype == np.uint8
    (rows_from, rows_to, cols_from, cols_to) = reader.asked[0]
    assert len(reader.asked) == 1
    assert rows_to - rows_from <= min(window_height, height)
    assert cols_to - cols_from <= min(window_width, width)


def test_an_interior_window_is_not_copied(rgb):
    window = read_window(ArrayReader(rgb), 3, 4, 20, 20)
    assert np.shares_memory(window, rgb)


@given(data=st.data())
def test_blocks_read_as_the_whole_and_only_those_touched_are_decoded(data):
    height, width = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 30))
    block_height, block_width = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))
    array = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    padded = np.pad(array, ((0, block_height), (0, block_width), (0, 0)))
    decoded = []

    def decode(row, col):
        decoded.append((row, col))
        top, left = row * block_height, col * block_width
        return padded[top : top + block_height, left : left + block_width]

    reader = BlockReader(array.shape, (block_height, block_width), decode)
    row_start, col_start = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    row_stop, col_stop = data.draw(st.integers(row_start + 1, height)), data.draw(st.integers(col_start + 1, width))
    for _ in range(2):  # the second time from the blocks that were kept
        window = reader.read(row_start, row_stop, col_start, col_stop)
        np.testing.assert_array_equal(window, array[row_start:row_stop, col_start:col_stop])
    touched = {
        (row, col)
        for row in range(-(-height // block_height))
        for col in range(-(-width // block_width))
        if row * block_height < row_stop
        and (row + 1) * block_height > row_start
        and col * block_width < col_stop
        and (col + 1) * block_width > col_start
    }
    assert sorted(decoded) == sorted(touched)


def test_blocks_stay_within_their_budget_and_the_last_used_are_kept():
    decoded = []

    def decode(row, col):
        decoded.append(row)
        return np.zeros((10, 10, 1), np.uint8)

    reader = BlockReader((100, 10, 1), (10, 10), decode, cache_bytes=300)
    for row in (0, 1, 2, 0, 3, 0, 1):
        reader.read(row * 10, row * 10 + 1, 0, 1)
        assert sum(block.nbytes for block in reader._blocks.values()) == reader._held_bytes <= 300
    assert decoded == [0, 1, 2, 3, 1]  # 1 went when 3 came, 0 had been used since


def test_closing_releases_once():
    released = []
    with BlockReader(
        (1, 1, 1), (1, 1), lambda row, col: np.zeros((1, 1, 1), np.uint8), release=lambda: released.append(1)
    ) as reader:
        reader.read(0, 1, 0, 1)
    reader.close()
    assert released == [1]


def test_arrays_pictures_and_readers_are_all_images(rgb, tmp_path):
    Image.fromarray(rgb).save(tmp_path / "a.png")
    for image in (rgb, Image.fromarray(rgb), tmp_path / "a.png", str(tmp_path / "a.png"), ArrayReader(rgb)):
        reader = as_reader(image)
        assert isinstance(reader, ImageReader)
        assert reader.shape == (37, 53, 3)
        np.testing.assert_array_equal(reader.read(0, 37, 0, 53), rgb)
    assert as_reader(rgb[:, :, 0]).shape == (37, 53, 1)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (3, "came as int. Expected a path"),
        (np.zeros((2, 2, 2, 2), np.uint8), r"shape \(2, 2, 2, 2\)"),
        (np.zeros((0, 2), np.uint8), "none of them zero"),
        (np.full((2, 2), 2**24 + 1, np.int32), "values up to 16,777,217, which float32 cannot hold exactly"),
        (np.zeros((2, 2), np.complex64), "Expected real numbers"),
        (np.array([["a"]]), "Expected real numbers"),
        ("nowhere.png", "nowhere.png does not exist"),
    ],
)
def test_what_is_no_image_is_refused_in_a_sentence(image, words):
    with pytest.raises(DataError, match=words):
        whole(as_reader(image))


@pytest.mark.parametrize("value_range", [(1, 1), (2, 1), (0, np.inf), (np.nan, 1)])
def test_a_value_range_that_maps_nothing_is_refused(value_range):
    with pytest.raises(DataError, match="Expected two finite numbers"):
        as_reader(np.zeros((2, 2)), value_range=value_range)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int32, np.float16, np.float32, np.float64])
def test_the_value_range_becomes_0_to_255(dtype):
    values = np.array([-100, 0, 11, 51, 91, 100, 120]).clip(-100 if np.dtype(dtype).kind != "u" else 0).astype(dtype)
    np.testing.assert_array_equal(to_uint8(values, (0, 100)), [0, 0, 28, 130, 232, 255, 255])


def test_what_is_no_number_becomes_0_and_what_is_too_much_255():
    values = np.array([np.nan, np.inf, -np.inf, 0.5], np.float32)
    np.testing.assert_array_equal(to_uint8(values, (0, 1)), [0, 255, 0, 128])
    np.testing.assert_array_equal(whole(as_reader(np.array([[True, False]])))[0, :, 0], [255, 0])


def test_all_16_bit_values_are_rounded_as_in_exact_arithmetic():
    values = np.arange(65536, dtype=np.uint16)
    exact = np.clip(np.rint((values.astype(np.float64) - 100) * 255 / 4000), 0, 255)
    assert (to_uint8(values, (100, 4100)) == exact).all()


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("channels", [(), (1,), (4,)])
def test_a_mapped_array_reads_as_the_whole(tmp_path, order, channels):
    array = np.random.default_rng(0).integers(0, 256, (37, 53, *channels), dtype=np.uint8)
    np.save(tmp_path / "a.npy", np.asarray(array, order=order))
    with open_image(tmp_path / "a.npy") as reader:
        assert_windows_equal(reader, np.atleast_3d(array))


def test_a_mapped_array_of_wider_values_is_as_stored_or_mapped(tmp_path):
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    np.save(tmp_path / "a.npy", values)
    with open_image(tmp_path / "a.npy") as reader:
        assert reader.dtype == np.uint16
        assert_windows_equal(reader, values[:, :, None])
    with open_image(tmp_path / "a.npy", value_range=(0, 4095)) as reader:
        assert_windows_equal(reader, np.rint(values * 255.0 / 4095)[:, :, None])


@pytest.mark.parametrize("dtype", ["u1", ">u2", "f4"])
def test_an_archive_of_one_array_is_that_array(tmp_path, dtype):
    values = np.random.default_rng(0).integers(0, 200, (37, 53, 2)).astype(dtype)
    np.savez_compressed(tmp_path / "a.npz", np.asfortranarray(values))
    with open_image(tmp_path / "a.npz") as reader:
        np.testing.assert_array_equal(reader.read(3, 37, 5, 53), values[3:, 5:])
    with pytest.raises(DataError, match="must be decoded in one piece of 37 x 53"):
        open_image(tmp_path / "a.npz", max_pixels=1000)


def test_an_array_of_objects_is_named(tmp_path):
    """As Cellpose writes x_seg.npy; it is no damage."""
    np.save(tmp_path / "x_seg.npy", {"masks": np.ones((2, 3))}, allow_pickle=True)
    with pytest.raises(DataError, match=r"x_seg\.npy holds Python objects.* masks of Cellpose as PNG or TIFF"):
        open_image(tmp_path / "x_seg.npy")


def test_an_archive_of_several_arrays_or_of_objects_is_refused(tmp_path):
    np.savez(tmp_path / "two.npz", image=np.zeros((4, 4)), mask=np.zeros((4, 4)))
    with pytest.raises(DataError, match=r"two.npz holds 2 arrays \(image, mask\). Expected one"):
        open_image(tmp_path / "two.npz")
    np.savez(tmp_path / "o.npz", np.array([[{}]]))
    with pytest.raises(DataError, match=r"o.npz is a damaged or truncated archive of arrays: Object arrays cannot be"):
        open_image(tmp_path / "o.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "two.npz").read_bytes()[:300])
    with pytest.raises(DataError, match=r"cut.npz is a damaged or truncated archive"):
        open_image(tmp_path / "cut.npz")


def test_a_truncated_or_foreign_npy_is_named(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((64, 64), np.uint8))
    content = (tmp_path / "a.npy").read_bytes()
    for damaged in (b"", content[:50], content[:-1], b"nothing"):
        (tmp_path / "a.npy").write_bytes(damaged)
        with pytest.raises(DataError, match=r"a.npy is a damaged or truncated array"):
            open_image(tmp_path / "a.npy")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("value", [np.finfo(np.float32).max, np.finfo(np.float32).min, np.inf, np.nan])
def test_the_ends_of_float32_are_no_measurement(dtype, value):
    pixels = np.ones((4, 5, 2), dtype)
    pixels[1, 2, 0] = value
    pixels[0, 0, 1] = 1e38
    known = ArrayReader(pixels).known(0, 4, 0, 5)
    assert np.argwhere(~known).tolist() == [[1, 2]]
