"""Tiny data sets for the tests of this folder, made of pixels that the tests know."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

REAL_DATA = Path(__file__).parents[2] / ".." / "shared" / "data"  # beside the checkout where there is any


def random_pair(seed: int, height: int = 6, width: int = 8, channels: int = 3, num_classes: int = 3):
    """Give an image (H, W, C) uint8 and a label (H, W) uint8."""
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (height, width, channels), dtype=np.uint8)
    return image, random.integers(0, num_classes, (height, width), dtype=np.uint8)


def png(pixels: np.ndarray, **options: object) -> bytes:
    """Encode (H, W) or (H, W, C) pixels as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


def png_of_bits(rows: list[list[int]], bits: int) -> bytes:
    """Encode grey of 1, 2, 4 or 16 bits per pixel, which Pillow cannot write in all of these depths."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    lines = b""
    for row in rows:
        digits = "".join(f"{value:0{bits}b}" for value in row)
        digits += "0" * (-len(digits) % 8)
        lines += b"\0" + bytes(int(digits[i : i + 8], 2) for i in range(0, len(digits), 8))
    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def palette_png(indices: np.ndarray, colours: list[tuple[int, int, int]]) -> bytes:
    """Encode (H, W) palette indices."""
    height, width = indices.shape
    picture = Image.frombytes("P", (width, height), indices.astype(np.uint8).tobytes())
    picture.putpalette([part for colour in colours for part in colour])
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def write_folder(root: Path, splits: dict[str, int] | None = None, num_pairs: int = 10, **options: int) -> Path:
    """Write images/ and masks/, in folders by split where `splits` says how many each."""
    for split, size in (splits or {"": num_pairs}).items():
        for index in range(size):
            image, label = random_pair(index + 1000 * len(split), **options)
            for kind, pixels in (("images", image), ("masks", label)):
                path = root / kind / split / f"sample{index:03d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(png(pixels))
    return root


def write_names(root: Path, names: list[str]) -> None:
    """Write id2label.json."""
    (root / "id2label.json").write_text(json.dumps(dict(enumerate(names))))


def write_parquet(path: Path, pairs: list[tuple[bytes, bytes]], columns: tuple[str, str] = ("pixel_values", "label")):
    """Write pairs of encoded pictures in the columns of the reference data set."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    arrays = [
        pa.array([{"bytes": pair[side], "path": f"{index:02d}.png"} for index, pair in enumerate(pairs)], picture)
        for side in (0, 1)
    ]
    features = {"info": {"features": {column: {"_type": "Image"} for column in columns}}}
    table = pa.table(dict(zip(columns, arrays, strict=True)))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(features)}), path)
