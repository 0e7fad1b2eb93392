"""Measure the gradient and the memory of tiled training.

python -m tests.measure.training_memory gradient [--input_size 1100] [--tile_size 572] [--base_channels 2] [--depth 4]
    The gradient tile by tile against the undivided pass, in float64 and float32.

python -m tests.measure.training_memory memory [--input_sizes 572 1100 2108 4156] [--tile_size 572] [--base_channels 4]
python -m tests.measure.training_memory image [--image 1080 1920] [--base_channels 64] [--windows 25]
    Peak memory of a training step (forward, backward, AdamW) of one crop, or of one whole image; each in a process of its
    own, which reads ahead and keeps freed memory as `train` does. Tensors: the most that torch's allocator held at once during
    the step, by its profiler's record, gradients and moments not counted. RssAnon: the peak of the process's anonymous memory
    less the inputs, and how much of it the step added. The inputs are listed apart: the image and its labels, which lie in
    memory here, and the crop's windows where they are few enough to be held at once. --windows stops after so many.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.tiling.scenes import (
    CLASS_WEIGHTS,
    Scenes,
    build_model,
    build_shares,
    global_difference,
    gradient_of,
    relative_differences,
)
from unet_dist.data.batches.ahead import read_ahead
from unet_dist.data.batches.windows import WindowBatch
from unet_dist.losses.pixelwise import CrossEntropy
from unet_dist.machine.allocator import keep_freed_memory
from unet_dist.tiling.gradient import WindowGradient

MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["gradient", "memory", "image", "one"])
    parser.add_argument("--input_size", type=int, default=1100)
    parser.add_argument("--input_sizes", type=int, nargs="+", default=[572, 1100, 2108, 4156])
    parser.add_argument("--image", type=int, nargs=2, default=[1080, 1920])
    parser.add_argument("--windows", type=int, default=25)
    parser.add_argument("--tile_size", type=int, default=572)
    parser.add_argument("--base_channels", type=int, default=4)
    parser.add_argument("--depth", type=int, default=4)
    options = parser.parse_args()
    if options.what == "gradient":
        compare_gradients(options)
    elif options.what == "one":
        measure(options, Scenes([(options.input_size, options.input_size)]), options.input_size)
    elif options.what == "image":
        measure(options, Scenes([tuple(options.image)]), None)
    else:
        given = [f"--{key}={getattr(options, key)}" for key in ("tile_size", "base_channels", "depth", "windows")]
        for side in options.input_sizes:
            command = [sys.executable, "-m", "tests.measure.training_memory", "one", f"--input_size={side}", *given]
            subprocess.run(command, check=True)


def compare_gradients(options: Any) -> None:
    side = options.input_size
    for dtype in (torch.float64, torch.float32):
        model = build_model(dtype, base_channels=options.base_channels, depth=options.depth)
        samples = Scenes([(side, side)])
        given: dict[str, Any] = {"input_size": side, "batch_size": 1}
        whole, _ = gradient_of(model, build_shares(model, samples, tile_size=None, **given))
        shares = build_shares(model, samples, tile_size=options.tile_size, **given)
        tiled, _ = gradient_of(model, shares)
        plan = shares.planner.plan(shares.crops.output_shape(0))
        worst = max(relative_differences(tiled, whole).items(), key=lambda item: item[1])
        print(
            f"{dtype}: input {side}, {plan.grid[0]}x{plan.grid[1]} windows of {plan.window_shape[0]}: "
            f"global {global_difference(tiled, whole):.1e}, worst tensor {worst[1]:.1e} ({worst[0]})"
        )


def measure(options: Any, samples: Scenes, side: int | None) -> None:
    keep_freed_memory()
    torch.set_num_threads(1)
    model = build_model(torch.float32, base_channels=options.base_channels, depth=options.depth)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    shares = build_shares(model, samples, input_size=side, tile_size=options.tile_size, batch_size=1)
    plan = shares.planner.plan(shares.crops.output_shape(0))
    loss = CrossEntropy(CLASS_WEIGHTS)
    gradient = WindowGradient(model, model, loss, seed=7)

    def step(batches: Iterable[WindowBatch], divisor: Tensor) -> int:
        count = 0
        for batch in batches:
            gradient.add(batch.windows, batch.labels, batch.keys, scale=1 / divisor)
            count += 1
        optimizer.step()
        return count

    before, highest = _rss_anon(), [0]
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            highest[0] = max(highest[0], _rss_anon())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    started, num_windows, window_bytes = time.perf_counter(), 0, 0
    with closing(read_ahead(shares, range(1, 10**6), num_workers=0, pin_memory=False)) as read:
        for share in read:
            if isinstance(share.batches, list):  # held, and so is the next step's
                window_bytes = 2 * sum(batch.windows.nbytes + batch.labels.nbytes for batch in share.batches)
            num_windows += step(itertools.islice(share.batches, options.windows - num_windows), share.divisor(loss))
            if num_windows >= options.windows:
                break
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    image_bytes = samples.images[0].nbytes + samples.labels[0].nbytes
    # Every window is like another, and the record of all would itself be large.
    with torch.profiler.profile(profile_memory=True) as profile:
        step(share.batches[:2], share.divisor(loss))
    peak = held = 0
    for event in sorted(_memory_events(profile), key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    height, width = plan.window_shape
    print(
        f"{f'input {side}' if side else 'image'}: {plan.grid[0]}x{plan.grid[1]} windows of {height}x{width}; tensors "
        f"{peak / MIB:.1f} MiB; RssAnon {(highest[0] - image_bytes - window_bytes) / MIB:.0f} MiB, of it the step "
        f"{(highest[0] - before - window_bytes) / MIB:.0f}; inputs: image {image_bytes / MIB:.1f}, windows "
        f"{window_bytes / MIB:.1f} MiB; {num_windows} windows in {seconds:.1f} s",
        flush=True,
    )


def _memory_events(profile: Any) -> list[Any]:
    return [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]


def _rss_anon() -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no RssAnon in /proc/self/status")


if __name__ == "__main__":
    main()
