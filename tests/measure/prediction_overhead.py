"""Wall time of a prediction against the bare network on the same windows, with the same threads.

    python tests/measure/prediction_overhead.py --side 2000 --base_channels 16

Each is timed in turn, several times; the least of each counts, as other work on the machine only adds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

from tests.large_image import write_image
from unet_dist import UNet
from unet_dist.imaging.reader import open_image
from unet_dist.prediction.exact import ExactTiles
from unet_dist.prediction.jobs import make_jobs
from unet_dist.prediction.journal import Journal
from unet_dist.prediction.run import Work, compute_share, finish_shared, share_of
from unet_dist.prediction.values import Recipe


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=2000, help="of the image, px")
    parser.add_argument("--base_channels", type=int, default=16)
    parser.add_argument("--tile_size", type=int, default=572)
    parser.add_argument("--window_batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = UNet(3, 35, base_channels=options.base_channels).eval()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_image(folder / "large.tif", options.side)
        bare, whole = [], []
        for repeat in range(options.repeats):
            work = _lay_out(model, folder / "large.tif", folder / str(repeat), options)
            bare.append(_bare_s(model, work))
            whole.append(_prediction_s(work))
        print(f"{len(work.plans[0])} windows of {work.plans[0].window_shape}: bare {min(bare):.2f} s, "
              f"prediction {min(whole):.2f} s, ratio {min(whole) / min(bare):.3f}")  # fmt: skip


def _lay_out(model: UNet, image: Path, output: Path, options: argparse.Namespace) -> Work:
    output.mkdir()
    recipe, journal = Recipe(), Journal(output)
    jobs = make_jobs(
        [image], output, open_reader=open_image, in_channels=3, rasters=["labels"], format="auto", overlay=False
    )
    journal.begin({})
    return Work(
        jobs,
        journal,
        ExactTiles(model, recipe, print),
        recipe,
        num_classes=35,
        tile_size=options.tile_size,
        window_batch=options.window_batch,
        open_reader=open_image,
    )


@torch.inference_mode()
def _bare_s(model: UNet, work: Work) -> float:
    started_s = time.perf_counter()
    for refs in work.batches:
        model(torch.zeros(len(refs), 3, *work.plans[0].window_shape).contiguous(memory_format=torch.channels_last))
    return time.perf_counter() - started_s


def _prediction_s(work: Work) -> float:
    started_s = time.perf_counter()
    done = work.journal.done()
    share = share_of(work, done, 0, 1)
    compute_share(work, share, done, 0)
    assert finish_shared(work, share, 0, 1)
    return time.perf_counter() - started_s


if __name__ == "__main__":
    main()
