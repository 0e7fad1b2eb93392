"""Proves that opening a data set needs no torch, which takes longer to import than small data take to read."""

from __future__ import annotations

import subprocess
import sys


def test_it_needs_no_torch() -> None:
    code = "import sys, unet_dist.assembly.data_set; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
