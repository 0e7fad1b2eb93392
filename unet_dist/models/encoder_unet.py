"""The decoder of the U-Net on an encoder with published weights: exact by tiles, and pretrained.

Owns the decoder, and what follows from both: sides, halo. As in the U-Net no convolution pads, or all do and exact tiles trim what
saw the padding. Context is real pixels, or mirrored ones at the image's border, where the encoder's original saw zeros.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from unet_dist.models.arguments import (
    Description,
    check_images,
    keep_description,
    require,
    require_choice,
    require_count,
)
from unet_dist.models.blocks import DoubleConv, Upsample, widen
from unet_dist.models.encoders.placement import Placed, Span, joined
from unet_dist.models.encoders.registry import ENCODERS, MakeEncoder, build_encoder, describe_encoder, word_of
from unet_dist.models.normalisation import NORMS
from unet_dist.models.pretrained import PretrainedModel
from unet_dist.models.receptive_field import HEADS, PADDINGS, UPSAMPLINGS
from unet_dist.models.supervision import Supervised, with_coarse
from unet_dist.models.unet import init_he, start_pixels_of_a_block_alike
from unet_dist.registry import parse_word, require_trusted
from unet_dist.tiling.geometry import CoarseGrid, Locality, WindowSizes

if TYPE_CHECKING:
    from typing_extensions import Unpack

_BLOCK_REACH_PX = 2  # of a DoubleConv
_CLASSIFIER_STD = 0.01


class EncoderUNet(nn.Module, Supervised, PretrainedModel, pipeline_tag="image-segmentation"):
    """Segment images: (N, in_channels, H, W) float -> logits (N, num_classes, H - 2 * margin, W - 2 * margin).

    Args:
        in_channels: of the image.
        num_classes: logits per pixel.
        encoder: a name of encoders/registry.py, the import path of what makes one, or the maker itself, at the top of a module.
        base_channels: channels of the decoder at stride 2; each level down has half of it more.
        depth: halvings of the side, 1 to 5: at 4 the deepest map has stride 16.
        norm: of the decoder: none, weight (scaled weight standardisation), batch, group.
        padding: valid (the output is smaller than the input) or same (zeros, as the encoder was trained; exact tiles trim the
            border).
        upsampling: transposed or bilinear.
        head: from stride 2 to pixels: shuffle (own logits for each pixel) or bilinear (interpolated logits; the halo is wider).
        checkpoint_activations: recompute activations in the backward pass: less memory, about a third more time.
        pretrained: whether the encoder's weights began as the published ones; for the model card.
        mean: per input channel, in units of uint8 (0 to 255); None means the encoder's own.
        std: likewise.
        class_names: one per class, or None.
        ignore_index: the class that is no answer, or None.

    Raises:
        ConfigError: an option is unknown or out of range.
    """

    model_type: ClassVar[str] = "encoder_unet"
    config_keys: ClassVar[tuple[str, ...]] = (
        "base_channels",
        "depth",
        "norm",
        "padding",
        "upsampling",
        "head",
        "checkpoint_activations",
    )

    has_encoder: ClassVar[bool] = True

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 35,
        *,
        encoder: str | MakeEncoder = "efficientnet_lite0",
        base_channels: int = 64,
        depth: int = 4,
        norm: str = "none",
        padding: str = "valid",
        upsampling: str = "transposed",
        head: str = "shuffle",
        checkpoint_activations: bool = False,
        pretrained: bool = False,
        **description: Unpack[Description],
    ) -> None:
        super().__init__()
        stated = describe_encoder(encoder)
        require_count("in_channels", in_channels)
        if description.get("mean") is None:
            description["mean"] = [stated.mean] * in_channels
        if description.get("std") is None:
            description["std"] = [stated.std] * in_channels
        keep_description(self, in_channels, num_classes, **description)
        require_count("base_channels", base_channels)
        channels = list(stated.channels)
        self.encoder = word_of(encoder)
        require(depth in range(1, len(channels) + 1), "depth", depth, f"1 to {len(channels)} for {self.encoder}")
        require_choice("norm", norm, NORMS)
        require_choice("padding", padding, PADDINGS)
        require_choice("upsampling", upsampling, UPSAMPLINGS)
        require_choice("head", head, HEADS)
        self.base_channels = base_channels
        self.depth = depth
        self.norm = norm
        self.padding = padding
        self.upsampling = upsampling
        self.head = head
        self.checkpoint_activations = checkpoint_activations
        self.pretrained = pretrained

        # The names below are the keys of model.safetensors: changing one breaks every saved model.
        self.upsample = nn.ModuleList()
        self.decoder = nn.ModuleList()
        below = channels[depth - 1]
        for level in reversed(range(depth - 1)):  # of stride 2^(level + 1)
            width = base_channels * (2 + level) // 2
            self.upsample.append(Upsample(below, width, norm=norm, upsampling=upsampling))
            self.decoder.append(DoubleConv(width + channels[level], width, norm=norm, padding=padding))
            below = width
        per_class = 4 if head == "shuffle" else 1  # the four pixels of stride 2
        self.classifier = nn.Conv2d(below, num_classes * per_class, 1)
        self.apply(init_he)
        # An encoder's maps have deviations of about 10: logits that begin large would be confident and wrong. (Lin et al. 2017,
        # arXiv 1708.02002, section 4.1, begin their last layer so.)
        nn.init.normal_(self.classifier.weight, 0, _CLASSIFIER_STD)
        if head == "shuffle":
            start_pixels_of_a_block_alike(self.classifier, 2)
        self.backbone = build_encoder(encoder, in_channels, depth)
        self.heads = nn.ModuleList()
        stride, reach = 2**depth, self._reach_px()
        minimum = stride + 2 * reach
        self.window_sizes = WindowSizes(stride=stride, remainder=minimum % stride, minimum=minimum, margin=reach)
        self._locality = Locality(reach, stride)
        if padding == "same":  # pixels of one stride share what they read, so that the halo ends where a stride does
            self.window_sizes = WindowSizes(stride=stride, remainder=0, minimum=stride, margin=0)
            self._locality = Locality(-(-reach // stride) * stride, stride)

    @property
    def locality(self) -> Locality | None:
        """Halo and stride of the network; None where no finite halo exists (see locality_obstacle)."""
        return None if self.locality_obstacle else self._locality

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """The encoder's, whose learning rate may be another than that of the rest."""
        return list(self.backbone.parameters())

    def origin(self) -> str | None:
        """Whose weights the encoder began with, and their licence."""
        encoder = self.backbone
        return f"{encoder.source} ({encoder.licence or 'licence not stated'})" if self.pretrained else None

    @classmethod
    def variant_options(cls, variant: str) -> dict[str, Any]:
        """Say what an encoder's name fixes: the encoder, and where it has published weights, their normalisation."""
        stated = describe_encoder(variant)
        if stated.source is None:
            return {"encoder": variant}
        return {"encoder": variant, "pretrained": True, "mean": [stated.mean], "std": [stated.std]}

    @classmethod
    def sizes_of(cls, keys: Mapping[str, object]) -> tuple[WindowSizes, Locality | None]:
        """What the keys of a config say of a network that is built without memory. No encoder of another package is imported."""
        encoder = str(keys["model"]).partition(":")[2]
        if not ENCODERS.is_own(parse_word("encoder", encoder).name):
            return super().sizes_of(keys)
        own: dict[str, Any] = {key: keys[key] for key in cls.config_keys if key in keys}
        with torch.device("meta"):
            model = cls(encoder=encoder, **own)
        return model.window_sizes, model.locality

    @classmethod
    def require_trust(cls, config: Mapping[str, Any], trust: Sequence[str], file: Path) -> None:
        """Refuse to import an encoder that a folder names, unless it is ours or the user trusts its package."""
        encoder = config.get("encoder", "")
        if not isinstance(encoder, str):  # the caller gives what makes it
            return
        name = parse_word("encoder", encoder).name
        if not ENCODERS.is_own(name):
            require_trusted(ENCODERS.find(name), trust, str(file))

    def load_variant(self, variant: str) -> str | None:
        """Copy the encoder's published weights, where it has some."""
        return None if self.backbone.source is None else self.backbone.load_published()

    @property
    def decoder_levels(self) -> list[tuple[int, CoarseGrid]]:
        """Channels and grid of each coarser level of the decoder, the finest first; its output has stride 2."""
        return [
            (self.base_channels * (2 + level) // 2, CoarseGrid(2 ** (level + 1))) for level in range(1, self.depth - 1)
        ]

    def forward(self, images: Tensor, dropout_keys: Tensor | None = None) -> Tensor | tuple[Tensor, ...]:
        """Compute logits.

        Args:
            images: (N, in_channels, H, W) float, normalised with `mean` and `std`.
            dropout_keys: not used, as there is no dropout.

        Returns:
            logits (N, num_classes, H - 2 * margin, W - 2 * margin); in training with heads a tuple of them and of the logits of
            the coarse levels, the finest first, on `coarse_grids`.

        Raises:
            DataError: not a batch of images with `in_channels` channels.
            SizeError: a side that the network does not take; names the nearest that it does.
        """
        check_images(self, images)
        margin = self.window_sizes.margin
        skips = self.backbone(Placed(images, -margin, self.padding == "same"), checkpoints=self.checkpoint_activations)
        if self.padding == "same":
            sides = tuple(side // 2**self.depth for side in images.shape[2:])
            require(
                skips[-1].values.shape[2:] == sides,
                "padding",
                "same",
                f"valid: the encoder {self.encoder} pads nothing",
            )
        features: Placed = skips.pop()
        height, width = (side - 2 * margin for side in images.shape[2:])
        coarse: list[Tensor] = []
        for upsample, block in zip(self.upsample, self.decoder, strict=True):
            assert isinstance(upsample, Upsample)
            assert isinstance(block, DoubleConv)
            stage = partial(_up, upsample, block)
            if self.checkpoint_activations and torch.is_grad_enabled():
                features = checkpoint(stage, features, skips.pop(), use_reentrant=False)
            else:
                features = stage(features, skips.pop())
            if self.training and 0 < len(skips) <= len(self.heads):
                stride = self.coarse_grids[len(skips) - 1].stride
                coarse.insert(0, self.heads[len(skips) - 1](features.cut(0, height // stride, width // stride)))
        logits = self.classifier(features.values)
        larger = widen(logits, 2) if self.head == "bilinear" else F.pixel_shuffle(logits, 2)  # (N, K, h, w)
        placed = _doubled(larger, features, is_bilinear=self.head == "bilinear")
        return with_coarse(placed.cut(0, height, width), coarse)

    def _reach_px(self) -> int:
        """Derive how many pixels beyond an output of one stride its first and its last pixel read, where nothing pads.

        Walked from the output back to the image. Windows whose origins differ by multiples of the stride have the same grids, so
        that this is the halo. Padding reads no further: a pixel that reads zeros of a map would read beyond the image.
        """
        stride = 2**self.depth
        # At stride 2, of an output of one stride.
        span = Span(0, stride).before_doubling(is_bilinear=self.head == "bilinear")
        skips: list[Span] = []
        for _ in self.decoder:
            span = span.grown(_BLOCK_REACH_PX)
            skips.append(span)
            span = span.before_doubling(is_bilinear=self.upsampling == "bilinear")
        read = self.backbone.needed([*skips, span])
        return max(-read.start, read.stop - stride)


def _up(upsample: Upsample, block: DoubleConv, features: Placed, skip: Placed) -> Placed:
    both = joined(skip, _doubled(upsample(features.values), features, is_bilinear=upsample.is_bilinear))
    return Placed(block(both.values), both.start + _BLOCK_REACH_PX * (not both.pads), both.pads)


def _doubled(values: Tensor, half: Placed, *, is_bilinear: bool) -> Placed:
    """Place a map of twice the side of `half`, less the pixels that are not exact."""
    start = 2 * half.start
    larger = Placed(values, start, half.pads)
    if is_bilinear and not half.pads:  # the first and the last pixel repeat the edge of the map
        return Placed(larger.cut(start + 1, values.shape[2] - 2, values.shape[3] - 2), start + 1)
    return larger


PARTS = {"encoder_unet": EncoderUNet}
