"""Scores of a model over a split, on any number of processes: by exact tiles, or by blended ones or whole images.

Owns how the windows of a split are shared out and counted. Batches of windows are formed over the whole split and then
given to the ranks, so the confusion matrix is the same bits on any number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from unet_dist.data.batches.crops import WindowedSamples
from unet_dist.data.batches.ids import widened
from unet_dist.data.batches.planes import unpack
from unet_dist.imaging.reader import as_reader
from unet_dist.machine.uploading import uploading
from unet_dist.metrics.confusion import (
    CALIBRATION_BINS,
    MATRIX_CLASSES,
    Scores,
    count_confidence,
    count_confusion,
    count_planes,
    tally,
)
from unet_dist.metrics.instances import InstanceScores, score_image
from unet_dist.models.answers import answers_of
from unet_dist.models.contract import Network, as_module
from unet_dist.models.normalisation import standardised_once
from unet_dist.prediction.exact import ExactTiles
from unet_dist.prediction.image import predict_rasters
from unet_dist.prediction.reading import read_ahead
from unet_dist.prediction.tiles import Piece, Tiles, Values, compute_pieces
from unet_dist.prediction.values import not_finite
from unet_dist.processes.group import Processes
from unet_dist.tiling.batches import WindowRef, plan_batches
from unet_dist.tiling.geometry import TilePlan, assign
from unet_dist.tiling.windows import as_seen


@dataclass(frozen=True)
class Details:
    """What an evaluation counts beyond the scores, where it is asked to.

    Attributes:
        by_image: (N, 3, K) int64: of each image and class the hits, the label's pixels and the prediction's.
        confidence: (3, CALIBRATION_BINS) int64, as count_confidence has it.
    """

    by_image: Tensor
    confidence: Tensor

    @classmethod
    def none_yet(cls, num_images: int, num_classes: int, device: torch.device) -> Details:
        """Counts to be filled."""
        return cls(
            torch.zeros(num_images, 3, num_classes, dtype=torch.int64, device=device),
            torch.zeros(3, CALIBRATION_BINS, dtype=torch.int64, device=device),
        )

    def add(self, image: int, truth: Tensor, labels: Tensor, confidence: Tensor, confusion: Tensor) -> None:
        """Count one tile."""
        self.by_image[image] += torch.stack(tally(confusion))
        self.confidence.add_(count_confidence(truth, labels, confidence))


def evaluate_split(
    tiles: Tiles,
    samples: WindowedSamples,
    processes: Processes,
    *,
    tile_size: int,
    details: Details | None = None,
    is_stopped: Callable[[], bool] | None = None,
    advance: Callable[[int], None] | None = None,
) -> Scores | None:
    """Predict a split and count it. Batches are read while others are computed, and nothing waits for the device.

    Args:
        tiles: how images are predicted by a model on the device; for details with its confidence, or the probabilities
            of overlapping classes.
        samples: the split, its labels with all bits set where a pixel counts nowhere.
        tile_size: largest side of a window, px.
        details: filled with the counts over all processes.
        is_stopped: asked by all processes together before each round of batches; True ends the evaluation.
        advance: told the number of windows computed by all processes, after each round.

    Returns:
        The scores over all processes, or None when it was stopped.

    Raises:
        DataError: the network gives logits that are not finite; looked at once, at the end, as it waits for the device.
    """
    model, device = tiles.model, processes.device
    plans = [tiles.plan(samples.label(index).shape, tile_size) for index in range(len(samples))]
    batches = plan_batches(plans, tiles.pieces_at_once)
    mine = assign(len(batches), processes.rank, processes.world_size)
    rounds = len(assign(len(batches), 0, processes.world_size))  # rank 0 has the most; all ask as often
    count, overlap = model.num_classes, answers_of(model).overlap
    shape = (count, 2, 2) if overlap or count > MATRIX_CLASSES else (count, count)
    confusion = torch.zeros(shape, dtype=torch.int64, device=device)
    without = torch.zeros(len(batches), dtype=torch.int64, device=device)  # 1: a batch with a pixel without a class

    def read(number: int) -> tuple[list[Piece], Tensor]:
        return _read(tiles, samples, plans, batches[number], is_pinned=device.type == "cuda")

    with standardised_once(as_module(model)), read_ahead(mine, read) as reads:
        for _ in range(rounds):
            if is_stopped is not None and is_stopped():
                return None
            for number, (pieces, truth) in islice(reads, 1):
                values = [_present(one) for one in compute_pieces(tiles, pieces)]
                with uploading(device) as upload:
                    truth = upload(truth)
                confusion += _count(model, pieces, truth, values, details, without[number])
            if advance is not None:
                windows = tiles.pieces_at_once
                advance(min(processes.world_size * windows, len(batches) * windows))
    # In one copy to the host, as each waits for the device.
    counts, marks = (
        processes.sum_(torch.cat([confusion.flatten(), without])).cpu().split([confusion.numel(), len(without)])
    )
    for number in (place for place, mark in enumerate(marks.tolist()) if mark):
        raise not_finite(" or ".join(samples.ids[index] for index in sorted({ref.image for ref in batches[number]})))
    if details is not None:
        processes.sum_(details.by_image)
        processes.sum_(details.confidence)
    return Scores.of(counts.view(shape), model.ignore_index, overlap=overlap)


def _count(
    model: Network,
    pieces: Sequence[Piece],
    truth: Tensor,
    values: Sequence[Values],
    details: Details | None,
    without: Tensor,
) -> Tensor:
    """Count a batch: its confusion matrix, and what details hold.

    Args:
        without: (), set where a pixel has no class, which is counted as the last one.
    """
    count, overlap, device = model.num_classes, answers_of(model).overlap, truth.device
    last = 1 if overlap else count - 1
    # All tiles at once: an operation is a launch, which the host must order.
    flat = torch.cat([widened(one["labels"].to(device, non_blocking=True)).flatten() for one in values])
    without.copy_((flat > last).any())
    flat.clamp_(max=last)
    if details is None and not overlap:
        return count_confusion(truth, flat, count)
    shapes = [(piece.tile.height, piece.tile.width) for piece in pieces]
    truths = [part.view(shape) for part, shape in zip(truth.split([h * w for h, w in shapes]), shapes, strict=True)]
    of_each = flat.split([one["labels"].numel() for one in values])
    labels = [part.view(one["labels"].shape) for part, one in zip(of_each, values, strict=True)]
    counts = []
    for piece, part, label, one in zip(pieces, truths, labels, values, strict=True):
        known = unpack(part, count) if overlap else part
        counts.append(count_planes(known, label) if overlap else count_confusion(known, label, count))
        if details is not None:
            details.add(piece.image, known, label, _certainty(one, label, overlap=overlap), counts[-1])
    return torch.stack(counts).sum(0)


def _present(values: Values | None) -> Values:
    assert values is not None, "evaluation leaves out no background"
    return values


def _certainty(values: Values, labels: Tensor, *, overlap: bool) -> Tensor:
    """The probability of the answer: of the class that won, or of each overlapping class that it is there, or is not."""
    if not overlap:
        return values["confidence"].to(labels.device, non_blocking=True)
    probabilities = values["probabilities"].to(labels.device, non_blocking=True)
    return torch.where(labels == 1, probabilities, 1 - probabilities)


def _read(
    tiles: Tiles, samples: WindowedSamples, plans: Sequence[TilePlan], refs: Sequence[WindowRef], *, is_pinned: bool
) -> tuple[list[Piece], Tensor]:
    """Read a batch: its pieces, and the labels of their pixels, tile behind tile, (n,).

    Args:
        is_pinned: the labels go into pinned memory, from which their upload waits for nothing.
    """
    pieces, parts = [], []
    for ref in refs:
        plan, reader = plans[ref.image], as_seen(tiles.model, as_reader(samples.image(ref.image)))
        tile = plan[ref.tile]
        pieces.append(tiles.read(ref.image, reader, plan, tile))
        parts.append(samples.label(ref.image)[tile.row : tile.row + tile.height, tile.col : tile.col + tile.width])
    sizes = [part.size for part in parts]
    truth = torch.empty(sum(sizes), dtype=getattr(torch, parts[0].dtype.name), pin_memory=is_pinned)
    for part, there in zip(parts, truth.split(sizes), strict=True):
        there.numpy().reshape(part.shape)[...] = part
    return pieces, truth


def evaluate_instances(
    tiles: Tiles, samples: WindowedSamples, processes: Processes, *, border_class: int, tile_size: int
) -> InstanceScores:
    """Score how well the border separates the objects of a split; whole images are shared over the processes.

    Args:
        tiles: whose network predicts, averaged over the same views, by exact tiles.
        border_class: the class between objects.

    Raises:
        LocalityError: the model has no finite halo.
    """
    exact, mine = ExactTiles(tiles.model, replace(tiles.recipe, probabilities="float32")), {}
    for index in assign(len(samples), processes.rank, processes.world_size):
        border = predict_rasters(exact, samples.image(index), tile_size)["probabilities"][border_class].astype(
            np.float64
        )
        mine[str(index)] = score_image(border, np.array(samples.label(index)[:, :]), border_class).tolist()
    rows = {int(index): row for part in processes.gather(mine) for index, row in part.items()}
    return InstanceScores.of(np.array([rows[index] for index in range(len(samples))]))
