"""Damage, as accident and malice do it: of bytes, of what formats count by, of JSON, and of files as such.

Each takes a generator of random numbers, so that a seed gives the same damage again.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.hostile.meaning import archive, json_meaning, lines, sqlite_value, tensors, xml_value

_EDGES = (
    0,
    1,
    2,
    3,
    7,
    8,
    127,
    128,
    255,
    256,
    32767,
    65535,
    65536,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**53,
    2**63,
    2**64 - 1,
)
_LONG_NUMBER, _DEEP = "@long number@", "@deep@"
_LINK_SHARE = 0.08
"""Of the cases that change what a name stands for."""


def damage_folder(folder: Path, outside: Path, rng: random.Random) -> str:
    """Damage a file or two of a folder; describes the damage.

    Args:
        outside: a folder that nobody may touch, to which links lead.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    told = []
    for _ in range(rng.choice((1, 1, 1, 2))):
        path = rng.choice(files)
        if rng.random() < _LINK_SHARE:
            told.append(f"{path.relative_to(folder)}: {replace_file(path, outside, rng)}")
            continue
        if not path.is_file():
            continue
        content = path.read_bytes()
        kind, damaged = damage(content, path.suffix.lower(), rng)
        path.unlink()
        path.write_bytes(damaged)
        told.append(f"{path.relative_to(folder)}: {kind}")
    return ", ".join(told)


def replace_file(path: Path, outside: Path, rng: random.Random) -> str:
    """Put something else under a file's name."""
    kind = rng.choice(("missing", "folder", "link to a file", "link to a folder", "pipe", "loop", "empty"))
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)  # of a pipe, too, which rmtree would open
    if kind == "folder":
        path.mkdir()
    elif kind == "link to a file":
        path.symlink_to(outside / "precious.txt")
    elif kind == "link to a folder":
        path.symlink_to(outside / "kept")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "empty":
        path.touch()
    return kind


def damage(content: bytes, suffix: str, rng: random.Random) -> tuple[str, bytes]:
    """Damage the bytes of a file by a way that fits its kind, or by one that fits all; with the name of the way."""
    fitting: dict[str, list[Callable[[bytes, random.Random], bytes]]] = {
        ".png": [png_chunk] * 3,
        ".webp": [riff_chunk] * 3,
        ".gif": [early] * 3,
        ".tif": [tiff_tag] * 4,
        ".tiff": [tiff_tag] * 4,
        ".json": [json_value, json_value, json_value, json_value, json_meaning, json_meaning],
        ".geojson": [json_value, json_value, json_meaning, json_meaning],
        ".xml": [xml_value] * 4,
        ".gpkg": [sqlite_value] * 4,
        ".npz": [archive] * 4,
        ".jsonl": [json_line, json_line, json_line, json_line, line_meaning, line_meaning],
        ".zarray": [json_value] * 4,
        ".zattrs": [json_value] * 4,
        ".yaml": [yaml_value] * 4,
        ".txt": [text, text, text, lines, lines],
        ".safetensors": [safetensors_header, safetensors_header, safetensors_header, tensors, tensors],
    }
    way = rng.choice([*fitting.get(suffix, []), early, some_bytes])
    try:
        return way.__name__, way(content, rng)
    except (
        ValueError,
        TypeError,
        AttributeError,
        struct.error,
        zlib.error,
        LookupError,
        RecursionError,
        yaml.YAMLError,
        sqlite3.Error,
        SyntaxError,  # of XML
        zipfile.BadZipFile,
    ):  # it fits no more: damaged once before
        return "some_bytes", some_bytes(content, rng)


def some_bytes(content: bytes, rng: random.Random) -> bytes:
    """Change, cut, drop, repeat, exchange or insert bytes anywhere."""
    return _bytes_within(content, len(content), rng)


def early(content: bytes, rng: random.Random) -> bytes:
    """The same within the first bytes, where headers are."""
    return _bytes_within(content, min(len(content), 128), rng)


