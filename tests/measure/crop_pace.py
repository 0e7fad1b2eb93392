"""The processor's time for a crop from the decoded cache; also of older commits, whose modules had other names.

PYTHONPATH=CHECKOUT python tests/measure/crop_pace.py DATA CACHE INPUT_SIZE
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

BATCH, HALO, CLASSES, REPEATS = 16, 92, 35, 5


def main() -> None:
    data, cache, side = sys.argv[1:]
    read = open_reader(Path(data), Path(cache), CLASSES, int(side))
    read()
    print(statistics.median(crop_ms(read) for _ in range(REPEATS)))


def open_reader(data: Path, cache_path: Path, num_classes: int, side: int) -> Callable[[], int]:
    """Open a cache; what comes back reads two batches of crops and gives the bytes of a crop."""
    settings = _part("CacheSettings", "data.decoded.settings", "data.cache")(num_classes=num_classes)
    source = _part("open_source", "data.sources.registry", "data.source")(data)
    cache = _part("prepare", "data.decoded.build", "data.build")(source, settings, seed=0, cache_path=cache_path)
    model = _part("UNet", "models.unet")(base_channels=1)
    planner = _part("CropPlanner", "tiling.crop_plan")(model.window_sizes, model.locality, halo=HALO)
    reader = _part("CropReader", "data.batches.crops", "data.crops")
    crops = reader(cache.split("all"), seed=0, window_side=side, halo=HALO)
    shares = _part("RunShares", "data.batches.shares", "data.shares")(
        crops, planner=planner, batch_size=BATCH, micro_batch_size=BATCH, rank=0, world_size=1
    )

    def read() -> int:
        batches = [batch for step in (1, 2) for batch in shares[step].batches]
        return sum(batch.windows.nbytes + batch.labels.nbytes for batch in batches) // (2 * BATCH)

    return read


def crop_ms(read: Callable[[], int]) -> float:
    """Milliseconds of the processor for each crop."""
    started = time.process_time()
    read()
    return 1e3 * (time.process_time() - started) / (2 * BATCH)


def _part(name: str, *modules: str) -> Any:
    """A class or function by the first of these modules that the checkout has."""
    for module in modules:
        try:
            return getattr(import_module(f"unet_dist.{module}"), name)
        except ModuleNotFoundError:
            continue
    raise ModuleNotFoundError(f"{name} is in none of {', '.join(modules)}")


if __name__ == "__main__":
    main()
