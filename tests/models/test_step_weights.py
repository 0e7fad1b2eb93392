"""Proves that lent weights are the layers' own standardisation, and their gradients its, however a step is cut."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from unet_dist.models.normalisation import EPSILON, ScaledStdConv2d, ScaledStdConvTranspose2d
from unet_dist.models.step_weights import StepWeights, _cut
from unet_dist.models.unet import UNet


class Odd(nn.Module):
    """Filters of unequal fan-ins, so that rows are padded; one is all alike, one has a mean far from 0."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = ScaledStdConv2d(3, 7, 3, output_gain=1.7)
        self.up = ScaledStdConvTranspose2d(7, 5, 2, output_gain=1.0)
        self.wide = ScaledStdConv2d(5, 70, 3, output_gain=1.7)
        self.plain = nn.Conv2d(70, 2, 1)
        with torch.no_grad():
            self.conv.weight[0] = 0.25
            self.wide.weight[1] += 50

    def forward(self, images: torch.Tensor, keys: torch.Tensor | None = None) -> torch.Tensor:
        return self.plain(self.wide(self.up(self.conv(images).tanh()).tanh()).tanh())


def _gradients(model: nn.Module, passes: int, weights: StepWeights | None) -> tuple[torch.Tensor, list[torch.Tensor]]:
    images = torch.randn(passes, 1, 3, 44, 44, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    outputs = []
    for number, image in enumerate(images, start=1):
        if weights is None:
            outputs.append(model(image))
            outputs[-1].square().sum().backward()
        else:
            with weights.lent(is_last=number == passes):
                outputs.append(model(image))
                outputs[-1].square().sum().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    return torch.stack(outputs).detach(), gradients


@pytest.mark.parametrize("is_overlapped", [False, True])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "build", [Odd, lambda: UNet(3, 4, base_channels=4, depth=2, norm="weight", checkpoint_activations=True)]
)
def test_lent_weights_give_the_layers_own_values_and_gradients(
    build: Callable[[], nn.Module], memory_format: torch.memory_format, is_overlapped: bool
) -> None:
    torch.manual_seed(0)
    model = build().double().to(memory_format=memory_format)
    for passes in (1, 3):
        outputs, gradients = _gradients(model, passes, None)
        lent_outputs, lent_gradients = _gradients(model, passes, StepWeights(model, None, is_overlapped=is_overlapped))
        torch.testing.assert_close(lent_outputs, outputs, rtol=1e-12, atol=1e-12)
        assert len(gradients) == len(lent_gradients) == len(list(model.parameters()))
        for lent, own in zip(lent_gradients, gradients, strict=True):
            torch.testing.assert_close(lent, own, rtol=1e-12, atol=1e-12 * float(own.abs().max()))


def test_a_filter_below_the_floor_is_scaled_by_a_constant() -> None:
    """Where fan-in x variance is below EPSILON the factor has no slope."""
    model = Odd().double()
    with torch.no_grad():
        model.conv.weight.mul_(EPSILON / 100)
    _, own = _gradients(model, 1, None)
    _, lent = _gradients(model, 1, StepWeights(model, None))
    torch.testing.assert_close(lent[0], own[0], rtol=1e-9, atol=1e-9 * float(own[0].abs().max()))


def test_casts_give_the_bits_of_autocast() -> None:
    """Also over micro-batches: their gradients are summed in the parameters' own type."""
    torch.manual_seed(0)
    model = UNet(3, 4, base_channels=4, depth=2)
    images = torch.randn(2, 1, 3, 44, 44)

    def gradients(weights: StepWeights | None) -> list[torch.Tensor]:
        for number, image in enumerate(images, start=1):
            with (weights or StepWeights(nn.Module(), None)).lent(is_last=number == len(images)):
                with torch.autocast("cpu", torch.bfloat16):
                    logits = model(image)
                logits.float().square().sum().backward()
        found = [p.grad for p in model.parameters() if p.grad is not None]
        model.zero_grad()
        return found

    own, lent = gradients(None), gradients(StepWeights(model, torch.bfloat16))
    assert len(own) == len(lent)
    assert all(torch.equal(a, b) for a, b in zip(own, lent, strict=True))


def test_the_network_has_its_own_parameters_after_a_failed_step() -> None:
    model = UNet(3, 4, base_channels=4, depth=2, norm="weight")
    before = dict(model.named_parameters())
    weights = StepWeights(model, torch.bfloat16)

    def fail() -> None:
        with weights.lent():
            assert model.encoder[0].conv1.gain is None
            raise MemoryError

    with pytest.raises(MemoryError):
        fail()
    after = dict(model.named_parameters())
    assert before.keys() == after.keys()
    assert all(before[name] is after[name] for name in before)


def test_the_last_gradients_to_come_are_few() -> None:
    """Of the paper's network the contracting path, which is 4.7 of 31 million parameters; the rest is summed beside it."""
    with torch.device("meta"):
        model = UNet(3, 35)
    first, rest = _cut([module for module in model.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)])
    assert set(first) == {module for module in model.encoder.modules() if isinstance(module, nn.Conv2d)}
    assert model.bottleneck.conv1 is rest[0]
    assert _cut([]) == [[], []]
