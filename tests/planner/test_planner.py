"""Proves that the planner's memory is the allocator's, that what it chooses is the most that fits, and that the plan reads well."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.memory_table import CASES, Case, measure, predict
from unet_dist.assembly.planned import plan_run
from unet_dist.cli import parse
from unet_dist.cli import run as run_command
from unet_dist.config.loss_terms import LOSSES
from unet_dist.config.options import PlanOptions
from unet_dist.errors import ConfigError
from unet_dist.models.unet import UNet
from unet_dist.planner.fitting import (
    CUDA_CONTEXT_BYTES,
    best_tile,
    largest_micro_batch,
    largest_side,
    prediction_bytes,
    relative_time,
    remedies,
    training_bytes,
)
from unet_dist.planner.memory import ACTIVATIONS, GRADIENTS, OPTIMIZER, WEIGHTS, WORKSPACE
from unet_dist.planner.simulation import SimulatedRun, prediction_peak, training_flops, training_peak
from unet_dist.terminal import Teller
from unet_dist.tiling.geometry import covering_tile_size, plan_tiles, smallest_tile_size
from unet_dist.training.muon import is_bank

SHALLOW = (("base_channels", 4), ("depth", 1), ("num_classes", 5))
ON_CPU = SimulatedRun(UNet, SHALLOW, device_type="cpu")
TINY = ["--base_channels", "4", "--depth", "2", "--num_classes", "5", "--input_size", "92", "--batch_size", "4"]


@pytest.mark.parametrize(
    "case",
    [
        Case({"base_channels": 8, "depth": 2, "norm": "weight"}, 108, 2),
        Case({"base_channels": 8, "depth": 2, "checkpoint_activations": True}, 108, 1),
        Case({"base_channels": 8, "depth": 2, "blocks": "residual", "norm": "weight"}, 92, 2),
        Case({"base_channels": 8, "depth": 2, "padding": "same", "upsampling": "bilinear", "norm": "batch"}, 96, 2),
        Case({"base_channels": 8, "depth": 2}, 204, 3, is_training=False),
        Case({"base_channels": 16, "depth": 1, "stem_stride": 2}, 104, 2),
    ],
    ids=str,
)
def test_predicted_is_what_the_allocator_records(case: Case) -> None:
    assert predict(case, "cpu").total_bytes == pytest.approx(measure(case, "cpu"), rel=0.1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_predicted_is_what_a_gpu_records(case: Case) -> None:
    assert predict(case, "cuda").total_bytes == pytest.approx(measure(case, "cuda"), rel=0.1)


def test_parts_are_those_of_the_parameters() -> None:
    parameters = sum(p.numel() for p in ON_CPU.network.parameters())
    tensors = len(list(ON_CPU.network.parameters()))
    parts = training_peak(replace(ON_CPU, keeps_gradients=True), 1, (60, 60)).parts
    assert parts[WEIGHTS] == parts[GRADIENTS] == 4 * parameters
    assert parts[OPTIMIZER] == 2 * 4 * parameters + 4 * tensors  # two moments, and the step of each
    assert prediction_peak(ON_CPU, 1, (60, 60)).parts[OPTIMIZER] == 0


def test_an_average_of_the_weights_is_one_more_copy_and_a_loss_has_its_own_peak() -> None:
    parameters = sum(p.numel() for p in ON_CPU.network.parameters())
    plain, averaged = (training_peak(replace(ON_CPU, averages=flag), 1, (60, 60)) for flag in (False, True))
    assert averaged.parts[OPTIMIZER] - plain.parts[OPTIMIZER] == 4 * parameters
    peaks = {loss: training_peak(replace(ON_CPU, loss=loss), 2, (188, 188)).total_bytes for loss in LOSSES.own}
    assert peaks["lovasz"] > peaks["cross_entropy"]


def test_options_that_save_memory_do() -> None:
    deeper = SimulatedRun(UNet, (("base_channels", 8), ("depth", 2)), device_type="cuda")
    plain = training_peak(deeper, 2, (108, 108)).parts[ACTIVATIONS]
    assert training_peak(replace(deeper, precision="bf16"), 2, (108, 108)).parts[ACTIVATIONS] < 0.8 * plain
    checkpointing = deeper.with_option("checkpoint_activations", True)
    assert training_peak(checkpointing, 2, (108, 108)).parts[ACTIVATIONS] < 0.8 * plain
    doubled = training_peak(replace(deeper, dtype=torch.float64), 2, (108, 108)).parts
    assert doubled[WEIGHTS] == 2 * training_peak(deeper, 2, (108, 108)).parts[WEIGHTS]


def test_flops_are_those_of_the_papers_network() -> None:
    # 0.904 TFLOP forward and backward at 64 channels and 572 px: counted on real tensors by torch's own counter.
    assert training_flops(SimulatedRun(UNet, ()), (572, 572)) == pytest.approx(0.904e12, rel=0.005)


def test_muon_keeps_one_moment_of_a_bank_instead_of_two() -> None:
    wide = ON_CPU.with_option("base_channels", 16)
    banks = sum(4 * parameter.numel() for parameter in wide.network.parameters() if is_bank(parameter))
    adamw, muon = (
        training_peak(replace(wide, optimizer=optimizer), 1, (60, 60)).parts[OPTIMIZER]
        for optimizer in ("adamw", "muon")
    )
    assert banks > 0
    assert adamw - muon == pytest.approx(banks, rel=0.02)


def test_largest_side_is_the_last_that_fits() -> None:
    def need(side: int) -> int:
        return training_bytes(ON_CPU, 1, (side, side))

    memory = 8 * 2**20
    side = largest_side(ON_CPU, memory, need, start=60)
    assert side is not None
    assert need(side) <= memory < need(side + ON_CPU.network.window_sizes.stride)
    assert largest_side(ON_CPU, 1000, need, start=60) is None


def test_largest_micro_batch_is_the_largest_divisor_that_fits() -> None:
    memory = training_bytes(ON_CPU, 4, (60, 60))
    assert largest_micro_batch(ON_CPU, memory, 12, (60, 60)) == 4
    assert largest_micro_batch(ON_CPU, memory - 1, 12, (60, 60)) == 3
    assert largest_micro_batch(ON_CPU, 1000, 12, (60, 60)) is None


def test_best_tile_has_the_least_time_of_those_that_fit() -> None:
    sizes, locality = ON_CPU.network.window_sizes, ON_CPU.network.locality
    first, last = smallest_tile_size(sizes, locality), covering_tile_size((150, 200), sizes, locality)
    plans = {plan_tiles((150, 200), side, sizes, locality) for side in range(first, last + 1, sizes.stride)}
    memory = prediction_bytes(ON_CPU, 1, (110, 110))
    fitting = [p for p in plans if prediction_bytes(ON_CPU, 1, p.window_shape) <= memory]
    assert 0 < len(fitting) < len(plans)
    best = best_tile(ON_CPU, memory, (150, 200), window_batch=1)
    assert best is not None
    assert relative_time(best, "cpu") == min(relative_time(plan, "cpu") for plan in fitting)
    assert best_tile(ON_CPU, 1000, (150, 200), window_batch=1) is None


def test_remedies_fit() -> None:
    need = training_bytes(ON_CPU, 4, (108, 108))
    assert remedies(ON_CPU, need, share=4, micro_batch_size=4, window=(108, 108)) == []
    found = remedies(ON_CPU, need // 3, share=4, micro_batch_size=4, window=(108, 108))
    assert [remedy.keys.split()[0] for remedy in found] == ["--micro_batch_size", "--checkpoint_activations"]
    assert all(remedy.peak_bytes <= need // 3 for remedy in found)


def test_remedies_cut_a_crop_that_does_not_fit_alone() -> None:
    memory = training_bytes(ON_CPU, 4, (108, 108)) // 8
    (*_, tile) = remedies(ON_CPU, memory, share=4, micro_batch_size=4, window=(108, 108))
    assert tile.keys.startswith("--tile_size ")
    assert tile.peak_bytes <= memory
    coupled = ON_CPU.with_option("norm", "group")  # no exact tiles
    for remedy in remedies(coupled, memory, share=4, micro_batch_size=4, window=(108, 108)):
        assert "tile_size" not in remedy.keys


def test_plan_reads_well_and_says_what_to_change(capsys: pytest.CaptureFixture[str]) -> None:
    run_command(["plan", *TINY, "--device", "cpu", "--memory", "3MiB", "--image_size", "270x480"])
    printed = capsys.readouterr().out
    assert max(len(line.rstrip()) for line in printed.splitlines()) <= 80, printed
    words = " ".join(printed.split())
    for expected in ("270x480", "abutting", "exact (ours)", "GFLOP", "workspace (assumption)", "does not fit"):
        assert expected in words, (expected, printed)
    assert "--micro_batch_size" in words
    run_command(["plan", *TINY, "--memory", "24GiB", "--synthetic_size", "270x480"])
    words = " ".join(capsys.readouterr().out.split())
    assert "The run fits" in words
    assert "as synthetic_size says" in words


def test_a_prediction_counts_what_convolutions_unfold() -> None:
    """float64 is convolved by matrix products on a CPU: 9 values of each channel for every pixel, beside the tensors."""
    peak = prediction_peak(replace(ON_CPU, dtype=torch.float64), 1, (60, 60))
    columns = 9 * 8 * 56 * 56  # bytes a channel of the first level's second convolution
    assert peak.parts[WORKSPACE] > columns


def test_windows_read_ahead_do_not_grow_with_the_input() -> None:
    """Of a share of many tiles a few micro-batches are in memory; of a small one, this step's and the next's."""
    words = ["--device", "cpu", "--base_channels", "2", "--depth", "2", "--batch_size", "1", "--tile_size", "204"]

    def held(*more: str) -> int:
        config, options = parse("plan", [*words, *more])
        return plan_run(config, options, Teller(speaks=False)).setting.held_bytes

    large = held("--input_size", "8012")
    assert large == held("--input_size", "16012")
    assert held("--input_size", "8012", "--num_workers", "3") == 3 * large
    assert held("--input_size", "404") > large
    assert held("--input_size", "8012", "--augmentation", "[{name: D4}]") > 1000 * large


def test_plan_of_the_reference_run() -> None:
    config, options = parse("plan", ["configs/sidewalk_unet.yaml", "--memory", "24GiB"])
    schedule = config.schedule
    assert (schedule.input_size, schedule.batch_size, schedule.learning_rate) == (572, 16, 5e-4)
    assert (schedule.total_steps, schedule.eval_steps, schedule.schedule) == (6000, 100, "onecycle")
    assert (config.data.data_path, config.model.num_classes) == ("segments/sidewalk-semantic", 35)
    assert config.data.ignore_index is None
    assert options.memory_bytes() == 24 * 2**30
    assert Path("configs/sidewalk_unet.yaml").read_text(encoding="utf-8").startswith("#")


@pytest.mark.parametrize(
    ("key", "value"), [("memory", "lots"), ("memory", "0GiB"), ("image_size", "1080"), ("image_size", "0x4")]
)
def test_nonsense_is_refused_by_name(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{key}: got {value}, expected .* Change --{key}\."):
        PlanOptions(**{key: value})


def test_a_gpu_needs_its_context_too() -> None:
    on_gpu = replace(ON_CPU, device_type="cuda")
    need = training_bytes(on_gpu, 1, (60, 60))
    assert largest_micro_batch(on_gpu, need, 1, (60, 60)) is None
    assert largest_micro_batch(on_gpu, need + CUDA_CONTEXT_BYTES, 1, (60, 60)) == 1
