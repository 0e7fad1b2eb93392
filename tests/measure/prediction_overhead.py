"""Wall time of a prediction against the bare network on the same windows, with the same threads; and its cost by the image's size.

    python -m tests.measure.prediction_overhead --size 1080x1920 --base_channels 64 --threads 2 --overlay
    python -m tests.measure.prediction_overhead --size 1000x1000 20000x20000 --base_channels 2 --depth 1 --repeats 1
    python -m tests.measure.prediction_overhead --processor --overlay --against CHECKOUT --rounds 5 --output FILE

Each size in turn is computed bare and predicted, from the file to the files, several times. A ratio is of one round, and the
median of the rounds counts: what else the machine does slows both. Pictures of up to 16 megapixels are street scenes as PNG, larger
ones TIFF. It also prints nanoseconds per pixel of the computed windows, and the anonymous memory in the end: freed memory is
kept, so that this is the peak.

Against a checkout of another commit, processes of both measure in turn, in float32 and in bfloat16; the file has both ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from tests.large_image import write_image
from tests.measure.record import provenance
from unet_dist import UNet
from unet_dist.imaging.reader import open_image
from unet_dist.imaging.writer import write_picture
from unet_dist.machine.allocator import keep_freed_memory
from unet_dist.prediction.exact import ExactTiles
from unet_dist.prediction.jobs import make_jobs
from unet_dist.prediction.journal import Journal
from unet_dist.prediction.run import compute_share, finish_shared, share_of
from unet_dist.prediction.work import Work
from unet_dist.scenes.synthetic import SyntheticScenes

_LARGEST_PICTURE_PX = 16_000_000
_MIB = 2**20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", default=["1080x1920"], help="height x width of the image, px")
    parser.add_argument("--images", type=int, default=1, help="of each size")
    parser.add_argument("--base_channels", type=int, default=16)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--tile_size", type=int, default=572)
    parser.add_argument("--window_batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ignore_index", type=int)
    parser.add_argument(
        "--processor", action="store_true", help="time of the processor, not of the clock: for a busy machine"
    )
    parser.add_argument("--bf16", action="store_true", help="mixed precision of bfloat16")
    parser.add_argument("--overlay", action="store_true", help="write overlays, too")
    parser.add_argument("--against", type=Path, help="a checkout of another commit")
    parser.add_argument("--rounds", type=int, default=5, help="of both in turn")
    parser.add_argument("--output", type=Path, help="file for what --against found")
    options = parser.parse_args()
    if options.against is not None:
        _compare(options)
        return
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = UNet(
        3, 35, base_channels=options.base_channels, depth=options.depth, ignore_index=options.ignore_index
    ).eval()
    with tempfile.TemporaryDirectory() as name:
        for size in options.size:
            folder = Path(name) / size
            folder.mkdir()
            shape = tuple(map(int, size.split("x")))
            images = [_write(folder / f"image{number}", shape, number) for number in range(options.images)]
            _measure(model, images, folder, size, options)


def _compare(options: argparse.Namespace) -> None:
    """Measure this commit and another in turn, each in processes of its own."""
    kept = ("size", "images", "base_channels", "tile_size", "window_batch", "threads", "repeats")
    words = [word for key in kept for word in (f"--{key}", *map(str, _as_list(getattr(options, key))))]
    words += [f"--{key}" for key in ("overlay", "processor") if getattr(options, key)]
    trees = {"this": Path(__file__).resolve().parents[2], "other": options.against.resolve()}
    record: dict[str, object] = {**provenance(), "words": " ".join(words), "rounds": options.rounds}
    for precision, more in (("float32", []), ("bfloat16", ["--bf16"])):
        ratios: dict[str, list[float]] = {name: [] for name in trees}
        for _ in range(options.rounds):
            for name, tree in trees.items():
                command = [sys.executable, "-m", "tests.measure.prediction_overhead", *words, *more]
                environment = {**os.environ, "PYTHONPATH": str(tree)}
                done = subprocess.run(command, cwd=tree, env=environment, check=True, capture_output=True, text=True)
                ratios[name].append(float(re.findall(r"ratio ([\d.]+)", done.stdout)[-1]))
        record[precision] = {
            name: {"median": statistics.median(found), "least": min(found), "most": max(found)}
            for name, found in ratios.items()
        }
        print(precision, json.dumps(record[precision]), flush=True)
    if options.output is not None:
        options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _as_list(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _write(path: Path, shape: tuple[int, ...], seed: int) -> Path:
    """Write an image: a street scene, or a large square TIFF."""
    height, width = shape
    if height * width <= _LARGEST_PICTURE_PX:
        path = path.with_suffix(".png")
        write_picture(path, SyntheticScenes(1, height, width, seed=seed).render(0)[0])
    else:
        assert height == width, f"a large image is square, not {shape}"
        path = path.with_suffix(".tif")
        write_image(path, height)
    return path


def _measure(model: UNet, images: list[Path], folder: Path, size: str, options: argparse.Namespace) -> None:
    bare, whole, peak = [], [], 0
    now = time.process_time if options.processor else time.perf_counter
    for repeat in range(options.repeats + 1):
        work = _lay_out(model, images, folder / str(repeat), options)
        with _precision(options):
            bare_s = _bare_s(model, work, now)
        whole_s = _prediction_s(work, options, now)
        peak = max(peak, _anonymous_bytes())
        if repeat or options.repeats == 1:  # otherwise the first warms up
            bare.append(bare_s)
            whole.append(whole_s)
        if options.repeats == 1:
            break
    height, width = work.plans[0].window_shape
    pixels = sum(map(len, work.plans)) * height * width
    ratios = [top / bottom for top, bottom in zip(whole, bare, strict=True)]
    print(
        f"{size}: {sum(map(len, work.plans))} windows of {height}x{width}: bare {statistics.median(bare):.2f} s, prediction "
        f"{statistics.median(whole):.2f} s, ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}); "
        f"{statistics.median(whole) / pixels * 1e9:.1f} ns a window pixel; {peak / _MIB:.0f} MiB anonymous",
        flush=True,
    )


def _lay_out(model: UNet, images: list[Path], output: Path, options: argparse.Namespace) -> Work:
    output.mkdir()
    journal = Journal(output)
    jobs = make_jobs(
        images,
        output,
        open_reader=open_image,
        in_channels=3,
        rasters=["labels"],
        format="auto",
        overlay=options.overlay,
    )
    journal.begin({})
    return Work(
        jobs,
        journal,
        ExactTiles(model, window_batch=options.window_batch, say=print),
        tile_size=options.tile_size,
        open_reader=open_image,
    )


@torch.inference_mode()
def _bare_s(model: UNet, work: Work, now: Callable[[], float]) -> float:
    images = torch.zeros(max(map(len, work.batches)), 3, *work.plans[0].window_shape).contiguous(
        memory_format=torch.channels_last
    )
    started_s = now()
    for refs in work.batches:
        model(images[: len(refs)])
    return now() - started_s


def _precision(options: argparse.Namespace) -> AbstractContextManager[object]:
    return torch.autocast("cpu", torch.bfloat16) if options.bf16 else nullcontext()


def _prediction_s(work: Work, options: argparse.Namespace, now: Callable[[], float]) -> float:
    started_s = now()
    done = work.journal.done()
    share = share_of(work, done, 0, 1)
    compute_share(work, share, done, 0, around_forward=lambda: _precision(options))
    assert finish_shared(work, share, 0, 1)
    return now() - started_s


def _anonymous_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024


if __name__ == "__main__":
    main()
