"""Scores of a model over a split, on any number of processes: by exact tiles, or by blended ones or whole images.

Owns how the windows of a split are shared out and counted. Batches of windows are formed over the whole split and then
given to the ranks, so the confusion matrix is the same bits on any number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from unet_dist.data.batches.crops import WindowedSamples
from unet_dist.imaging.reader import ImageReader, as_reader
from unet_dist.metrics.confusion import CONFIDENCE_LEVELS, Scores, count_confidence, count_confusion
from unet_dist.metrics.instances import InstanceScores, score_image
from unet_dist.models.contract import Network
from unet_dist.prediction.exact import Piece
from unet_dist.processes.group import Processes
from unet_dist.tiling.batches import WindowRef, plan_batches
from unet_dist.tiling.geometry import Tile, TilePlan, assign, plan_tiles
from unet_dist.tiling.windows import (
    Labels,
    classify,
    predict_batch,
    predict_batch_confidence,
    predict_logits,
    require_channels,
    require_locality,
)


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


class CoupledTiles(Protocol):
    """How images are predicted by a network without a finite halo: by blended tiles, or as a whole."""

    def plan(self, image_shape: tuple[int, int], tile_size: int) -> TilePlan: ...
    def read(self, image: int, reader: ImageReader, plan: TilePlan, tile: Tile) -> Piece: ...
    def probabilities(self, piece: Piece) -> Tensor:
        """(K, height, width)."""


def evaluate_split(
    model: Network,
    samples: WindowedSamples,
    processes: Processes,
    *,
    tile_size: int,
    window_batch: int,
    tiles: CoupledTiles | None = None,
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
        tiles: how images are predicted; None takes exact tiles.
        details: filled with the counts over all processes; takes the confidence of every pixel.
        is_stopped: asked by all processes together before each round of batches; True ends the evaluation.
        advance: told the number of windows computed by all processes, after each round.

    Returns:
        The scores over all processes, or None when it was stopped.

    Raises:
        LocalityError: exact tiles of a model that has no finite halo.
    """
    shapes = [samples.label(index).shape for index in range(len(samples))]
    if tiles is None:
        locality = require_locality(model)
        plans = [plan_tiles(shape, tile_size, model.window_sizes, locality) for shape in shapes]
    else:
        plans = [tiles.plan(shape, tile_size) for shape in shapes]
        window_batch = 1  # such a tile is a batch of windows by itself
    batches = plan_batches(plans, window_batch)
    mine = assign(len(batches), processes.rank, processes.world_size)
    rounds = len(assign(len(batches), 0, processes.world_size))  # rank 0 has the most; all ask as often
    confusion = torch.zeros(model.num_classes, model.num_classes, dtype=torch.int64, device=processes.device)
    for number in range(rounds):
        if is_stopped is not None and is_stopped():
            return None
        if number < len(mine):
            refs = batches[mine[number]]
            predicted = _predict(model, samples, plans, refs, tiles, is_detailed=details is not None)
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


def _predict(
    model: Network,
    samples: WindowedSamples,
    plans: Sequence[TilePlan],
    refs: Sequence[WindowRef],
    tiles: CoupledTiles | None,
    *,
    is_detailed: bool,
) -> Sequence[tuple[Tensor, Tensor | None]]:
    """Predict a batch of tiles: the labels (height, width) uint8 of each, and the confidence where it is asked for."""
    windows = [(as_reader(samples.image(ref.image)), plans[ref.image], plans[ref.image][ref.tile]) for ref in refs]
    if tiles is None:
        if is_detailed:
            return predict_batch_confidence(model, windows)
        return [(labels, None) for labels in predict_batch(model, windows)]
    predicted: list[tuple[Tensor, Tensor | None]] = []
    for ref, (reader, plan, tile) in zip(refs, windows, strict=True):
        probabilities = tiles.probabilities(tiles.read(ref.image, reader, plan, tile))  # (K, height, width)
        predicted.append((classify(probabilities[None], model.ignore_index)[0], probabilities.amax(dim=0)))
    return predicted


def predict_labels(tiles: CoupledTiles, model: Network, image: np.ndarray, tile_size: int) -> Labels:
    """Predict an image (H, W, C) uint8 by blended tiles or as a whole: (H, W) uint8.

    Raises:
        DataError: the image has other channels than the network takes.
    """
    reader = as_reader(image)
    require_channels(model, reader)
    plan = tiles.plan(reader.shape[:2], tile_size)
    labels = np.empty(plan.image_shape, dtype=np.uint8)
    for tile in plan:
        probabilities = tiles.probabilities(tiles.read(0, reader, plan, tile))
        part = classify(probabilities[None], model.ignore_index)[0].cpu().numpy()
        labels[tile.row : tile.row + tile.height, tile.col : tile.col + tile.width] = part
    return labels


def evaluate_instances(
    model: Network, samples: WindowedSamples, processes: Processes, *, border_class: int, tile_size: int
) -> InstanceScores:
    """Score how well the objects of a split are told apart by their border; whole images are shared over the processes.

    Args:
        border_class: the class between objects.

    Raises:
        LocalityError: the model has no finite halo.
    """
    mine = {}
    for index in assign(len(samples), processes.rank, processes.world_size):
        logits = predict_logits(model, samples.image(index), tile_size).double()
        if model.ignore_index is not None and model.ignore_index < len(logits):
            logits[model.ignore_index] = -torch.inf
        border = logits.softmax(0)[border_class].numpy()
        mine[str(index)] = score_image(border, np.array(samples.label(index)[:, :]), border_class).tolist()
    rows = {int(index): row for part in processes.gather(mine) for index, row in part.items()}
    return InstanceScores.of(np.array([rows[index] for index in range(len(samples))]))
