"""How many bytes a chunk of a Zarr array decodes to, found before a codec gets it.

Owns the checks: codecs (numcodecs 0.16.6) take memory for as much as a chunk claims or expands to, and that of Blosc decodes
beyond the end of one that was cut short. Knows bytes and metadata; imports no zarr.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from unet_dist.imaging.limits import decode_budget_bytes

Check = Callable[[memoryview, "int | None"], None]
"""Takes bytes of a file of chunks, and where in it they begin, None for all of it; raises ValueError for what no codec may get."""

_BLOSC_HEADER = struct.Struct("<4B3I")  # versions, flags, bytes of a value; bytes decoded, of a block, and encoded
_EMPTY = 2**64 - 1  # in the index of a shard: there is no such chunk
_COMPRESSIONS = ("blosc", "zstd", "gzip", "zlib", "bz2", "lzma", "lz4", "pcodec", "zfpy")
_CHECKSUM_BYTES = {"crc32c": 4, "crc32": 4, "adler32": 4, "fletcher32": 4, "jenkins_lookup3": 4}
_ZSTD_BLOCK_BYTES = 2**17  # RFC 8878: a block holds no more
_MOST = {"gzip": 1032, "zlib": 1032, "lzma": 8192, "bz2": 2**21}
"""How often larger than its code something may be. Of deflate exact; derived for the others: LZMA codes 273 bytes in about 0.3
bits, bzip2 a block of 46 MB of one byte in 39."""
_COUNTED_BYTES = 2**20


def chunk_check(
    codecs: Sequence[Any], chunk_shape: Sequence[int], shard_shape: Sequence[int] | None, itemsize: int
) -> Check | None:
    """Give what checks the chunks of an array, of a sharded one those in its shards; None where nothing is compressed.

    Args:
        codecs: in the order of encoding, as metadata or objects.
        chunk_shape, shard_shape: in values.

    Raises:
        ValueError: codecs that nobody needs and a bomb does: one compression upon another, or a compressed index.
    """
    widest = max(8, itemsize)  # a filter may widen
    outer, inner, index = _parts(codecs)
    is_outer = any(_kind(codec) in _COMPRESSIONS for codec in outer)
    if shard_shape is None or inner is None:
        return _own_check(outer, _product(chunk_shape) * widest)
    count = _product(shard_shape) // max(_product(chunk_shape), 1)
    if 32 * count > decode_budget_bytes():
        raise ValueError(f"its shards have {count:,} chunks each")
    if is_outer:
        if any(_kind(codec) in _COMPRESSIONS for codec in inner):
            raise ValueError("its shards are compressed, and so are the chunks in them")
        return _own_check(outer, _product(shard_shape) * widest)
    if any(_kind(codec) not in ("bytes", "endian", "crc32c") for codec in index):
        raise ValueError("the index of its shards is encoded")
    check = _own_check(inner, _product(chunk_shape) * widest)
    return None if check is None else _shard_check(codecs, index, count, check)


def _parts(codecs: Sequence[Any]) -> tuple[list[Any], list[Any] | None, list[Any]]:
    """Codecs of what a file holds; of the chunks in a shard, None where there are no shards; and of a shard's index."""
    for codec in codecs:
        if _kind(codec) == "sharding_indexed":
            settings = codec["configuration"]
            return list(codecs), list(settings["codecs"]), list(settings.get("index_codecs", []))
    return list(codecs), None, []


def _kind(codec: Any) -> str | None:
    told = codec if isinstance(codec, dict) or codec is None else codec.get_config()
    return None if told is None else str(told.get("name") or told.get("id")).removeprefix("numcodecs.")


def _settings(codec: Any) -> dict[str, Any]:
    told = codec if isinstance(codec, dict) else codec.get_config()
    inner = told.get("configuration")
    return inner if isinstance(inner, dict) else told


def _product(shape: Sequence[int]) -> int:
    return int(np.prod(shape, dtype=object)) if len(shape) else 1


def _own_check(codecs: Sequence[Any], largest: int) -> Check | None:
    """Check what one compression, and checksums around it, made."""
    compressions = [place for place, codec in enumerate(codecs) if _kind(codec) in _COMPRESSIONS]
    if not compressions:
        return None
    if len(compressions) > 1:
        kinds = " and ".join(str(_kind(codecs[place])) for place in compressions)
        raise ValueError(f"it is compressed more than once, by {kinds}")
    compression = codecs[compressions[0]]
    around = [codec for codec in codecs[compressions[0] + 1 :] if codec is not None]
    if unknown := [_kind(codec) for codec in around if _kind(codec) not in _CHECKSUM_BYTES]:
        raise ValueError(f"the compressed chunks are encoded again, by {unknown[0]}")
    before, after = _around(around)

    def check(content: memoryview, start: int | None) -> None:
        require_bounded(compression, content[before : len(content) - after], largest)

    return check


def _around(checksums: Sequence[Any]) -> tuple[int, int]:
    """Bytes that checksums put before and behind what they are of."""
    before = after = 0
    for codec in checksums:
        kind = str(_kind(codec))
        usual = "end" if kind in ("crc32c", "fletcher32", "jenkins_lookup3") else "start"
        if _settings(codec).get("location", usual) == "end":
            after += _CHECKSUM_BYTES[kind]
        else:
            before += _CHECKSUM_BYTES[kind]
    return before, after


