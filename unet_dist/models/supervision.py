"""Heads on the coarser levels of a decoder, which exist while it is trained (deep supervision).

Owns the heads. They are in the state of a training, so that it resumes, and in no model folder: a finished network is the one that
was asked for. Must not know how their logits are judged.

Source: Lee et al. 2015, "Deeply-Supervised Nets", arXiv 1409.5185; on a U-Net's decoder as in Isensee et al. 2021 (nnU-Net).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from unet_dist.errors import ConfigError
from unet_dist.tiling.geometry import CoarseGrid

_HEADS = "heads"


class Supervised:
    """A decoder whose coarser levels may be supervised; the class that inherits is an `nn.Module`.

    Attributes:
        heads: one 1x1 convolution to the logits of each supervised level, the finest first; none by default.
        classifier: of the network.
    """

    heads: nn.ModuleList
    classifier: nn.Conv2d
    num_classes: int

    @property
    def decoder_levels(self) -> Sequence[tuple[int, CoarseGrid]]:
        """Channels and grid of each coarser level of the decoder, the finest first."""
        raise NotImplementedError

    @property
    def coarse_grids(self) -> list[CoarseGrid]:
        """Of what a forward pass in training gives behind the logits."""
        return [grid for _, grid in self.decoder_levels[: len(self.heads)]]

    def supervise(self, levels: int) -> None:
        """Put new heads on the finest coarse levels.

        Raises:
            ConfigError: the decoder has fewer levels.
        """
        most = len(self.decoder_levels)
        if levels > most:
            raise ConfigError(
                f"deep_supervision: got {levels}, expected at most {most}: so many levels of this decoder are coarser than its "
                f"output. Set --deep_supervision {most}, or a larger --depth."
            )
        if levels == len(self.heads):
            return
        weight = self.classifier.weight
        self.heads = nn.ModuleList(
            nn.Conv2d(channels, self.num_classes, 1, device=weight.device, dtype=weight.dtype)
            for channels, _ in self.decoder_levels[:levels]
        )
        for head in self.heads:
            assert isinstance(head, nn.Conv2d)
            nn.init.normal_(head.weight, 0, 0.01)  # as after a large map of an encoder: unsure at first
            assert head.bias is not None
            nn.init.zeros_(head.bias)


def with_coarse(logits: Tensor, coarse: Sequence[Tensor]) -> Tensor | tuple[Tensor, ...]:
    """What a forward pass returns: logits, and in training with heads those of the coarse levels behind them."""
    return (logits, *coarse) if coarse else logits


@contextmanager
def without_heads(network: nn.Module) -> Iterator[None]:
    """Within it a network has no heads, as its folder has none."""
    heads = network._modules.pop(_HEADS, None)
    try:
        yield
    finally:
        if heads is not None:
            network._modules[_HEADS] = heads
