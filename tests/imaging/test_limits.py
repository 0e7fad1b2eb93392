"""What decoding may take: memory and seconds, whoever reads, and that a decoder that never answers costs its image alone."""

from __future__ import annotations

import bz2
import gc
import gzip
import io
import json
import lzma
import os
import threading
import weakref
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numcodecs
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image, PngImagePlugin
from zarr.codecs import Crc32cCodec, GzipCodec, ZstdCodec

from tests.data.pictures import write_folder
from unet_dist.data.decoded.build import prepare
from unet_dist.data.decoded.settings import CacheSettings
from unet_dist.data.sources.registry import open_source
from unet_dist.errors import DataError, RefusedError
from unet_dist.imaging.limits import in_time, limit_decoding
from unet_dist.imaging.reader import open_image
from unet_dist.imaging.zarr_chunks import require_bounded

BOMB = 2**26
"""Bytes that a chunk of 256 expands to."""


@pytest.fixture
def limited() -> Iterator[Callable[[str | None, float], None]]:
    """Sets limits, and takes them away again."""
    yield limit_decoding
    limit_decoding(None, 300.0)


@pytest.fixture
def stuck() -> Iterator[threading.Event]:
    """What a decoder that hangs waits for."""
    event = threading.Event()
    yield event
    event.set()


