"""Proves every loss, in every way that a batch is cut over two processes, against formulas written by hand in numpy.

Value and gradient: dL/dlogits of the undivided batch by hand, through the network by autograd.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.distributed.test_split_sample import TILES, launch, shares_of, step_of_the_trainer
from tests.tiling.scenes import CLASS_WEIGHTS, NUM_CLASSES, Scenes, build_model, relative_differences
from unet_dist.config.loss_terms import LOSSES
from unet_dist.data.batches.borders import BorderWeights
from unet_dist.data.decoded.labels import IGNORED
from unet_dist.losses.lovasz import Lovasz
from unet_dist.losses.mixture import Mixture, build_loss
from unet_dist.processes.group import open_processes
from unet_dist.tiling.gradient import WindowGradient

WEIGHTS = CLASS_WEIGHTS.numpy()
Result = tuple[float, np.ndarray]
"""Loss, and its derivative by each logit, (P, K)."""


class Uneven(Scenes):
    """Scenes of which very different shares are ignored: a mean of means would be another loss."""

    def __init__(self) -> None:
        super().__init__([(70, 95), (64, 120), (64, 64), (80, 66)])
        random = np.random.default_rng(1)
        for label, share in zip(self.labels, (0.0, 0.95, 0.5, 0.8), strict=True):
            label[random.random(label.shape) < share] = IGNORED


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def through_softmax(p: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """From dL/dp to dL/dz."""
    return p * (slope - (slope * p).sum(axis=1, keepdims=True))


def cross_entropy(
    z: np.ndarray, y: np.ndarray, weights: np.ndarray, smoothing: float = 0.0, ignored: int | None = None
) -> Result:
    """Sum of w * -sum_k t_k log p_k over the sum of w; t is the label, smoothed over the classes that are an answer."""
    p = softmax(z)
    answers = np.array([float(k != ignored) for k in range(NUM_CLASSES)])
    target = (1 - smoothing) * np.eye(NUM_CLASSES)[y] + smoothing * answers / answers.sum()
    value = -(weights * (target * np.log(p)).sum(axis=1)).sum() / weights.sum()
    return value, (weights / weights.sum())[:, None] * (p - target)


def focal(z: np.ndarray, y: np.ndarray, weights: np.ndarray, gamma: float) -> Result:
    """Lin et al. 2017, equation 5, over the sum of the weights."""
    p, hit = softmax(z), np.eye(NUM_CLASSES)[y]
    q = (p * hit).sum(axis=1)
    value = -(weights * (1 - q) ** gamma * np.log(q)).sum() / weights.sum()
    slope = weights / weights.sum() * (gamma * (1 - q) ** (gamma - 1) * np.log(q) - (1 - q) ** gamma / q)
    return value, through_softmax(p, slope[:, None] * hit)


def dice(z: np.ndarray, y: np.ndarray) -> Result:
    """One minus the mean of 2 I / (P + G) over the classes that occur, each over all pixels of the batch."""
    p, hit = softmax(z), np.eye(NUM_CLASSES)[y]
    both, size = (p * hit).sum(axis=0), p.sum(axis=0) + hit.sum(axis=0)
    occurs = hit.any(axis=0)
    slope = occurs / -occurs.sum() * (2 * hit / size - 2 * both / size**2)
    return 1 - (2 * both / size)[occurs].mean(), through_softmax(p, slope)


def lovasz(z: np.ndarray, y: np.ndarray, image: np.ndarray) -> Result:
    """Berman et al. 2018, algorithm 1, for each image and each class that occurs in it, then the means."""
    p, slope, values = softmax(z), np.zeros_like(z), []
    for at in (np.flatnonzero(image == number) for number in np.unique(image)):
        classes = np.unique(y[at])
        of_image = []
        for k in classes:
            hit = y[at] == k
            errors = np.where(hit, 1 - p[at, k], p[at, k])
            order = np.argsort(-errors, kind="stable")
            union = hit.sum() + np.cumsum(~hit[order])
            steps = np.diff(1 - (hit.sum() - np.cumsum(hit[order])) / union, prepend=0)
            of_image.append(errors[order] @ steps)
            slope[at[order], k] = np.where(hit[order], -1, 1) * steps / len(classes)
        values.append(np.mean(of_image))
    return float(np.mean(values)), through_softmax(p, slope / len(values))


def mixture(z: np.ndarray, y: np.ndarray, weights: np.ndarray) -> Result:
    """Three terms, each over a divisor of its own."""
    terms = [(0.7, cross_entropy(z, y, weights)), (2.0, dice(z, y)), (0.3, focal(z, y, weights, 2.5))]
    return sum(w * value for w, (value, _) in terms), sum(w * slope for w, (_, slope) in terms)  # type: ignore[return-value]


BORDERS = {"borders": BorderWeights(0)}
FORMULAS: dict[str, tuple[dict[str, Any], dict[str, Any], Any]] = {
    # what build_loss takes, what build_shares takes, formula of (logits, labels, borders, image of each pixel)
    "cross-entropy": ({"terms": {"cross_entropy": 1.0}}, {}, lambda z, y, b, n: cross_entropy(z, y, 1.0 + 0 * y)),
    "class weights": (
        {"terms": {"cross_entropy": 1.0}, "class_weights": CLASS_WEIGHTS},
        {},
        lambda z, y, b, n: cross_entropy(z, y, WEIGHTS[y]),
    ),
    "label smoothing": (
        {"terms": {"cross_entropy": 1.0}, "class_weights": CLASS_WEIGHTS, "label_smoothing": 0.2, "ignore_index": 3},
        {},
        lambda z, y, b, n: cross_entropy(z, y, WEIGHTS[y], 0.2, 3),
    ),
    "border weights": (
        {"terms": {"cross_entropy": 1.0}, "class_weights": CLASS_WEIGHTS},
        BORDERS,
        lambda z, y, b, n: cross_entropy(z, y, WEIGHTS[y] + b),
    ),
    "focal": (
        {"terms": {"focal": 1.0}, "class_weights": CLASS_WEIGHTS, "focal_gamma": 1.5},
        BORDERS,
        lambda z, y, b, n: focal(z, y, WEIGHTS[y] + b, 1.5),
    ),
    "dice": ({"terms": {"dice": 1.0}}, {}, lambda z, y, b, n: dice(z, y)),
    "lovasz": ({"terms": {"lovasz": 1.0}}, {}, lambda z, y, b, n: lovasz(z, y, n)),
    "mixture": (
        {
            "terms": {"cross_entropy": 0.7, "dice": 2.0, "focal": 0.3},
            "class_weights": CLASS_WEIGHTS,
            "focal_gamma": 2.5,
        },
        BORDERS,
        lambda z, y, b, n: mixture(z, y, WEIGHTS[y] + b),
    ),
}
CUTS: dict[str, dict[str, Any]] = {
    "one micro-batch": {"cut": {"tile_size": None}, "micro_batch_size": 2},
    "two micro-batches": {"cut": {"tile_size": None}, "micro_batch_size": 1},
    "tiles": {"cut": TILES, "micro_batch_size": 4},
}


def case_of(name: str, cut: str) -> dict[str, Any]:
    arguments, options, _ = FORMULAS[name]
    loss = build_loss(**arguments)
    return {
        "samples": Uneven(),
        "input_size": 92,
        "batch_size": 4,
        "dropout": 0.0,
        "loss": loss,
        **options,
        **CUTS[cut],
    }


def pairs() -> list[tuple[str, str]]:
    """Each loss in each cut; Lovász is no sum over tiles, and refused with them."""
    return [(name, cut) for name in FORMULAS for cut in CUTS if (name, cut) != ("lovasz", "tiles")]


def by_hand(name: str) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss of the undivided batch, and the gradient of each parameter."""
    model = build_model(dropout=0.0)
    shares = shares_of(case_of(name, "one micro-batch") | {"micro_batch_size": 4}, model, tile_size=None)
    (batch,) = shares[1].batches
    gradient = WindowGradient(model, model, None, trim=shares.planner.halo - model.window_sizes.margin)  # type: ignore[arg-type]
    (logits,) = gradient.outputs(batch.windows, batch.keys)
    valid = (batch.labels != IGNORED).numpy()
    z = logits.detach().movedim(1, 3).numpy()[valid]
    borders = 0.0 if batch.borders is None else batch.borders.numpy()[valid].astype(np.float64)
    assert batch.borders is None or (borders > 0.1).mean() > 0.1, "border weights that weigh"
    value, slope = FORMULAS[name][2](z, batch.labels.numpy()[valid].astype(np.int64), borders, np.nonzero(valid)[0])
    push = np.zeros(logits.movedim(1, 3).shape)
    push[valid] = slope
    logits.backward(torch.from_numpy(push).movedim(3, 1))
    return value, {key: p.grad for key, p in model.named_parameters() if p.grad is not None}


