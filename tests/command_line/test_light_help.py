"""Proves that a help loads no more than it shows: what it must not import, down to the smaller libraries of Python."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Tables of names, random numbers, digests and compilers of patterns: a tenth of a help each, or less, and together a quarter.
OF_PYTHON = {"difflib", "hashlib", "html", "random", "secrets", "tempfile", "yaml"}
OF_OTHER_COMMANDS = {"unet_dist.config.choosing", "unet_dist.config.options"}
OF_WORK = {"unet_dist.command_line.parsing", "unet_dist.storage.files", "unet_dist.storage.typed"}


@pytest.mark.parametrize(
    ("words", "kept_out"),
    [
        (["--help"], {"json", "unet_dist.config"}),
        (["train", "--help"], OF_OTHER_COMMANDS),
        (["prepare", "--help"], OF_OTHER_COMMANDS),
    ],
)
def test_a_help_imports_only_what_it_shows(words: list[str], kept_out: set[str]) -> None:
    code = (
        "import sys; before = set(sys.modules)\n"
        f"from unet_dist.cli import run; run({words!r})\n"
        "print(*sorted(set(sys.modules) - before), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = set(done.stderr.split())
    assert "unet_dist.command_line.command" in loaded
    assert loaded & (OF_PYTHON | OF_WORK | kept_out) == set()
