"""The scores of a network over a split, for the command and for scripts.

Owns an evaluation's network and data, its scores and its record. Must not know the terminal's words or pictures.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from unet_dist.assembly.evaluated_data import open_evaluated, training_split, under_names_of
from unet_dist.assembly.inference import choose_tiles
from unet_dist.assembly.objective import require_border_class
from unet_dist.assembly.opening import (
    load_network,
    require_data_trusted,
    require_metrics_trusted,
    validated_best,
)
from unet_dist.assembly.run_data import digest_of
from unet_dist.assembly.sizes import resolve_tile_size
from unet_dist.config.options import EvaluateOptions
from unet_dist.config.sections import Precision
from unet_dist.data.decoded.cache import Cache, CachedSplit
from unet_dist.data.sources.splits import held_out_split
from unet_dist.errors import ConfigError
from unet_dist.metrics.confusion import Calibration, Scores, image_scores
from unet_dist.metrics.instances import InstanceScores
from unet_dist.metrics.registry import Counted, Metric, compute_metrics, load_metrics, make_metrics
from unet_dist.metrics.table import scores_table
from unet_dist.models.answers import answers_of
from unet_dist.models.contract import Network
from unet_dist.models.ensemble import members_of
from unet_dist.prediction.evaluation import Details, evaluate_instances, evaluate_split
from unet_dist.prediction.tiles import EXACT, WHOLE, Tiles
from unet_dist.prediction.values import Recipe
from unet_dist.processes.group import Processes, open_processes
from unet_dist.terminal import Teller
from unet_dist.wording import counted, printable

Split = Literal["train", "validation", "test", "all"]


@dataclass(frozen=True)
class Subject:
    """The network, data and options of an evaluation, on one process.

    Attributes:
        name: of the model, as the user gave it.
        folder: the run's, None where it is no run's.
        training_split: the images that the network has seen, as far as they are known.
        split: name of the part of the data.
        samples: that part.
        metrics: other scores of it, by name.
    """

    name: str
    folder: Path | None
    tiles: Tiles
    tile_size: int
    cache: Cache
    split: Split
    samples: CachedSplit
    training_split: str
    metrics: Mapping[str, Counted]

    @property
    def pixels(self) -> str:
        """A digest of the images: evaluations of the same images share it."""
        return digest_of(self.cache, self.samples.positions)


@dataclass(frozen=True)
class Evaluation:
    """The scores of a network over a split.

    Attributes:
        scores: over all images together: `scores.miou`, `scores.iou` (per class), `scores.confusion`.
        calibration: how often predictions are right, by confidence.
        by_image: mean IoU and pixel accuracy of each image, None where it has no valid pixel.
        instances: how well objects are separated, if asked for.
        class_names, ignore_index: of the data.
        ids: of the images.
        about: model, step, data, split, inference and so on.
        seconds: time that the scores took.
    """

    scores: Scores
    calibration: Calibration
    by_image: list[tuple[float | None, float | None]]
    instances: InstanceScores | None
    class_names: list[str]
    ignore_index: int | None
    ids: list[str]
    about: dict[str, Any]
    seconds: float

    @property
    def title(self) -> str:
        """Which scores these are."""
        known = self.about["training_split"]
        unknown = "" if known == "its own" else f" (training split {known})"
        about = self.about
        return f"{about['split']} of {about['data']}, {counted(len(self.ids), 'image')}, {about['inference']}{unknown}"

    def table(self, *, is_short: bool = False, rest: str | None = None) -> Table:
        """The scores by class, for rich to print; the worst classes only where it is to be short: `rest` names a file with all."""
        return scores_table(
            self.title, self.scores, self.class_names, self.ignore_index, is_short=is_short, is_detailed=True, rest=rest
        )

    def record(self) -> dict[str, Any]:
        """The content of evaluation-SPLIT.json."""
        record = self.scores.record(self.class_names, self.ignore_index)
        if self.instances is not None:
            record["instances"] = {"border_class": self.about["border_class"], **self.instances.record()}
        images = zip(self.ids, self.by_image, strict=True)
        return {
            **record,
            **self.about,
            "class_names": self.class_names,
            "ignore_index": self.ignore_index,
            "calibration": self.calibration.record(),
            "by_image": [{"id": name, "miou": miou, "pixel_accuracy": right} for name, (miou, right) in images],
        }


def evaluate(
    model: str | Path | Network,
    data: str | Path | Cache | None = None,
    *,
    split: Split | None = None,
    tile_size: int | None = None,
    window_batch: int = 4,
    blend: bool = False,
    whole: bool = False,
    flip: bool = False,
    rotations: bool = False,
    ignore_index: int | None = None,
    border_class: int | None = None,
    metrics: Sequence[Metric] | str | None = None,
    names: str | Path | None = None,
    mixed_precision: Precision = "auto",
    processes: Processes | None = None,
) -> Evaluation:
    """Score a network over a split of a data set; nothing is written.

    Under a launcher, call it in every process: they divide the work, and each gets all scores.

    >>> found = evaluate("runs/mine", split="validation")  # doctest: +SKIP
    >>> found.scores.miou  # doctest: +SKIP
    0.4871

    Args:
        model: a run's folder, a model folder, a hub id, several joined by + (an ensemble), or a network of models/contract.
        data: a data set as --data_path has it, or an opened one; None takes the run's own.
        split: train, validation, test or all; None takes test, or validation where the data have no test split.
        tile_size: largest side of a window, px; the scores do not depend on it, unless blended.
        window_batch: windows computed at once.
        blend, whole: overlapping windows, or every image in one.
        flip, rotations: average over the mirror image, or over all eight turns and mirror images.
        ignore_index: class id that counts nowhere; None takes the model's.
        border_class: class between objects: also scores how well it separates them.
        metrics: other scores of the confusion matrix, as functions of it or as words; None takes those of the run's config.
        names: file with the names of the data's classes; None takes the data's own, or else the network's.
        mixed_precision: auto is bf16 where the device is fast at it.
        processes: those of a caller who has opened them.

    Raises:
        ConfigError, DataError, CheckpointError, LocalityError, SizeError: the request cannot be met; says why.
    """
    options = EvaluateOptions(
        split=split,
        data_path=str(data) if isinstance(data, str | Path) else None,
        tile_size=tile_size,
        window_batch=window_batch,
        blend=blend,
        whole=whole,
        flip=flip,
        rotations=rotations,
        ignore_index=ignore_index,
        border_class=border_class,
        metrics=metrics if isinstance(metrics, str) else None,
        names=None if names is None else str(names),
        mixed_precision=mixed_precision,
    )
    objects = None if isinstance(metrics, str) else metrics
    opened: AbstractContextManager[Processes] = (
        open_processes(mixed_precision=mixed_precision) if processes is None else nullcontext(processes)
    )
    with opened as joined:
        teller = Teller(speaks=False)
        cache = data if isinstance(data, Cache) else None
        subject = open_subject(model, options, joined, teller, cache=cache, metrics=objects)
        return score(subject, options, joined, teller)


def open_subject(
    model: str | Path | Network,
    options: EvaluateOptions,
    processes: Processes,
    teller: Teller,
    cache: Cache | None = None,
    metrics: Sequence[Metric] | None = None,
) -> Subject:
    """Open the network and the data of an evaluation.

    Args:
        cache: the data, where it is open already.
        metrics: objects, in place of the words in the options and in the run's config.

    Raises:
        ConfigError, DataError, CheckpointError, SizeError: the request cannot be met; says why.
    """
    network: Network
    if isinstance(model, str | Path):
        name = str(model)
        network, trained, folder = load_network(name, processes.device, options.trust, options.average)
        if trained is not None and options.data_path is None and cache is None:
            require_data_trusted(trained, options.trust)
    else:
        name, network, trained, folder = type(model).__name__, model, None, None
    words = options.metrics
    if words is None and metrics is None and trained is not None:
        require_metrics_trusted(trained, options.trust)
        words = trained.run.metrics
    load_metrics(words)
    if cache is None:
        cache, known = open_evaluated(options, trained, folder, network, teller)
        if isinstance(model, str | Path) and len(members_of(name)) > 1:
            known = "of several runs"
    else:
        known = training_split(trained)
    answering: Any = copy.copy(
        under_names_of(cache, network, teller).to(processes.device)
    )  # the caller's stays as it is
    answering.ignore_index = cache.ignore_index  # it may have been named here: then it is no answer either
    network = answering
    _require_same_task(cache, network, options)
    tiles = choose_tiles(
        network,
        Recipe(
            "float32" if cache.multi_label else "none",
            "none" if cache.multi_label else "float32",
            flip=options.flip,
            rotations=options.rotations,
        ),
        blend=options.blend,
        whole=options.whole,
        window_batch=options.window_batch,
        say=teller.say,
    )
    if options.border_class is not None:
        require_border_class(options.border_class, cache)
        if tiles.name != EXACT:
            raise ConfigError(
                f"border_class: got {options.border_class} with inference by {tiles.name}, expected exact tiles, whose "
                "probabilities do not depend on their size. Remove border_class, or evaluate a network with a finite halo."
            )
    tile_size = resolve_tile_size(options.tile_size, network, trained)
    split = options.split or held_out_split(cache.splits)
    if options.split is None and split == "validation":
        teller.say("The data have no test split: scored on validation, which also chose the best weights.")
    return Subject(
        name,
        folder,
        tiles,
        tile_size,
        cache,
        split,
        cache.split(split),
        known,
        make_metrics(
            words if metrics is None else metrics, cache.num_classes, cache.ignore_index, multi_label=cache.multi_label
        ),
    )


def _require_same_task(cache: Cache, network: Network, options: EvaluateOptions) -> None:
    """Refuse data whose classes overlap for a network whose classes do not, and the other way round.

    Raises:
        ConfigError: names multi_label.
    """
    overlap = answers_of(network).overlap
    if cache.multi_label != overlap:
        kinds = {True: "overlapping classes", False: "one class per pixel"}
        raise ConfigError(
            f"multi_label: got data of {kinds[cache.multi_label]} and a network of {kinds[overlap]}. Evaluate it on data of its "
            "kind."
        )
    if overlap and network.num_classes != cache.num_classes:
        raise ConfigError(
            f"multi_label: got data of {cache.num_classes} classes and a network of {network.num_classes}. Name the classes of "
            "both."
        )
    if overlap and options.border_class is not None:
        raise ConfigError(
            f"border_class: got {options.border_class} for a network of multi_label, expected none: it parts objects of classes "
            "that exclude each other. Remove border_class."
        )


def score(subject: Subject, options: EvaluateOptions, processes: Processes, teller: Teller) -> Evaluation:
    """Predict the split and count it; by all processes together, each of which gets all of it."""
    tiles, samples, cache = subject.tiles, subject.samples, subject.cache
    network = tiles.model
    details = Details.none_yet(len(samples), network.num_classes, processes.device)
    started = time.perf_counter()
    with teller.progress("window", 0) as bar, processes.autocast():
        scores = evaluate_split(
            tiles, samples, processes, tile_size=subject.tile_size, details=details, advance=bar.advance
        )
    assert scores is not None
    scores = replace(scores, others=compute_metrics(subject.metrics, scores.confusion))
    by_image = image_scores(details.by_image, network.ignore_index)
    seconds = time.perf_counter() - started
    instances = None
    if options.border_class is not None:
        with processes.autocast():
            instances = evaluate_instances(
                tiles, samples, processes, border_class=options.border_class, tile_size=subject.tile_size
            )
    is_whole = tiles.name == WHOLE
    border = {} if instances is None else {"border_class": options.border_class}
    about = {
        "model": printable(subject.name),  # names of files may be no UTF-8, which is read back as no text
        "step": step_of(subject.folder),
        "data": printable(cache.name),
        "split": subject.split,
        "images": len(samples),
        "pixels": subject.pixels,
        "inference": tiles.name,
        "mixed_precision": processes.precision,
        "averaged_over": "rotations" if options.rotations else "flip" if options.flip else None,
        "tile_size": None if is_whole else subject.tile_size,
        "resized_to": network.resize_to if is_whole else None,
        "training_split": subject.training_split,
        **border,
    }
    return Evaluation(
        scores,
        Calibration.of(details.confidence),
        by_image,
        instances,
        cache.class_names,
        cache.ignore_index,
        [printable(name) for name in samples.ids],
        about,
        seconds,
    )


def step_of(folder: Path | None) -> int | None:
    """The training step of a run's best model, None where RUN is no run's folder or has only its last."""
    best = validated_best(folder)
    return None if best is None else int(best["step"])
