"""Proves that the pages hold: every link leads somewhere, every command exists, and the README's five commands work."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.pictures import write_folder
from tests.distributed.processes import quiet_environment

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
WRITTEN_BY_THE_BUILD = {ROOT / "docs/reference/command_line.md"}
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        if path.startswith(("http://", "https://", "mailto:")):
            continue
        file = (page.parent / path).resolve() if path else page
        if file in WRITTEN_BY_THE_BUILD:
            continue
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page: Path) -> None:
    named = re.findall(r"(?:^|`)(?:    )?unet-dist ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert not set(named) - {path.stem for path in (ROOT / "unet_dist/commands").glob("[a-z]*.py")}


def test_five_commands_of_the_readme_run(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = text.partition("## Your own pictures in five commands")[2].partition("```bash")[2].partition("```")[0]
    commands = [line.partition("#")[0].strip() for line in block.splitlines() if line.startswith("unet-dist ")]
    assert [shlex.split(command)[1] for command in commands] == ["prepare", "train", "evaluate", "predict", "report"]
    data = write_folder(tmp_path / "DIR", height=48, width=64)
    (tmp_path / "folder").mkdir()
    first = sorted((data / "images").rglob("*.png"))[0]
    for name in ("photo.jpg", "folder/another.png"):
        (tmp_path / name).write_bytes(first.read_bytes())  # what a file is, its header says
    small = "--base_channels 2 --depth 1 --input_size 44 --batch_size 2 --total_steps 2 --eval_steps 2 --num_workers 0"
    cache = f"--cache_path {tmp_path / 'cache'}"
    more = {"prepare": cache, "train": f"{small} {cache}"}
    for command in commands:
        _, name, *words = shlex.split(command)
        done = subprocess.run(
            [sys.executable, "-m", "unet_dist", name, *words, *shlex.split(more.get(name, ""))],
            cwd=tmp_path,
            env=quiet_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out/photo.png").is_file()
    assert (tmp_path / "runs/mine/report.html").is_file()