def hang_at(name: str, stuck: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the decoder of one PNG wait; it stands for any decoder."""
    load = PngImagePlugin.PngImageFile.load

    def wait(image: Any) -> object:
        if image.fp is not None and image.fp.name.endswith(name):
            stuck.wait()
        return load(image)

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", wait)


def read(path: Path) -> np.ndarray:
    with open_image(path) as reader:
        return np.array(reader.read(0, reader.shape[0], 0, reader.shape[1]))


def test_a_decoder_that_hangs_is_left_and_named(tmp_path, limited, stuck, monkeypatch):
    """And the next image is read."""
    for name in ("a.png", "b.png"):
        Image.new("L", (4, 4), 9).save(tmp_path / name)
    hang_at("a.png", stuck, monkeypatch)
    limited(None, 0.2)
    with pytest.raises(RefusedError, match=r"a.png takes longer than .* to decode.*raise decode_seconds"):
        read(tmp_path / "a.png")
    limited(None, 300.0)
    assert read(tmp_path / "b.png").max() == 9


def test_a_data_set_with_such_a_file_names_it(tmp_path, limited, stuck, monkeypatch):
    data = write_folder(tmp_path / "data", num_pairs=4)
    hanging = sorted((data / "images").iterdir())[2]
    hang_at(hanging.name, stuck, monkeypatch)
    limited(None, 1.0)
    with pytest.raises(DataError, match=rf"1 of 4 pairs cannot be used.\n  image .*{hanging.name} takes longer than"):
        prepare(open_source(data), CacheSettings(num_classes=99), seed=0, cache_path=tmp_path / "cache")


def test_an_error_comes_back_as_it_was_and_holds_no_image():
    class Held:
        pass

    held = Held()
    gone = weakref.ref(held)

    def decode(of: object = held) -> None:
        raise KeyError("no such tile")

    with pytest.raises(KeyError, match="no such tile"):
        in_time("a", decode)
    del held, decode
    gc.collect()
    assert gone() is None


def test_a_decoder_within_a_decoder_takes_no_other_thread():
    def inner() -> str:
        return threading.current_thread().name

    assert in_time("a", lambda: in_time("b", inner)) == in_time("a", inner) == "decoder"


def test_a_forked_child_decodes_by_a_thread_of_its_own():
    assert in_time("a", lambda: 1) == 1
    child = os.fork()
    if child == 0:
        os._exit(0 if in_time("a", lambda: 7) == 7 else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_thread_that_ends_leaves_no_decoder_behind():
    def names() -> list[str]:
        return [thread.name for thread in threading.enumerate()]

    for _ in range(20):
        thread = threading.Thread(target=lambda: in_time("a", lambda: None))
        thread.start()
        thread.join()
    gc.collect()
    for thread in [thread for thread in threading.enumerate() if thread.name == "decoder"][1:]:
        thread.join(60)
    assert names().count("decoder") <= 1


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.zarr"])
def test_the_stated_memory_bounds_every_format(tmp_path, limited, name):
    pixels = np.zeros((600, 600), np.uint8)
    if name == "a.zarr":
        zarr.create_array(str(tmp_path / name), data=pixels, chunks=(600, 600))
    elif name == "a.tif":
        tifffile.imwrite(tmp_path / name, pixels, compression="deflate", rowsperstrip=600)
    else:
        Image.fromarray(pixels).save(tmp_path / name)
    limited("300KB", 300.0)
    with pytest.raises(
        DataError, match=r"one piece of 600 x 600 px, which takes .* and decode_memory is .*raise decode_memory"
    ):
        read(tmp_path / name)
    limited("5MB", 300.0)
    assert read(tmp_path / name).shape == (600, 600, 1)


def _zstd_of_unknown_size() -> bytes:
    """A frame of runs of 128 KiB, which states no size."""
    runs = b"".join(
        ((2**17 << 3) | 2 | (block == BOMB // 2**17 - 1)).to_bytes(3, "little") + b"\0"
        for block in range(BOMB // 2**17)
    )
    return b"\x28\xb5\x2f\xfd\x00\x58" + runs


BOMBS = {
    "gzip": (numcodecs.GZip(), lambda: gzip.compress(bytes(BOMB))),
    "zlib": (numcodecs.Zlib(), lambda: zlib.compress(bytes(BOMB))),
    "bz2": (numcodecs.BZ2(), lambda: bz2.compress(bytes(BOMB))),
    "lzma": (numcodecs.LZMA(), lambda: lzma.compress(bytes(BOMB))),
    "zstd": (numcodecs.Zstd(), lambda: bytes(numcodecs.Zstd().encode(bytes(BOMB)))),
    "zstd of unknown size": (numcodecs.Zstd(), _zstd_of_unknown_size),
    "lz4": (numcodecs.LZ4(), lambda: bytes(numcodecs.LZ4().encode(bytes(BOMB)))),
    "blosc": (numcodecs.Blosc(), lambda: bytes(numcodecs.Blosc().encode(bytes(BOMB)))),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_chunk_that_expands_beyond_its_pixels_is_refused_before_it_does(tmp_path, limited, kind):
    codec, make = BOMBS[kind]
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    path = tmp_path / "a.zarr"
    array = zarr.create_array(
        str(path), shape=(16, 16), chunks=(16, 16), dtype="uint8", zarr_format=2, compressors=codec
    )
    array[...] = pixels
    limited("10KB", 300.0)
    np.testing.assert_array_equal(read(path)[..., 0], pixels)  # what is sound is read under the same limit
    bomb = make()
    assert len(bytes(codec.decode(bomb))) == BOMB
    with pytest.raises(ValueError, match=r"states|expands"):
        require_bounded(codec, memoryview(bomb), 2048)
    (path / "0.0").write_bytes(bomb)
    with pytest.raises(DataError, match=r"a.zarr: the chunk at row 0, column 0 cannot be decoded: it (states|expands)"):
        read(path)


def test_chunks_in_shards_and_behind_checksums_are_checked_too(tmp_path, limited):
    """Of a shard whose index stands at its end, the first chunk begins where an index at its start would."""
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    path = tmp_path / "a.zarr"
    how = {"chunks": (16, 16), "shards": (32, 32), "compressors": [ZstdCodec(), Crc32cCodec()]}
    zarr.create_array(str(path), shape=(32, 32), dtype="uint8", **how)[...] = pixels
    limited("10KB", 300.0)
    np.testing.assert_array_equal(read(path)[..., 0], pixels)
    file = path / "c" / "0" / "0"
    content = bytearray(file.read_bytes())
    assert content[:4] == b"\x28\xb5\x2f\xfd"
    assert content[4] >> 6 == 1, "two bytes tell its size"
    content[6] = 0xFF
    file.write_bytes(content)
    for side in (16, 32):  # one chunk, and the whole shard
        with pytest.raises(DataError, match="states"), open_image(path) as reader:
            reader.read(0, side, 0, side)


def _metadata(path: Path, change: Callable[[dict], None]) -> None:
    stored = json.loads((path / "zarr.json").read_text())
    change(stored)
    (path / "zarr.json").write_text(json.dumps(stored))


def test_one_compression_upon_another_is_refused(tmp_path):
    path = tmp_path / "a.zarr"
    zarr.create_array(str(path), shape=(16, 16), chunks=(16, 16), dtype="uint8", compressors=[GzipCodec(), GzipCodec()])
    with pytest.raises(DataError, match="compressed more than once, by gzip and gzip"):
        open_image(path)


def test_an_index_of_a_shard_that_takes_gigabytes_is_refused(tmp_path):
    path = tmp_path / "a.zarr"
    zarr.create_array(str(path), shape=(16, 16), chunks=(16, 16), shards=(16, 16), dtype="uint8")

    def widen(stored: dict) -> None:
        stored["chunk_grid"]["configuration"]["chunk_shape"] = [2**21, 2**21]

    _metadata(path, widen)
    with pytest.raises(DataError, match=r"its shards have 17,179,869,184 chunks each"):
        open_image(path)


@pytest.mark.parametrize("kind", ["jpeg", "png", "jpeg2000"])
def test_a_tile_that_holds_a_far_larger_picture_is_refused(tmp_path, limited, kind):
    """The decoder would take memory by the header of the picture, not of the TIFF."""
    tiny, large = np.zeros((64, 64, 3), np.uint8), np.zeros((1500, 1500, 3), np.uint8)
    encode = {"jpeg": imagecodecs.jpeg8_encode, "png": imagecodecs.png_encode,
              "jpeg2000": lambda pixels: imagecodecs.jpeg2k_encode(pixels, codecformat="j2k")}[kind]  # fmt: skip
    written = io.BytesIO()
    tifffile.imwrite(written, tiny, photometric="rgb", compression=kind, tile=(64, 64))
    content, bomb = bytearray(written.getvalue()), bytes(encode(large))
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        tags = file.pages[0].tags
        for tag, value in ((324, len(content)), (325, len(bomb))):
            entry = tags[tag]
            content[entry.valueoffset : entry.valueoffset + 4] = value.to_bytes(4, "little")
    (tmp_path / "a.tif").write_bytes(bytes(content) + bomb)
    limited("5MB", 300.0)
    with pytest.raises(DataError, match="one piece of 1500 x 1500 px"):
        read(tmp_path / "a.tif")
