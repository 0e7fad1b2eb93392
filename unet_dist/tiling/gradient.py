"""The gradient of a batch, window by window: exact at any crop size, in the memory of one window.

Owns the forward and the backward pass of windows, whole crops or tiles of them. With valid convolutions and nothing that
couples pixels or samples, the loss of a crop is a sum over its tiles, so its gradient is the sum of theirs: no exchange of
halos. A loss that is a ratio of these sums takes two passes: the first counts them, the second is again a sum over tiles. Must
not know processes, optimizers or where windows come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from unet_dist.machine.memory_format import memory_format_of
from unet_dist.models.contract import TrainableNetwork, coarse_grids_of, pixels_of
from unet_dist.tiling.geometry import level_weights
from unet_dist.tiling.windows import normalise

_SPREAD = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, odd: Knuth, The Art of Computer Programming 3, section 6.4


class SummedLoss(Protocol):
    """A loss that is a sum over pixels, in its second pass at least.

    Attributes:
        has_statistics: whether it takes a first pass.
    """

    has_statistics: bool

    def statistics(self, logits: Tensor, labels: Tensor) -> Tensor:
        """What the first pass counts: (N, K, h, w) logits and (N, h, w) labels -> (S,) float64, summed over the samples."""

    def sums(
        self, logits: Tensor, labels: Tensor, *, borders: Tensor | None = None, totals: Tensor | None = None
    ) -> Tensor:
        """(N, K, h, w) logits and (N, h, w) labels -> (N,) sums, or (N, T) of T terms with divisors of their own.

        Args:
            borders: (N, h, w), what pixels weigh beyond their classes.
            totals: (S,) the statistics of the global batch.
        """


class WindowsAndLabels(Protocol):
    """Windows that are computed at once."""

    @property
    def windows(self) -> Tensor:
        """(N, C, H, W) uint8 inputs."""

    @property
    def labels(self) -> Tensor:
        """(N, h, w) labels."""

    @property
    def keys(self) -> Tensor:
        """What dropout masks are drawn from, one per window."""

    def on(self, device: torch.device) -> WindowsAndLabels:
        """The same on a device, ready for the network."""


@dataclass(frozen=True)
class WindowGradient:
    """Adds the gradients of windows to a network's.

    Attributes:
        model: the network, on the device.
        wrapped: the callable: the network, or its wrapper for mixed precision and several processes.
        loss: the loss, a sum over pixels.
        trim: pixels cut off each side of the logits, so that they cover the labels.
        seed: the run's, for dropout.
    """

    model: TrainableNetwork
    wrapped: Any
    loss: SummedLoss
    trim: int = 0
    seed: int = 0
    _memory_format: torch.memory_format = field(init=False)
    _dtype: torch.dtype = field(init=False)

    def __post_init__(self) -> None:
        # Before a step lends the network others: what the weights are now is what windows are made into.
        object.__setattr__(self, "_memory_format", memory_format_of(self.model))
        object.__setattr__(self, "_dtype", next(self.model.parameters()).dtype)

    def add(
        self,
        windows: Tensor,
        labels: Tensor,
        keys: Tensor,
        *,
        scale: Tensor,
        borders: Tensor | None = None,
        totals: Tensor | Callable[[Tensor], Tensor] | None = None,
        backward: Callable[[Tensor], object] = torch.Tensor.backward,
    ) -> Tensor:
        """Add the gradient of scale * loss.

        Args:
            windows: (n, h, w, C), on the device, as the others.
            labels: (n, h - 2 halo, w - 2 halo) uint8 or uint16, all bits set where another tile counts the pixel, or none does.
            keys: (n, 3) int64: the key of the sample, and the row and the column of the window in the sample's grid, in
                strides.
            scale: scalar, or (T,) for a loss of T terms. The division comes before the backward pass: summed gradients
                overflow fp16.
            borders: what pixels weigh beyond their classes, shaped as the labels.
            totals: what the first pass counted over the global batch, where the loss takes one. A function sums over the
                other processes what these windows count, where they are all that this one has: they are then computed once.
            backward: runs the backward pass of a loss.

        Returns:
            The windows' summed losses, (n,) or (n, T), without scale and without a graph.
        """
        logits, *coarse = self.outputs(windows, keys)
        if callable(totals):
            with torch.no_grad():
                totals = totals(self._statistics(logits, coarse, labels)) if self.loss.has_statistics else None
        if coarse:
            sums = self._supervised(logits, coarse, labels, borders=borders, totals=totals)
        else:
            sums = self.loss.sums(logits, labels, borders=borders, totals=totals)
        backward((sums.sum(0) * scale.to(sums.dtype)).sum())
        return sums.detach()

    @torch.no_grad()
    def count(self, batches: Iterable[WindowsAndLabels], device: torch.device) -> Tensor:
        """Make the first pass over batches: (S,) statistics, summed over them.

        It leaves no trace: running statistics and random numbers are put back, so that the second pass sees the same function.
        """
        counts = []
        with self._leaving_no_trace(device):
            for batch in batches:
                there = batch.on(device)
                logits, *coarse = self.outputs(there.windows, there.keys)
                counts.append(self._statistics(logits, coarse, there.labels))
        return torch.stack(counts).sum(0)

    def rehearse(self, batch: WindowsAndLabels, device: torch.device) -> None:
        """Make both passes over a batch and keep nothing of them, so that a first call's objects exist."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        with self._leaving_no_trace(device):
            there = batch.on(device)
            outputs = self.outputs(there.windows, there.keys)
            torch.autograd.grad(added_up(outputs), parameters, allow_unused=True)

    @contextmanager
    def _leaving_no_trace(self, device: torch.device) -> Iterator[None]:
        """Within it running statistics and random numbers change, and are put back."""
        buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
        for buffer, before in buffers:
            buffer.copy_(before)

    def outputs(self, windows: Tensor, keys: Tensor) -> list[Tensor]:
        """Compute the logits (n, K, h - 2 halo, w - 2 halo) that the labels are for, and behind them what coarse levels give."""
        model = self.model
        images = normalise(windows, model.mean, model.std, self._dtype, pixels_of(model).limits)  # (n, C, h, w)
        images = images.contiguous(memory_format=self._memory_format)
        # A dropped value is a function of (seed, sample, position), however batch and sample are cut. The seed is spread
        # over 63 bits, so that neither a large one overflows nor two of them share their masks. It comes as a number: nothing
        # is copied to the device.
        seeded = torch.cat([keys[:, :1] + (self.seed * _SPREAD) % 2**63, keys[:, 1:]], dim=1)
        given: Tensor | tuple[Tensor, ...] = self.wrapped(images, seeded)
        logits, *coarse = (given,) if isinstance(given, Tensor) else given
        trim = self.trim
        return [logits[:, :, trim : logits.shape[2] - trim, trim : logits.shape[3] - trim], *coarse]

    def _levels(
        self, coarse: Sequence[Tensor], labels: Tensor
    ) -> Iterator[tuple[Tensor, tuple[slice, slice, slice], int]]:
        """Of each coarse level the logits that count, where their labels lie, and the pixels that each stands for."""
        for logits, grid in zip(coarse, coarse_grids_of(self.model), strict=True):
            rows, cols = (grid.places(side, self.trim) for side in labels.shape[1:3])
            assert rows.pixels.stop <= logits.shape[2], (rows, logits.shape)
            assert cols.pixels.stop <= logits.shape[3], (cols, logits.shape)
            yield logits[:, :, rows.pixels, cols.pixels], (slice(None), rows.labels, cols.labels), grid.stride**2

    def _statistics(self, logits: Tensor, coarse: Sequence[Tensor], labels: Tensor) -> Tensor:
        """What the first pass counts of all levels, one behind the other."""
        counts = [self.loss.statistics(logits, labels)]
        counts += [self.loss.statistics(some, labels[at]) for some, at, _ in self._levels(coarse, labels)]
        return counts[0] if len(counts) == 1 else torch.cat(counts)

    def _supervised(
        self,
        logits: Tensor,
        coarse: Sequence[Tensor],
        labels: Tensor,
        *,
        borders: Tensor | None,
        totals: Tensor | None,
    ) -> Tensor:
        """The sums of all levels, weighted. A coarse pixel counts for all pixels that it stands for, so one divisor serves."""
        weights = level_weights(len(coarse))
        of_level = [None] * len(weights) if totals is None else totals.chunk(len(weights))
        sums = weights[0] * self.loss.sums(logits, labels, borders=borders, totals=of_level[0])
        levels = self._levels(coarse, labels)
        for (some, at, area), weight, counted in zip(levels, weights[1:], of_level[1:], strict=True):
            if (
                not some.numel()
            ):  # of a tile smaller than a coarse pixel: its head takes part in the backward pass all the same
                sums = sums + some.sum() * 0
                continue
            near = None if borders is None else borders[at]
            sums = sums + weight * area * self.loss.sums(some, labels[at], borders=near, totals=counted)
        return sums


def added_up(outputs: Sequence[Tensor]) -> Tensor:
    """A scalar that depends on all of a network's outputs."""
    return torch.stack([output.sum() for output in outputs]).sum()
