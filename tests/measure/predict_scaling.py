"""How much faster several processes of one thread predict a large image than one, from the file to the file.

    python -m tests.measure.predict_scaling --side 5000 --base_channels 16 --rounds 2

Makes a TIFF and a network, and runs `unet-dist predict` on one and on several processes in turn. Told of each: the seconds of the
whole command; and those of a batch by the journal, from the moment that every process has written there to its last entry, so that
neither the start nor the making of the file counts. A process writes every two seconds, so that those are good to about a second in
the whole. A ratio is of one round. The label maps must be equal.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.large_image import Launch, write_image, write_model
from unet_dist.prediction.journal import Journal
from unet_dist.storage.files import digest


@dataclass(frozen=True)
class Times:
    """Seconds of a prediction.

    Attributes:
        total_s: of the command.
        batch_s: a batch, of all processes together, by the journal.
    """

    total_s: float
    batch_s: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=5000, help="of the image, px")
    parser.add_argument("--base_channels", type=int, default=16)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--tile_size", default="572", help="px, or auto")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    totals, tiles = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_image(folder / "large.tif", options.side)
        write_model(folder / "model", options.base_channels, options.depth, torch.float32)
        for number in range(options.rounds):
            one, several = (
                predict(folder, f"{number}-{processes}", processes, options.tile_size)
                for processes in (1, options.processes)
            )
            totals.append(one.total_s / several.total_s)
            tiles.append(one.batch_s / several.batch_s)
            print(
                f"round {number}: one {one.total_s:.1f} s, {options.processes} {several.total_s:.1f} s, ratio {totals[-1]:.3f}; "
                f"a batch {one.batch_s:.3f} s and {several.batch_s:.3f} s, ratio {tiles[-1]:.3f}",
                flush=True,
            )
        assert len({digest(path) for path in folder.glob("*-*/large.tif")}) == 1, "the label maps differ"
    print(
        f"{options.processes} processes against one: {spread(totals)} from start to end, {spread(tiles)} on the tiles"
    )


def predict(folder: Path, name: str, processes: int, tile_size: str) -> Times:
    """Predict once."""
    output = folder / name
    command = ["predict", str(folder / "model"), str(folder / "large.tif"), "--output", str(output)]
    command += ["--tile_size", tile_size, "--overlay", "false", "--mixed_precision", "no"]
    launch, journal, seen = Launch(command, processes, None), Journal(output), [(0.0, 0)]
    while launch.is_running():
        with contextlib.suppress(FileNotFoundError):  # it goes in the end
            num_done = len(journal.done().batches)
            if num_done > seen[-1][1] and len(list(journal.folder.glob("done-*.txt"))) == processes:
                seen.append((time.monotonic(), num_done))
        time.sleep(0.1)
    total_s = launch.wait()
    if len(seen) < 3:
        raise SystemExit(
            f"{name}: the prediction took {total_s:.1f} s, too little to see its pace. Give a larger --side."
        )
    (first_s, first), (last_s, last) = seen[1], seen[-1]
    return Times(total_s, (last_s - first_s) / (last - first))


def spread(ratios: list[float]) -> str:
    """Say the median and the ends."""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


if __name__ == "__main__":
    main()
