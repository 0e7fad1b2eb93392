"""What stands beside the network in a prediction: windows together or alone, the choice of classes, the compression of PNG.

    python -m tests.measure.small_costs windows [--base_channels 16] [--rounds 3]
        Microseconds a pixel in evaluation, of one window and of four together, by the windows' side.

    python -m tests.measure.small_costs labels [--rounds 5]
        Milliseconds for four windows of 572 px and 35 classes, one of them ignored: as it is done; by -inf and argmax; by numpy.

    python -m tests.measure.small_costs png [--rounds 5]
        Milliseconds and bytes of an overlay: as it is done, and by Pillow at zlib's levels 1 and 6; of 360x480, or --size.

Alternating, one thread; the median of each counts.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from unet_dist import UNet
from unet_dist.allocator import keep_freed_memory
from unet_dist.data.synthetic import SyntheticScenes
from unet_dist.tiling.inference import classify, window_logits


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["windows", "labels", "png"])
    parser.add_argument("--base_channels", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", default="360x480", help="of the overlay, height x width")
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if options.what == "windows":
        for side in (316, 572, 828):
            medians = alternate(windows(options.base_channels, side), options.rounds)
            print(
                f"{side} px: "
                + ", ".join(f"{n}: {s / int(n) / side**2 * 1e6:.2f} us a pixel" for n, s in medians.items())
            )
    elif options.what == "labels":
        for name, seconds in alternate(labels(), options.rounds).items():
            print(f"{name}: {seconds * 1e3:.0f} ms")
    else:
        height, width = map(int, options.size.split("x"))
        overlay = SyntheticScenes(1, height, width, seed=0).render(0)[0]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "a.png")
            ways: dict[str, Callable[[], int]] = {"as it is": lambda: by_opencv(path, overlay)}
            for level in (1, 6):
                ways[f"Pillow, level {level}"] = lambda level=level: by_pillow(path, overlay, level)
            for name, seconds in alternate(ways, options.rounds).items():
                print(f"{name}: {seconds * 1e3:.0f} ms, {ways[name]():,} bytes")


def windows(base_channels: int, side: int) -> dict[str, Callable[[], object]]:
    model = UNet(3, 35, base_channels=base_channels).eval()
    pixels = torch.zeros(4, side, side, 3, dtype=torch.uint8)
    margin = model.window_sizes.margin
    return {
        str(count): (lambda count=count: classify(window_logits(model, pixels[:count], halo=margin), None))
        for count in (1, 4)
    }


def labels() -> dict[str, Callable[[], object]]:
    logits = torch.randn(4, 35, 388, 388).to(memory_format=torch.channels_last)
    is_ignored = torch.arange(35) == 17
    values = logits.numpy()
    others = [number for number in range(35) if number != 17]
    return {
        "as it is": lambda: classify(logits, 17),
        "-inf and argmax": lambda: logits.masked_fill(is_ignored[:, None, None], -torch.inf).argmax(1),
        "argmax alone, none ignored": lambda: logits.argmax(1),
        "numpy, none ignored": lambda: np.argmax(values, axis=1),
        "numpy on a copy without the ignored": lambda: np.argmax(values[:, others], axis=1),
    }


def by_opencv(path: Path, picture: np.ndarray) -> int:
    """The bytes of a PNG as overlays are written."""
    path.write_bytes(cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].data)
    return path.stat().st_size


def by_pillow(path: Path, picture: np.ndarray, level: int) -> int:
    """The bytes of a PNG as Pillow writes it."""
    Image.fromarray(picture).save(path, compress_level=level)
    return path.stat().st_size


def alternate(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each way, tried in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in seconds.items()}


if __name__ == "__main__":
    main()
