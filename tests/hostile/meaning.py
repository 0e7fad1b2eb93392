"""Damage of right syntax and wrong meaning: keys twice, values exchanged, numbers that are none, entities that grow,
archives and headers that count wrong. Each takes a generator of random numbers, as those in mutators do.
"""

from __future__ import annotations

import io
import json
import pickle
import random
import sqlite3
import struct
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

_NUMBERS = (
    "NaN",
    "-Infinity",
    "1e999",
    "-0.0",
    "1e308",
    "-1",
    "0",
    "1e-320",
    "9" * 400,
    "1" * 5000,
    "007",
    "0x10",
    "٣",
)
_WORDS = (
    "",
    " ",
    "null",
    "true",
    "\0",
    "x" * 5000,
    "../../outside/precious.txt",
    "/etc/passwd",
    "\x1b[2J",
    "\u202ea",
    "a\nb",
)


def json_meaning(content: bytes, rng: random.Random) -> bytes:
    """Write a key twice, exchange two values, multiply a list, turn its order, or write numbers as texts and texts as numbers."""
    stored = json.loads(content)
    places = list(_places(stored))
    way = rng.randrange(6)
    holders = [one for one in places if isinstance(one, dict | list) and one]
    if way == 0:
        mark = "@twice@"
        holder = rng.choice([one for one in holders if isinstance(one, dict)])
        key = rng.choice(list(holder))
        holder[mark] = rng.choice((holder[key], None, 0, "x", [holder[key]]))
        return json.dumps(stored).replace(f'"{mark}"', json.dumps(key)).encode()
    if way == 1:
        first, second = rng.choice(holders), rng.choice(holders)
        one, other = _key(first, rng), _key(second, rng)
        first[one], second[other] = second[other], first[one]
    elif way == 2:
        lists = [one for one in holders if isinstance(one, list)]
        chosen = rng.choice(lists)
        chosen *= rng.choice((2, 3, 100, 1 + 100_000 // len(json.dumps(chosen))))
    elif way == 3:
        rng.shuffle(rng.choice([one for one in holders if isinstance(one, list)]))
    else:
        holder = rng.choice(holders)
        key = _key(holder, rng)
        if way == 4:
            holder[key] = rng.choice((*_NUMBERS, *_WORDS, str(holder[key])))
        else:
            holder[key] = "@number@"
            return json.dumps(stored).replace('"@number@"', rng.choice(_NUMBERS[:10])).encode()
    return json.dumps(stored).encode()


def _places(value: Any) -> Any:
    yield value
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _places(one)


def _key(holder: Any, rng: random.Random) -> Any:
    return rng.choice(list(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))


def xml_value(content: bytes, rng: random.Random) -> bytes:
    """Change, copy or drop an element or an attribute; or add entities that grow, or that lead outside."""
    way = rng.randrange(8)
    if way == 0:
        grown = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))
        return f'<!DOCTYPE x [<!ENTITY a0 "aaaaaaaaaa">{grown}]>'.encode() + content.replace(b"car", b"&a9;", 1)
    if way == 1:
        return b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + content.replace(b"car", b"&a;", 1)
    if way == 2:
        at = content.index(b"<image")
        return content[:at] + b"<a>" * 50_000 + b"</a>" * 50_000 + content[at:]
    tree = ElementTree.fromstring(content)
    chosen = rng.choice(list(tree.iter()))
    if way == 3:
        chosen.extend(list(chosen) * rng.choice((1, 50)))
    elif way == 4 and len(chosen):
        chosen.remove(chosen[rng.randrange(len(chosen))])
    elif way == 5:
        chosen.tag = rng.choice(("image", "polygon", "mask", "ellipse", "box", "label", "x"))
    elif chosen.attrib:
        key = rng.choice(sorted(chosen.attrib))
        words = [word for word in (*_NUMBERS, *_WORDS) if "\0" not in word and "\x1b" not in word]
        chosen.set(key, rng.choice((*words, chosen.attrib[key] * 2, "1,2", "1,2;3", ";".join(["1,2"] * 50_000))))
    else:
        chosen.text = rng.choice(("", "x" * 5000, "car"))
    return ElementTree.tostring(tree)


