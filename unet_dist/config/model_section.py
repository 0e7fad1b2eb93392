"""The keys of the network, with their rules and help; a section of the configuration as `sections.py` has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from unet_dist.config.rules import Count, Fraction, Free, Main, Must, PathWord, Section, between

Dilations = Annotated[
    list[int],
    Must(
        lambda rates: 0 < len(rates) <= 8 and all(isinstance(rate, int) and 1 <= rate <= 64 for rate in rates),
        "1 to 8 whole numbers of 1 to 64",
    ),
]


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Section):
    """The network"""

    model: Main[str] = "unet"
    """The architecture. unet: the paper's (Ronneberger et al. 2015). unet:efficientnet_lite0 (lite1, lite2): its decoder on an
    encoder with ImageNet weights (extra: pretrained). encoder_unet: the same with random weights. segformer, segformer:b0 to b5:
    random weights; segformer:USER/NAME: published ones (extra: segformer). smp:Unet:resnet34 and others: random weights, with
    :imagenet at the end published ones (extra: smp)."""
    in_channels: Count | None = None
    """Channels of an image, 1 or more. Default: those of the data set."""
    num_classes: Annotated[int, between(1, 65535)] | None = None
    """Number of classes, 2 to 65535 (1 to 32 with multi_label), including the ignored one. Default: those of the data set."""
    base_channels: Count = 64
    """Channels of the first level, 1 or more; each level down doubles them. With an encoder: channels of the decoder at half
    of the side; each level down adds half of that number."""
    depth: Annotated[int, between(1, 8)] = 4
    """Number of poolings, 1 to 8. With an encoder: halvings of the side, 1 to 5; 4 stops at stride 16."""
    norm: Literal["none", "weight", "batch", "group"] = "none"
    """Normalisation. none is the paper's. weight standardises the filters; tiles and runs stay exact. batch couples the samples of
    a micro-batch in training. group couples all pixels, so tiles are not exact."""
    padding: Literal["valid", "same"] = "valid"
    """valid: convolutions without padding (the paper's). same: with zeros at the border, which exact tiles cut off."""
    upsampling: Literal["transposed", "bilinear"] = "transposed"
    """transposed: transposed convolutions (the paper's). bilinear: interpolation and a convolution."""
    blocks: Literal["plain", "residual"] = "plain"
    """plain: two convolutions (the paper's). residual: the block's input is added before the last ReLU. The halo is the same."""
    bottleneck_dilations: Dilations | None = None
    """Rates of more 3x3 convolutions at the deepest level, such as [1,2,4], for more context. The halo grows by 2^depth times their
    sum. Default: none (the paper's)."""
    stem_stride: Annotated[int, Must(lambda stride: stride in (1, 2, 4, 8, 16), "1, 2, 4, 8 or 16")] = 1
    """Side of the pixel blocks, px: 1, 2, 4, 8 or 16. A block is folded into channels before the first level and unfolded
    after the last. At 2, convolutions take 1/4 of the work and see twice as far. 1 is the paper's."""
    head: Literal["shuffle", "bilinear"] = "shuffle"
    """With a stem_stride or an encoder: from blocks to pixels. shuffle computes logits for each pixel of a block. bilinear computes
    one set per block and interpolates, so that no block shows; the halo grows by half a block."""
    dropout: Fraction = 0.0
    """Probability of dropping a value at the end of the contracting path, 0 to below 1."""
    checkpoint_activations: Free[bool] = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    init_from: PathWord | None = None
    """Start from the weights of a run, a model folder or a hub id. A head with other classes starts new."""
