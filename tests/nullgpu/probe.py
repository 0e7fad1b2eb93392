"""Runs tiny trainings and predictions on the null GPU and notes what each asked of it.

`python -m tests.nullgpu.probe LIBRARY FOLDER WHAT [PORTS]`, in the environment of the CUDA torch, with the library preloaded. With
RANK in the environment it is one of several processes, which meet at one port after the other. Writes FOLDER/WHAT-RANK.json.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.nullgpu.settings import ALONE, GRAPHED, STEPS, TINY, TOGETHER
from unet_dist.assembly import training
from unet_dist.benchmark.gpu_check import SMOKE, Check
from unet_dist.benchmark.gpu_stages import lost_process
from unet_dist.cli import main
from unet_dist.models.unet import UNet
from unet_dist.prediction import run as prediction
from unet_dist.processes.group import Processes, open_processes
from unet_dist.training.boundary import Boundary
from unet_dist.training.trainer import Trainer

COUNTS = ("launches", "replays", "waits", "event_waits", "large_pageable", "in_turn", "collectives", "order", "foreign")

LOST_LIMIT_S = 450
"""Of some 40 s on a quiet core."""

Counts = dict[str, int]


class Probe:
    """Counts what parts of a command ask of the device.

    Attributes:
        steps, validations, models, batches: one a training step, a validation, a model folder, a batch of a prediction.
    """

    def __init__(self, library: Path, folder: Path) -> None:
        loaded = ctypes.CDLL(str(library))
        self._counters = {name: ctypes.c_long.in_dll(loaded, f"null_{name}") for name in COUNTS}
        self.folder = folder
        self.steps: list[Counts] = []
        self.validations: list[Counts] = []
        self.models: list[Counts] = []
        self.batches: list[Counts] = []
        Boundary.write_model = self._counted(Boundary.write_model, self.models)  # type: ignore[method-assign]
        Trainer.step = self._counted(Trainer.step, self.steps)  # type: ignore[method-assign]
        training.evaluate_split = self._counted(training.evaluate_split, self.validations)  # type: ignore[attr-defined]
        self.copies = copies = ctypes.c_long.in_dll(loaded, "null_copies")
        # DDP tells the other processes of shapes and of buckets by the device, and reads there what they tell.
        Processes.prepare = _copying(Processes.prepare, copies)  # type: ignore[method-assign]
        Trainer.settle_buckets = _copying(Trainer.settle_buckets, copies)  # type: ignore[method-assign]
        Trainer.step = _copying(Trainer.step, copies)  # type: ignore[method-assign]
        prediction.compute_pieces = self._counted(prediction.compute_pieces, self.batches)  # type: ignore[attr-defined]

    def _counted(self, function: Callable[..., Any], into: list[Counts]) -> Callable[..., Any]:
        def counted(*arguments: Any, **more: Any) -> Any:
            before = {name: counter.value for name, counter in self._counters.items()}
            result = function(*arguments, **more)
            into.append({name: counter.value - before[name] for name, counter in self._counters.items()})
            return result

        return counted

    def run(self, words: list[str]) -> dict[str, Any]:
        """Run a command; its exit code, its last words and the counts of the whole."""
        from accelerate.state import AcceleratorState

        for counts in (self.steps, self.validations, self.models, self.batches):
            counts.clear()
        for counter in self._counters.values():
            counter.value = 0
        said, code = io.StringIO(), None
        with contextlib.ExitStack() as stack:
            if (
                "RANK" not in os.environ
            ):  # several end together, without a way back here: what they print is read by the test
                stack.enter_context(contextlib.redirect_stdout(said))
                stack.enter_context(contextlib.redirect_stderr(said))
            try:
                main(words)
            except SystemExit as leaving:
                code = leaving.code
        AcceleratorState._reset_state(reset_partial_state=True)
        torch.use_deterministic_algorithms(False)
        torch.cuda.empty_cache()
        return {"code": code, "said": said.getvalue()[-3000:], **{n: c.value for n, c in self._counters.items()}}

    def passes(self, network: UNet, called: Callable[..., Any], *tensors: Tensor) -> dict[str, Any]:
        """Run both passes twice; the counts of the second time, and whether the gradients are where they were."""
        places: list[list[int]] = []
        for _ in range(2):
            before = {name: counter.value for name, counter in self._counters.items()}
            called(*tensors).float().sum().backward()
            counts = {name: counter.value - before[name] for name, counter in self._counters.items()}
            places.append([p.grad.data_ptr() for p in network.parameters() if p.grad is not None])
        assert len(places[0]) == len(list(network.parameters()))
        return {**counts, "in_place": places[0] == places[1], "gradients": len(places[0])}

    def train(self, name: str, keys: dict[str, Any]) -> dict[str, Any]:
        """Train; with the most of each count that a step of the second half and the validation had."""
        values = {
            **TINY,
            "cache_path": self.folder / "cache",
            "output_path": self.folder / name.replace(" ", "-"),
            **keys,
        }
        found = self.run(["train", *(f"--{key}={value}" for key, value in values.items() if value is not None)])
        late = self.steps[STEPS // 2 :]
        return {
            **found,
            "steps": len(self.steps),
            "step": {count: max((one[count] for one in late), default=-1) for count in COUNTS},
            "validation": self.validations[-1] if self.validations else None,
            "model": self.models[-1] if self.models else None,
        }


def _copying(function: Callable[..., Any], copies: ctypes.c_long) -> Callable[..., Any]:
    """A function with a device that keeps the copies made to it."""

    def copying(*arguments: Any) -> Any:
        copies.value = 1
        try:
            return function(*arguments)
        finally:
            copies.value = 0

    return copying


def alone(probe: Probe) -> Iterator[tuple[str, dict[str, Any]]]:
    """One process: the matrix, a prediction, and lack of memory in both."""
    for name, keys in ALONE.items():
        yield name, probe.train(name, keys)
    probe.copies.value = 1  # its crops' labels come back from the device
    yield "debug", probe.train("debug", {"debug": True, "norm": "weight", "total_steps": 30})
    probe.copies.value = 0
    run, images = probe.folder / "plain", probe.folder / "images"
    images.mkdir()
    from PIL import Image

    Image.effect_noise((512, 384), 50).convert("RGB").save(images / "noise.png")
    words = ["predict", str(run), str(images)]
    found = probe.run([*words, "--tile_size=60", "--output", str(probe.folder / "out")])
    yield "a prediction", {**found, "batches": probe.batches[1:]}
    Image.effect_noise((1400, 1400), 50).convert("RGB").save(images / "noise.png")
    os.environ["NULL_GIB"] = "0.1"
    yield (
        "a prediction, little memory",
        probe.run([*words, "--tile_size=1388", "--output", str(probe.folder / "small")]),
    )
    yield (
        "a training, little memory",
        probe.train("little", {"input_size": 252, "synthetic_size": "260x260", "base_channels": 16}),
    )


def together(probe: Probe, ports: list[int]) -> Iterator[tuple[str, dict[str, Any]]]:
    """One of two processes."""
    for (name, keys), port in zip(TOGETHER.items(), ports, strict=False):
        os.environ["MASTER_PORT"] = str(port)
        yield name, probe.train(f"two {name}", keys)
    os.environ["MASTER_PORT"] = str(ports[-1])
    keys = {
        **{key: TINY[key] for key in ("synthetic_images", "synthetic_size", "base_channels", "depth", "input_size")},
        "batch_size": 4,
        "norm": "batch",
        "bench_rounds": 1,
        "bench_steps": 1,
        "bench_predict": False,
        "cache_path": probe.folder / "cache",
        "output_path": probe.folder / "bench",
    }
    yield "a bench", probe.run(["bench", *(f"--{key}={value}" for key, value in keys.items())])


def lonely(probe: Probe) -> Iterator[tuple[str, dict[str, Any]]]:
    """A run of two processes, of which the second dies in a step unless LIVES is set."""
    step = Trainer.step

    def dying(self: Trainer, *arguments: Any) -> Any:
        if os.environ["RANK"] == "1" and self.progress.step == 2 and "LIVES" not in os.environ:
            os._exit(9)
        return step(self, *arguments)

    Trainer.step = dying  # type: ignore[method-assign]
    values = {
        **TINY,
        "cache_path": probe.folder / "cache",
        "output_path": probe.folder / "lonely",
        "checkpoint_steps": 1,
    }
    main(["train", *(f"--{key}={value}" for key, value in values.items())])
    yield "lonely", {}


def lost(probe: Probe) -> Iterator[tuple[str, dict[str, Any]]]:
    """The stage of the check of a GPU that kills one of two processes and starts the same command again."""
    with open_processes(mixed_precision="auto") as processes:
        yield "lost", lost_process(Check(SMOKE, processes, probe.folder, time.monotonic() + LOST_LIMIT_S))


def graphs(probe: Probe) -> Iterator[tuple[str, dict[str, Any]]]:
    """Both passes of a network as they are, and captured in CUDA graphs."""
    images = torch.zeros(2, 3, 60, 60, device="cuda").contiguous(memory_format=torch.channels_last)
    keys = torch.zeros(2, 3, dtype=torch.int64, device="cuda")
    for name, options in GRAPHED.items():
        network = UNet(3, 5, base_channels=4, depth=2, **options).cuda().to(memory_format=torch.channels_last).train()
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):  # which graphs do not go with
            eager = probe.passes(network, network, images, keys)
            network.zero_grad()
            captured = torch.cuda.make_graphed_callables(network, (images, keys))
            found = probe.passes(network, captured, images, keys)
        yield name, {"eager": eager, "captured": found}


if __name__ == "__main__":
    library, folder, what = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    probe = Probe(library, folder)
    parts = {
        "alone": lambda: alone(probe),
        "together": lambda: together(probe, json.loads(sys.argv[4])),
        "lonely": lambda: lonely(probe),
        "lost": lambda: lost(probe),
        "graphs": lambda: graphs(probe),
    }
    found = {}
    for name, counts in parts[what]():
        found[name] = counts
        path = folder / f"{what}-{os.environ.get('RANK', '0')}.json"
        path.write_text(json.dumps(found, indent=1), encoding="utf-8")
