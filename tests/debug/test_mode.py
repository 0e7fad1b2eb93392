"""Proves that the debug mode finds what it is for: a layer that is not finite, labels that teach nothing, a resume that is
not exact; and that a sound run passes, with the very pixels that were fed in the pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from unet_dist.assembly import starting
from unet_dist.assembly import train as library
from unet_dist.cli import parse
from unet_dist.commands import train
from unet_dist.config.sections import Config
from unet_dist.data.batches.label_counts import count_labels
from unet_dist.data.batches.shares import StepShare
from unet_dist.data.batches.windows import WindowBatch
from unet_dist.data.decoded.labels import IGNORED
from unet_dist.debug.inspection import InspectedStep, inspect_step, layer_table
from unet_dist.debug.mode import (
    DebugFinding,
    _look,
    advice,
    debug_folder,
    debugging_config,
    write_fed,
)
from unet_dist.errors import LaunchError
from unet_dist.losses.pixelwise import CrossEntropy
from unet_dist.models.unet import UNet
from unet_dist.tiling.gradient import WindowGradient

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


@pytest.fixture
def fresh_torch() -> Iterator[None]:
    """Undo what a run in this process sets for good."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)


def tiny(folder: Path, **values: Any) -> Config:
    """A run of seconds: a U-Net of two poolings on small synthetic scenes."""
    settings = {
        "synthetic_images": 6,
        "synthetic_size": "48x80",
        "base_channels": 8,
        "depth": 2,
        "norm": "weight",
        "input_size": 60,
        "learning_rate": 0.01,
        "total_steps": 80,
        "cache_path": str(folder / "cache"),
        "output_path": str(folder / "run"),
        "mixed_precision": "no",
        "debug": True,
    }
    return Config.from_flat({**settings, **values})


def share_of(windows: Tensor, labels: Tensor, ids: list[str]) -> StepShare:
    """A step of one micro-batch."""
    batch = WindowBatch(windows, labels, torch.zeros(len(ids), 3, dtype=torch.int64), ids)
    return StepShare(1, [batch], count_labels(labels))


@pytest.fixture
def network() -> UNet:
    torch.manual_seed(0)
    return UNet(num_classes=3, base_channels=2, depth=1)


@pytest.fixture
def share() -> StepShare:
    generator = torch.Generator().manual_seed(0)
    windows = torch.randint(0, 256, (2, 24, 24, 3), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 3, (2, 8, 8), generator=generator, dtype=torch.uint8)
    return share_of(windows, labels, ["a", "b"])


def pixels(path: Path) -> np.ndarray:
    """What a picture holds; of a palette picture its ids."""
    with Image.open(path) as picture:
        return np.asarray(picture)


def inspect(model: UNet, share: StepShare) -> InspectedStep:
    gradient = WindowGradient(model, model, CrossEntropy())
    return inspect_step(model, gradient, share, divisor=torch.tensor(2.0 * 8 * 8), device=CPU)


def test_step_is_looked_at_by_the_loss_scale_that_fits(network: UNet) -> None:
    """fp16 scales the loss. Powers of two are exact in float32, so the values shown are the same; one that overflows is halved."""
    share = share_of(*_fitting(network), ["a", "b"])
    divisor = torch.tensor(2.0)
    gradient = WindowGradient(network, network, CrossEntropy())
    plain = [layer.grad_norm for layer in inspect_step(network, gradient, share, divisor, CPU).layers]
    for scale in (2.0**10, 2.0**127):
        network.zero_grad()
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        processes = SimpleNamespace(accelerator=SimpleNamespace(scaler=scaler), device=CPU)
        parts: Any = SimpleNamespace(
            model=network, processes=processes, optimizer=torch.optim.SGD(network.parameters(), 0.1)
        )
        found = _look(parts, gradient, share, divisor)
        assert found.bad_gradient is None
        assert [layer.grad_norm for layer in found.layers] == plain
    assert any(plain)


