"""The U-Net: contracting path, bottleneck, expanding path, skip connections.

Owns the architecture and what follows from it: the sides it takes, its halo, what couples its pixels or samples. Must
not know how it is trained, tiled or distributed.

Source: Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", 2015,
arXiv 1505.04597, figure 1. With the defaults, `in_channels=1` and `num_classes=2` this is that network: 31,030,658
parameters, 572 -> 388 pixels.

A stem stride s > 1 is not the paper's: blocks of s x s pixels become channels before the first convolution, and logits of
blocks become pixels after the last, so that every convolution runs at 1/s of the side (Shi et al. 2016, "Real-Time Single
Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural Network", arXiv 1609.05158, section 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from unet_dist.models.arguments import (
    Description,
    check_images,
    keep_description,
    require,
    require_choice,
    require_count,
)
from unet_dist.models.blocks import BLOCKS, DilatedCentre, Upsample, widen
from unet_dist.models.cropping import crop_border
from unet_dist.models.dropout import PositionalDropout
from unet_dist.models.normalisation import (
    NORMS,
)
from unet_dist.models.pooling import halve
from unet_dist.models.pretrained import PretrainedModel
from unet_dist.models.receptive_field import (
    HEADS,
    PADDINGS,
    UPSAMPLINGS,
    unet_locality,
    unet_margin,
    unet_window_sizes,
)
from unet_dist.models.supervision import Supervised, with_coarse
from unet_dist.tiling.geometry import CoarseGrid, Locality, WindowSizes

if TYPE_CHECKING:
    from typing_extensions import Unpack


_MOST_CENTRE_PX = 4096
"""assumption: at depth 4 a halo of 65,536 px, wider than any image that is seen as a whole."""


class UNet(
    nn.Module,
    Supervised,
    PretrainedModel,
    pipeline_tag="image-segmentation",
    paper_url="https://arxiv.org/abs/1505.04597",
):
    """Segment images: (N, in_channels, H, W) float -> logits (N, num_classes, H - 2 * margin, W - 2 * margin).

    Args:
        in_channels: of the image, 1 for grey.
        num_classes: logits per pixel.
        base_channels: feature channels at full resolution; they double with each pooling. 64 in the paper.
        depth: number of poolings. 4 in the paper.
        norm: none (the paper), weight (scaled weight standardisation), batch, group.
        padding: valid (the paper: the output is smaller than the input) or same (zeros; exact tiles trim the border).
        upsampling: transposed (the paper) or bilinear.
        blocks: plain (the paper) or residual.
        bottleneck_dilations: rates of more 3x3 convolutions behind the bottleneck's block, such as [1, 2, 4]: at depth d the halo
            grows by 2^d times their sum. None (the paper) has no such convolutions.
        stem_stride: side in pixels of the blocks that are folded into channels before the first level and unfolded after the
            last: a power of two; 1 (the paper) folds nothing. All convolutions take 1 / stem_stride^2 of the work, and the
            halo is stem_stride times as wide.
        head: shuffle: each pixel of a block has own logits; bilinear: each block has one set, which is interpolated between blocks,
            so that the halo is half a block wider.
        dropout: probability at the end of the contracting path, 0 <= p < 1.
        checkpoint_activations: recompute activations in the backward pass: less memory, about a third more time.
        description: mean, std, class_names, ignore_index.

    Attributes:
        window_sizes: which sides `forward` takes and what it returns for them.

    Raises:
        ConfigError: an option is unknown or out of range.
    """

    model_type: ClassVar[str] = "unet"
    config_keys: ClassVar[tuple[str, ...]] = (
        *(
            "base_channels",
            "depth",
            "norm",
            "padding",
            "upsampling",
            "blocks",
            "bottleneck_dilations",
            "stem_stride",
            "head",
            "dropout",
            "checkpoint_activations",
        ),
    )

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 35,
        *,
        base_channels: int = 64,
        depth: int = 4,
        norm: str = "none",
        padding: str = "valid",
        upsampling: str = "transposed",
        blocks: str = "plain",
        bottleneck_dilations: Sequence[int] | None = None,
        stem_stride: int = 1,
        head: str = "shuffle",
        dropout: float = 0.0,
        checkpoint_activations: bool = False,
        **description: Unpack[Description],
    ) -> None:
        super().__init__()
        keep_description(self, in_channels, num_classes, **description)
        require_count("base_channels", base_channels)
        require_count("depth", depth)
        require_count("stem_stride", stem_stride)
        require(stem_stride & (stem_stride - 1) == 0, "stem_stride", stem_stride, "a power of two, such as 1 or 2")
        require_choice("norm", norm, NORMS)
        require_choice("padding", padding, PADDINGS)
        require_choice("upsampling", upsampling, UPSAMPLINGS)
        require_choice("blocks", blocks, tuple(BLOCKS))
        require_choice("head", head, HEADS)
        require(head == "shuffle" or stem_stride > 1, "head", head, "shuffle, or a stem_stride of 2 or more")
        for rate in bottleneck_dilations or ():
            require_count("bottleneck_dilations", rate)
        centre_px = sum(bottleneck_dilations or ())
        require(
            centre_px <= _MOST_CENTRE_PX,
            "bottleneck_dilations",
            bottleneck_dilations,
            f"a sum of {_MOST_CENTRE_PX} at most",
        )
        require(0 <= dropout < 1, "dropout", dropout, "a probability, 0 <= p < 1")
        self.base_channels = base_channels
        self.depth = depth
        self.norm = norm
        self.padding = padding
        self.upsampling = upsampling
        self.blocks = blocks
        self.bottleneck_dilations = list(bottleneck_dilations) if bottleneck_dilations else None
        self.stem_stride = stem_stride
        self.head = head
        self.dropout = dropout
        self.checkpoint_activations = checkpoint_activations
        self.window_sizes: WindowSizes = unet_window_sizes(
            depth, padding=padding, stem_stride=stem_stride, centre_px=self.centre_px, head_px=self.head_px
        )

        channels = [base_channels * 2**level for level in range(depth + 1)]
        block = partial(BLOCKS[blocks], norm=norm, padding=padding)
        # The names below are the keys of model.safetensors: changing one breaks every saved model.
        self.encoder = nn.ModuleList(map(block, [in_channels * stem_stride**2, *channels[:-2]], channels[:-1]))
        self.bottleneck = block(channels[-2], channels[-1])
        self.centre: DilatedCentre | None = None
        if self.bottleneck_dilations:
            self.centre = DilatedCentre(channels[-1], self.bottleneck_dilations, norm=norm, padding=padding)
        self.bottleneck_dropout = PositionalDropout(dropout)
        self.upsample = nn.ModuleList(
            Upsample(2 * width, width, norm=norm, upsampling=upsampling) for width in channels[-2::-1]
        )
        self.decoder = nn.ModuleList(block(2 * width, width) for width in channels[-2::-1])
        # Plain under every norm: logits must be free in scale, and nothing comes after them that could be upset.
        self.classifier = nn.Conv2d(base_channels, num_classes * (stem_stride**2 if head == "shuffle" else 1), 1)
        self.heads = nn.ModuleList()
        self.apply(init_he)
        if head == "shuffle":
            start_pixels_of_a_block_alike(self.classifier, stem_stride)

    @classmethod
    def sizes_of(cls, keys: Mapping[str, object]) -> tuple[WindowSizes, Locality | None]:
        """What the keys of a config say of a network that is built without memory."""
        own: dict[str, Any] = {key: keys[key] for key in cls.config_keys if key in keys}
        with torch.device("meta"):
            model = cls(**own)
        return model.window_sizes, model.locality

    @property
    def centre_px(self) -> int:
        """How far the bottleneck sees beyond its block, in its own pixels."""
        return sum(self.bottleneck_dilations or ())

    @property
    def locality(self) -> Locality | None:
        """Halo and stride of the network in evaluation; None where no finite halo exists (see locality_obstacle)."""
        if self.locality_obstacle is not None:
            return None
        return unet_locality(
            self.depth,
            padding=self.padding,
            upsampling=self.upsampling,
            stem_stride=self.stem_stride,
            centre_px=self.centre_px,
            head_px=self.head_px,
        )

    @property
    def head_px(self) -> int:
        """How near to the edge of its block a pixel reads the next block, too: in a bilinear head beyond the block's centre."""
        return self.stem_stride // 2 if self.head == "bilinear" else 0

    @property
    def decoder_levels(self) -> list[tuple[int, CoarseGrid]]:
        """Channels and grid of each coarser level of the decoder, the finest first."""
        lost = 2 if self.padding == "valid" else 0  # by the block of each finer level, on each side
        by_head = self.head_px if self.padding == "valid" else 0
        return [
            (
                self.base_channels * 2**level,
                CoarseGrid(self.stem_stride * 2**level, -self.stem_stride * lost * (2**level - 1) - by_head),
            )
            for level in range(1, self.depth)
        ]

    def forward(self, images: Tensor, dropout_keys: Tensor | None = None) -> Tensor | tuple[Tensor, ...]:
        """Compute logits.

        Args:
            images: (N, in_channels, H, W) float, normalised with `mean` and `std`.
            dropout_keys: (N, 3) int64, or None for torch's own dropout. For each image: the key of its sample, and the
                row and the column of the window in the sample, in units of the stride (whole numbers that grow by one
                where the window moves by one stride; negative ones too).

        Returns:
            logits (N, num_classes, H - 2 * margin, W - 2 * margin); in training with heads a tuple of them and of the logits of
            the coarse levels, the finest first, on `coarse_grids`.

        Raises:
            DataError: not a batch of images with `in_channels` channels.
            SizeError: a side that the network does not take; names the nearest that it does.
        """
        check_images(self, images)
        if self.stem_stride > 1:
            images = F.pixel_unshuffle(images, self.stem_stride)  # (N, C s^2, H / s, W / s)
        features = self._run(self.encoder[0], self.encoder[0], images)
        skips = [features]
        for block in self.encoder[1:]:
            features = self._run(block, partial(_down, block), features)
            skips.append(features)
        features = self._run(self.bottleneck, partial(_down, self.bottleneck), features)
        if self.centre is not None:
            features = self._run(self.centre, self.centre, features)
        features = self.bottleneck_dropout(features, dropout_keys)
        coarse: list[Tensor] = []
        num_heads, centre_px = len(self.heads) if self.training else 0, self.centre_px
        for upsample, block in zip(self.upsample, self.decoder, strict=True):
            level = len(skips)
            border = 2 * unet_margin(self.depth, padding=self.padding, level=level, centre_px=centre_px)
            features = self._run(block, partial(_up, upsample, block, border), features, skips.pop())
            if 0 < len(skips) <= num_heads:
                coarse.insert(0, self.heads[len(skips) - 1](features))
        return with_coarse(self._to_pixels(self.classifier(features)), coarse)

    def _to_pixels(self, logits: Tensor) -> Tensor:
        """Bring logits of blocks, (N, K s^2, h / s, w / s) or (N, K, h / s + 1, w / s + 1), to pixels, (N, K, h, w)."""
        if self.stem_stride == 1:
            return logits
        if self.head == "shuffle":
            return F.pixel_shuffle(logits, self.stem_stride)
        # At the edge of its map the interpolation repeats the last block: "valid" computes nothing from absent pixels.
        return crop_border(widen(logits, self.stem_stride), self.head_px if self.padding == "valid" else 0)

    def _run(self, block: nn.Module, stage: Callable[..., Tensor], *features: Tensor) -> Tensor:
        """Run a stage around `block`, keeping only its inputs for the backward pass where activations are checkpointed."""
        if not (self.checkpoint_activations and torch.is_grad_enabled()):
            return stage(*features)
        if self.norm == "batch" and not torch.compiler.is_compiling():  # a compiler recomputes values, not side effects
            contexts = partial(_recomputation_contexts, block)
            return checkpoint(stage, *features, use_reentrant=False, context_fn=contexts)
        return checkpoint(stage, *features, use_reentrant=False)


