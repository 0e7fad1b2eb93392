"""What the checks of foreign and stored material cost: crops, predictions and the start, in time of the processor.

    python -m tests.measure.trust_cost [crops] [prediction] [start] [--against COMMIT] [--rounds 9]

crops: crops of 572 px from a cache, as many for each image as the reference run takes; with the digests compared at the first
touch of a sample, and without. prediction: from the file to the files, with checksums of the values written, limits of time and the
boundary to parsers, and without. Both in alternation in one process.

start: `--help`, and a training of one step whose data are decoded already, each in a process of its own; this commit and an
older one (git archive) in alternation. What else came between the two commits counts, too.

A ratio is of one round; the median of the rounds counts, and 95 % of the medians of rounds drawn anew lie in the range beside it.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch
from PIL import Image

from tests.measure import crop_pace, prediction_overhead
from tests.measure.record import ROOT
from unet_dist import UNet
from unet_dist.data.decoded.cache import Cache
from unet_dist.imaging.writer import write_picture
from unet_dist.scenes.synthetic import SyntheticScenes

PARTS = ("crops", "prediction", "start")
BEFORE = "d9fd278^"
"""The commit before the checks began."""
CROPS_PER_IMAGE = 137
"""Of the reference run: 6,000 steps of 16 crops over 700 images."""
_IMAGES, _SIZE = 4, (1080, 1920)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []])
    parser.add_argument("--against", default=BEFORE, help="a commit")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for part in options.parts or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            if part == "crops":
                crops(Path(folder), options.rounds)
            elif part == "prediction":
                prediction(Path(folder), options.rounds)
            else:
                start(Path(folder), options.against, options.rounds)


def crops(folder: Path, rounds: int) -> None:
    """Crops of a cache whose samples are compared with their digests at the first touch, or not."""
    scenes = SyntheticScenes(_IMAGES, *_SIZE, seed=0)
    for number in range(_IMAGES):
        for kind, pixels in zip(("images", "masks"), scenes.render(number), strict=True):
            (folder / "data" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / "data" / kind / f"{number}.png")
    caches: list[Cache] = []
    init = Cache.__init__

    def kept(self: Cache, *words: object, **keys: object) -> None:
        init(self, *words, **keys)  # type: ignore[arg-type]
        caches.append(self)

    with mock.patch.object(Cache, "__init__", kept):
        read = crop_pace.open_reader(folder / "data", folder / "cache", crop_pace.CLASSES, 572)
    (cache,) = caches
    batches = -(-_IMAGES * CROPS_PER_IMAGE // (2 * crop_pace.BATCH))

    def epochs(is_checked: bool) -> None:
        cache._checked.clear()
        cache._checked.update(() if is_checked else range(len(cache)))
        for _ in range(batches):
            read()

    read()
    found = alternate({"checked": lambda: epochs(True), "unchecked": lambda: epochs(False)}, rounds, own_time)
    per_crop = 1e3 / (batches * 2 * crop_pace.BATCH)
    tell("crops", found, f"{{:.3f}} ms a crop of {batches * 2 * crop_pace.BATCH}", per_crop)


def prediction(folder: Path, rounds: int) -> None:
    """A prediction of a file, with and without what guards its reading and writing."""
    model = UNet(3, 35, base_channels=4).eval()
    path = folder / "image.png"
    write_picture(path, SyntheticScenes(1, 720, 960, seed=0).render(0)[0])
    words = SimpleNamespace(window_batch=4, tile_size=572, overlay=True, bf16=False, processor=True)
    count = 0

    def predict(is_checked: bool) -> None:
        nonlocal count
        count += 1
        with ExitStack() as stack:
            for target, value in () if is_checked else _UNCHECKED:
                stack.enter_context(mock.patch(target, value))
            work = prediction_overhead._lay_out(model, [path], folder / str(count), words)  # type: ignore[arg-type]
            prediction_overhead._prediction_s(work, words, time.process_time)  # type: ignore[arg-type]

    predict(True)
    found = alternate(
        {"checked": lambda: predict(True), "unchecked": lambda: predict(False)}, rounds, time.process_time
    )
    tell("prediction", found, "{:.3f} s", 1)


_UNCHECKED: tuple[tuple[str, object], ...] = (
    ("unet_dist.prediction.writing.zlib", SimpleNamespace(crc32=lambda *_: 0)),
    ("unet_dist.imaging.picture.in_time", lambda name, decode: decode()),
    ("unet_dist.imaging.picture.require_decodable", lambda *_, **__: None),
)


def start(folder: Path, commit: str, rounds: int) -> None:
    """Processes of this commit and an older one, from the command to its end."""
    trees = {"this": ROOT, "older": folder / "older"}
    packed = folder / "older.tar"
    subprocess.run(["git", "archive", "--output", packed, commit], cwd=ROOT, check=True)
    with tarfile.open(packed) as archive:
        archive.extractall(folder / "older", filter="data")
    small = (
        "--data_path synthetic --synthetic_images 8 --synthetic_size 64x64 --base_channels 2 --depth 1 --input_size 60 "
    )
    small += "--batch_size 2 --total_steps 1 --eval_steps 1 --num_workers 0 --trackers []"
    count = 0

    def run(name: str, words: Sequence[str]) -> float:
        nonlocal count
        count += 1
        more = [f"--cache_path={folder}/cache-{name}", f"--output_path={folder}/run-{count}"] if len(words) > 1 else []
        return processor_s([*words, *more], trees[name])

    for title, words in (("--help", ["--help"]), ("one step", ["train", *small.split()])):
        found = alternate({name: lambda name=name, words=words: run(name, words) for name in trees}, rounds + 1, None)
        tell(title, {name: seconds[1:] for name, seconds in found.items()}, "{:.3f} s", 1)  # the first one makes caches


def processor_s(words: Sequence[str], tree: Path) -> float:
    """Seconds of the processor, the program's and the system's for it, that a command takes from start to end."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(
        [sys.executable, "-m", "unet_dist", *words],
        cwd=tree,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert child.stderr is not None
    said = child.stderr.read()
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0, said.decode()
    return used.ru_utime + used.ru_stime


def own_time() -> float:
    """Seconds of the processor for this thread: what the program and the system did for it."""
    return time.thread_time()


def alternate(
    ways: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float] | None
) -> dict[str, list[float]]:
    """Seconds of each way in each round, whose order changes from round to round.

    Args:
        clock: None where a way gives its own seconds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in list(ways) if number % 2 else reversed(list(ways)):
            started = clock() if clock else 0.0
            given = ways[name]()
            seconds[name].append(clock() - started if clock else float(str(given)))
    return seconds


def tell(title: str, found: dict[str, list[float]], form: str, factor: float) -> None:
    """Print the medians of two ways, and the median of the ratios of the rounds with its range."""
    first, second = found
    ratios = [top / bottom for top, bottom in zip(*found.values(), strict=True)]
    low, high = range_of_median(ratios)
    print(
        f"{title}: {first} {form.format(statistics.median(found[first]) * factor)}, "
        f"{second} {form.format(statistics.median(found[second]) * factor)}; "
        f"ratio {statistics.median(ratios):.4f} ({low:.4f} to {high:.4f}), {len(ratios)} rounds",
        flush=True,
    )


def range_of_median(values: Sequence[float]) -> tuple[float, float]:
    """Where 95 % of the medians of values that are drawn anew, with repetition, lie."""
    rng = random.Random(0)
    drawn = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(1000))
    return drawn[25], drawn[974]


if __name__ == "__main__":
    main()