def _fitting(network: UNet) -> tuple[Tensor, Tensor]:
    """Two windows that the network takes, and labels for what it returns."""
    side = network.window_sizes.minimum
    output = side - 2 * network.window_sizes.margin
    windows = torch.randint(0, 256, (2, side, side, 3), dtype=torch.uint8)
    return windows, torch.ones(2, output, output, dtype=torch.uint8)


# ------------------------------------------------------------------------------------------------------- a sound run


def test_sound_run_is_overfit_resumed_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fresh_torch: None
) -> None:
    train.run(tiny(tmp_path))
    said = capsys.readouterr().out
    assert "encoder.0.conv1" in said
    assert "4x8x58x58" in said  # (N, C, h, w) of the first layer
    assert "saved at step 3, restored, 2 steps made again: the same bits" in said
    assert "4 windows overfit: loss " in said
    figures = tmp_path / "run/figures"
    assert f"{figures}/debug-1.png to debug-4.png" in said
    for number in (1, 2, 3, 4):
        assert (figures / f"debug-{number}.png").stat().st_size > 1000
        assert pixels(figures / f"debug-{number}-input.png").shape == (60, 60, 3)
        assert pixels(figures / f"debug-{number}-mask.png").shape == (20, 20)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"figures", ".lock"}  # nothing to be taken for a run


def test_pictures_hold_the_pixels_that_were_fed(tmp_path: Path, share: StepShare) -> None:
    batch = share.batches[0]
    batch.labels[0, 0, :4] = IGNORED
    paths = write_fed(tmp_path, share, ["sky", "road", "car"])
    assert paths == [tmp_path / "debug-1.png", tmp_path / "debug-2.png"]
    for number in range(2):
        window = pixels(tmp_path / f"debug-{number + 1}-input.png")
        mask = pixels(tmp_path / f"debug-{number + 1}-mask.png")
        np.testing.assert_array_equal(window, batch.windows[number].numpy())
        np.testing.assert_array_equal(mask, batch.labels[number].numpy())


# --------------------------------------------------------------------------------------------------------- first step


def test_first_step_is_what_the_layers_gave(network: UNet, share: StepShare) -> None:
    outputs: dict[str, Tensor] = {}
    handles = [
        layer.register_forward_hook(lambda _m, _i, output, name=name: outputs.update({name: output.detach().clone()}))
        for name, layer in network.named_modules()
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))
    ]
    found = inspect(network, share)
    for handle in handles:
        handle.remove()
    assert [layer.name for layer in found.layers] == list(
        outputs
    )  # in the order of the forward pass, and no empty layer
    for layer in found.layers:
        output = outputs[layer.name]
        assert layer.shape == tuple(output.shape)
        assert (layer.low, layer.mean, layer.high) == (output.min(), output.mean(), output.max())
        grads = [p.grad.flatten() for p in network.get_submodule(layer.name).parameters() if p.grad is not None]
        assert layer.grad_norm == pytest.approx(torch.cat(grads).norm().item(), rel=1e-5)
    labels, logits = share.batches[0].labels, outputs["classifier"]
    assert found.loss == pytest.approx(nn.functional.cross_entropy(logits, labels.long()).item(), rel=1e-5)
    assert found.complaint() is None
    assert [(layer.shape, layer.largest_weight) for layer in found.fed] == [((2, 3, 24, 24), None)]
    largest = network.classifier.weight.abs().max().item(), network.classifier.bias.abs().max().item()
    assert found.layers[-1].largest_weight == max(largest)
    assert layer_table(found, "first step").row_count == 1 + len(outputs)
    assert not network.classifier._forward_hooks


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_first_layer_whose_output_is_not_finite_is_named(network: UNet, share: StepShare, value: float) -> None:
    with torch.no_grad():
        network.bottleneck.conv1.weight[0, 0, 0, 0] = value
    found = inspect(network, share)
    assert found.bad_output == "bottleneck.conv1"
    assert found.complaint() == (
        "The first layer whose output is not finite is bottleneck.conv1. Its own weights are not finite."
    )


