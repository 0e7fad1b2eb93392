"""Proves C3 with real processes: a run is the same on 1, 2, 3 and 4 processes, with and without accumulation.

The runs have dropout, class weights, a clipped gradient and an ignored class that is uneven among the ranks. float64 tells
an error from rounding: the order of a sum is left, and nothing else.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.distributed.conftest import TINY, TWO_PASSES, Laboratory
from unet_dist.assembly.data_set import open_data
from unet_dist.assembly.network import build_network
from unet_dist.assembly.run_folder import read_run_config
from unet_dist.data.batches.crops import CropReader
from unet_dist.data.batches.shares import RunShares
from unet_dist.losses.class_weights import weigh_classes
from unet_dist.losses.pixelwise import CrossEntropy
from unet_dist.runs.metrics_log import read_metrics
from unet_dist.terminal import Teller
from unet_dist.tiling.crop_plan import CropPlanner
from unet_dist.tiling.gradient import WindowGradient

pytestmark = pytest.mark.processes

MANY = pytest.mark.slow
"""Three and four processes on two cores take longest; two prove the same to a developer."""
CUTS = [
    "float64-1-cut",
    *(f"float64-2{cut}" for cut in ("", "-cut")),
    *(pytest.param(f"float64-{n}{cut}", marks=MANY) for n in (3, 4) for cut in ("", "-cut")),
]


def run_of(lab: Laboratory, name: str) -> Path:
    """The folder of a float64 run by its name: float64-PROCESSES, with -cut where it accumulates."""
    if name == "float64-1":
        return lab.alone_once(name, dtype="float64")
    if name == "float64-1-cut":
        return lab.alone_once(name, dtype="float64", micro_batch_size=3)
    return lab.together(int(name.split("-")[1])) / name


def column(folder: Path, split: str, key: str) -> list[Any]:
    """A key of the records of a split, in the order of steps."""
    return [record[key] for record in read_metrics(folder / "metrics.jsonl") if record["split"] == split]


def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The norm of the difference of two sets of tensors over the norm of the first."""
    assert one.keys() == other.keys()
    squares = [((one[name] - other[name]).double().square().sum(), one[name].double().square().sum()) for name in one]
    return float((sum(d for d, _ in squares) / sum(n for _, n in squares)) ** 0.5)


@pytest.mark.parametrize("name", CUTS)
def test_losses_of_20_steps_agree(lab: Laboratory, name: str) -> None:
    alone, cut = run_of(lab, "float64-1"), run_of(lab, name)
    for key in ("loss", "grad_norm"):
        expected = column(alone, "train", key)
        assert len(expected) == 20
        assert column(cut, "train", key) == pytest.approx(expected, rel=1e-8, abs=1e-8), key
    losses = column(alone, "train", "loss")
    assert max(losses) - min(losses) > 0.05, "a run that learns nothing proves nothing"
    assert column(cut, "train", "step") == list(range(1, 21))
    assert column(cut, "train", "learning_rate") == column(alone, "train", "learning_rate")


@pytest.mark.parametrize(
    ("name", "done"),
    [
        ("moved-2", 10),
        pytest.param("moved-3", 15, marks=MANY),
        pytest.param("moved-back-1", 10, marks=MANY),
        ("cut-anew-1", 10),
    ],
)
def test_losses_agree_after_a_resume_on_other_processes(lab: Laboratory, name: str, done: int) -> None:
    """Begun by one process, gone on with by two and then by three; from three back to one; and in smaller micro-batches."""
    alone = run_of(lab, "float64-1")
    if name.endswith("-1"):
        begun = run_of(lab, "float64-3" if name == "moved-back-1" else "float64-1") / "checkpoints/step-00000010"
        cut = {"micro_batch_size": 1} if name == "cut-anew-1" else {}
        moved = lab.alone_once(name, dtype="float64", resume=begun, **cut)
    else:
        moved = lab.together(int(name[-1])) / name
    assert column(moved, "train", "step") == list(range(done + 1, 21))
    for key in ("loss", "grad_norm"):
        assert column(moved, "train", key) == pytest.approx(column(alone, "train", key)[done:], rel=1e-8, abs=1e-8), key
    weights = [load_file(folder / "last/model.safetensors") for folder in (alone, moved)]
    assert 0 < difference(*weights) < 1e-8, "on other processes the order of a sum is another"


