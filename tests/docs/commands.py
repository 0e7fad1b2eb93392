"""The commands of a page, run in the test's own process on small data."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from unet_dist.cli import run

SMALL = {
    "base_channels": "2",
    "depth": "1",
    "input_size": "44",
    "batch_size": "2",
    "total_steps": "2",
    "eval_steps": "2",
    "num_workers": "0",
    "trackers": "[]",
}
"""A training of a second. What a page says of these keys is replaced; a page that says nothing gets them."""


def commands_of(text: str) -> list[list[str]]:
    """The words of every line of a page's blocks of code that starts with unet-dist."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("unet-dist ")]


def run_small(words: list[str], cache: Path, more: Mapping[str, str] = SMALL) -> None:
    """Run a command, a training with small settings."""
    name, *rest = words
    if name == "train":
        if "--time" in rest:  # small settings leave nothing to choose
            del rest[rest.index("--time") : rest.index("--time") + 2]
        for key, value in more.items():
            where = rest.index(f"--{key}") if f"--{key}" in rest else len(rest)
            rest[where : where + 2] = [f"--{key}", value]
    run([name, *rest, *(["--cache_path", str(cache)] if name in ("prepare", "train") else [])])
