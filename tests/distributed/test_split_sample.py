"""Proves that the tiles of one sample, spread over real processes and read one micro-batch after the other, give the gradient
of the undivided sample (C2), with processes that have more tiles, fewer and none.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.ports import free_ports
from tests.tiling.scenes import CLASS_WEIGHTS, Scenes, build_model, build_shares, gradient_of, relative_differences
from unet_dist.config.batch_cut import BatchCut
from unet_dist.config.sections import Config
from unet_dist.data.batches.ahead import read_ahead
from unet_dist.losses.dice import Dice
from unet_dist.losses.mixture import Mixture
from unet_dist.losses.pixelwise import CrossEntropy
from unet_dist.processes.group import open_processes
from unet_dist.processes.stopping import NO_WISH
from unet_dist.terminal import Teller
from unet_dist.training.optimizer import build_optimizer
from unet_dist.training.parts import Parts, Progress
from unet_dist.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]

WORLD_SIZES = (1, 2, 3)
# Of crops: 2 x 9 tiles. Of whole images: one of 2 tiles, so that of 3 processes one has none.
CASES: dict[str, dict[str, Any]] = {
    "crops": {"shapes": [(70, 95), (31, 120), (64, 64)], "input_size": 92, "batch_size": 2, "micro_batch_size": 4},
    "crops, a loss of two passes": {
        "shapes": [(70, 95), (31, 120), (64, 64)], "input_size": 92, "batch_size": 2, "micro_batch_size": 4,
        "loss": Mixture([(1.0, CrossEntropy(CLASS_WEIGHTS)), (0.5, Dice())]),
    },
    "two passes at once": {
        "shapes": [(20, 38)], "input_size": None, "batch_size": 1, "micro_batch_size": 2, "loss": Dice(),
    },
    "crops, compiled": {
        "shapes": [(70, 95), (31, 120), (64, 64)], "input_size": 92, "batch_size": 2, "micro_batch_size": 4,
        "backend": "aot_eager", "world_sizes": [2],  # captures both passes as any backend would, which takes seconds
    },
    "fewer tiles than processes": {"shapes": [(20, 38)], "input_size": None, "batch_size": 1},
}  # fmt: skip


TILES = {"tile_size": 60, "splits_samples": True, "kept_px": 0}
_NO_CUT = ("shapes", "loss", "backend", "world_sizes", "samples", "cut", "dropout")


def shares_of(case: dict[str, Any], model: Any, **options: Any) -> Any:
    given = {key: value for key, value in case.items() if key not in _NO_CUT}
    return build_shares(model, case.get("samples") or Scenes(case["shapes"]), **{**given, **options})


def step_of_the_trainer(case: dict[str, Any], processes: Any, folder: Path) -> dict[str, torch.Tensor]:
    """Make one step of the real loop; returns the gradient that the optimizer was given, and the loss of the global batch.

    Args:
        case: cut (of the shares, TILES where it is not given), loss, samples or their shapes, and keys of build_shares.
    """
    config = Config.from_flat({"seed": 7, "dtype": "float64", "total_steps": 4, "batch_size": case["batch_size"]})
    model = build_model(dropout=case.get("dropout", 0.3))
    wrapped = processes.prepare(model, case.get("backend"))
    optimizer = build_optimizer(model, config.schedule)
    place = {"rank": processes.rank, "world_size": processes.world_size}
    how = case.get("cut", TILES)
    shares = shares_of(case, model, **how, **place)
    micro_batch_size = case.get("micro_batch_size", 1)
    accumulated = 1 if how.get("splits_samples") else case["batch_size"] // processes.world_size // micro_batch_size
    parts = Parts(
        config=config,
        cut=BatchCut(
            processes.world_size, accumulated, micro_batch_size, splits_samples=how.get("splits_samples", False)
        ),
        processes=processes,
        model=model,
        wrapped=wrapped,
        trim=0,
        optimizer=optimizer,
        loss=case.get("loss", CrossEntropy(CLASS_WEIGHTS)),
        shares=shares,
        evaluate=lambda *_: None,
        folder=folder,
        data={},
        teller=Teller(speaks=False),
        class_names=[],
        ignore_index=None,
    )
    trainer = Trainer(parts, Progress())
    gradients = {}

    def note(*_: Any) -> None:
        gradients.update({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})

    optimizer.register_step_pre_hook(note)
    if processes.world_size > 1:
        trainer.settle_buckets()
    passes = 2 if parts.loss.has_statistics else 1
    read = read_ahead(shares, range(1, 2), num_workers=0, pin_memory=False, passes=passes)
    share = next(read)
    divisor, outcome = trainer._agree(share, SimpleNamespace(now=lambda: NO_WISH))  # type: ignore[arg-type]
    assert outcome == NO_WISH
    loss = processes.sum_(trainer.step(share, divisor).double().clone())
    windows = 0 if "no sample" in share.ids else len(share.ids)
    return {**gradients, "windows": torch.tensor(processes.gather(windows)), "loss": loss}


def work(folder: Path) -> None:
    """What each process does."""
    torch.set_num_threads(1)
    with open_processes(mixed_precision="no") as processes:
        for name, case in CASES.items():
            if processes.world_size not in case.get("world_sizes", WORLD_SIZES):
                continue
            gradients = step_of_the_trainer(case, processes, folder)
            torch.save(gradients, folder / f"{name}-{processes.world_size}-{processes.rank}.pt")


def launch(folder: Path, world_size: int, module: str = __name__) -> list[subprocess.Popen[str]]:
    """Start the processes of a run on a module, this one where none is named."""
    (port,) = free_ports(1)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ACCELERATE_")}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world_size)}
    command = [sys.executable, "-m", module, json.dumps(str(folder))]
    return [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world_size)
    ]


@pytest.mark.slow
@pytest.mark.processes
def test_tiles_of_a_sample_on_processes_give_its_gradient(tmp_path: Path) -> None:
    for world_size in WORLD_SIZES:
        processes = launch(tmp_path, world_size)
        printed = [process.communicate(timeout=300)[0] for process in processes]
        assert [process.returncode for process in processes] == [0] * world_size, "\n".join(printed)
    for name, case in CASES.items():
        model = build_model(dropout=0.3)
        whole, _ = gradient_of(model, shares_of(case, model, tile_size=None), loss=case.get("loss"))
        for world_size in case.get("world_sizes", WORLD_SIZES):
            for rank in range(world_size):
                got = torch.load(tmp_path / f"{name}-{world_size}-{rank}.pt", weights_only=True)
                windows = got.pop("windows").tolist()
                got.pop("loss")
                assert len(windows) == world_size
                assert sum(windows) == (18 if name.startswith("crops") else 2)
                assert max(windows) - min(windows) <= 1
                assert max(relative_differences(got, whole).values()) < 1e-10, (name, world_size, rank)


if __name__ == "__main__":
    work(Path(json.loads(sys.argv[1])))
