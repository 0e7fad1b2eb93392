"""Checks that every format shares: windows of a file are windows of its whole."""

import numpy as np
from hypothesis import strategies as st


def whole(reader):
    """Read all pixels."""
    height, width, _ = reader.shape
    return reader.read(0, height, 0, width)


@st.composite
def rectangles(draw, height, width):
    """A rectangle inside an image: row_start, row_stop, col_start, col_stop."""
    row_start, col_start = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    return (
        row_start,
        draw(st.integers(row_start + 1, height)),
        col_start,
        draw(st.integers(col_start + 1, width)),
    )


def assert_windows_equal(reader, pixels, num_windows=40):
    """Compare random windows, and the whole last, with known pixels (H, W, C)."""
    assert reader.shape == pixels.shape
    random = np.random.default_rng(0)
    for _ in range(num_windows):
        rows = np.sort(random.choice(pixels.shape[0] + 1, 2, replace=False))
        cols = np.sort(random.choice(pixels.shape[1] + 1, 2, replace=False))
        window = reader.read(int(rows[0]), int(rows[1]), int(cols[0]), int(cols[1]))
        np.testing.assert_array_equal(window, pixels[rows[0] : rows[1], cols[0] : cols[1]])
        assert window.dtype == reader.dtype
    np.testing.assert_array_equal(whole(reader), pixels)
