"""Measure other ways to compute the network's training pass: the same function and parameters, in turn, as ratios.

    python -m tests.measure.step_variants [--base_channels 16] [--input_size 444] [--batch_size 1] [--rounds 7] [--compile true]

Each round times one forward and backward pass of every variant, after one that is not counted. Before, logits and gradients of each
are compared with those of the network as it is, in float64: a variant that computes something else ends the measurement.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unet_dist.machine.allocator import keep_freed_memory
from unet_dist.machine.compiling import DEFAULT_BACKEND, compile_static
from unet_dist.machine.memory_format import choose_memory_format
from unet_dist.models import cropping
from unet_dist.models.unet import UNet

Network = Callable[[Tensor], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base_channels", type=int, default=16)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--input_size", type=int, default=444)
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--compile", choices=["true", "false"], default="false")
    options = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    memory_format = choose_memory_format("auto", "cpu")
    model = UNet(3, 12, base_channels=options.base_channels, depth=options.depth).to(memory_format=memory_format)
    compare(copy.deepcopy(model).double())
    images = torch.randn(options.batch_size, 3, options.input_size, options.input_size)
    images = images.contiguous(memory_format=memory_format)
    networks = variants(model)
    if options.compile == "true":
        compiled = compile_static(model, DEFAULT_BACKEND)
        started = time.perf_counter()
        logits = one_pass(model, compiled, images)[0]
        print(f"first pass, compiling: {time.perf_counter() - started:.0f} s", flush=True)
        require_equal("compiled", logits, one_pass(model, model, images)[0], 1e-4)
        networks["compiled"] = (model, compiled)
    for owner, network in networks.values():
        one_pass(owner, network, images)
    times: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(options.rounds):
        for name, (owner, network) in networks.items():
            started = time.perf_counter()
            one_pass(owner, network, images)
            times[name].append(time.perf_counter() - started)
    first = times["as it is"]
    print(f"{torch.get_num_threads()} thread(s), {options.rounds} rounds; seconds a pass, and times as fast as it is")
    for name, seconds in times.items():
        ratios = [one / other for one, other in zip(first, seconds, strict=True)]
        spread = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        print(f"{statistics.median(seconds):8.3f}  {spread}  {name}", flush=True)


def variants(model: UNet) -> dict[str, tuple[nn.Module, Network]]:
    """Each way by its name: whose parameters it is computed with, and what computes it."""
    first, last = (
        copy.deepcopy(model).to(memory_format=each) for each in (torch.contiguous_format, torch.channels_last)
    )
    return {
        "as it is": (model, model),
        "the same again": (model, model),
        "skip and upsampled by split weights, no concatenation": (model, Rewritten(model, splits=True)),
        "ReLU not in place": (model, Rewritten(model, in_place=False)),
        "pooling before ReLU, which is done twice": (model, Rewritten(model, pools_first=True)),
        "contiguous": (first, lambda x: first(x.contiguous())),
        "channels last": (last, lambda x: last(x.contiguous(memory_format=torch.channels_last))),
        "channels last, skips cropped by slices": (
            last,
            lambda x: Rewritten(last, slices=True)(x.contiguous(memory_format=torch.channels_last)),
        ),
    }


def compare(model: UNet) -> None:
    """Hold the logits and gradients of every variant against those of the network as it is, in float64 on a small window."""
    side = model.window_sizes.round_up(model.window_sizes.minimum + 1)
    images = torch.randn(1, 3, side, side, dtype=torch.float64)
    expected = one_pass(model, model, images)
    for name, (owner, network) in variants(model).items():
        for got, wanted in zip(one_pass(owner, network, images), expected, strict=True):
            require_equal(name, got, wanted, 1e-10)


def require_equal(name: str, got: Tensor, wanted: Tensor, tolerance: float) -> None:
    """End the measurement where a variant computes something else, by its norm."""
    error = float((got - wanted).norm() / wanted.norm())
    assert error < tolerance, f"{name} computes something else: {error:.1e}"


def one_pass(owner: nn.Module, network: Network, images: Tensor) -> list[Tensor]:
    """Forward and backward: the logits and the gradient of each parameter."""
    owner.zero_grad()
    logits = network(images)
    logits.square().mean().backward()
    return [logits.detach(), *(p.grad for p in owner.parameters() if p.grad is not None)]


class Rewritten:
    """The U-Net's forward pass, on its own parameters, with one thing done in another way.

    Args:
        model: without normalisation.
        splits: the first convolution after a skip is the sum of two, over each half of its weights.
        in_place: of ReLU.
        pools_first: a level down pools what ReLU has not seen yet (the two commute), so that the skip alone is rectified whole.
        slices: skips are cropped by slices, whose gradients are contiguous.
    """

    def __init__(
        self,
        model: Any,
        *,
        splits: bool = False,
        in_place: bool = True,
        pools_first: bool = False,
        slices: bool = False,
    ) -> None:
        self.model, self.splits, self.in_place, self.pools_first = model, splits, in_place, pools_first
        self.crop = cropping._slice if slices else cropping.crop

    def __call__(self, images: Tensor) -> Tensor:
        model: Any = self.model
        skips: list[Tensor] = []
        features = images
        for block in [*model.encoder, model.bottleneck]:
            if skips:
                pooled = F.max_pool2d(features, 2)
                features = F.relu(pooled) if self.pools_first else pooled
            raw = block.conv2(self._relu(block.conv1(features)))
            features = raw if self.pools_first else self._relu(raw)
            skips.append(F.relu(raw) if self.pools_first else features)
        features = skips.pop()
        for upsample, block in zip(model.upsample, model.decoder, strict=True):
            features = upsample(features)
            skip, (height, width) = skips.pop(), features.shape[2:]
            skip = self.crop(skip, (skip.shape[2] - height) // 2, (skip.shape[3] - width) // 2, height, width)
            if self.splits:
                width = skip.shape[1]
                first = F.conv2d(skip, block.conv1.weight[:, :width], block.conv1.bias)
                first += F.conv2d(features, block.conv1.weight[:, width:])
            else:
                first = block.conv1(torch.cat([skip, features], dim=1))
            features = self._relu(block.conv2(self._relu(first)))
        logits: Tensor = model.classifier(features)
        return logits

    def _relu(self, features: Tensor) -> Tensor:
        return F.relu(features, inplace=self.in_place)


if __name__ == "__main__":
    main()
