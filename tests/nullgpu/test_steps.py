"""Proves on a GPU that does nothing that each setting trains on CUDA, that no step waits, and how many launches a step makes.

The real CUDA build of torch, over stub libraries that count (device.c). It says nothing of values or of a GPU's time.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.nullgpu.probe import SETTINGS, STEPS

ROOT = Path(__file__).resolve().parents[2]
MOST_LAUNCHES = json.loads((Path(__file__).parent / "launches.json").read_text(encoding="utf-8"))
"""Launches of a step by setting, as last measured with torch 2.13.0. A change may lower them: then write the lower ones."""

LIMIT_S = 400
"""Of some 30 s on a quiet core."""


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the steps of each setting asked of the device."""
    python = Path(os.environ.get("UNET_DIST_NULLGPU_PYTHON", ROOT / ".cache/nullgpu/bin/python"))
    if not python.exists():
        pytest.skip(
            f"needs an environment with a CUDA build of torch at {python}: bash tests/nullgpu/make_environment.sh"
        )
    if shutil.which("gcc") is None or shutil.which("nm") is None:
        pytest.skip("needs gcc and nm, to build the stubs")
    folder = tmp_path_factory.mktemp("nullgpu")
    built = subprocess.run(
        [python, Path(__file__).parent / "build.py", folder], capture_output=True, text=True, check=False
    )
    if built.returncode:
        pytest.skip(f"the stubs do not build for this torch: {built.stderr.strip().splitlines()[-1:]}")
    library = folder / "libnullgpu.so"
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("CUDA_", "ACCELERATE_", "SLURM_"))}
    preloaded = {
        "LD_PRELOAD": str(library),
        "LD_LIBRARY_PATH": str(folder),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    command = [python, "-W", "ignore", "-m", "tests.nullgpu.probe", library, folder]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env={**kept, **preloaded}, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"this machine is too slow or too busy: not done in {LIMIT_S} s")
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads((folder / "steps.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize("setting", SETTINGS)
def test_setting_trains_and_no_step_waits(steps: dict[str, dict[str, Any]], setting: str) -> None:
    found = steps[setting]
    assert (found["code"], found["steps"]) == (0, STEPS), found["said"]
    assert found["null_waits"] == 0
    assert found["null_large_pageable"] == 0
    assert 0 < found["null_launches"] <= MOST_LAUNCHES[setting]
