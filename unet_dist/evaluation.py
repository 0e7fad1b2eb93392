"""Scores of a model over a split, by overlap-tile, on any number of processes.

Owns how the windows of a split are shared out and counted. Batches of windows are formed over the whole split and then
given to the ranks, so the confusion matrix is the same bits on any number of processes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from unet_dist.data.crops import Samples
from unet_dist.distributed import Processes
from unet_dist.imaging.reader import ArrayReader
from unet_dist.metrics import Scores, count_confusion
from unet_dist.tiling.batches import plan_batches
from unet_dist.tiling.geometry import assign, plan_tiles
from unet_dist.tiling.inference import TiledModel, predict_batch, require_locality


def evaluate_split(
    model: TiledModel,
    samples: Samples,
    processes: Processes,
    *,
    tile_size: int,
    window_batch: int,
    is_stopped: Callable[[], bool] | None = None,
    advance: Callable[[int], None] | None = None,
) -> Scores | None:
    """Predict a split and count it.

    Args:
        model: in evaluation mode, on the device.
        samples: the split, its labels with IGNORED where a pixel counts nowhere.
        tile_size: largest side of a window, px.
        window_batch: windows computed at once.
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
                (ArrayReader(samples.image(ref.image)), plans[ref.image], plans[ref.image][ref.tile]) for ref in refs
            ]
            for ref, labels in zip(refs, predict_batch(model, windows), strict=True):
                tile = plans[ref.image][ref.tile]
                truth = samples.label(ref.image)[tile.row : tile.row + tile.height, tile.col : tile.col + tile.width]
                confusion += _count(truth, labels, model.num_classes)
        if advance is not None:
            advance(min(processes.world_size * window_batch, len(batches) * window_batch))
    return Scores.of(processes.sum_(confusion), model.ignore_index)


def _count(truth: np.ndarray, labels: Tensor, num_classes: int) -> Tensor:
    return count_confusion(torch.from_numpy(np.array(truth)).to(labels.device), labels, num_classes)
