"""Names of classes, files and folders by somebody else reach a terminal, a page and a card as what they are, in every command:
nothing that a terminal obeys, no markup, no HTML, no line of their own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.data.pictures import png, random_pair
from unet_dist.cli import main
from unet_dist.commands import configure

pytestmark = pytest.mark.usefixtures("own_process")

ESCAPE = "\x1b[31m\x9b2J\x07"
FORGED = "2026-11-30 00:00:00  forged"
HOSTILE = f"a{ESCAPE}[red]b<script>alert(1)<%2Fscript>\n{FORGED}"
CLASSES = [HOSTILE, f"<img src=x onerror=alert(1)>{ESCAPE}", "[bold]c[/bold]\r\n" + FORGED]
STEPS = [
    "--total_steps",
    2,
    "--eval_steps",
    2,
    "--batch_size",
    2,
    "--base_channels",
    2,
    "--depth",
    1,
    "--input_size",
    60,
]


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set whose folder, files and classes bear such names, in the folder of one, too."""
    root = tmp_path_factory.mktemp("words") / HOSTILE
    for index in range(5):
        image, label = random_pair(index, 64, 64)
        for kind, pixels in (("images", image), ("masks", label)):
            path = root / "data" / kind / f"{HOSTILE} {index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(pixels))
    (root / "data" / "id2label.json").write_text(json.dumps(dict(enumerate(CLASSES))))
    return root


def said(capfd: pytest.CaptureFixture[str], *words: object, code: int = 0) -> str:
    """What a command printed."""
    with pytest.raises(SystemExit) as leaving:
        main([str(word) for word in words])
    out = "".join(capfd.readouterr())
    assert leaving.value.code == code, out
    return out


def require_plain(text: str) -> None:
    """Nothing that a terminal obeys, and no line that a name began; the cells of a table may be cut into lines."""
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]", text), text
    assert not re.search(rf"(?m)^{re.escape(FORGED)}(?!  |.*[│┃])", text), text


@pytest.mark.slow
def test_every_command_shows_names_as_they_are(
    material: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run from its data to its card, and what each command printed on the way."""
    monkeypatch.setattr(configure, "_PROBE_S", 0.1)
    monkeypatch.setattr(configure, "find_weights", lambda name: None)
    data, cache, run = material / "data", ["--cache_path", tmp_path / "cache"], material / "run"
    printed: dict[str, str] = {}

    def call(*words: Any, code: int = 0) -> None:
        printed[str(words[0])] = said(capfd, *words, code=code)
        require_plain(printed[str(words[0])])

    call("prepare", "--data_path", data, *cache)
    call("plan", "--data_path", data, *cache, *STEPS)
    call("train", "--data_path", data, *cache, *STEPS, "--output_path", run, "--trackers", "[]", "--log_steps", 1)
    assert "a\\x1b[31m" in printed["train"], "names are shown, as what they are"
    call("evaluate", run, "--split", "test")
    call("predict", run, data / "images", "--output", material / "labels")
    shutil.copytree(run, material / HOSTILE)
    call("report", run, material / HOSTILE, "--output", material / "both.html")
    call("report", run)
    call("export", run, "--format", "huggingface", "--output", material / "export")
    monkeypatch.chdir(material)
    call("doctor")
    call("configure", data, "--time", "20s", *cache, "--output_path", tmp_path / "other")
    for page in (run / "report.html", material / "both.html"):
        text = page.read_text(encoding="utf-8")
        assert "<script>alert" not in text, page
        assert "<img src=x" not in text, page
        assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", text), page
    card = (material / "export" / "README.md").read_text(encoding="utf-8")
    assert "<script>" not in card
    assert "<img" not in card
    require_plain(card)


def test_refusals_show_names_as_they_are(material: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Damaged files with hostile names, in a data set and among images."""
    data = tmp_path / "data"
    shutil.copytree(material / "data", data)
    broken = sorted((data / "images").iterdir())[0]
    broken.write_bytes(b"\x89PNG\r\n\x1a\n\x1b[2J")
    text = said(capfd, "prepare", "--data_path", data, "--cache_path", tmp_path / "cache", code=2)
    assert "1 of 5 pairs cannot be used" in text
    require_plain(text)
    nowhere = tmp_path / HOSTILE
    for words in (
        ["train", HOSTILE],
        ["train", "--data_path", nowhere],
        ["train", f"--{HOSTILE}", 3],
        ["evaluate", nowhere],
        ["report", nowhere],
        ["predict", nowhere, data],
        [HOSTILE],
    ):
        require_plain(said(capfd, *words, code=2))


def test_names_that_are_no_utf8_are_read_and_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for index in range(5):
        image, label = random_pair(index, 64, 64)
        for kind, pixels in (("images", image), ("masks", label)):
            path = tmp_path / "data" / kind / os.fsdecode(b"a\xff%d.png" % index)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(pixels))
    said(capfd, "prepare", "--data_path", tmp_path / "data", "--cache_path", tmp_path / "cache")
    (tmp_path / "data" / "images" / os.fsdecode(b"a\xff0.png")).write_bytes(b"none")
    text = said(capfd, "prepare", "--data_path", tmp_path / "data", "--cache_path", tmp_path / "cache", code=2)
    assert "a\\udcff0.png is not an image that can be read" in text
