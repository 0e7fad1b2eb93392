"""`unet-dist evaluate`: the scores of a run, a model folder or a hub id over a split."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev

import numpy as np

from unet_dist.assembly.evaluating import Evaluation, Subject, open_subject, score, step_of
from unet_dist.assembly.inference import reason_of
from unet_dist.assembly.opening import describe_opened, teller_of
from unet_dist.command_line.command import Command
from unet_dist.config.options import EvaluateOptions
from unet_dist.errors import ConfigError, DataError
from unet_dist.imaging.reader import ImageReader, as_reader
from unet_dist.machine.description import describe_machine
from unet_dist.prediction.image import predict_rasters
from unet_dist.processes.group import Processes, open_processes
from unet_dist.report.figures import Sample, draw_samples
from unet_dist.report.pictures import (
    PICTURES_FOLDER,
    Choice,
    choose_pictures,
    picture_name,
    remove_pictures,
    write_sample,
)
from unet_dist.runs.environment import record_evaluation
from unet_dist.runs.trackers import show_pictures
from unet_dist.storage.files import require_writable, write_whole
from unet_dist.storage.typed import read_json
from unet_dist.terminal import Teller
from unet_dist.tiling.geometry import Locality, assign
from unet_dist.tiling.windows import as_seen
from unet_dist.wording import counted

COMMAND = Command(
    about="score a run on a split: IoU by class, mean IoU, confusion matrix",
    usage="RUN... [--split test] [--key value ...]",
    place=20,
    needs="a run's folder, a model folder or a hub id, or several joined by +",
    options="config.options:EvaluateOptions",
    starts_processes=True,
    uses_all_gpus=True,
)

MAX_DRAWN_PX = 2048
"""Side of the part of an image that is drawn; matplotlib shrinks even that."""


def run(words: Sequence[str], options: EvaluateOptions) -> None:
    """Evaluate each RUN, and say what they have in the mean."""
    if len(words) > 1 and options.output_path is not None:
        raise ConfigError(
            f"output_path: got {options.output_path} for {len(words)} runs, expected none: each has its folder. Join them by + to "
            "evaluate their ensemble."
        )
    with open_processes(
        mixed_precision=options.mixed_precision,
        expected_processes=options.expected_processes,
        collective_timeout_s=options.collective_timeout_s,
    ) as processes:
        teller = teller_of(processes)
        found = [_evaluate(word, options, processes, teller) for word in words]
        if len(found) > 1:
            teller.say(spread(words, [evaluation.scores.miou for evaluation in found]))


def _evaluate(word: str, options: EvaluateOptions, processes: Processes, teller: Teller) -> Evaluation:
    """Evaluate one RUN and write its scores and pictures."""
    subject = open_subject(word, options, processes, teller)
    output = Path(options.output_path) if options.output_path else subject.folder
    if output is None:
        raise ConfigError(f"output_path: {word} is not a run's folder to write into. Set --output_path DIR.")
    if options.data_path is not None and options.output_path is None:
        _require_own_place(subject, output)
    require_writable(output, "output_path")
    wish, precision = options.mixed_precision, processes.precision
    for line in describe_opened(word, subject.tiles.model, average=options.average, wish=wish, precision=precision):
        teller.say(line)
    if (reason := reason_of(subject.tiles)) and not (options.blend or options.whole):
        teller.say(reason)
    evaluation = score(subject, options, processes, teller)
    chosen = choose_pictures([miou for miou, _ in evaluation.by_image], options.pictures)
    if processes.is_main:
        path = _record(evaluation, chosen, output, processes)
        _print(evaluation, path, teller)
    if chosen:
        teller.say(f"Drawing {counted(len(chosen), 'picture')}.")
    _draw(subject, chosen, output, processes)
    if subject.folder is not None and output == subject.folder:
        processes.barrier()  # each drew some of them
        if processes.is_main:
            drawn = {f"{subject.split}/{subject.samples.ids[c.index]}": c for c in chosen if c.reason == "spread"}
            paths = {name: figure_path(output, subject, choice.index) for name, choice in drawn.items()}
            show_pictures(output, paths, step_of(output) or 0)
    if chosen:
        teller.say(f"Pictures: {output / 'figures'}/{subject.split}-*.png")
    if subject.folder is not None and output == subject.folder:
        teller.say(f"Next: unet-dist report {shlex.quote(str(subject.folder))}")
    return evaluation


def spread(words: Sequence[str], scores: Sequence[float]) -> str:
    """Each run's mean IoU, their mean, and their standard deviation (of a sample of runs: over n - 1).

    >>> spread(["a", "b"], [0.5, 0.6])
    'Mean IoU: a 0.5000, b 0.6000; mean 0.5500, standard deviation 0.0707.'
    """
    each = ", ".join(f"{word} {score:.4f}" for word, score in zip(words, scores, strict=True))
    return f"Mean IoU: {each}; mean {fmean(scores):.4f}, standard deviation {stdev(scores):.4f}."


def _require_own_place(subject: Subject, output: Path) -> None:
    """Refuse to write the scores of other images over those that stand there."""
    path = output / f"evaluation-{subject.split}.json"
    try:
        before = read_json(path, dict[str, object]).get("pixels")
    except DataError:
        return
    if before not in (None, subject.pixels):  # of an older release it says nothing
        raise ConfigError(
            f"output_path: {path} holds the scores of other images, expected those of {subject.cache.name}. Set --output_path "
            "DIR to keep both."
        )


def _record(evaluation: Evaluation, chosen: Sequence[Choice], output: Path, processes: Processes) -> Path:
    """Write evaluation-SPLIT.json and what it was computed on, and clear away an older evaluation's pictures."""
    split = evaluation.about["split"]
    output.mkdir(parents=True, exist_ok=True)
    pictures = [
        {
            "name": picture_name(split, choice.index),
            "id": evaluation.ids[choice.index],
            "reason": choice.reason,
            "miou": evaluation.by_image[choice.index][0],
        }
        for choice in chosen
    ]
    path = output / f"evaluation-{split}.json"
    write_whole(path, json.dumps({**evaluation.record(), "pictures": pictures}, indent=1).encode())
    described = describe_machine(processes.device, processes.world_size)
    record_evaluation(output, split, described, evaluation.seconds)
    remove_pictures(output / PICTURES_FOLDER, split, [picture_name(split, choice.index) for choice in chosen])
    return path