def test_layer_that_is_given_too_much_is_told_from_one_that_is_broken(network: UNet, share: StepShare) -> None:
    """Finite weights of 1e38 after such weights: the first of them is not to blame for what the second makes of it."""
    with torch.no_grad():
        network.encoder[0].conv1.weight.fill_(1e30)
        network.encoder[0].conv2.weight.fill_(2e30)
    found = inspect(network, share)
    assert found.bad_output == "encoder.0.conv2"
    before = found.layers[0]
    assert str(found.complaint()).endswith(
        f" Its weights are finite, up to 2e+30; the layer before it gives {before.low:.3g} to {before.high:.3g}."
    )


def test_layer_whose_gradient_is_not_finite_is_named(network: UNet, share: StepShare) -> None:
    """The square root of zero: its value is finite and its gradient is not."""

    class Spoilt(nn.Conv2d):
        def forward(self, features: Tensor) -> Tensor:
            output = super().forward(features)
            return output + (output * 0).abs().sqrt()

    network.bottleneck.conv2 = Spoilt(4, 4, 3)
    found = inspect(network, share)
    assert found.bad_output is None
    assert np.isfinite([layer.high for layer in found.layers]).all()
    assert found.bad_operation in ("SqrtBackward0", "AbsBackward0", "MulBackward0")
    assert found.bad_gradient == "bottleneck.conv2" or found.bad_operation in str(found.complaint())
    assert "not finite" in str(found.complaint()) or "nan" in str(found.complaint())


def test_layers_that_learn_nothing_are_named(network: UNet, share: StepShare) -> None:
    with torch.no_grad():
        network.decoder[0].conv2.bias.fill_(-1e6)  # the ReLU after it gives zero everywhere
    assert inspect(network, share).without_gradient[0] == "encoder.0.conv1"


# ------------------------------------------------------------------------------------------------------------ findings


def test_labels_that_are_all_ignored_are_a_finding(tmp_path: Path, fresh_torch: None) -> None:
    weights = [0.0] * 34 + [1.0]
    with pytest.raises(
        DebugFinding, match=r"^Every label of the crops .* is ignored, or of a class that weighs nothing"
    ):
        train.run(tiny(tmp_path, class_weights=weights, synthetic_images=3, input_size=44))


def test_network_that_cannot_learn_is_a_finding_that_says_where_to_look(
    tmp_path: Path, fresh_torch: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DebugFinding) as finding:
        train.run(tiny(tmp_path, learning_rate=1e-9, total_steps=4))
    sentence = str(finding.value)
    assert sentence.startswith("Could not overfit 4 windows: loss ")
    assert " in 4 steps, expected below 5%. Look at: " in sentence
    assert "the loss hardly moved: raise --learning_rate (now 1e-09)" in sentence
    assert "the same bits" in capsys.readouterr().out


def test_poisoned_weight_of_a_model_to_start_from_is_named(tmp_path: Path, fresh_torch: None) -> None:
    model = UNet(num_classes=35, base_channels=8, depth=2, norm="weight")
    with torch.no_grad():
        model.bottleneck.conv1.gain[3] = 3e38
    model.save_pretrained(tmp_path / "poisoned")
    with pytest.raises(DebugFinding) as finding:
        train.run(tiny(tmp_path, init_from=str(tmp_path / "poisoned")))
    said = str(finding.value)
    assert said.startswith(
        "The first step is not finite. The first layer whose output is not finite is bottleneck.conv1. Its weights are finite, up "
        "to 3e+38; the layer before it gives "
    )
    assert "Nothing has been learnt yet: look at where the weights come from (--init_from, --resume)" in said


