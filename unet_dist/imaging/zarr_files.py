"""The files of a Zarr array as zarr reads them: regular files only, and no chunk of Blosc that states more than it holds.

Owns what is checked of a file's bytes before a codec gets them. numcodecs (0.16.6) does not compare them with the sizes that a
chunk of Blosc states: it decodes beyond the end of one that was cut short, and takes memory for as much as one claims. Imports
zarr, so it is imported late.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from zarr.abc.store import ByteRequest, RangeByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

Check = Callable[[memoryview, "ByteRequest | None"], None]
"""Raises ValueError for bytes of a file of chunks, or of a part of it, that no codec may get."""

_BLOSC_HEADER = struct.Struct("<4B3I")  # versions, flags, bytes of a value; bytes decoded, of a block, and encoded
_EMPTY = 2**64 - 1  # in the index of a shard: there is no such chunk
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
        if found is not None and self.check is not None and not key.endswith(_METADATA):
            self.check(found.as_numpy_array().data.cast("B"), byte_range)
        return found


def _require_regular(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ValueError(f"{path.name} is no regular file")


def chunk_check(array: Any) -> Check | None:
    """Give what checks the chunks of an array, of a sharded one those in its shards; None where their last codec is not Blosc."""
    stored = array.metadata.to_dict()
    largest = int(np.prod(array.chunks, dtype=np.int64)) * max(8, np.dtype(array.dtype).itemsize)  # a filter may widen
    codecs = list(stored.get("codecs") or [stored.get("compressor")])
    shard = codecs[-1]["configuration"] if _kind(codecs[-1]) == "sharding_indexed" else None
    if _kind(codecs[-1] if shard is None else shard["codecs"][-1]) != "blosc":
        return None
    if shard is None:
        return lambda content, byte_range: require_whole_blosc(content, largest)
    count = int(np.prod(array.shards, dtype=np.int64)) // int(np.prod(array.chunks, dtype=np.int64))
    return _shard_check(shard, count, largest)


def _kind(codec: Any) -> str | None:
    told = codec if isinstance(codec, dict) or codec is None else codec.get_config()
    return None if told is None else str(told.get("name") or told.get("id")).removeprefix("numcodecs.")


def _shard_check(shard: dict[str, Any], count: int, largest: int) -> Check:
    """Check each chunk of a whole shard by its index of offsets and lengths, or the one chunk that a range of bytes is."""
    kinds = {_kind(codec): codec for codec in shard["index_codecs"]}
    order = ">u8" if "big" in str(kinds.get("bytes", {}).get("configuration", {}).get("endian")) else "<u8"
    is_last = "start" not in str(shard.get("index_location"))
    size = 16 * count
    from_end = size + 4 * ("crc32c" in kinds)

    def check(content: memoryview, byte_range: ByteRequest | None) -> None:
        if byte_range is None:
            start = max(len(content) - from_end, 0) if is_last else 0
            if len(content) < from_end:
                raise ValueError(f"a shard has {len(content)} bytes, fewer than its index")
            for offset, length in np.frombuffer(content, order, 2 * count, start).reshape(-1, 2).tolist():
                if offset != _EMPTY:
                    require_whole_blosc(content[offset : offset + length], largest)
        elif isinstance(byte_range, RangeByteRequest) and byte_range.start > 0:  # any other range is the index
            require_whole_blosc(content, largest)

    return check


def require_whole_blosc(content: memoryview | bytes, largest: int) -> None:
    """Compare a chunk of Blosc with the sizes in its header.

    Args:
        largest: bytes that a chunk may decode to.

    Raises:
        ValueError: it was cut short, or claims more than a chunk holds.
    """
    if len(content) < _BLOSC_HEADER.size:
        raise ValueError(f"{len(content)} bytes are fewer than a header of Blosc")
    *_, decoded, _, encoded = _BLOSC_HEADER.unpack_from(content)
    if encoded > len(content):
        raise ValueError(f"it states {encoded} bytes and has {len(content)}")
    if decoded > largest:
        raise ValueError(f"it states {decoded} bytes of pixels, and a chunk has at most {largest}")
