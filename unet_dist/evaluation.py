"""Scores of a model over a split, by overlap-tile, on any number of processes.

Owns how the windows of a split are shared out and counted. Batches of windows are formed over the whole split and then
given to the ranks, so the confusion matrix is the same bits on any number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unet_dist.data.crops import WindowedSamples
from unet_dist.distributed import Processes
from unet_dist.imaging.reader import as_reader
from unet_dist.metrics import CONFIDENCE_LEVELS, Scores, count_confidence, count_confusion
from unet_dist.tiling.batches import plan_batches
from unet_dist.tiling.geometry import assign, plan_tiles
from unet_dist.tiling.inference import TiledModel, predict_batch, predict_batch_confidence, require_locality


@dataclass(frozen=True)
class Details:
    """What an evaluation counts beyond the scores, where it is asked to.

    Attributes:
        by_image: (N, 3, K) int64: of each image and class the hits, the label's pixels and the prediction's.
        confidence: (2, CONFIDENCE_LEVELS + 1) int64, as count_confidence has it.
    """

    by_image: Tensor
    confidence: Tensor

    @classmethod
    def none_yet(cls, num_images: int, num_classes: int, device: torch.device) -> Details:
        """Counts to be filled."""
        return cls(
            torch.zeros(num_images, 3, num_classes, dtype=torch.int64, device=device),
            torch.zeros(2, CONFIDENCE_LEVELS + 1, dtype=torch.int64, device=device),
        )

    def add(self, image: int, truth: Tensor, labels: Tensor, confidence: Tensor, confusion: Tensor) -> None:
        """Count one tile."""
        self.by_image[image] += torch.stack([confusion.diagonal(), confusion.sum(1), confusion.sum(0)])
        self.confidence.add_(count_confidence(truth, labels, confidence))


def evaluate_split(
    model: TiledModel,
    samples: WindowedSamples,
    processes: Processes,
    *,
    tile_size: int,
    window_batch: int,
    details: Details | None = None,
    is_stopped: Callable[[], bool] | None = None,
    advance: Callable[[int], None] | None = None,
) -> Scores | None:
    """Predict a split and count it.

    Args:
        model: in evaluation mode, on the device.
        samples: the split, its labels with IGNORED where a pixel counts nowhere.
        tile_size: largest side of a window, px.
        window_batch: windows computed at once.
        details: filled with the counts over all processes; takes the confidence of every pixel.
        is_stopped: asked by all processes together before each round of batches; True ends the evaluation.
        advance: told the number of windows computed by all processes, after each round.

    Returns:
        The scores over all processes, or None when it was stopped.

    Raises:
        LocalityError: the model has no finite halo.
    """
    locality = require_locality(model)
    plans = [plan_tiles(samples.label(i).shape, tile_size, model.window_sizes, locality) for i in range(len(samples))]
    batches = plan_batches(plans, window_batch)
    mine = assign(len(batches), processes.rank, processes.world_size)
    rounds = len(assign(len(batches), 0, processes.world_size))  # rank 0 has the most; all ask as often
    confusion = torch.zeros(model.num_classes, model.num_classes, dtype=torch.int64, device=processes.device)
    for number in range(rounds):
        if is_stopped is not None and is_stopped():
            return None
        if number < len(mine):
            refs = batches[mine[number]]
            windows = [
                (as_reader(samples.image(ref.image)), plans[ref.image], plans[ref.image][ref.tile]) for ref in refs
            ]
            predicted: Sequence[tuple[Tensor, Tensor | None]]
            if details is None:
                predicted = [(labels, None) for labels in predict_batch(model, windows)]
            else:
                predicted = predict_batch_confidence(model, windows)
            for ref, (labels, confidence) in zip(refs, predicted, strict=True):
                tile = plans[ref.image][ref.tile]
                part = samples.label(ref.image)[tile.row : tile.row + tile.height, tile.col : tile.col + tile.width]
                truth = torch.from_numpy(np.array(part)).to(labels.device)
                counts = count_confusion(truth, labels, model.num_classes)
                confusion += counts
                if details is not None:
                    assert confidence is not None
                    details.add(ref.image, truth, labels, confidence, counts)
        if advance is not None:
            advance(min(processes.world_size * window_batch, len(batches) * window_batch))
    if details is not None:
        processes.sum_(details.by_image)
        processes.sum_(details.confidence)
    return Scores.of(processes.sum_(confusion), model.ignore_index)
