"""A mapped file that is cut short while it is read ends the process with a sentence, whoever reads it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_START = """
import os, sys, threading
import numpy as np
from unet_dist.storage.mapped import watched
mapped = watched(np.memmap(sys.argv[1], np.uint8, mode="r"))
assert mapped.sum() == 2**20
"""
_READ = {
    "cut, and read": "os.truncate(sys.argv[1], 4096); mapped.sum()",
    "cut, and read by a thread": "os.truncate(sys.argv[1], 4096); threading.Thread(target=mapped.sum).start()",
    "removed, and read": "os.remove(sys.argv[1]); assert mapped.sum() == 2**20",
    "another bus error": "os.kill(os.getpid(), 7); os.kill(os.getpid(), 7)",
}
_ENDS = {"removed, and read": 0, "another bus error": -7}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the numbers of signals are those of Linux")
@pytest.mark.parametrize("way", _READ)
def test_a_file_cut_short_while_it_is_mapped_is_named(tmp_path: Path, way: str) -> None:
    path = tmp_path / "a\x1b.bin"
    path.write_bytes(b"\1" * 2**20)
    words = [sys.executable, "-c", _START + _READ[way], str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == _ENDS.get(way, 2), done.stderr
    if way.startswith("cut"):
        assert "bin: it was cut short while it was read, from 1,048,576 bytes to 4,096. Copy it again" in done.stderr
        assert "\x1b" not in done.stderr