def test_rate_that_is_far_too_high_is_named_with_the_layers_it_left(
    tmp_path: Path, fresh_torch: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DebugFinding) as finding:
        train.run(tiny(tmp_path, learning_rate=1e30, norm="none"))
    sentence = str(finding.value)
    assert sentence.startswith("Step 2 of overfitting is not finite. The first layer whose output is not finite is ")
    assert "Lower --learning_rate (now 1e+30)" in sentence
    said = capsys.readouterr().out
    assert "step 2, with the weights that step 1 left" in said
    assert said.count("encoder.0.conv1") == 2


def test_resume_that_is_not_exact_is_a_finding(
    tmp_path: Path, fresh_torch: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    restore = starting.restore

    def forgetful(checkpoint: Any, model: Any, *rest: Any) -> Any:
        return restore(replace(checkpoint, optimizer=_halved(checkpoint.optimizer)), model, *rest)

    monkeypatch.setattr(starting, "restore", forgetful)
    with pytest.raises(
        DebugFinding, match=r"^The resume is not exact: saved at step 3 and made again, 2 steps end with"
    ):
        train.run(tiny(tmp_path, total_steps=4))


def _halved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor / 2 if name.startswith("exp_avg.") else tensor for name, tensor in tensors.items()}


def test_several_processes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Two:
        world_size = 2

        def __enter__(self) -> Two:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(library, "open_for", lambda config: Two())
    with pytest.raises(LaunchError, match=r"^debug: got 2 processes, expected one\. Start it without a launcher"):
        train.run(tiny(tmp_path))


# ------------------------------------------------------------------------------------------------- advice and settings


@pytest.mark.parametrize(
    ("losses", "advised"),
    [
        ([1.0, 2.0], "the loss rose: lower --learning_rate (now 0.0005)"),
        ([1.0, 0.99, 0.95], "the loss hardly moved: raise --learning_rate"),
        ([1.0, 0.7, 0.4], "the loss was still falling: raise --total_steps (now 3)"),
        ([1.0, 0.5, 0.5, 0.5], "the loss stopped falling: the labels may not be a function of the images"),
    ],
)
def test_advice_follows_the_course_of_the_loss(losses: list[float], advised: str, share: StepShare) -> None:
    found = advice(losses, share, Config(), [])
    assert found[0].startswith(advised)
    assert len(found) == 2  # and the pictures, always


def test_advice_names_what_is_wrong_with_the_samples(share: StepShare) -> None:
    share.batches[0].windows[1] = 7
    share.batches[0].labels[:, :6] = IGNORED
    found = "; ".join(advice([1.0, 0.5, 0.5], share, Config.from_flat({"dropout": 0.3}), ["encoder.0.conv1"]))
    for part in (
        "75% of the labels are ignored",
        "b is one flat colour",
        "dropout 0.3",
        "encoder.0.conv1 got no gradient",
    ):
        assert part in found


def test_settings_of_the_debug_mode() -> None:
    config = debugging_config(
        Config.from_flat({"debug": True, "micro_batch_size": 8, "num_workers": 2, "compile": True})
    )
    schedule = config.schedule
    assert (schedule.batch_size, schedule.micro_batch_size, schedule.total_steps) == (4, None, 500)
    assert (schedule.schedule, schedule.max_grad_norm, schedule.learning_rate) == ("constant", 1.0, 5e-4)
    assert config.run.deterministic
    assert not config.run.compile
    assert config.data.num_workers == 0
    assert (config.run.output_path, config.data.synthetic_size) == ("debug", "270x480")


def test_run_in_the_output_folder_is_not_touched(tmp_path: Path) -> None:
    run = Config.from_flat({"output_path": str(tmp_path)}).run
    assert debug_folder(run) == tmp_path
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    assert debug_folder(run) == tmp_path / "debug"


def test_config_of_the_script_can_be_read() -> None:
    (config, _) = parse(
        "train", [str(ROOT / "configs/debug.yaml"), "--debug", "--data_path", "x", "--ignore_index", "11"]
    )
    assert (config.model.base_channels, config.schedule.input_size, config.run.debug) == (8, 252, True)