@pytest.mark.parametrize("name", CUTS)
def test_weights_and_scores_agree(lab: Laboratory, name: str) -> None:
    alone, cut = run_of(lab, "float64-1"), run_of(lab, name)
    weights = load_file(alone / "last/model.safetensors")
    assert all(tensor.dtype == torch.float64 for tensor in weights.values())
    assert difference(weights, load_file(cut / "last/model.safetensors")) < 1e-8
    for key in ("miou", "pixel_accuracy", "iou"):
        assert column(cut, "validation", key) == column(alone, "validation", key)


def test_a_loss_of_two_passes_agrees(lab: Laboratory) -> None:
    """Dice of the whole batch of mixed crops, of two levels, on one process at once and on two with two micro-batches each."""
    alone, cut = lab.alone_once("two-passes-1", **TWO_PASSES), lab.together(2) / "two-passes-2"
    for key in ("loss", "grad_norm"):
        assert column(cut, "train", key) == pytest.approx(column(alone, "train", key), rel=1e-8, abs=1e-8), key
    weights = [load_file(folder / "last/model.safetensors") for folder in (alone, cut)]
    assert difference(*weights) < 1e-8
    losses = column(run_of(lab, "float64-1"), "train", "loss")
    assert column(alone, "train", "loss")[0] > losses[0] + 0.5, "no Dice in it"
    kept = load_file(cut / "checkpoints/step-00000020/model.safetensors")
    assert kept.keys() - weights[0].keys() == {"heads.0.weight", "heads.0.bias"}, "of training, and of no model"


def test_models_are_averages_of_the_weights(lab: Laboratory) -> None:
    """last/ has the average that the checkpoint keeps beside the weights, and it lags behind them."""
    folder = run_of(lab, "float64-1")
    last = load_file(folder / "last/model.safetensors")
    (moments,) = (load_file(path) for path in folder.glob("checkpoints/step-00000020/optimizer.safetensors"))
    weights = load_file(folder / "checkpoints/step-00000020/model.safetensors")
    averages = {name.partition(".")[2]: t for name, t in moments.items() if name.startswith("average.")}
    assert len(averages) > 10
    for name, average in averages.items():
        assert torch.equal(last[name], average)
    assert difference({name: weights[name] for name in averages}, averages) > 1e-3


def test_runs_differ_where_they_should(lab: Laboratory) -> None:
    """The comparison sees a difference: another seed is another run."""
    other = lab.alone_once("float64-other", dtype="float64", seed=TINY["seed"] + 1)
    losses = column(run_of(lab, "float64-1"), "train", "loss")
    assert column(other, "train", "loss") != pytest.approx(losses, rel=1e-4)


@pytest.mark.slow
def test_loss_is_the_sum_over_the_global_batch_and_no_mean_of_means(lab: Laboratory) -> None:
    """The first step, computed here rank by rank: sum over sum is what the run records, the mean of the ranks' means is not."""
    folder = run_of(lab, "float64-3")
    config = read_run_config(folder)
    cache = open_data(config, Teller(speaks=False))
    train = cache.split("train")
    model: Any = build_network(config, cache).train()
    assert isinstance(config.schedule.input_size, int)
    planner = CropPlanner.of(model, side=config.schedule.input_size)
    crops = CropReader(train, config.schedule.seed, config.schedule.input_size, planner.halo)
    weights = weigh_classes("median", train.class_counts.tolist(), cache.ignore_index)
    gradient = WindowGradient(model, model, CrossEntropy(weights), seed=config.schedule.seed)
    sums, divisors = [], []
    for rank in range(3):
        shares = RunShares(crops, planner=planner, batch_size=12, micro_batch_size=4, rank=rank, world_size=3)
        (batch,) = shares[1].batches
        sums.append(gradient.add(batch.windows, batch.labels, batch.keys, scale=torch.ones(())).sum())
        divisors.append(shares[1].divisor(CrossEntropy(weights)))
    loss = float(sum(sums) / sum(divisors))
    mean_of_means = float(sum(s / d for s, d in zip(sums, divisors, strict=True)) / 3)
    recorded = column(folder, "train", "loss")[0]
    assert recorded == pytest.approx(loss, rel=1e-12)
    assert abs(mean_of_means - recorded) > 1e-4 * recorded, "the ranks' valid pixels are too even to tell"


