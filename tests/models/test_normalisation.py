"""Proves what the normalisations promise: standardised filters keep activations in scale and touch weights only."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unet_dist.models.normalisation import (
    RELU_GAIN,
    ScaledStdConv2d,
    ScaledStdConvTranspose2d,
    batch_coupling,
    pixel_coupling,
    standardise,
    standardised_once,
)
from unet_dist.models.unet import UNet


def test_gain_of_a_relu_is_the_papers() -> None:
    assert pytest.approx(math.sqrt(2 / (1 - 1 / math.pi)), rel=1e-3) == RELU_GAIN
    values = RELU_GAIN * torch.randn(1_000_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert F.relu(values).var().item() == pytest.approx(1, abs=0.01)


def test_filters_get_mean_0_and_their_gain_as_norm() -> None:
    """Equation 3 of the paper, written out: gain * (w - mean) / (std * sqrt(N))."""
    torch.manual_seed(0)
    weight = 3 + 5 * torch.randn(6, 4, 3, 3, dtype=torch.float64)
    gain = torch.rand(6, 1, 1, 1, dtype=torch.float64) + 0.5
    got = standardise(weight, gain, dims=(1, 2, 3))
    for index in range(6):
        filter_ = weight[index]
        expected = gain[index] * (filter_ - filter_.mean()) / (filter_.std(correction=0) * math.sqrt(36))
        assert torch.allclose(got[index], expected, rtol=1e-12, atol=1e-14)
    assert got.mean(dim=(1, 2, 3)).abs().max() < 1e-15
    assert torch.allclose(got.square().sum(dim=(1, 2, 3)), gain.flatten().square())


def test_a_constant_filter_is_no_division_by_zero() -> None:
    weight = torch.ones(2, 4, 3, 3, requires_grad=True)
    got = standardise(weight, torch.ones(2, 1, 1, 1), dims=(1, 2, 3))
    got.square().sum().backward()
    assert got.isfinite().all()
    assert weight.grad is not None
    assert weight.grad.isfinite().all()


def test_gradients_are_those_of_the_formula() -> None:
    torch.manual_seed(0)
    weight = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    gain = torch.rand(2, 1, 1, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w, g: standardise(w, g, dims=(1, 2, 3)), (weight, gain))


def test_activations_keep_their_scale_through_any_depth() -> None:
    torch.manual_seed(0)
    features = torch.randn(1, 64, 96, 96)
    for _ in range(16):
        convolution = ScaledStdConv2d(features.shape[1], 64, 3, output_gain=RELU_GAIN)
        with torch.no_grad():
            nn.init.normal_(convolution.weight, mean=0.3, std=7)  # of any scale, with any mean
            convolution.bias.zero_()
            features = F.relu(convolution(features))
    # Variance 1 a layer in expectation; 64 random channels scatter around it.
    assert 0.7 < features.var(dim=(0, 2, 3)).mean() < 1.4


def test_each_position_of_an_up_convolution_is_standardised_by_itself() -> None:
    torch.manual_seed(0)
    layer = ScaledStdConvTranspose2d(8, 4, 2, output_gain=1.0).double()
    with torch.no_grad():
        layer.weight += 3 * torch.rand(1, 1, 2, 2)  # unequal means
        layer.bias.zero_()
        layer.gain.copy_(torch.tensor([0.5, 1, 2, 4]))
        # Under constant activations whatever differs within 2x2 would be a checkerboard: filters of mean 0 leave nothing.
        assert layer(torch.ones(1, 8, 3, 3, dtype=torch.float64)).abs().max() < 1e-12
        single = torch.zeros(1, 8, 1, 1, dtype=torch.float64)
        responses = []
        for channel in range(8):
            single.zero_()[0, channel] = 1
            responses.append(layer(single)[0])
        norms = torch.stack(responses).square().sum(0)  # (4, 2, 2): the norm of the filter behind each output pixel
    assert torch.allclose(norms, torch.tensor([0.25, 1, 4, 16], dtype=torch.float64).view(4, 1, 1).expand(4, 2, 2))


def test_weight_standardisation_adds_one_gain_a_filter_and_leaves_the_classifier_plain() -> None:
    with torch.device("meta"):
        plain, standardised = UNet(3, 35), UNet(3, 35, norm="weight")
    extra = set(standardised.state_dict()) - set(plain.state_dict())
    assert len(extra) == 2 * (4 + 1 + 4) + 4
    assert all(key.endswith(".gain") for key in extra)
    assert type(standardised.classifier) is nn.Conv2d
    gains = sum(tensor.numel() for key, tensor in standardised.state_dict().items() if key in extra)
    assert gains == 2 * (2 * (64 + 128 + 256 + 512) + 1024) + (64 + 128 + 256 + 512)


@pytest.mark.parametrize("layer", [nn.GroupNorm(2, 4), nn.InstanceNorm2d(4)])
def test_layers_that_couple_pixels_are_named(layer: nn.Module) -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 1), layer)
    assert str(pixel_coupling(model)).startswith(f"1 ({type(layer).__name__}): ")
    assert batch_coupling(model) is None


def test_batch_norm_couples_samples_not_pixels_of_an_evaluation() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    assert pixel_coupling(model) is None
    assert str(batch_coupling(model)).startswith("1 (BatchNorm2d): ")


def test_filters_standardised_once_give_the_same_bits_and_leave_the_network_as_it_was() -> None:
    torch.manual_seed(0)
    model = UNet(num_classes=3, base_channels=4, depth=1, norm="weight").eval()
    for name, parameter in model.named_parameters():
        if name.endswith("gain"):
            nn.init.uniform_(parameter, 0.5, 2)
    images = torch.randn(1, 3, *[model.window_sizes.minimum] * 2)
    before = {name: id(parameter) for name, parameter in model.named_parameters()}
    with torch.inference_mode():
        expected = model(images)
        with standardised_once(model):
            assert len(dict(model.named_parameters())) < len(before), "no gain is left to be multiplied twice"
            assert torch.equal(model(images), expected)
            assert torch.equal(model(images), expected)
        with torch.autocast("cpu", torch.bfloat16):
            expected = model(images)
            with standardised_once(model):
                assert model.encoder[0].conv1.weight.dtype == torch.bfloat16, "cast once, not for each pass"
                assert torch.equal(model(images), expected)
    assert {name: id(parameter) for name, parameter in model.named_parameters()} == before
    with pytest.raises(ZeroDivisionError), standardised_once(model):
        _ = 1 / 0
    assert {name: id(parameter) for name, parameter in model.named_parameters()} == before
