"""The files of a Zarr array as zarr reads them: regular files only, and no chunk that decodes to more than it should.

Owns that each is checked (`zarr_chunks.py`) before a codec gets it. Imports zarr, so it is imported late.
"""

from __future__ import annotations

import stat
from pathlib import Path

from zarr.abc.store import ByteRequest, RangeByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

from unet_dist.imaging.zarr_chunks import Check

_METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")


class RegularFiles(LocalStore):
    """A folder of Zarr. A pipe, which would never answer, is refused; chunks are checked once `check` is set."""

    check: Check | None = None

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read a file, or a part of it; None where there is none."""
        _require_regular(self.root / key)
        found = await super().get(key, prototype, byte_range)
        is_index = not (byte_range is None or isinstance(byte_range, RangeByteRequest))  # of a shard, at its end
        if found is not None and self.check is not None and not (is_index or key.endswith(_METADATA)):
            start = byte_range.start if isinstance(byte_range, RangeByteRequest) else None
            self.check(found.as_numpy_array().data.cast("B"), start)
        return found


def _require_regular(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ValueError(f"{path.name} is not a regular file")
