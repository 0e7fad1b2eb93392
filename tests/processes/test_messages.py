"""Proves that what processes tell each other comes back as it was sent or is refused by name, and that nothing is unpickled."""

from __future__ import annotations

import ast
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from unet_dist.benchmark.subject import Counts
from unet_dist.processes.messages import decode, encode

PACKAGE = Path(__file__).resolve().parents[2] / "unet_dist"
WORDS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(value=WORDS)
def test_every_value_comes_back_as_it_was(value: Any) -> None:
    assert repr(decode(encode(value))) == repr(value)


def test_floats_come_back_to_the_bit_and_names_that_are_no_utf8() -> None:
    values = [0.1 + 0.2, -0.0, 5e-324, math.inf]
    assert [struct.pack("d", v) for v in decode(encode(values))] == [struct.pack("d", v) for v in values]
    assert math.isnan(decode(encode(math.nan)))
    assert decode(encode("caf\udce9.png")) == "caf\udce9.png"


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({"a": [1, (2, 3)]}, "message['a'][1]: got tuple, expected what JSON holds"),
        ({1, 2}, "message: got set, "),
        (Counts(), "message: got Counts, "),
        ([np.float64(1.0)], "message[0]: got float64, "),
        ({3: "x"}, "message: got a key of type int, expected str"),
        (Path("x"), "message: got PosixPath, "),
    ],
)
def test_what_json_would_change_is_refused(value: Any, sentence: str) -> None:
    with pytest.raises(TypeError) as refusal:
        encode(value)
    assert str(refusal.value).startswith(sentence)


def test_no_collective_of_objects_is_left() -> None:
    """torch's collectives of objects unpickle what the other side sent."""
    unpickling = {name for name in dir(dist) if "object" in name and not name.startswith("_")}
    assert {"broadcast_object_list", "all_gather_object"} <= unpickling
    used = {
        (path.relative_to(PACKAGE).as_posix(), node.attr)
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in unpickling
    }
    assert used == set()
