"""`unet-dist evaluate`: the scores of a run, a model folder or a hub id over a split."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from unet_dist.assembly.data_set import open_data
from unet_dist.assembly.inference import choose_tiles, reason_of
from unet_dist.assembly.objective import require_border_class
from unet_dist.assembly.opening import load_run, require_data_trusted, teller_of
from unet_dist.assembly.sizes import resolve_tile_size
from unet_dist.command_line.command import Command
from unet_dist.config.options import EvaluateOptions
from unet_dist.config.sections import Config
from unet_dist.data.batches.crops import WindowedSamples
from unet_dist.data.decoded.cache import Cache
from unet_dist.errors import ConfigError, DataError
from unet_dist.imaging.reader import ImageReader, as_reader
from unet_dist.machine.description import describe_machine
from unet_dist.metrics.confusion import Calibration, image_scores
from unet_dist.metrics.registry import compute_metrics, require_metrics
from unet_dist.metrics.table import scores_table
from unet_dist.models.alignment import AlignedClasses, align_names, has_plain_names
from unet_dist.models.contract import Network
from unet_dist.prediction.evaluation import Details, evaluate_instances, evaluate_split
from unet_dist.prediction.image import predict_rasters
from unet_dist.prediction.tiles import EXACT, WHOLE, Tiles
from unet_dist.prediction.values import Recipe
from unet_dist.processes.group import Processes, open_processes
from unet_dist.report.figures import Sample, draw_samples
from unet_dist.report.pictures import (
    PICTURES_FOLDER,
    Choice,
    choose_pictures,
    picture_name,
    remove_pictures,
    write_picture,
)
from unet_dist.runs.environment import record_evaluation
from unet_dist.runs.metrics_log import read_metrics
from unet_dist.storage.files import write_whole
from unet_dist.terminal import Teller
from unet_dist.tiling.geometry import Locality, assign

COMMAND = Command(
    about="per-class IoU, mean IoU and confusion matrix of a run over a split, by overlap-tile",
    usage="RUN [--split test] [--key value ...]",
    place=20,
    needs="a run's folder, a model folder or a hub id",
    options="config.options:EvaluateOptions",
    starts_processes=True,
)

MAX_DRAWN_PX = 2048
"""Side of what is drawn of an image; matplotlib shrinks even that."""


def run(words: Sequence[str], options: EvaluateOptions) -> None:
    """Evaluate RUN."""
    if len(words) != 1:
        raise ConfigError(f"evaluate: got {len(words)} words without a key ({' '.join(words)}), expected one RUN.")
    require_metrics(options.metrics)
    with open_processes(
        mixed_precision=options.mixed_precision,
        expected_processes=options.expected_processes,
        collective_timeout_s=options.collective_timeout_s,
    ) as processes:
        teller = teller_of(processes)
        model, trained, folder = load_run(words[0], processes.device, options.trust)
        if trained is not None and options.data_path is None:
            require_data_trusted(trained, options.trust)
        cache = open_data(_data_config(options, trained, model), teller)
        model = _under_names_of(cache, model, teller).to(processes.device)
        model.ignore_index = cache.ignore_index  # it may have been named here: then it is no answer either
        samples = cache.split(options.split)
        output = Path(options.output_path) if options.output_path else folder
        if output is None:
            raise ConfigError(f"output_path: {words[0]} is no run's folder to write into. Set --output_path DIR.")
        tile_size = resolve_tile_size(options.tile_size, model, trained)
        tiles = choose_tiles(
            model,
            Recipe(confidence="float32"),
            blend=options.blend,
            whole=options.whole,
            window_batch=options.window_batch,
            say=teller.say,
        )
        if (reason := reason_of(tiles)) and not (options.blend or options.whole):
            teller.say(reason)
        if options.border_class is not None:
            require_border_class(options.border_class, cache)
            if tiles.name != EXACT:
                raise ConfigError(
                    f"border_class: got {options.border_class} with inference by {tiles.name}, expected exact tiles, whose "
                    "probabilities do not depend on their size. Remove border_class, or evaluate a network with a finite halo."
                )
        known_from = _training_split(trained)
        details = Details.none_yet(len(samples), model.num_classes, processes.device)
        started = time.perf_counter()
        with teller.progress("window", 0) as bar, processes.autocast():
            scores = evaluate_split(
                tiles,
                samples,
                processes,
                tile_size=tile_size,
                details=details,
                advance=bar.advance,
            )
        assert scores is not None
        scores = replace(scores, others=compute_metrics(options.metrics, scores.confusion, model.ignore_index))
        by_image = image_scores(details.by_image, model.ignore_index)
        seconds = time.perf_counter() - started
        chosen = choose_pictures([miou for miou, _ in by_image], options.pictures)
        instances = None
        if options.border_class is not None:
            with processes.autocast():
                instances = evaluate_instances(
                    model, samples, processes, border_class=options.border_class, tile_size=tile_size
                )
        if processes.is_main:
            output.mkdir(parents=True, exist_ok=True)
            record = scores.record(cache.class_names, cache.ignore_index)
            if instances is not None:
                record["instances"] = {"border_class": options.border_class, **instances.record()}
            path = output / f"evaluation-{options.split}.json"
            about = {
                "model": words[0],
                "step": _step_of(folder),
                "data": cache.name,
                "split": options.split,
                "images": len(samples),
                "inference": tiles.name,
                "tile_size": None if tiles.name == WHOLE else tile_size,
                "resized_to": model.resize_to if tiles.name == WHOLE else None,
                "training_split": known_from,
                "class_names": cache.class_names,
                "ignore_index": cache.ignore_index,
                "calibration": Calibration.of(details.confidence).record(),
                "by_image": [
                    {"id": name, "miou": miou, "pixel_accuracy": accuracy}
                    for name, (miou, accuracy) in zip(samples.ids, by_image, strict=True)
                ],
                "pictures": [
                    {
                        "name": picture_name(options.split, choice.index),
                        "id": samples.ids[choice.index],
                        "reason": choice.reason,
                        "miou": by_image[choice.index][0],
                    }
                    for choice in chosen
                ],
            }
            write_whole(path, json.dumps({**record, **about}, indent=1).encode())
            described = describe_machine(processes.device, processes.world_size)
            record_evaluation(output, options.split, described, seconds)
            unknown = "" if known_from == "its own" else f" (training split {known_from})"
            title = f"{options.split} of {cache.name}, {len(samples)} images, {tiles.name}{unknown}"
            is_short = teller.is_low(len(scores.iou) + 8)
            teller.table(scores_table(title, scores, cache.class_names, cache.ignore_index, is_short=is_short))
            if instances is not None:
                teller.say(
                    f"Objects between class {options.border_class}, after border thinning: V_rand {instances.v_rand:.4f} (border "
                    f"from probability {instances.rand_threshold:g} on), V_info {instances.v_info:.4f} "
                    f"({instances.info_threshold:g}); pixel error {1 - scores.pixel_accuracy:.4f}"
                )
            teller.say(f"Written: {path}")
            kept = [picture_name(options.split, choice.index) for choice in chosen]
            remove_pictures(output / PICTURES_FOLDER, options.split, kept)
        _draw(tiles, samples, cache, processes, output, options, tile_size, chosen)
        if chosen:
            teller.say(f"Pictures: {output / 'figures'}/{options.split}-*.png")
        if folder is not None and output == folder:
            teller.say(f"Next: unet-dist report {shlex.quote(str(folder))}")


def _step_of(folder: Path | None) -> int | None:
    """The training step of a run's best model, None where RUN is no run's folder or has only its last."""
    if folder is None or not (folder / "best").is_dir():
        return None
    validations = [r for r in read_metrics(folder / "metrics.jsonl") if r.get("split") == "validation"]
    return max(validations, key=lambda r: (r.get("miou") or 0.0, -r["step"]))["step"] if validations else None


def _training_split(trained: Config | None) -> str:
    """What is known of the images that the network has seen: its own split of the run, or not even that."""
    if trained is None:
        return "unknown"
    published = trained.model.model.partition(":")[2]
    start = trained.model.init_from or (published if "/" in published else None)
    return "its own" if start is None else f"its own, and unknown of {start}, which it started from"


def _under_names_of(cache: Cache, model: Network, teller: Teller) -> Any:
    """Let a network answer in the order of the data's classes, where both have names and they differ."""
    if model.class_names is None or model.class_names == cache.class_names:
        return model
    if has_plain_names(cache.class_names) or has_plain_names(model.class_names):
        if model.num_classes != cache.num_classes:
            raise DataError(
                f"Got data of {cache.num_classes} classes and a network of {model.num_classes}, of which one side has no names to "
                "align them by. Give the data an id2label.json with the network's names."
            )
        return model
    alignment = align_names(model.class_names, cache.class_names)
    if alignment.is_identity:
        return model
    teller.say(alignment.told())
    return AlignedClasses(model, alignment, cache.class_names, cache.ignore_index).eval()


