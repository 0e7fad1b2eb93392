"""The digest of a folder's content, quick the second time, and that of a picture's pixels.

Owns the memory of digests by (path, size, time of change), as a build system keeps it; and the order in which pixels are
digested, so that a picture has one digest whether it is decoded whole or read by windows.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np

from unet_dist.errors import DataError
from unet_dist.storage.files import write_whole
from unet_dist.storage.typed import read_json
from unet_dist.wording import printable

_CHUNK_BYTES = 2**20
_PART_PX = (512, 4096)
"""Height and width of the windows that pixels are digested in."""
_Stamp = tuple[int, int, int, int]
"""Size, times of writing and of change in ns, and number of the place on the disk."""
_SETTLED_NS = 2 * 10**9  # the coarsest clock of a file system in use (FAT) ticks every 2 s


def digest_text(*parts: str) -> str:
    """Give 32 hexadecimal digits that stand for these texts in this order."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        encoded = part.encode(errors="surrogateescape")  # names of files may be no UTF-8
        digest.update(f"{len(encoded)}:".encode() + encoded)
    return digest.hexdigest()


def digest_files(root: Path, files: Iterable[Path], memo_path: Path) -> str:
    """Give the digest of the names below `root` and the bytes of `files`.

    A file whose size, times and place on the disk are as remembered in the folder `memo_path` is not read again. The time of
    writing alone says little: a copy may keep it, and the time of change (ctime) is the kernel's.
    """
    memo_file = memo_path / "digests" / f"{digest_text(str(root.resolve()))}.json"
    known = _load(memo_file)
    stamps = {file.relative_to(root).as_posix(): _stamp(file.stat()) for file in sorted(files)}
    fresh: dict[str, tuple[_Stamp, str]] = {}
    unknown: list[str] = []
    for name, stamp in stamps.items():
        memory = known.get(name)
        if memory is not None and memory[0] == stamp:
            fresh[name] = memory
        else:
            unknown.append(name)
    with ThreadPoolExecutor(max_workers=4) as pool:  # hashlib releases the interpreter's lock
        for name, digest in zip(unknown, pool.map(lambda name: _digest_file(root / name), unknown), strict=True):
            fresh[name] = stamps[name], digest
    if unknown:
        with suppress(DataError):  # a read-only cache folder only costs the next start its time
            settled = time.time_ns() - _SETTLED_NS  # another change of a file younger than this may have the same stamp
            kept = {name: memory for name, memory in fresh.items() if max(memory[0][1:3]) < settled}
            write_whole(memo_file, json.dumps(kept).encode())
    return digest_text(*(text for name in stamps for text in (name, fresh[name][1])))


class PixelDigest:
    """The SHA-256 of a picture's shape and pixels, taken in the windows of `parts_of` in their order.

    Args:
        shape: of the picture, (H, W) or (H, W, C).
        dtype: of a pixel; uint8 by default.
    """

    def __init__(self, shape: Sequence[int], dtype: np.dtype | None = None) -> None:
        kind = "" if dtype is None or dtype == np.uint8 else str(dtype)  # of 8 bits as it was when there were no others
        self._sha = hashlib.sha256((repr(tuple(int(side) for side in shape)) + kind).encode())

    def add(self, pixels: np.ndarray) -> None:
        """Take in the next window."""
        self._sha.update(np.ascontiguousarray(pixels).data.cast("B"))

    def digest(self) -> bytes:
        """32 bytes."""
        return self._sha.digest()


def parts_of(height: int, width: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield the windows that a picture is digested in, row after row: top, bottom, left, right."""
    for top in range(0, height, _PART_PX[0]):
        for left in range(0, width, _PART_PX[1]):
            yield top, min(top + _PART_PX[0], height), left, min(left + _PART_PX[1], width)


def digest_pixels(pixels: np.ndarray) -> bytes:
    """Give the digest of a decoded picture, (H, W) or (H, W, C)."""
    digest = PixelDigest(pixels.shape, pixels.dtype)
    for top, bottom, left, right in parts_of(*pixels.shape[:2]):
        digest.add(pixels[top:bottom, left:right])
    return digest.digest()


def _stamp(status: os.stat_result) -> _Stamp:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _load(memo_file: Path) -> dict[str, tuple[_Stamp, str]]:
    try:
        return read_json(memo_file, dict[str, tuple[_Stamp, str]])
    except DataError:  # absent, damaged or of an older release: only a memory
        return {}


def _digest_file(path: Path) -> str:
    """Raises: DataError: it cannot be read, or is not a regular file, as a pipe would never answer."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise DataError(f"{printable(str(path))} is not a regular file. Remove it from the data set.")
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise DataError(
            f"{printable(str(path))} cannot be read: {error.strerror}. Check your permissions, or remove it from the data set."
        ) from error
    return digest.hexdigest()