def _bytes_within(content: bytes, reach: int, rng: random.Random) -> bytes:
    if not content:
        return rng.randbytes(rng.choice((1, 16, 1000)))
    at = rng.randrange(reach)
    other, length = rng.randrange(len(content)), rng.choice((1, 2, 4, 16, 256))
    kind = rng.randrange(9)
    if kind == 0:
        return content[:at]
    if kind == 1:
        return content[:at] + content[at + length :]
    if kind == 2:
        return content[:at] + content[other : other + length] + content[at:]
    if kind == 3:
        return content[:at] + content[other : other + length] + content[at + length :]
    if kind == 4:
        return content[:at] + rng.randbytes(length) + content[at:]
    if kind == 5:
        return content[:at] + bytes(length) + content[at + length :]
    if kind == 6:
        return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]
    if kind == 7:
        return content[:at] + rng.randbytes(length) + content[at + length :]
    return _with_edge(content, at, rng)


def _with_edge(content: bytes, at: int, rng: random.Random) -> bytes:
    number, order = rng.choice(("B", "H", "I", "Q")), rng.choice("<>")
    value = rng.choice(_EDGES) & (256 ** struct.calcsize(number) - 1)
    packed = struct.pack(order + number, value)
    return content[:at] + packed + content[at + len(packed) :]


def png_chunk(content: bytes, rng: random.Random) -> bytes:
    """Damage a chunk of a PNG, and give it a right checksum."""
    chunks, at = [], 8
    while at + 12 <= len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    place = rng.randrange(len(chunks))
    kind, body = chunks[place]
    way = rng.randrange(6)
    if way == 0:
        chunks.insert(place, chunks[rng.randrange(len(chunks))])
    elif way == 1:
        del chunks[place]
    elif way == 2:
        names = (
            b"tRNS",
            b"PLTE",
            b"eXIf",
            b"acTL",
            b"fcTL",
            b"iCCP",
            b"gAMA",
            b"zTXt",
            b"iTXt",
            b"sBIT",
            b"IEND",
            b"IDAT",
        )
        chunks.insert(
            rng.randrange(1, len(chunks)), (rng.choice(names), rng.randbytes(rng.choice((0, 1, 3, 6, 26, 300))))
        )
    elif way == 3 and kind == b"IDAT":
        chunks[place] = kind, zlib.compress(some_bytes(zlib.decompress(body), rng))
    elif way == 4:
        chunks[0] = b"IHDR", _with_edge(chunks[0][1], rng.randrange(13), rng)[:13]
    else:
        chunks[place] = kind, some_bytes(body, rng)
    written = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return content[:8] + b"".join(written)


