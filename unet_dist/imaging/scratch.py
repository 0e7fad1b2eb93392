"""A raster in the making: a raw file that any process writes any rectangle of, and that outlives them.

Owns the bytes of an unfinished prediction. What has been written is the caller's journal to know; how the raster is
finished, raster.py's.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from unet_dist.errors import DataError
from unet_dist.storage.mapped import watched
from unet_dist.storage.refusals import writing_failed
from unet_dist.wording import size

if TYPE_CHECKING:
    from typing_extensions import Self


class Scratch:
    """A raw file of (H, W) or (planes, H, W) values, one plane after the other, zeros where nothing was written.

    Every process of a prediction opens the same path, in any order; an existing file keeps its content. Rectangles
    are written by ordinary writes at their place, not through a map: two processes, also on two machines, may write
    neighbouring pixels, as long as no pixel has two writers. Written pixels survive the death of the process at
    once, and that of the machine after `flush`.

    Args:
        shape: (H, W) or (planes, H, W).
        dtype: of the values.

    Raises:
        DataError: too little room on the disk, a file of another size, or a refusal of the system.
    """

    def __init__(self, path: str | os.PathLike, shape: tuple[int, ...], dtype: npt.DTypeLike = np.uint8) -> None:
        assert len(shape) in (2, 3), f"a raster is (H, W) or (planes, H, W), not {shape}"
        self.path = Path(path)
        self.shape = shape
        self.dtype = np.dtype(dtype)
        num_bytes = math.prod(shape) * self.dtype.itemsize
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            raise writing_failed(self.path, error) from error
        try:
            self._reserve(num_bytes)
        except OSError as error:
            self.close()
            raise writing_failed(self.path, error) from error
        except DataError:
            self.close()
            raise

    def write(self, row: int, col: int, values: np.ndarray) -> None:
        """Write a rectangle whose upper left corner is (row, col).

        Args:
            values: (h, w) or (planes, h, w), of the scratch's dtype.

        Raises:
            DataError: the disk is full, or another refusal of the system.
        """
        height, width = self.shape[-2:]
        planes = np.ascontiguousarray(values).reshape(-1, *values.shape[-2:])  # (planes, h, w)
        inside = 0 <= row <= height - planes.shape[1] and 0 <= col <= width - planes.shape[2]
        assert inside, f"{values.shape} at {row}, {col} is not inside {self.shape}"
        assert values.shape[:-2] == self.shape[:-2], f"{values.shape[:-2]} planes, expected {self.shape[:-2]}"
        assert values.dtype == self.dtype, f"{values.dtype}, expected {self.dtype}"
        if planes.shape[2] == width:  # whole rows lie in one piece
            planes = planes.reshape(len(planes), 1, -1)
        try:
            for plane, rows in enumerate(planes):
                for offset, run in enumerate(rows):
                    start = (plane * height + row + offset) * width + col
                    _write_all(self._descriptor, run.view(np.uint8), start * self.dtype.itemsize)
        except OSError as error:
            raise writing_failed(self.path, error) from error

    def values(self) -> np.ndarray:
        """Map the whole for reading: `shape`, in file pages rather than ordinary memory."""
        return watched(np.memmap(self.path, self.dtype, mode="r", shape=self.shape))

    def flush(self) -> None:
        """Wait until what this process wrote is on the disk.

        Raises:
            DataError: the disk refuses.
        """
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise writing_failed(self.path, error) from error

    def close(self) -> None:
        """Let go of the file; it stays."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _reserve(self, num_bytes: int) -> None:
        """Give the file its size, if the disk has room for the rest of it."""
        status = os.fstat(self._descriptor)
        if status.st_size not in (0, num_bytes):
            raise DataError(
                f"{self.path} holds {status.st_size} bytes, and a raster of {self.shape} {self.dtype} has {num_bytes}. "
                "It belongs to another prediction: delete it, or choose another output folder."
            )
        disk = os.statvfs(self.path)
        free, missing = disk.f_bavail * disk.f_frsize, num_bytes - status.st_blocks * 512
        if missing > free:
            raise DataError(
                f"{self.path} needs {size(missing)} more, and its disk has {size(free)} free. Make "
                "room or choose another output folder, then start the same command again."
            )
        os.truncate(self._descriptor, num_bytes)  # to the same size is nothing: every process may do it


def _write_all(descriptor: int, values: np.ndarray, offset: int) -> None:
    view = values.data
    while view:  # a full disk takes a part, and refuses the rest the next time
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
