"""What stands beside the network: windows together or alone, normalising, the choice of classes, PNG, the parts of a step.

    python -m tests.measure.small_costs windows [--base_channels 16] [--rounds 3]
        Microseconds a pixel in evaluation, of one window and of four together, by the windows' side.

    python -m tests.measure.small_costs labels [--rounds 5]
        Milliseconds of processor time for four windows of 572 px and 35 classes, one of them ignored: as it is done; by -inf and
        argmax; by numpy, at once and row by row; none ignored, in bfloat16, and as integers of the same order.

    python -m tests.measure.small_costs normalise [--rounds 50]
        Milliseconds for a window of 572 px: as it is done, row by row; and pixel by pixel.

    python -m tests.measure.small_costs png [--rounds 5]
        Milliseconds and bytes of an overlay: as it is done, by OpenCV, and by Pillow at zlib's levels 1 and 6; of 360x480,
        or --size.

    python -m tests.measure.small_costs step [--base_channels 16] [--rounds 9]
        Milliseconds of processor time of a training step of a crop of 572 px and 35 classes, by its parts: of the usual loop
        (benchmark/baseline.py) and ours; and the loss alone, forward and backward, over planes and over rows copied from them.

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
import torch.nn.functional as F
from PIL import Image

from unet_dist import UNet
from unet_dist.benchmark.baseline import PlainUNet
from unet_dist.imaging.png import write_png
from unet_dist.losses.pixelwise import CrossEntropy
from unet_dist.machine.allocator import keep_freed_memory
from unet_dist.scenes.synthetic import SyntheticScenes
from unet_dist.tiling.gradient import WindowGradient
from unet_dist.tiling.windows import classify, normalise, window_logits


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["windows", "labels", "normalise", "png", "step"])
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
        for name, seconds in alternate(labels(), options.rounds, time.process_time).items():
            print(f"{name}: {seconds * 1e3:.0f} ms")
    elif options.what == "normalise":
        for name, seconds in alternate(normalising(), options.rounds).items():
            print(f"{name}: {seconds * 1e3:.2f} ms")
    elif options.what == "step":
        for name, seconds in alternate(step(options.base_channels), options.rounds, time.process_time).items():
            print(f"{name}: {seconds * 1e3:.0f} ms")
    else:
        height, width = map(int, options.size.split("x"))
        overlay = SyntheticScenes(1, height, width, seed=0).render(0)[0]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "a.png")
            ways: dict[str, Callable[[], int]] = {"as it is": lambda: as_it_is(path, overlay)}
            ways["OpenCV"] = lambda: by_opencv(path, overlay)
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
    values, short = logits.numpy(), logits.bfloat16()
    others = [number for number in range(35) if number != 17]

    def by_row(is_one_ignored: bool) -> None:
        found = np.empty((4, 388, 388), np.uint8)
        for place in np.ndindex(4, 388):
            row = values[place[0], :, place[1]].T  # (w, K), in one piece as the logits are
            if is_one_ignored:
                row = row.copy()
                row[:, 17] = -np.inf
            found[place] = row.argmax(1)

    def as_integers() -> None:
        bits = (short + 0).view(torch.int16)  # + 0: of two zeros none is the larger one
        (bits ^ ((bits >> 15) & 0x7FFF)).numpy().argmax(1)

    return {
        "as it is": lambda: classify(logits, 17),
        "bfloat16, none ignored": lambda: classify(short, None),
        "bfloat16 as integers by numpy": as_integers,
        "-inf and argmax": lambda: logits.masked_fill(is_ignored[:, None, None], -torch.inf).argmax(1),
        "argmax alone, none ignored": lambda: logits.argmax(1),
        "numpy, none ignored": lambda: np.argmax(values, axis=1),
        "numpy on a copy without the ignored": lambda: np.argmax(values[:, others], axis=1),
        "numpy row by row, none ignored": lambda: by_row(False),
        "numpy row by row": lambda: by_row(True),
    }


def normalising() -> dict[str, Callable[[], object]]:
    windows = torch.randint(0, 256, (1, 572, 572, 3), dtype=torch.uint8)
    mean, std = [100.0, 120.0, 90.0], [60.0, 50.0, 55.0]
    shift, scale = torch.tensor(mean), torch.tensor(std)
    return {
        "as it is": lambda: normalise(windows, mean, std, torch.float32),
        "pixel by pixel": lambda: windows.to(torch.float32).sub_(shift).div_(scale),
    }


def as_it_is(path: Path, picture: np.ndarray) -> int:
    """The bytes of a PNG as overlays are written."""
    write_png(path, picture)
    return path.stat().st_size


def by_opencv(path: Path, picture: np.ndarray) -> int:
    """The bytes of a PNG as OpenCV writes it: each row as the difference from the pixel on the left."""
    path.write_bytes(cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].data)
    return path.stat().st_size


def by_pillow(path: Path, picture: np.ndarray, level: int) -> int:
    """The bytes of a PNG as Pillow writes it."""
    Image.fromarray(picture).save(path, compress_level=level)
    return path.stat().st_size


def step(base_channels: int) -> dict[str, Callable[[], object]]:
    plain, model = PlainUNet(3, 35, base_channels, 4), UNet(3, 35, base_channels=base_channels)
    usual = torch.optim.AdamW(plain.parameters(), lr=1e-5)
    fused = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    pixels = torch.randint(0, 256, (1, 572, 572, 3), dtype=torch.uint8)
    images = torch.randn(1, 3, 572, 572)
    labels = torch.randint(0, 35, (1, 388, 388))
    given = (pixels, labels.to(torch.uint8), torch.zeros(1, 3, dtype=torch.int64))
    gradient = WindowGradient(model, model, CrossEntropy())
    logits = torch.randn(1, 35, 388, 388, requires_grad=True)

    def usual_pass() -> None:
        usual.zero_grad()
        F.cross_entropy(plain(images), labels, ignore_index=255).backward()

    def our_pass() -> None:
        fused.zero_grad()
        gradient.add(*given, scale=torch.tensor(1 / labels.numel()))

    def our_update() -> None:
        torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        fused.step()

    def rows() -> None:
        copied = logits.permute(0, 2, 3, 1).reshape(-1, 35)
        F.cross_entropy(copied, labels.flatten(), reduction="none").sum().backward()

    return {
        "the usual loop, forward and backward": usual_pass,
        "the usual loop, AdamW": usual.step,
        "ours, normalising, forward and backward": our_pass,
        "ours, norm of the gradient and AdamW": our_update,
        "loss over planes": lambda: F.cross_entropy(logits, labels, reduction="none").sum().backward(),
        "loss over rows": rows,
    }


def alternate(
    ways: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median seconds of each way by a clock, tried in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = clock()
            way()
            seconds[name].append(clock() - started)
    return {name: statistics.median(times) for name, times in seconds.items()}


if __name__ == "__main__":
    main()
