"""Predict an image by unet_dist and by MONAI's sliding windows: time in turn, and peak memory, each in a process of its own.

    python3 -m venv monai && monai/bin/pip install -c launch/constraints-cpu.txt -e . monai==1.6.1
    monai/bin/python -m tests.measure.against_monai [--image_size 1080x1920] [--base_channels 16] [--rounds 3]

MONAI's sliding_window_inference has a padded U-Net (the same code with padding="same", so the same operations), windows of 576
px and its default overlap of 0.25, and its result's argmax; unet_dist predicts by the paper's network, with its own defaults. Both
have 35 classes, float32, and the same threads. MONAI is for this measurement only and no requirement of anything.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from tests.measure.anonymous_memory import highest_during, rss_anon
from unet_dist import UNet, predict_image
from unet_dist.machine.allocator import keep_freed_memory
from unet_dist.scenes.synthetic import SyntheticScenes

MIB = 2**20
ROI, OVERLAP = 576, 0.25


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["all", "ours", "monai"], default="all")
    parser.add_argument("--image_size", default="1080x1920")
    parser.add_argument("--base_channels", type=int, default=16)
    parser.add_argument("--sw_batch_size", type=int, default=4, help="MONAI's windows at once")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    ways = {"ours": ours(options), "monai": monai(options)}
    if options.what != "all":
        keep_freed_memory()
        before = rss_anon()
        added = highest_during(ways[options.what]) - before
        print(f"{options.what}: {added / MIB:.0f} MiB of anonymous memory added at the peak")
        return
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)
    ratios = sorted(b / a for a, b in zip(seconds["ours"], seconds["monai"], strict=True))
    print(
        f"{options.image_size}, width {options.base_channels}: ours {statistics.median(seconds['ours']):.2f} s, MONAI "
        f"{statistics.median(seconds['monai']):.2f} s: {statistics.median(ratios):.2f} times ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    )
    given = [f"--{key}={value}" for key, value in vars(options).items() if key != "what"]
    for name in ways:
        subprocess.run([sys.executable, "-m", "tests.measure.against_monai", name, *given], check=True)


def picture(options: argparse.Namespace) -> np.ndarray:
    """A procedural street scene, repeated where more is asked for: (H, W, 3) uint8."""
    height, width = (int(side) for side in options.image_size.split("x"))
    scene = SyntheticScenes(1, min(height, 1080), min(width, 1920), seed=572).render(0)[0]
    repeats = (-(-height // scene.shape[0]), -(-width // scene.shape[1]), 1)
    return np.ascontiguousarray(np.tile(scene, repeats)[:height, :width])


def ours(options: argparse.Namespace) -> Callable[[], np.ndarray]:
    torch.manual_seed(0)
    model = UNet(3, 35, base_channels=options.base_channels).eval()
    image = picture(options)
    return lambda: predict_image(model, image)


def monai(options: argparse.Namespace) -> Callable[[], np.ndarray]:
    from monai.inferers import sliding_window_inference

    torch.manual_seed(0)
    model = UNet(3, 35, base_channels=options.base_channels, padding="same").eval()
    image = picture(options)

    def predict() -> np.ndarray:
        inputs = (torch.from_numpy(image).permute(2, 0, 1)[None].float() - 127.5) / 127.5
        with torch.inference_mode():
            logits = sliding_window_inference(inputs, ROI, options.sw_batch_size, model, overlap=OVERLAP)
            return logits.argmax(1)[0].to(torch.uint8).numpy()

    return predict


if __name__ == "__main__":
    main()