_OF_ONE_DATA_SET = ("synthetic_images", "synthetic_size", "label_map", "group_by", "folds", "fold")


def _data_config(options: EvaluateOptions, trained: Config | None, model: Network) -> Config:
    """The config whose data set is evaluated: the run's own, or another one under the classes of the model."""
    if options.data_path is None and trained is None:
        raise ConfigError(
            "data_path: got none, expected one, as RUN is no run's folder that names its data. Set --data_path."
        )
    base = trained or Config()
    changes: dict[str, Any] = {"num_classes": model.num_classes, "in_channels": model.in_channels}
    if options.data_path is not None and (trained is None or options.data_path != base.data.data_path):
        if model.class_names is not None and not has_plain_names(model.class_names):
            changes["num_classes"] = None  # the data's own, to be aligned by name
        fresh = Config()
        changes |= {key: getattr(fresh.data, key) for key in _OF_ONE_DATA_SET}
        changes |= {"data_path": options.data_path, "ignore_index": model.ignore_index}
    for key in ("ignore_index", "label_map", "cache_path", "seed"):
        if getattr(options, key) is not None:
            changes[key] = getattr(options, key)
    return base.replace(**changes)


def _draw(
    tiles: Tiles,
    samples: WindowedSamples,
    cache: Cache,
    processes: Processes,
    folder: Path,
    options: EvaluateOptions,
    tile_size: int,
    chosen: Sequence[Choice],
) -> None:
    """Keep image, label and prediction of the chosen images, shared over the processes."""
    for number in assign(len(chosen), processes.rank, processes.world_size):
        index, reason = chosen[number].index, chosen[number].reason
        image, cut, inner = _cut_out(as_reader(samples.image(index)), tiles.model.locality)
        with processes.autocast():
            prediction = predict_rasters(tiles, image, tile_size)["labels"]
        sample = Sample(image[inner], np.asarray(samples.label(index)[cut]), prediction[inner])
        write_picture(folder / PICTURES_FOLDER, picture_name(options.split, index), sample, cache.num_classes)
        if reason == "spread":
            path = folder / "figures" / f"{options.split}-{samples.ids[index]}.png"
            draw_samples(path, [sample], cache.class_names)


def _cut_out(
    reader: ImageReader, locality: Locality | None
) -> tuple[np.ndarray, tuple[slice, slice], tuple[slice, slice]]:
    """Read what is drawn of an image: all, or the middle of one too large to be looked at.

    Returns:
        Pixels (h, w, C) with the halo around what is drawn; what is drawn, in the image; and the same in the pixels.
    """
    halo, stride = (locality.halo, locality.stride) if locality else (0, 1)
    spans, cut, inner = [], [], []
    for side in reader.shape[:2]:
        start = max(side - MAX_DRAWN_PX, 0) // 2 // stride * stride
        stop = min(start + MAX_DRAWN_PX, side)
        outer = max(start - -(-halo // stride) * stride, 0)  # on the network's grid, as the labels depend on it
        spans += [outer, min(stop + halo + stride, side)]
        cut.append(slice(start, stop))
        inner.append(slice(start - outer, stop - outer))
    return reader.read(*spans), (cut[0], cut[1]), (inner[0], inner[1])