def riff_chunk(content: bytes, rng: random.Random) -> bytes:
    """Damage a chunk of a WebP, and count its bytes and the file's anew."""
    chunks, at = [], 12
    while at + 8 <= len(content):
        (length,) = struct.unpack("<I", content[at + 4 : at + 8])
        chunks.append((content[at : at + 4], content[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2
    place, way = rng.randrange(len(chunks)), rng.randrange(4)
    kind, body = chunks[place]
    if way == 0:
        chunks.insert(place, chunks[place])
    elif way == 1:
        chunks.insert(
            place,
            (
                rng.choice((b"VP8X", b"EXIF", b"ANIM", b"ANMF", b"ALPH", b"ICCP")),
                rng.randbytes(rng.choice((0, 10, 16, 99))),
            ),
        )
    else:
        chunks[place] = kind, (early if way == 2 else some_bytes)(body, rng)
    packed = b"".join(kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2) for kind, body in chunks)
    return b"RIFF" + struct.pack("<I", len(packed) + 4) + b"WEBP" + packed


def tiff_tag(content: bytes, rng: random.Random) -> bytes:
    """Change the kind, the type, the count or the value of a tag of the first page, or where the next page is."""
    order = "<" if content[:2] == b"II" else ">"
    (start,) = struct.unpack(order + "I", content[4:8])
    (number,) = struct.unpack(order + "H", content[start : start + 2])
    at = start + 2 + 12 * rng.randrange(number)
    kind, form, count, value = struct.unpack(order + "HHII", content[at : at + 12])
    way = rng.randrange(6)
    if way == 0:
        kind = rng.choice(
            (kind ^ 1, 256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 320, 322, 324, 330, 338, 339)
        )
    elif way == 1:
        form = rng.randrange(20)
    elif way == 2:
        count = rng.choice(_EDGES) & 0xFFFFFFFF
    elif way in (3, 4):
        value = rng.choice((*_EDGES, 4, 5, 6, 32946, 34925, 50000, start)) & 0xFFFFFFFF
        if form == 3 and order == ">":
            value = (value & 0xFFFF) << 16
    else:
        end = start + 2 + 12 * number
        return content[:end] + struct.pack(order + "I", rng.choice((start, 8, 0, 2**32 - 1, end))) + content[end + 4 :]
    return content[:at] + struct.pack(order + "HHII", kind, form, count, value) + content[at + 12 :]


def safetensors_header(content: bytes, rng: random.Random) -> bytes:
    """Change a value of the header, and count its bytes anew."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json_value(content[8 : 8 + length], rng)
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def json_value(content: bytes, rng: random.Random) -> bytes:
    """Put another value, of another type mostly, at one place of a JSON file, take a key away or add one; or damage its text."""
    if rng.random() < 0.15:
        return text(content, rng)
    return _dumped(_changed(json.loads(content), rng))


def json_line(content: bytes, rng: random.Random) -> bytes:
    """The same for one line of several."""
    return _in_a_line(json_value, content, rng)


def line_meaning(content: bytes, rng: random.Random) -> bytes:
    """Damage of right syntax for one line of several."""
    return _in_a_line(json_meaning, content, rng)


def _in_a_line(way: Callable[[bytes, random.Random], bytes], content: bytes, rng: random.Random) -> bytes:
    found = content.splitlines()
    place = rng.randrange(len(found))
    found[place] = way(found[place], rng).replace(b"\n", b" ")
    return b"\n".join(found) + b"\n"


def yaml_value(content: bytes, rng: random.Random) -> bytes:
    """The same for YAML, of which JSON is a part."""
    if rng.random() < 0.3:
        return text(content, rng)
    return _dumped(_changed(yaml.safe_load(content), rng))


def text(content: bytes, rng: random.Random) -> bytes:
    """Put something into a text that parsers of texts stumble over."""
    at = rng.randrange(len(content) + 1)
    odd = (
        *(b"9" * 5000, b"x" * 5000, b"\xff\xfe\x80", b"\0", b"{" * 3000, b"[" * 100_000, b'"', b"\n", b"\x1b[2J"),
        *(
            b"NaN",
            b"-",
            b"1e999",
            b"!!python/object/apply:os.system ['true']",
            b"&a [*a]",
            b"!!int ''",
            b"!!timestamp x",
            b"\xef\xbb\xbf",
        ),
        "\u2028".encode(),
    )
    return content[:at] + rng.choice(odd) + content[at + rng.choice((0, 0, 1, 5)) :]


def _dumped(value: Any) -> bytes:
    told = json.dumps(value, indent=1 if isinstance(value, dict) else None)
    return told.replace(f'"{_LONG_NUMBER}"', "7" * 5000).replace(f'"{_DEEP}"', "[" * 2000 + "]" * 2000).encode()


def _changed(value: Any, rng: random.Random) -> Any:
    """A copy of a value with one place of it changed."""
    places: list[tuple[Any, ...]] = []
    _collect(value, (), places)
    place = rng.choice(places)
    if not place:
        return _odd(value, rng)
    parent = value
    for key in place[:-1]:
        parent = parent[key]
    way = rng.random()
    if way < 0.15 and isinstance(parent, dict):
        del parent[place[-1]]
    elif way < 0.25 and isinstance(parent, dict):
        parent[rng.choice(("", "x", "-1", "__class__", "model_type", "version", "x" * 5000))] = _odd(None, rng)
    elif way < 0.25:
        parent.insert(place[-1], _odd(parent[place[-1]], rng))
    else:
        parent[place[-1]] = _odd(parent[place[-1]], rng)
    return value


def _collect(value: Any, place: tuple[Any, ...], places: list[tuple[Any, ...]]) -> None:
    places.append(place)
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in list(inner)[:50]:
        _collect(one, (*place, key), places)


def _odd(value: Any, rng: random.Random) -> Any:
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else 0
    return rng.choice(
        (
            *(
                None,
                True,
                False,
                0,
                -1,
                number + 1,
                -number,
                2**31,
                2**63,
                10**30,
                1e308,
                0.5,
                float("inf"),
                float("nan"),
            ),
            *("", "x", "x" * 5000, "../../outside/precious.txt", "/etc/passwd", "\x1b[2J", "<script>", "\ud800", "\0"),
            *([], {}, [value], [value] * 3, {"a": value}, {"name": "vlen-utf8"}, str(value)[:100], _LONG_NUMBER, _DEEP),
        )
    )
