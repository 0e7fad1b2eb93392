"""Measure batches of crops from the decoded cache by the type of their values, and against another commit, alternately.

    python -m tests.measure.crop_types --output FILE [--against CHECKOUT] [--images 6] [--rounds 7] [--input_size 572]

By type: colour images and labels of 8 bits, images of 16, and labels of 16, in one process in turn; times are of the processor, and
stand beside the bytes that are read. Against a checkout of another commit: processes of both commits in turn read the crops of 8
bits. Numbers are medians; a ratio is the median of those of single rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import tifffile

from tests.measure.crop_pace import crop_ms, open_reader
from tests.measure.record import provenance
from unet_dist.scenes.synthetic import SyntheticScenes

TYPES = {"8 bits": ("uint8", 35), "images of 16 bits": ("uint16", 35), "labels of 16 bits": ("uint8", 300)}
"""Type of the images, and number of classes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--input_size", type=int, default=572)
    options = parser.parse_args()
    side, rounds = options.input_size, options.rounds
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_data(root, options.images)
        record: dict[str, object] = {
            **provenance(),
            "images": options.images,
            "rounds": rounds,
            "input_size": side,
            **by_type(root, side, rounds),
        }
        if options.against is not None:
            record["against"] = against(root, side, rounds, options.against)
    print(json.dumps(record, indent=1))
    if options.output is not None:
        options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def write_data(root: Path, count: int) -> None:
    """Write scenes of 1080 x 1920 px as TIFF, with images of 8 and of 16 bits."""
    scenes = SyntheticScenes(count, 1080, 1920)
    for i in range(count):
        image, label = scenes.render(i)
        for kind in ("uint8", "uint16"):
            for name, values in (("images", image.astype(kind)), ("masks", label)):
                (root / kind / name).mkdir(parents=True, exist_ok=True)
                tifffile.imwrite(root / kind / name / f"{i}.tif", values)


def by_type(root: Path, side: int, rounds: int) -> dict[str, object]:
    """Read crops of each type in turn."""
    readers = {name: open_reader(root / kind, root / "cache", count, side) for name, (kind, count) in TYPES.items()}
    sizes = {name: read() for name, read in readers.items()}
    ms: dict[str, list[float]] = {name: [] for name in TYPES}
    for _ in range(rounds):
        for name, read in readers.items():
            ms[name].append(crop_ms(read))
    found: dict[str, object] = {}
    for name, values in ms.items():
        time_ratio = statistics.median(one / base for one, base in zip(values, ms["8 bits"], strict=True))
        size_ratio = sizes[name] / sizes["8 bits"]
        found[name] = {
            "ms of processor per crop": round(statistics.median(values), 3),
            "bytes per crop": sizes[name],
            "time over 8 bits": round(time_ratio, 3),
            "bytes over 8 bits": round(size_ratio, 3),
            "time over bytes": round(time_ratio / size_ratio, 3),
        }
    return found


def against(root: Path, side: int, rounds: int, checkout: Path) -> dict[str, object]:
    """Let processes of both commits read crops of 8 bits in turn."""
    ms: dict[str, list[float]] = {"this": [], "other": []}
    for _ in range(rounds):
        for name, tree in (("this", Path(__file__).resolve().parents[2]), ("other", checkout.resolve())):
            where = [str(root / "uint8"), str(root / f"cache of {name}"), str(side)]
            command = [sys.executable, str(Path(__file__).with_name("crop_pace.py")), *where]
            done = subprocess.run(
                command, env={**os.environ, "PYTHONPATH": str(tree)}, check=True, capture_output=True, text=True
            )
            ms[name].append(float(done.stdout.split()[-1]))
    ratios = [this / other for this, other in zip(ms["this"], ms["other"], strict=True)]
    return {
        **{f"{name}, ms of processor per crop": round(statistics.median(values), 3) for name, values in ms.items()},
        "this over other": round(statistics.median(ratios), 3),
        "from": round(min(ratios), 3),
        "to": round(max(ratios), 3),
        "least of this over least of other": round(min(ms["this"]) / min(ms["other"]), 3),
    }


if __name__ == "__main__":
    main()