def lines(content: bytes, rng: random.Random) -> bytes:
    """Put a line into a list, or in place of one: null characters, long, many parts, names of elsewhere, numbers that are none."""
    found = content.split(b"\n")
    at = rng.randrange(len(found))
    odd = (
        *(
            b"\0",
            b"a\0.png",
            b"a/" * 100_000,
            b"../" * 2000 + b"a",
            b"/etc/passwd",
            b"x" * 200_000,
            b"\xff\xfea\0",
            b"#",
            b"\r",
        ),
        *(word.encode() for word in _NUMBERS),
        *(b" ".join([b"0", word.encode(), *([b"0.5"] * 5)]) for word in _NUMBERS),
        *(b"0 " + b"0.5 " * 200_000, b'"', b'"\n' * 3, b",,,,", b"\xe2\x80\xa8", found[at] + b" " + found[at]),
    )
    if rng.random() < 0.5:
        found[at] = rng.choice(odd)
    else:
        found.insert(at, rng.choice(odd))
    return b"\n".join(found)


def sqlite_value(content: bytes, rng: random.Random) -> bytes:
    """Change a cell, the bytes of a shape, or the tables themselves: views of many rows, other types, other columns."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "a.gpkg")
        path.write_bytes(content)
        with sqlite3.connect(path) as base:
            base.execute("PRAGMA writable_schema = 1")
            tables = [
                name for (name,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
            ]
            table = rng.choice(tables)
            columns = [row[1] for row in base.execute(f"PRAGMA table_info({table})")]
            way = rng.randrange(7)
            if way in (0, 1):
                row = rng.choice(base.execute("SELECT rowid, geom FROM plots ORDER BY rowid").fetchall())
                base.execute("UPDATE plots SET geom = ? WHERE rowid = ?", (_shape(bytes(row[1]), rng), row[0]))
            elif way == 2:
                value = rng.choice(
                    (None, 0, -1, 2**62, 1e308, float("inf"), "x", "x" * 5000, "\x1b[2J", b"", b"GP", "EPSG", "plots")
                )
                base.execute(f'UPDATE {table} SET "{rng.choice(columns)}" = ?', (value,))
            elif way == 3:
                base.execute("ALTER TABLE plots RENAME TO inside")
                base.execute(f"CREATE VIEW plots AS {rng.choice(_VIEWS)}")
            elif way == 4:
                base.execute(f'ALTER TABLE {table} DROP COLUMN "{rng.choice(columns[1:])}"')
            elif way == 5:
                base.execute(f"INSERT INTO {table} SELECT * FROM {table} WHERE rowid < 0")
                base.execute(f"DELETE FROM {table}")
            else:
                text = rng.choice(
                    ("CREATE TABLE plots (a)", "x", "", "CREATE TABLE plots (geom, class, area, a AS (a))")
                )
                base.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'plots'", (text,))
        base.close()
        return path.read_bytes()


_VIEWS = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) SELECT i AS fid, geom, class FROM n, inside",
    "SELECT fid, zeroblob(50000000) AS geom, class FROM inside",
    "SELECT fid, 'x' AS geom, class FROM inside",
    "SELECT * FROM plots",
    "SELECT 1",
)


def _shape(blob: bytes, rng: random.Random) -> bytes:
    """Damage the bytes of a shape of a GeoPackage; or nest collections, or count without end."""
    head = blob[:40]
    way = rng.randrange(5)
    if way == 0:
        return head + struct.pack("<BII", 1, 7, 1) * rng.choice((10, 900, 100_000)) + blob[40:]
    if way == 1:
        return head + struct.pack("<BIII", 1, rng.choice((3, 6, 1003, 3003, 1 << 31 | 3)), 2**32 - 1, 2**32 - 1)
    if way == 2:
        at = 40 + 8 * rng.randrange(max(1, (len(blob) - 48) // 8)) + rng.choice((1, 5))
        return (
            blob[:at] + struct.pack("<d", rng.choice((float("nan"), float("inf"), 1e308, -1e300, 0.0))) + blob[at + 8 :]
        )
    if way == 3:
        return blob[: rng.randrange(len(blob))]
    at = rng.randrange(len(blob))
    return blob[:at] + rng.randbytes(4) + blob[at + 4 :]


def archive(content: bytes, rng: random.Random) -> bytes:
    """Write an archive of numpy anew: a pickle in it, another header, names that lead outside, twice, or much of nothing."""
    with zipfile.ZipFile(io.BytesIO(content)) as old:
        name = old.namelist()[0]
        body = old.read(name)
    way = rng.randrange(7)
    if way == 0:
        made = io.BytesIO()
        np.save(made, np.array([{"a": 1}], dtype=object), allow_pickle=True)
        body = made.getvalue()
    elif way == 1:
        body = pickle.dumps(print)
    elif way == 2:
        texts = (
            "'descr': '|O'",
            "'descr': '<f8'",
            "'shape': (2147483647, 2147483647)",
            "'shape': (0, 5)",
            "'shape': (-1, 5)",
        )
        texts += (
            "'shape': (True, 5)",
            "'fortran_order': 3",
            "'descr': [('a', '<u1')]",
            "'shape': (2, 2, 2, 2)",
            "'x': 1",
        )
        header = (
            "{"
            + ", ".join(["'descr': '|u1'", "'fortran_order': False", "'shape': (20, 30)", rng.choice(texts)])
            + "}\n"
        )
        body = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + body[128:]
    elif way == 3:
        name = rng.choice(("../../outside/precious.txt", "/etc/passwd", "x" * 5000, "", "\x1b[2J.npy"))
    elif way == 4:
        header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (20000, 20000)}\n"
        body = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(2**25)
    made = io.BytesIO()
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))
    with warnings.catch_warnings(), zipfile.ZipFile(made, "w", method) as new:
        warnings.simplefilter("ignore")  # of a name that is there twice
        for _ in range(2 if way == 5 else 1):
            new.writestr(name, body)
    written = made.getvalue()
    if way == 6:
        at = rng.randrange(len(written))
        written = written[:at] + rng.randbytes(4) + written[at + 4 :]
    return written


def tensors(content: bytes, rng: random.Random) -> bytes:
    """Let a header of safetensors count wrong: offsets that overlap or lie beyond, other types, shapes, a name twice."""
    (length,) = struct.unpack("<Q", content[:8])
    header, body = json.loads(content[8 : 8 + length]), content[8 + length :]
    names = [name for name in header if name != "__metadata__"]
    first, second = rng.choice(names), rng.choice(names)
    way = rng.randrange(7)
    if way == 0:
        header[first]["data_offsets"] = header[second]["data_offsets"]
    elif way == 1:
        header[first]["dtype"] = rng.choice(("F64", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "C64", "X"))
    elif way == 2:
        header[first]["shape"] = rng.choice(
            ([], [0], [-1], [2**62, 4], header[first]["shape"][::-1], [*header[first]["shape"], 1])
        )
    elif way == 3:
        header[first], header[second] = header[second], header[first]
    elif way == 4:
        header["__metadata__"] = rng.choice(({}, {"format": "tf"}, {"a": 1}, [], None, {"x" * 5000: "\0"}))
    elif way == 5:
        start, stop = header[first]["data_offsets"]
        values = np.frombuffer(body[start:stop], np.uint8).copy()
        values[:] = rng.choice((0, 255, 127))
        body = body[:start] + values.tobytes() + body[stop:]
    told = json.dumps(header)
    if way == 6:
        told = told[:-1] + ", " + json.dumps(first) + ": " + json.dumps(header[second]) + "}"
    return struct.pack("<Q", len(told)) + told.encode() + body