def _print(evaluation: Evaluation, path: Path, teller: Teller) -> None:
    """Print the scores."""
    teller.table(evaluation.table(is_short=teller.is_low(len(evaluation.scores.iou) + 8), rest=str(path)))
    if (instances := evaluation.instances) is not None:
        teller.say(
            f"Objects between class {evaluation.about['border_class']}, after border thinning: V_rand {instances.v_rand:.4f} "
            f"(border from probability {instances.rand_threshold:g} on), V_info {instances.v_info:.4f} "
            f"({instances.info_threshold:g}); pixel error {1 - evaluation.scores.pixel_accuracy:.4f}"
        )
    teller.say(f"Written: {path}")


def _draw(subject: Subject, chosen: Sequence[Choice], folder: Path, processes: Processes) -> None:
    """Keep image, label and prediction of the chosen images; the processes take their parts."""
    samples, cache, split = subject.samples, subject.cache, subject.split
    for number in assign(len(chosen), processes.rank, processes.world_size):
        index, reason = chosen[number].index, chosen[number].reason
        image, cut, inner = _cut_out(
            as_seen(subject.tiles.model, as_reader(samples.image(index))), subject.tiles.model.locality
        )
        prediction = predict_rasters(subject.tiles, image, subject.tile_size, processes.autocast)["labels"]
        sample = Sample(
            image[inner],
            np.asarray(samples.label(index)[cut]),
            prediction[(slice(None),) * (prediction.ndim - 2) + inner],
        )
        write_sample(folder / PICTURES_FOLDER, picture_name(split, index), sample, cache.num_classes)
        if reason == "spread":
            draw_samples(figure_path(folder, subject, index), [sample], cache.class_names)


def figure_path(folder: Path, subject: Subject, index: int) -> Path:
    """Where the picture of an image is drawn."""
    return folder / "figures" / f"{subject.split}-{subject.samples.ids[index]}.png"


def _cut_out(
    reader: ImageReader, locality: Locality | None
) -> tuple[np.ndarray, tuple[slice, slice], tuple[slice, slice]]:
    """Read the part of an image to draw: all, or the middle of one too large to look at.

    Returns:
        Pixels (h, w, C) with the halo around the part; the part's place in the image; and its place in the pixels.
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
