"""`unet-dist evaluate`: the scores of a run, a model folder or a hub id over a split."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unet_dist.commands.parts import load_run, open_data, resolve_tile_size, teller_of
from unet_dist.config import Config
from unet_dist.data.cache import Cache
from unet_dist.data.crops import Samples
from unet_dist.distributed import Processes, open_processes
from unet_dist.errors import ConfigError
from unet_dist.evaluation import evaluate_split
from unet_dist.figures import Sample, draw_samples
from unet_dist.files import write_whole
from unet_dist.imaging.reader import as_reader
from unet_dist.options import EvaluateOptions
from unet_dist.tiling.geometry import assign
from unet_dist.tiling.inference import predict_image
from unet_dist.tracking import Teller, scores_table


def run(words: Sequence[str], options: EvaluateOptions) -> None:
    """Evaluate RUN."""
    if len(words) != 1:
        raise ConfigError(f"evaluate: got {len(words)} words without a key ({' '.join(words)}), expected one RUN.")
    with open_processes(
        mixed_precision=options.mixed_precision,
        expected_processes=options.expected_processes,
        collective_timeout_s=options.collective_timeout_s,
    ) as processes:
        teller = teller_of(processes)
        model, trained, folder = load_run(words[0], processes.device)
        cache = open_data(_data_config(options, trained, model), teller)
        model.ignore_index = cache.ignore_index  # it may have been named here: then it is no answer either
        samples = cache.split(options.split)
        output = Path(options.output_path) if options.output_path else folder
        if output is None:
            raise ConfigError(f"output_path: {words[0]} is no run's folder to write into. Set --output_path DIR.")
        tile_size = resolve_tile_size(options.tile_size, model, trained)
        with teller.progress("window", 0) as bar, processes.autocast():
            scores = evaluate_split(
                model,
                samples,
                processes,
                tile_size=tile_size,
                window_batch=options.window_batch,
                advance=bar.advance,
            )
        assert scores is not None
        if processes.is_main:
            output.mkdir(parents=True, exist_ok=True)
            record = scores.record(cache.class_names, cache.ignore_index)
            path = output / f"evaluation-{options.split}.json"
            about = {
                "model": words[0],
                "data": cache.name,
                "split": options.split,
                "images": len(samples),
                "tile_size": tile_size,
            }
            write_whole(path, json.dumps({**record, **about}, indent=1).encode())
            title = f"{options.split} of {cache.name}, {len(samples)} images"
            teller.table(scores_table(title, scores, cache.class_names, cache.ignore_index))
            teller.say(f"Written: {path}")
        _draw(model, samples, cache, processes, output / "figures", options, tile_size, teller)


def _data_config(options: EvaluateOptions, trained: Config | None, model: Any) -> Config:
    """The config whose data set is evaluated: the run's own, or another one under the classes of the model."""
    if options.data_path is None and trained is None:
        raise ConfigError(
            "data_path: got none, expected one, as RUN is no run's folder that names its data. Set --data_path."
        )
    base = trained or Config()
    changes: dict[str, Any] = {"num_classes": model.num_classes, "in_channels": model.in_channels}
    if options.data_path is not None and (trained is None or options.data_path != base.data.data_path):
        fresh = Config()
        changes |= {key: getattr(fresh.data, key) for key in ("synthetic_images", "synthetic_size", "label_map")}
        changes |= {"data_path": options.data_path, "ignore_index": model.ignore_index}
    for key in ("ignore_index", "label_map", "cache_path", "seed"):
        if getattr(options, key) is not None:
            changes[key] = getattr(options, key)
    return base.replace(**changes)


def _draw(
    model: Any,
    samples: Samples,
    cache: Cache,
    processes: Processes,
    folder: Path,
    options: EvaluateOptions,
    tile_size: int,
    teller: Teller,
) -> None:
    """Draw image, label and prediction of some images spread over the split, shared over the processes."""
    count = min(options.pictures, len(samples))
    chosen = [round(i * (len(samples) - 1) / max(1, count - 1)) for i in range(count)]
    for number in assign(count, processes.rank, processes.world_size):
        index = chosen[number]
        with processes.autocast():
            prediction = predict_image(model, samples.image(index), tile_size, window_batch=options.window_batch)
        image = as_reader(samples.image(index)).read(0, prediction.shape[0], 0, prediction.shape[1])
        path = folder / f"{options.split}-{samples.ids[index]}.png"
        draw_samples(path, [Sample(image, samples.label(index), prediction)], cache.class_names)
    if count:
        teller.say(f"Pictures: {folder}/{options.split}-*.png")