def test_every_loss_has_a_formula() -> None:
    named = {term for arguments, _, _ in FORMULAS.values() for term in arguments["terms"]}
    assert named == set(LOSSES.names())
    assert isinstance(case_of("lovasz", "tiles")["loss"], Lovasz)
    assert isinstance(case_of("mixture", "tiles")["loss"], Mixture)


@pytest.mark.processes
@pytest.mark.slow
def test_losses_on_two_processes_are_those_of_the_formulas(tmp_path: Path) -> None:
    expected = {name: by_hand(name) for name in FORMULAS}
    processes = launch(tmp_path, 2, __name__)
    printed = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(printed)
    for name, cut in pairs():
        value, gradients = expected[name]
        assert max(float(gradient.norm()) for gradient in gradients.values()) > 1e-3
        for rank in (0, 1):
            got = torch.load(tmp_path / f"{name}-{cut}-{rank}.pt", weights_only=True)
            assert got.pop("windows").sum() == (36 if cut == "tiles" else 4), (name, cut)
            assert float(got.pop("loss")) == pytest.approx(value, rel=1e-9), (name, cut, rank)
            assert max(relative_differences(got, gradients).values()) < 1e-9, (name, cut, rank)


def work(folder: Path) -> None:
    """What each process does."""
    torch.set_num_threads(1)
    with open_processes(mixed_precision="no") as processes:
        for name, cut in pairs():
            gradients = step_of_the_trainer(case_of(name, cut), processes, folder)
            torch.save(gradients, folder / f"{name}-{cut}-{processes.rank}.pt")


if __name__ == "__main__":
    work(Path(json.loads(sys.argv[1])))