def _shard_check(codecs: Sequence[Any], index: Sequence[Any], count: int, check: Check) -> Check:
    """Check each chunk of a whole shard by its index of offsets and lengths, or the one chunk that a range of bytes is."""
    kinds = {_kind(codec): codec for codec in index}
    shard = next(codec["configuration"] for codec in codecs if _kind(codec) == "sharding_indexed")
    order = ">u8" if "big" in str(kinds.get("bytes", {}).get("configuration", {}).get("endian")) else "<u8"
    is_last = "start" not in str(shard.get("index_location"))
    size = 16 * count
    from_end = size + 4 * ("crc32c" in kinds)

    def check_shard(content: memoryview, start: int | None) -> None:
        if start is not None:
            if start > 0 or is_last:  # or else it is the index
                check(content, None)
            return
        if len(content) < from_end:
            raise ValueError(f"a shard has {len(content)} bytes, fewer than its index")
        place = len(content) - from_end if is_last else 0
        for offset, length in np.frombuffer(content, order, 2 * count, place).reshape(-1, 2).tolist():
            if offset != _EMPTY:
                check(content[offset : offset + length], None)

    return check_shard


def require_bounded(codec: Any, content: memoryview, largest: int) -> None:
    """Find out what a chunk decodes to: what it states, or, where that may pass the budget, by decoding it in pieces.

    Args:
        codec: its compression.
        largest: bytes that a chunk may decode to.

    Raises:
        ValueError: it was cut short, or claims or expands to more than a chunk holds.
    """
    kind = str(_kind(codec))
    if kind == "blosc":
        require_whole_blosc(content, largest)
    elif kind == "zstd":
        frames = list(_zstd_frames(content))
        _require_at_most(sum(size for size, is_stated in frames if is_stated), largest)
        _require_at_most(sum(size for size, _ in frames), max(largest, decode_budget_bytes()))
    elif kind == "lz4":
        _require_at_most(int.from_bytes(content[:4], "little"), largest)
    elif kind in _MOST and len(content) * _MOST[kind] > decode_budget_bytes():
        _count(kind, _settings(codec), content, largest)


def _require_at_most(stated: int, largest: int) -> None:
    if stated > largest:
        raise ValueError(f"it states {stated} bytes of pixels, and a chunk has at most {largest}")


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
    _require_at_most(decoded, largest)


def _zstd_frames(content: memoryview) -> Iterator[tuple[int, bool]]:
    """Give the bytes that each frame decodes to, and whether it states them: else as many as its blocks may hold (RFC 8878)."""
    at = 0
    while at + 5 <= len(content):
        magic = int.from_bytes(content[at : at + 4], "little")
        if magic & 0xFFFFFFF0 == 0x184D2A50:  # to be skipped
            at += 8 + int.from_bytes(content[at + 4 : at + 8], "little")
            continue
        if magic != 0xFD2FB528:
            return  # the decoder says what is wrong
        flags = content[at + 4]
        is_single = bool(flags & 0x20)
        at += 5 + (not is_single) + (0, 1, 2, 4)[flags & 3]
        width = (int(is_single), 2, 4, 8)[flags >> 6]
        stated = int.from_bytes(content[at : at + width], "little") + (256 if width == 2 else 0)
        at += width
        blocks, is_last = 0, False
        while not is_last and at + 3 <= len(content):
            header = int.from_bytes(content[at : at + 3], "little")
            is_last = bool(header & 1)
            at += 3 + (1 if header >> 1 & 3 == 1 else header >> 3)  # of a run, one byte is there
            blocks += 1
        at += 4 * bool(flags & 4)
        yield (stated, True) if width else (blocks * _ZSTD_BLOCK_BYTES, False)


def _count(kind: str, settings: dict[str, Any], content: memoryview, largest: int) -> None:
    """Decode in pieces, keeping none, until the end or more than a chunk holds. Damage is for the decoder to name."""
    try:
        for size in _pieces(kind, settings, bytes(content)):
            largest -= size
            if largest < 0:
                break
    except (zlib.error, lzma.LZMAError, OSError, EOFError):
        return
    if largest < 0:
        raise ValueError("it expands to more bytes than a chunk has")


def _pieces(kind: str, settings: dict[str, Any], rest: bytes) -> Iterator[int]:
    """The sizes of pieces that a chunk decodes to; it may be several streams, one after another."""
    while rest:
        if kind in ("gzip", "zlib"):
            inflating = zlib.decompressobj(wbits=zlib.MAX_WBITS | (16 if kind == "gzip" else 0))
            while not inflating.eof and (piece := inflating.decompress(rest, _COUNTED_BYTES)):
                rest = inflating.unconsumed_tail
                yield len(piece)
            rest = inflating.unused_data if kind == "gzip" else b""
            continue
        expanding: bz2.BZ2Decompressor | lzma.LZMADecompressor
        if kind == "bz2":
            expanding = bz2.BZ2Decompressor()
        else:
            expanding = lzma.LZMADecompressor(settings.get("format", lzma.FORMAT_XZ), filters=settings.get("filters"))
        given = rest
        while not expanding.eof:
            piece = expanding.decompress(given, _COUNTED_BYTES)
            given = b""
            if not piece and expanding.needs_input:
                return
            yield len(piece)
        rest = expanding.unused_data
