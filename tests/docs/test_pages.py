"""Proves that the pages hold: every link leads somewhere, every command exists, and the README's five commands work."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from tests.data.pictures import write_folder
from tests.docs.commands import SMALL, commands_of, run_small
from tests.docs.prose import PAGES, ROOT
from unet_dist.assembly.sizes import resolve_input_size
from unet_dist.errors import SizeError
from unet_dist.models.unet import UNet
from unet_dist.terminal import Teller

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"")


def links(text: str) -> list[str]:
    """The targets of a page's links and pictures."""
    return ["".join(groups) for groups in LINK.findall(text)]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in links(page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        if path.startswith(("http://", "https://", "mailto:")):
            continue
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page: Path) -> None:
    named = re.findall(r"(?:^|`)(?:    )?unet-dist ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert not set(named) - {path.stem for path in (ROOT / "unet_dist/commands").glob("[a-z]*.py")}
    files = re.findall(
        r"\b(?:launch|configs|tests)/[\w./-]+\.(?:sh|sbatch|py|yaml)\b", page.read_text(encoding="utf-8")
    )
    assert [name for name in files if not (ROOT / name).exists()] == []


@pytest.mark.usefixtures("own_process")
def test_five_commands_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = commands_of(text.partition("## Your own pictures in five commands")[2].partition("```\n")[0] + "```\n")
    assert [words[0] for words in commands] == ["prepare", "train", "evaluate", "predict", "report"]
    data = write_folder(tmp_path / "DIR", height=48, width=64)
    (tmp_path / "folder").mkdir()
    first = sorted((data / "images").rglob("*.png"))[0]
    for name in ("photo.jpg", "folder/another.png"):
        (tmp_path / name).write_bytes(first.read_bytes())  # a file is what its header says
    monkeypatch.chdir(tmp_path)
    for words in commands:
        run_small(words, tmp_path / "cache")
    assert (tmp_path / "out/photo.png").is_file()
    assert (tmp_path / "runs/mine/report.html").is_file()


@pytest.mark.usefixtures("own_process")
@pytest.mark.slow
def test_tutorial_of_own_pictures_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = commands_of((ROOT / "docs/tutorials/own_pictures.md").read_text(encoding="utf-8"))
    assert [words[0] for words in commands] == ["prepare", "train", "evaluate", "predict", "report"]
    write_folder(tmp_path / "DIR", height=48, width=64)
    monkeypatch.chdir(tmp_path)
    for words in commands:
        run_small(words, tmp_path / "cache")
    assert list((tmp_path / "out").glob("*_overlay.png"))
    assert (tmp_path / "runs/first/report.html").is_file()


@pytest.mark.usefixtures("own_process")
def test_tutorial_of_a_gigapixel_image_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = commands_of((ROOT / "docs/tutorials/gigapixel.md").read_text(encoding="utf-8"))
    assert [words[0] for words in commands] == ["plan", "predict"]
    torch.manual_seed(0)
    UNet(num_classes=3, base_channels=2, depth=1).save_pretrained(tmp_path / "runs/mine")
    tifffile.imwrite(
        tmp_path / "big.tif", np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8), tile=(64, 64)
    )
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    for words in commands:
        run_small(words, tmp_path / "cache")
    assert list((tmp_path / "out").glob("big*"))


def test_smallest_input_sizes_of_the_page_are_those_of_the_network() -> None:
    rows = re.findall(
        r"^\| (depth|smallest input size|its output) \|(.*)\|$", (ROOT / "docs/howto/sizes.md").read_text("utf-8"), re.M
    )
    depths, sides, outputs = ([int(cell) for cell in cells.split("|")] for _, cells in rows)
    for depth, side, output in zip(depths, sides, outputs, strict=True):
        network = UNet(num_classes=2, base_channels=1, depth=depth)
        assert resolve_input_size(side, network, Teller(speaks=False)) == side
        assert side - 2 * network.locality.halo == output
        for smaller in range(2, side, 2):
            with suppress(SizeError):
                taken = resolve_input_size(smaller, network, Teller(speaks=False))
                assert taken is not None
                assert taken >= side, "an even side that does not fit is rounded up"


def test_costs_of_the_options_of_the_unet_are_those_of_the_network() -> None:
    page = (ROOT / "docs/howto/unet_options.md").read_text("utf-8")
    rows = re.findall(r"^\| (?:`--(\w+) (\S+)`|none) \|[^|]*\| ([\d.]+) \| (\d+) px \|$", page, re.MULTILINE)
    assert len(rows) == 7
    plain, _ = _operations({})
    for key, value, arithmetic, halo in rows:
        options = {key: yaml.safe_load(value)} if key in ("blocks", "bottleneck_dilations") else {}
        operations, found = _operations(options)
        assert found == int(halo)
        assert operations / plain == pytest.approx(float(arithmetic), abs=0.04)


def _operations(options: dict[str, Any]) -> tuple[float, int]:
    """Operations per pixel of output at an input of 732 px, and the halo; computes nothing."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = UNet(num_classes=35, **options)
        output = network(torch.zeros(1, 3, 732, 732))
    return counter.get_total_flops() / output.shape[-1] ** 2, network.locality.halo


@pytest.mark.usefixtures("own_process")
@pytest.mark.slow
def test_commands_of_the_options_of_the_unet_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = commands_of((ROOT / "docs/howto/unet_options.md").read_text(encoding="utf-8"))
    assert [words[0] for words in commands] == ["train", "train", "evaluate", "evaluate", "report", *["train"] * 5]
    write_folder(tmp_path / "DIR", height=48, width=64)
    monkeypatch.chdir(tmp_path)
    for words in commands:
        run_small(words, tmp_path / "cache", {**SMALL, "depth": "3", "input_size": "148"})
    assert len(list(tmp_path.glob("runs/*/best/config.json"))) == 7


QUESTIONS = (
    "label_colours class_imbalance several_nodes fine_tuning sizes folds out_of_memory resuming export "
    "custom_network custom_loss custom_data custom_metric custom_format folders"
)


def test_every_question_is_two_clicks_from_the_readme() -> None:
    first = targets(ROOT / "README.md")
    second = first | {page for target in first if target.suffix == ".md" for page in targets(target)}
    pages = set((ROOT / "docs/howto").glob("*.md"))
    assert len(QUESTIONS.split()) == 15
    assert {ROOT / f"docs/howto/{name}.md" for name in QUESTIONS.split()} <= first & pages
    assert pages - second == set()


def targets(page: Path) -> set[Path]:
    """The files that a page links to, also those of its table of contents."""
    text = page.read_text(encoding="utf-8")
    listed = [f"{name}.md" for block in re.findall(r"```{toctree}(.*?)```", text, re.DOTALL) for name in block.split()]
    paths = [target.partition("#")[0] for target in links(text) if "://" not in target]
    return {(page.parent / path).resolve() for path in [*paths, *listed] if path and (page.parent / path).is_file()}


@pytest.mark.parametrize("name", ["network", "encoder", "loss", "data", "metric", "format"])
def test_code_of_a_page_is_that_of_the_tested_package(name: str) -> None:
    package = "\n".join(
        path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests/extending/package").rglob("*.py"))
    )
    page = (ROOT / f"docs/howto/custom_{name}.md").read_text(encoding="utf-8")
    blocks = [
        block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if block.startswith(("class", "def"))
    ]
    assert blocks
    assert all(block in package for block in blocks)
