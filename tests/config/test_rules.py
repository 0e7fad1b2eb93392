"""Proves the marks at a field: a value is spelt out, then judged, and what was expected stands in the refusal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from unet_dist.config.options import EvaluateOptions, PredictOptions
from unet_dist.config.rules import Also, AtLeast, Count, Free, Main, Must, OptionsSection, PathWord, in_words, marks
from unet_dist.config.sections import Config
from unet_dist.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Tea(OptionsSection):
    """Tea"""

    cups: Main[Count] = 1
    kind: Annotated[Literal["green", "black"], Also("noir", "black")] = "green"
    steep: Annotated[float, Must(lambda s: s < 9, "below 9")] | Literal["long"] | None = None
    shelf: Free[PathWord | None] = None
    names: list[str] | None = None


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"cups": 0}, "cups: got 0, expected 1 or more. Change --cups."),
        ({"cups": float("nan")}, "cups: got nan, expected a whole number. Change --cups."),
        ({"cups": True}, "cups: got True, expected a whole number. Change --cups."),
        ({"cups": 2**31}, "cups: got 2147483648, expected 2147483647 at most. Change --cups."),
        ({"cups": None}, "cups: got None, expected a whole number. Change --cups."),
        ({"kind": "red"}, "kind: got red, expected one of green, black. Change --kind."),
        ({"steep": 9.5}, "steep: got 9.5, expected below 9. Change --steep."),
        ({"steep": "short"}, "steep: got short, expected a number or long. Change --steep."),
        ({"shelf": ""}, "shelf: got , expected a word without null characters. Change --shelf."),
        ({"names": "a"}, "names: got a, expected a list such as [a, b]. Change --names."),
    ],
)
def test_refusal(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        Tea(**values)
    assert str(refusal.value) == sentence


def test_values_that_hold() -> None:
    assert (Tea(steep="long").steep, Tea(steep=3).steep, Tea(kind="noir").kind) == ("long", 3, "black")


def test_marks_are_found_wherever_they_stand() -> None:
    assert AtLeast(1) in marks(Main[Count | None])
    assert in_words(Free[Count | None]) == "a whole number or null"


def test_paths_are_spelt_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    assert Tea(shelf="~/tea").shelf == "/home/me/tea"
    config = Config.from_flat({"output_path": "$SCRATCH/run", "data_path": Path("/data"), "cache_path": "${SCRATCH}/c"})
    assert (config.run.output_path, config.data.data_path, config.data.cache_path) == (
        "/scratch/me/run",
        "/data",
        "/scratch/me/c",
    )
    assert Config.from_flat({"data_path": "a~b/c", "output_path": "$NOT_SET_HERE"}).data.data_path == "a~b/c"


def test_other_spellings() -> None:
    assert Config.from_flat({"mixed_precision": False}).run.mixed_precision == "no"
    assert EvaluateOptions(split="val").split == "validation"
    assert PredictOptions(tile_size="auto", memory="6GiB").memory_bytes() == 6 * 2**30
