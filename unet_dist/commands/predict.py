"""`unet-dist predict`: label maps and overlays of images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from unet_dist.commands.parts import load_run, resolve_tile_size, teller_of
from unet_dist.distributed import open_processes
from unet_dist.errors import ConfigError, DataError
from unet_dist.imaging.reader import open_image
from unet_dist.options import PredictOptions
from unet_dist.prediction import describe, find_jobs, predict_jobs
from unet_dist.tiling.geometry import default_tile_size
from unet_dist.tiling.inference import require_locality


def run(words: Sequence[str], options: PredictOptions) -> None:
    """Predict INPUT... with RUN."""
    if len(words) < 2:
        raise ConfigError(f"predict: got RUN {words[0]} and no INPUT, expected image files, folders or globs after it.")
    output = Path(options.output)
    jobs = find_jobs(words[1:], output, overlay=options.overlay)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"output: cannot make {output}: {error.strerror}. Choose another --output.") from None
    with open_processes(
        mixed_precision=options.mixed_precision,
        expected_processes=options.expected_processes,
        collective_timeout_s=options.collective_timeout_s,
    ) as processes:
        teller = teller_of(processes)
        model, _, _ = load_run(words[0], processes.device)
        otherwise = default_tile_size(model.window_sizes, require_locality(model))
        tile_size = resolve_tile_size(options.tile_size, model, otherwise)
        with teller.progress("windows", 0) as bar:
            predict_jobs(
                model,
                jobs,
                processes,
                open_reader=partial(open_image, max_pixels=options.max_pixels),
                tile_size=tile_size,
                window_batch=options.window_batch,
                advance=bar.advance,
            )
        for line in describe(jobs):
            teller.say(line)
