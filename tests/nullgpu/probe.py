"""Runs tiny trainings on the null GPU and notes what each step asked of it: `python -m tests.nullgpu.probe LIBRARY FOLDER`.

Runs in the environment of the CUDA torch, with the library preloaded. Writes FOLDER/steps.json: for each setting its exit code,
what it printed last, and the most of each count that a step of its second half had.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import sys
from pathlib import Path
from typing import Any

import torch

from unet_dist.cli import main
from unet_dist.training.trainer import Trainer

STEPS = 4
TINY = {
    "synthetic_images": 20, "synthetic_size": "64x96", "base_channels": 4, "depth": 2, "input_size": 60, "batch_size": 4,
    "total_steps": STEPS, "eval_steps": STEPS, "log_steps": STEPS, "trackers": "[]", "num_workers": 0,
}  # fmt: skip
# Validations come after the last step, so that the steps are alone.
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bf16": {"mixed_precision": "bf16"},
    "fp16": {"mixed_precision": "fp16"},
    "float64": {"dtype": "float64"},
    "norm weight": {"norm": "weight"},
    "norm batch": {"norm": "batch"},
    "norm group": {"norm": "group"},
    "depth 4, norm weight": {"norm": "weight", "depth": 4, "input_size": 252, "synthetic_size": "260x260"},
    "depth 4": {"depth": 4, "input_size": 252, "synthetic_size": "260x260"},
    "dice": {"loss": "cross_entropy+dice"},
    "focal": {"loss": "focal"},
    "tiles": {"input_size": 100, "synthetic_size": "128x128", "tile_size": 60},
    "full": {"input_size": "full", "tile_size": 60},
    "dropout": {"dropout": 0.3},
    "accumulation": {"micro_batch_size": 1},
    "checkpointing": {"checkpoint_activations": True},
    "ema": {"ema_decay": 0.9},
    "clipping": {"max_grad_norm": 1.0},
    "contiguous": {"memory_format": "contiguous"},
    "deterministic": {"deterministic": True},
    "workers": {"num_workers": 1},
    "tf32": {"mixed_precision": "no", "tf32": True},
}
COUNTS = ("null_launches", "null_waits", "null_large_pageable")


def probe(library: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """Train every setting; see the module."""
    counters = {name: ctypes.c_long.in_dll(ctypes.CDLL(str(library)), name) for name in COUNTS}
    steps: list[dict[str, int]] = []
    step = Trainer.step

    def counted(self: Trainer, *arguments: Any) -> Any:
        before = {name: counter.value for name, counter in counters.items()}
        result = step(self, *arguments)
        steps.append({name: counter.value - before[name] for name, counter in counters.items()})
        return result

    Trainer.step = counted  # type: ignore[method-assign]
    return {name: _run(name, keys, folder, steps) for name, keys in SETTINGS.items()}


def _run(name: str, keys: dict[str, Any], folder: Path, steps: list[dict[str, int]]) -> dict[str, Any]:
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    torch.use_deterministic_algorithms(False)
    steps.clear()
    values = {**TINY, "cache_path": folder / "cache", "output_path": folder / name.replace(" ", "-"), **keys}
    said = io.StringIO()
    code: Any = None
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main(["train", *(f"--{key}={value}" for key, value in values.items())])
        except SystemExit as leaving:
            code = leaving.code
    late = steps[STEPS // 2 :]
    return {
        "code": code,
        "steps": len(steps),
        "said": said.getvalue()[-600:],
        **{count: max((one[count] for one in late), default=-1) for count in COUNTS},
    }


if __name__ == "__main__":
    found = probe(Path(sys.argv[1]), Path(sys.argv[2]))
    (Path(sys.argv[2]) / "steps.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
