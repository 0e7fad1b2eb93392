"""Proves what fp16's loss scaler changes of a step: nothing where it fits, and nothing at all where a gradient overflows; and the
message where memory runs out.

The scaler is torch's own, on a CPU and over float32, whose powers of two are exact: a scaled step has the bits of a plain one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.tiling.scenes import Scenes, build_model, build_shares
from unet_dist.config.batch_cut import BatchCut
from unet_dist.config.sections import Config
from unet_dist.losses.mixture import Mixture
from unet_dist.losses.pixelwise import CrossEntropy
from unet_dist.models.contract import as_module
from unet_dist.processes.group import Processes, open_processes
from unet_dist.processes.stopping import NO_WISH
from unet_dist.runs.checkpoint import read_checkpoint, restore_optimizer
from unet_dist.runs.metrics_log import read_metrics
from unet_dist.terminal import ProgressBar, Teller
from unet_dist.training.averaging import MOMENT
from unet_dist.training.finite import MAX_OVERFLOWS_IN_A_ROW, DivergedError
from unet_dist.training.optimizer import build_optimizer
from unet_dist.training.parts import Parts, Progress
from unet_dist.training.trainer import StepTooLargeError, Trainer

FITS, OVERFLOWS = 2.0**16, 2.0**127
WISH: Any = SimpleNamespace(now=lambda: NO_WISH)


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Processes]:
    from accelerate.state import AcceleratorState

    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    AcceleratorState._reset_state(reset_partial_state=True)
    with open_processes(mixed_precision="no") as opened:
        yield opened
    AcceleratorState._reset_state(reset_partial_state=True)


def trainer_of(processes: Processes, folder: Path, scale: float | None, progress: Progress | None = None) -> Trainer:
    """A run of four micro-batches a step, clipped and averaged, with a loss scaler that begins at a scale."""
    scaler: Any = None if scale is None else torch.amp.GradScaler("cpu", init_scale=scale)
    processes.accelerator.scaler = scaler
    keys = {"total_steps": 100, "batch_size": 4, "max_grad_norm": 0.01, "ema_decay": 0.9, "dtype": "float32"}
    config = Config.from_flat(keys)
    model = build_model(torch.float32)
    parts = Parts(
        config=config,
        cut=BatchCut(1, 4, 1),
        processes=processes,
        model=model,
        wrapped=processes.prepare(model),
        trim=0,
        optimizer=build_optimizer(model, config.schedule),
        loss=Mixture([(2.0**10, CrossEntropy())]),  # a gradient large enough that a scale of float32 takes it beyond
        shares=build_shares(model, Scenes([(64, 70)]), input_size=60, tile_size=None, batch_size=4),
        evaluate=lambda *_: None,
        folder=folder,
        data={},
        teller=Teller(speaks=False),
        class_names=[],
        ignore_index=None,
    )
    return Trainer(parts, progress or Progress())


def step(trainer: Trainer) -> None:
    share = trainer.parts.shares[trainer.progress.step + 1]
    divisor, _ = trainer._agree(share, WISH)
    trainer.step(share, divisor)


def state_of(trainer: Trainer) -> dict[str, Tensor]:
    checkpoint = trainer.checkpoint().on_host()
    return {**checkpoint.model, **checkpoint.optimizer}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name, tensor in one.items() if not torch.equal(tensor, other[name])] == []


def test_scaled_step_is_the_plain_one(processes: Processes, tmp_path: Path) -> None:
    """The gradient is clipped after its scale is taken out again, else one of the two would be clipped far harder."""
    ends = []
    for scale in (None, FITS):
        trainer = trainer_of(processes, tmp_path, scale)
        for _ in range(3):
            step(trainer)
        ends.append(state_of(trainer))
    assert_same(*ends)


def test_overflow_leaves_everything_as_it_was(processes: Processes, tmp_path: Path) -> None:
    trainer = trainer_of(processes, tmp_path, FITS)
    step(trainer)
    before = state_of(trainer)
    assert any(name.startswith(MOMENT) for name in before)
    scaler = trainer.parts.processes.accelerator.scaler
    assert scaler is not None
    scaler.update(OVERFLOWS)
    step(trainer)
    assert_same(state_of(trainer), before)
    assert scaler.get_scale() == OVERFLOWS / 2
    assert trainer.progress.step == 2, "a step of the run all the same: its batch is not drawn again"
    trainer.boundary.check_finite()  # no divergence
    scaler.update(FITS)
    step(trainer)
    changed = state_of(trainer)
    assert any(not torch.equal(changed[name], tensor) for name, tensor in before.items())


def test_scale_goes_on_where_it_stood(processes: Processes, tmp_path: Path) -> None:
    trainer = trainer_of(processes, tmp_path, OVERFLOWS)
    step(trainer)
    trainer.boundary.save()
    trainer.boundary.writer.close()
    assert trainer.progress.overflows == 1
    resumed = trainer_of(processes, tmp_path, FITS, trainer.progress)
    scaler = resumed.parts.processes.accelerator.scaler
    assert scaler is not None
    assert scaler.get_scale() == OVERFLOWS / 2


def test_overflows_without_end_are_a_divergence(processes: Processes, tmp_path: Path) -> None:
    trainer = trainer_of(processes, tmp_path, OVERFLOWS)
    scaler = trainer.parts.processes.accelerator.scaler
    assert scaler is not None
    for _ in range(MAX_OVERFLOWS_IN_A_ROW):
        trainer.boundary.check_finite()
        step(trainer)
        scaler.update(OVERFLOWS)
    with pytest.raises(DivergedError, match=rf"Step {MAX_OVERFLOWS_IN_A_ROW} is not finite: the gradient, though"):
        trainer.boundary.check_finite()


def test_memory_that_runs_out_is_a_sentence(processes: Processes, tmp_path: Path) -> None:
    trainer = trainer_of(processes, tmp_path, None)

    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 8.00 GiB of which 1.00 GiB is free."
        )

    as_module(trainer.parts.model).register_forward_pre_hook(fail)
    with pytest.raises(StepTooLargeError) as refusal:
        trainer.fit(WISH)
    assert str(refusal.value) == (
        "Memory ran out after step 0, on cpu: CUDA out of memory. Tried to allocate 20.00 GiB. Set a smaller --micro_batch_size or "
        "--tile_size, or --checkpoint_activations true. Then run the same command to resume. unet-dist plan shows what fits."
    )


def test_other_failures_keep_their_own_words(processes: Processes, tmp_path: Path) -> None:
    trainer = trainer_of(processes, tmp_path, None)

    def fail(*_: Any) -> None:
        raise RuntimeError("shape mismatch")

    as_module(trainer.parts.model).register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match=r"^shape mismatch$"):
        trainer.fit(WISH)


def test_step_after_the_last_overflow_leaves_everything_as_it_was(processes: Processes, tmp_path: Path) -> None:
    """On a GPU the flag of a divergence is read a step late: what comes until then counts no more, finite or not."""
    trainer = trainer_of(processes, tmp_path, OVERFLOWS)
    scaler = trainer.parts.processes.accelerator.scaler
    assert scaler is not None
    for _ in range(MAX_OVERFLOWS_IN_A_ROW):
        step(trainer)
        scaler.update(OVERFLOWS)
    before = state_of(trainer)
    scaler.update(FITS)
    share = trainer.parts.shares[trainer.progress.step + 1]
    trainer.step(share, share.divisor(trainer.parts.loss))
    assert_same(state_of(trainer), before)
    with pytest.raises(DivergedError, match=rf"^Step {MAX_OVERFLOWS_IN_A_ROW} is not finite"):
        trainer.boundary.check_finite()


def recorded(folder: Path) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in read_metrics(folder / "metrics.jsonl") if row["split"] == "train"]


def test_record_after_a_resume_is_over_the_same_steps(processes: Processes, tmp_path: Path) -> None:
    """Records every 4 steps, an interruption after the sixth: the record of step 8 is over 5 to 8, to the bit."""
    bar = ProgressBar(Teller(speaks=False), "step", 100, 0)
    folders = [tmp_path / name for name in ("whole", "resumed")]
    for folder in folders:
        folder.mkdir()
        trainer = trainer_of(processes, folder, None)
        for number in range(1, 9):
            step(trainer)
            if number % 4 == 0:
                trainer._record.steps(trainer._grad_norm, bar)
            if number == 6 and folder.name == "resumed":
                trainer.boundary.save()
                trainer.boundary.writer.close()
                saved = read_checkpoint(folder / "checkpoints/step-00000006")
                trainer = trainer_of(processes, folder, None, Progress(**saved.progress))
                trainer.parts.model.load_state_dict(saved.model)
                restore_optimizer(as_module(trainer.parts.model), trainer.parts.optimizer, saved.optimizer)
    whole, resumed = map(recorded, folders)
    assert whole == resumed
    assert [number for number, _ in whole] == [4, 8]


def test_losses_of_another_number_of_processes_count_once(processes: Processes, tmp_path: Path) -> None:
    trainer = trainer_of(processes, tmp_path, None, Progress(step=6, logged_step=4, loss_sums=[1.0, 2.5, 0.25]))
    assert trainer._record.sums() == [3.75]
    older = trainer_of(processes, tmp_path, None, Progress(step=6))
    assert (older.progress.logged_step, older._record.sums()) == (6, [0.0])