@pytest.mark.parametrize("world_size", [2, *(pytest.param(n, marks=MANY) for n in (3, 4))])
def test_gradient_of_one_state_agrees_in_float32(lab: Laboratory, world_size: int) -> None:
    """After one step the first moment is the gradient, times 1 - beta1."""

    def gradient(folder: Path) -> dict[str, Tensor]:
        moments = load_file(folder / "checkpoints/step-00000001/optimizer.safetensors")
        return {name: tensor for name, tensor in moments.items() if name.startswith("exp_avg.")}

    alone = gradient(lab.alone_once("gradient-1", total_steps=1))
    assert len(alone) > 10
    assert all(tensor.dtype == torch.float32 for tensor in alone.values())
    assert difference(alone, gradient(lab.together(world_size) / f"gradient-{world_size}")) < 1e-5


@pytest.mark.parametrize("world_size", [2, pytest.param(3, marks=MANY)])
def test_evaluation_is_identical(lab: Laboratory, world_size: int) -> None:
    """One model folder, every image: the same int64 matrix, so the same scores to the last digit, and the same pictures."""
    run = lab.alone_once("float32")
    if not (lab.folder / "evaluated-1").exists():
        lab.alone(lab.evaluate("float32", into="evaluated-1"))
    evaluated = lab.together(world_size) / f"evaluated-{world_size}"
    one, other = (
        json.loads((folder / "evaluation-all.json").read_text(encoding="utf-8"))
        for folder in (lab.folder / "evaluated-1", evaluated)
    )
    assert other == one
    assert one["images"] == 20
    assert 0 < one["instances"]["v_rand"] < 1
    assert 0 < one["instances"]["v_info"] < 1
    assert one["model"] == str(run)
    confusion = torch.tensor(one["confusion"])
    assert confusion[TINY["ignore_index"]].sum() == confusion[:, TINY["ignore_index"]].sum() == 0
    assert 0.5 * 20 * 48 * 80 < confusion.sum() < 20 * 48 * 80
    pictures = [
        sorted(path.name for path in folder.glob("figures/*")) for folder in (lab.folder / "evaluated-1", evaluated)
    ]
    assert len(pictures[0]) == 3
    assert pictures[0] == pictures[1]


@pytest.mark.parametrize("world_size", [1, 2])
def test_recorded_validation_is_what_evaluate_gives(lab: Laboratory, world_size: int) -> None:
    """The best mean IoU that training told is the mean IoU of best/ on the validation split, whoever computes it."""
    folder = lab.alone_once("float32") if world_size == 1 else lab.together(2) / "long-2"
    lab.alone(["evaluate", str(folder), "--split=validation", "--mixed_precision=no", "--pictures=0"])
    scores = json.loads((folder / "evaluation-validation.json").read_text(encoding="utf-8"))
    assert scores["miou"] == max(column(folder, "validation", "miou"))


def test_another_number_of_processes_goes_on_with_the_same_run(lab: Laboratory) -> None:
    """Stopped after step 10 of two processes and resumed by one: the run of one process, to summation order."""
    folder = lab.folder / "float64-resumed"
    shutil.copytree(
        run_of(lab, "float64-2-cut"), folder, ignore=shutil.ignore_patterns("step-00000020", "last", "best")
    )
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-00000010"]
    lab.alone(lab.train("float64-resumed", dtype="float64"))
    alone = run_of(lab, "float64-1")
    assert column(folder, "train", "step") == list(range(1, 21))
    assert column(folder, "train", "loss") == pytest.approx(column(alone, "train", "loss"), rel=1e-8)
    ends = [load_file(path / "last/model.safetensors") for path in (alone, folder)]
    assert difference(*ends) < 1e-8
