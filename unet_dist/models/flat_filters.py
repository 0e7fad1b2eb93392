"""Standardises the filters of many layers in a few operations, and differentiates that by its closed form.

Owns the layout: every filter is a row of one flat tensor, cut into chunks of one width, so that one operation serves the
filters of all layers of the device. Layer by layer it takes 8 launches forward and 23 backward for each. Must
not know when it is called.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unet_dist.models.normalisation import EPSILON, ScaledStdConv2d, ScaledStdConvTranspose2d

Layer = ScaledStdConv2d | ScaledStdConvTranspose2d

_WIDTHS = (64, 32, 16, 8, 4)
"""A wider chunk needs fewer indices. A layer whose rows are padded is copied by itself, so as few as can be are."""


class FlatFilters:
    """The filters of layers as rows of one tensor.

    Args:
        layers: one at least, of one type of number and on one device.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._weights = [layer.weight for layer in layers]
        self._is_transposed = [isinstance(layer, ScaledStdConvTranspose2d) for layer in layers]
        rows = [weight[0].numel() if flip else len(weight) for weight, flip in self._each()]
        sizes = [weight.numel() // count for (weight, _), count in zip(self._each(), rows, strict=True)]  # fan-ins
        self._width = min(_WIDTHS, key=lambda width: sum(size % width > 0 for size in sizes))
        chunks = [math.ceil(size / self._width) for size in sizes]  # a row
        self._rows, self._chunks = rows, chunks
        self._num_chunks = sum(count * num for count, num in zip(rows, chunks, strict=True))
        weight = self._weights[0]

        def by_row(values: Sequence[float]) -> Tensor:  # (R + 1,), one row more for the chunk of zeros behind the last
            return torch.from_numpy(np.append(np.repeat(values, rows), 1.0)).to(weight.device, weight.dtype)

        padding = [num * self._width - size for num, size in zip(chunks, sizes, strict=True)]
        self._fan_in, self._padding = by_row([float(size) for size in sizes]), by_row([float(size) for size in padding])
        self._is_padded = any(padding)
        self._output_gain = by_row([layer.output_gain for layer in layers])
        channels = [len(layer.gain) for layer in layers if layer.gain is not None]
        positions = [count // num for count, num in zip(rows, channels, strict=True)]
        self._row_of_chunk, self._chunks_of_row = (i.to(weight.device) for i in _indices(np.repeat(chunks, rows)))
        self._channel_of_row, self._rows_of_channel = (
            index.to(weight.device) for index in _indices(np.repeat(positions, channels))
        )
        self._channels = channels
        self._places = self._place()
        self._is_alike = [at[1] == weight.stride() for at, weight in zip(self._places, self._weights, strict=True)]
        self._strides = [at[1] if ok else None for at, ok in zip(self._places, self._is_alike, strict=True)]

    def _each(self) -> list[tuple[Tensor, bool]]:
        return list(zip(self._weights, self._is_transposed, strict=True))

    def new(self, dtype: torch.dtype) -> Tensor:
        """A flat tensor of zeros, (chunks + 1, width)."""
        return self._fan_in.new_zeros(self._num_chunks + 1, self._width, dtype=dtype)

    def views(self, flat: Tensor) -> list[Tensor]:
        """The layers' parts of a flat tensor, each in the shape of its weight and, but for transposed ones, its strides."""
        return [flat.as_strided(shape, strides, start) for shape, strides, start in self._places]

    def _place(self) -> list[tuple[torch.Size, tuple[int, ...], int]]:
        """Where the layers' parts lie in a flat tensor: shape, strides, start."""
        places, start = list[tuple[torch.Size, tuple[int, ...], int]](), 0
        for (weight, is_transposed), rows, chunks in zip(self._each(), self._rows, self._chunks, strict=True):
            row = chunks * self._width  # from one row to the next
            if is_transposed:  # (in, out, k, k), a row for each of out, k, k
                _, _, height, width = weight.shape
                strides = (1, height * width * row, width * row, row)
            else:
                _, inputs, height, width = weight.shape
                is_dense = weight.is_contiguous()
                strides = (row, height * width, width, 1) if is_dense else (row, 1, width * inputs, inputs)
            places.append((weight.shape, strides, start))
            start += rows * row
        return places

    def gather(self, tensors: Sequence[Tensor]) -> Tensor:
        """Lay tensors, shaped as the weights, into a new flat one of the weights' type."""
        flat = self.new(self._fan_in.dtype)
        copy_all(self.views(flat), tensors, self._strides)
        return flat

    def part(self, flat: Tensor, dtype: torch.dtype) -> list[Tensor]:
        """The layers' parts of a flat tensor of a type, laid out as their weights: copies of those that are not already."""
        parts = self.views(flat)
        return [
            part if is_alike else torch.empty_like(weight, dtype=dtype).copy_(part)
            for part, weight, is_alike in zip(parts, self._weights, self._is_alike, strict=True)
        ]

    def _row_sums(self, sums: Tensor) -> Tensor:
        """Sums of chunks to sums of rows; always in the same order."""
        return sums.index_select(0, self._chunks_of_row.flatten()).view(self._chunks_of_row.shape).sum(1)

    def _by_chunk(self, values: Tensor) -> Tensor:
        return values.index_select(0, self._row_of_chunk)[:, None]

    def standardise(self, weights: Sequence[Tensor], gains: Sequence[Tensor], dtype: torch.dtype) -> Standardised:
        """Standardise all filters, as `normalisation.standardise` does a layer's.

        Args:
            weights, gains: of the layers.
            dtype: of the filters that are returned; computed in the weights' own.
        """
        chunks = self.gather(weights)
        means = self._row_sums(chunks.sum(1)) / self._fan_in
        chunks.sub_(self._by_chunk(means))  # the padding of a row now is minus its mean
        squares = self._row_sums(torch.linalg.vector_norm(chunks, dim=1).square())
        if self._is_padded:
            squares = torch.addcmul(squares, self._padding, means.square(), value=-1)
        inverse = squares.clamp(min=EPSILON).rsqrt()
        gain = torch.cat([*gains, gains[0][:1]]).index_select(0, self._channel_of_row) * self._output_gain
        factor = inverse * gain
        filters = torch.empty_like(chunks, dtype=dtype)
        torch.mul(chunks, self._by_chunk(factor), out=filters)
        return Standardised(self.part(filters, dtype), chunks, squares, inverse, factor)

    def differentiate(self, gradient: Tensor, at: Standardised) -> tuple[list[Tensor], list[Tensor]]:
        """The gradients of weights and gains from that of the filters, a flat tensor, which is overwritten.

        With c the centred filter, q = sum(c^2), y = g c / sqrt(q) and G the gradient of y:
        dw = g / sqrt(q) (G - mean(G) - c sum(G c) / q), without the last term where q is below EPSILON, as it is a constant
        there; dg = sum(G c) / sqrt(q).
        """
        products = self._row_sums((gradient * at.centred).sum(1))
        means = self._row_sums(gradient.sum(1)) / self._fan_in
        by_channel = (products * at.inverse * self._output_gain).index_select(0, self._rows_of_channel.flatten())
        of_gains = by_channel.view(self._rows_of_channel.shape).sum(1)[:-1].split(self._channels)
        slopes = products * at.inverse.square() * (at.squares >= EPSILON)
        gradient.sub_(self._by_chunk(means))
        gradient.addcmul_(at.centred, self._by_chunk(slopes), value=-1)
        gradient.mul_(self._by_chunk(at.factor))
        return self.part(gradient, gradient.dtype), list(of_gains)


class Standardised:
    """Standardised filters, and what their gradient needs.

    Attributes:
        filters: one tensor per layer.
        centred: flat, the weights less their rows' means.
        squares, inverse, factor: (R + 1,) a row.
    """

    def __init__(
        self, filters: list[Tensor], centred: Tensor, squares: Tensor, inverse: Tensor, factor: Tensor
    ) -> None:
        self.filters = filters
        self.centred = centred
        self.squares = squares
        self.inverse = inverse
        self.factor = factor


def copy_all(to: Sequence[Tensor], tensors: Sequence[Tensor], strides: Sequence[tuple[int, ...] | None]) -> None:
    """Copy tensors into others of their shapes; in one operation where strides are equal, also to another type.

    Args:
        strides: of `to`, as dense_strides gives them.
    """
    alike = [tensor.stride() == wanted for tensor, wanted in zip(tensors, strides, strict=True)]
    pairs = list(zip(to, tensors, alike, strict=True))
    if any(alike):
        torch._foreach_copy_([a for a, _, is_alike in pairs if is_alike], [b for _, b, is_alike in pairs if is_alike])
    for a, b, is_alike in pairs:
        if not is_alike:
            a.copy_(b)


def dense_strides(tensor: Tensor) -> tuple[int, ...] | None:
    """The strides of a tensor without gaps; None of another, whose copy torch cannot make beside others."""
    is_last = tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return tensor.stride() if is_last or tensor.is_contiguous() else None


def _indices(counts: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Number members of groups one after the other.

    Args:
        counts: (G,) members of each group.

    Returns:
        (M + 1,) the group of each member, and G for one more; (G + 1, most) the members of each group, and M where it has
        fewer.
    """
    groups, members = len(counts), int(counts.sum())
    place = np.arange(counts.max())
    table = np.where(place < counts[:, None], (counts.cumsum() - counts)[:, None] + place, members)
    table = np.append(table, np.full((1, len(place)), members), axis=0)
    of_member = np.append(np.repeat(np.arange(groups), counts), groups)
    return torch.from_numpy(of_member.astype(np.int32)), torch.from_numpy(table.astype(np.int32))