def _down(block: nn.Module, features: Tensor) -> Tensor:
    return block(halve(features))


def _up(upsample: nn.Module, block: nn.Module, border: int, features: Tensor, skip: Tensor) -> Tensor:
    features = upsample(features)
    # The crop is a view: the concatenation makes the only copy.
    return block(torch.cat([crop_border(skip, border), features], dim=1))


def _recomputation_contexts(block: nn.Module) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Contexts of the first computation and of the second, which must not count into the running statistics again."""
    return nullcontext(), _spare_statistics(block)


@contextmanager
def _spare_statistics(block: nn.Module) -> Iterator[None]:
    """Let batch norms update copies of their statistics. (With none to update they would save less than the first time.)"""
    kept = [(layer, dict(layer.named_buffers())) for layer in block.modules() if isinstance(layer, _BatchNorm)]
    for layer, buffers in kept:
        for name, buffer in buffers.items():
            setattr(layer, name, buffer.clone())
    try:
        yield
    finally:
        for layer, buffers in kept:
            for name, buffer in buffers.items():
                setattr(layer, name, buffer)


@torch.no_grad()
def init_he(module: nn.Module) -> None:
    """Draw weights from N(0, 2 / N), N the number of values that one output value sums over; biases are 0.

    Source: arXiv 1505.04597, section 3 (after He et al. 2015): N = 9 * 64 for a 3x3 convolution of 64 channels.
    """
    if isinstance(module, nn.Conv2d):
        fan_in = module.in_channels * math.prod(module.kernel_size)
    elif isinstance(module, nn.ConvTranspose2d):
        fan_in = module.in_channels  # the stride is the kernel's side: one position of the kernel an output pixel
    else:
        return
    if module.weight.is_meta:  # no values to draw, and torch takes 0.1 s to find that out
        return
    module.weight.normal_(0, math.sqrt(2 / fan_in))
    if module.bias is not None:
        module.bias.zero_()


@torch.no_grad()
def start_pixels_of_a_block_alike(classifier: nn.Conv2d, stride: int) -> None:
    """Give the stride^2 outputs of each class, which pixel_shuffle makes the pixels of a block, the weights of the first.

    Independent ones print a checkerboard that training does not remove.

    Source: Aitken et al. 2017, "Checkerboard artifact free sub-pixel convolution" (ICNR), arXiv 1707.02937, section 3.
    """
    of_a_class = classifier.weight.unflatten(0, (-1, stride**2))  # (K, s^2, C, 1, 1), a view
    of_a_class[:, 1:] = of_a_class[:, :1]


PARTS = {"unet": UNet}
