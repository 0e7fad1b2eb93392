"""SegFormer: a hierarchical transformer whose decoder is a few layers, by way of transformers (extra: segformer).

Owns the adapter: sizes, what couples its pixels and samples, its published sizes and checkpoints. The layers are those of
transformers, called one by one; the library is imported when a network is built, as it takes seconds.

Source: Xie et al., "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers", 2021,
arXiv 2105.15203.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from unet_dist.errors import CheckpointError, ConfigError, ExtraError, suggest
from unet_dist.models.arguments import MOST, Description, check_images, keep_description, require, scale_logits
from unet_dist.models.dropout import PositionalDropout
from unet_dist.models.normalisation import pixel_coupling
from unet_dist.models.pretrained import PretrainedModel, find_model_folder, read_config
from unet_dist.models.published import read_processor, read_weights
from unet_dist.models.weights import CONFIG_FILE, describing, require_room
from unet_dist.tiling.geometry import Locality, WindowSizes

if TYPE_CHECKING:
    from typing_extensions import Unpack

# What shapes the network, by the names of transformers' SegformerConfig. arXiv 2105.15203, table 6: these are b0's.
B0: dict[str, Any] = {
    "hidden_sizes": [32, 64, 160, 256],
    "depths": [2, 2, 2, 2],
    "decoder_hidden_size": 256,
    "num_attention_heads": [1, 2, 5, 8],
    "patch_sizes": [7, 3, 3, 3],
    "strides": [4, 2, 2, 2],
    "sr_ratios": [8, 4, 2, 1],
    "mlp_ratios": [4, 4, 4, 4],
    "hidden_act": "gelu",
}
_WIDE = [64, 128, 320, 512]
SIZES: dict[str, dict[str, Any]] = {
    "b0": {},
    "b1": {"hidden_sizes": _WIDE},
    "b2": {"hidden_sizes": _WIDE, "depths": [3, 4, 6, 3], "decoder_hidden_size": 768},
    "b3": {"hidden_sizes": _WIDE, "depths": [3, 4, 18, 3], "decoder_hidden_size": 768},
    "b4": {"hidden_sizes": _WIDE, "depths": [3, 8, 27, 3], "decoder_hidden_size": 768},
    "b5": {"hidden_sizes": _WIDE, "depths": [3, 6, 40, 3], "decoder_hidden_size": 768},
}
_MOST_BLOCKS = 1000
"""assumption: b5 has 52; each takes time, also before it has weights."""
_SIDES = WindowSizes(stride=32, remainder=0, minimum=32, margin=0)
"""The last stage has one token for 32 px. transformers takes other sides too, and drops what its strides leave over."""


class SegFormer(
    nn.Module, PretrainedModel, pipeline_tag="image-segmentation", paper_url="https://arxiv.org/abs/2105.15203"
):
    """Segment images: (N, in_channels, H, W) float -> logits (N, num_classes, H, W), computed at a quarter of the side.

    Every pixel attends to the whole window, so that exact tiles do not exist. The decoder's batch normalisation couples the
    samples of a micro-batch in training. The paper's stochastic depth is left out: it would be drawn anew on each device.

    Args:
        in_channels: of the image.
        num_classes: logits per pixel.
        architecture: what shapes the network, by the names of transformers' SegformerConfig; b0's by default.
        dropout: probability before the classifier, 0 <= p < 1; 0.1 in the paper.
        checkpoint_activations: recompute the activations of a stage in the backward pass.
        resize_to: (height, width) to which a whole image is scaled first, as its published training did; None: not at all.
        description: mean, std, class_names, ignore_index.

    Raises:
        ConfigError: an option is unknown or out of range.
        ExtraError: transformers is not installed.
    """

    model_type: ClassVar[str] = "segformer"
    config_keys: ClassVar[tuple[str, ...]] = ("dropout", "checkpoint_activations")
    is_convolutional: ClassVar[bool] = False
    window_sizes: ClassVar[WindowSizes] = _SIDES

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 35,
        *,
        architecture: Mapping[str, Any] | None = None,
        dropout: float = 0.0,
        checkpoint_activations: bool = False,
        resize_to: Sequence[int] | None = None,
        **description: Unpack[Description],
    ) -> None:
        super().__init__()
        keep_description(self, in_channels, num_classes, **description)
        require(0 <= dropout < 1, "dropout", dropout, "a probability, 0 <= p < 1")
        unknown = sorted(set(architecture or {}) - set(B0))
        if unknown:
            raise ConfigError(f'Got architecture with the key "{unknown[0]}". {suggest(unknown[0], B0)} Change it.')
        self.architecture = {**B0, **(architecture or {})}
        _require_stages(self.architecture)
        self.dropout = dropout
        self.checkpoint_activations = checkpoint_activations
        self.resize_to = None if resize_to is None else [int(side) for side in resize_to]
        if self.resize_to is not None:
            is_shape = len(self.resize_to) == 2 and min(self.resize_to) >= 1
            require(is_shape, "resize_to", resize_to, "a height and a width in pixels")
        # The names in it are the keys of model.safetensors.
        self.network = _build(self._their_config())
        self.classifier_dropout = PositionalDropout(dropout)

    @property
    def locality(self) -> Locality | None:
        """None: no halo is finite (see locality_obstacle)."""
        return None

    @property
    def locality_obstacle(self) -> str | None:
        """The first layer that couples all pixels of a window, and why."""
        attention = type(self.network.segformer.stages[0].blocks[0].attention)
        return pixel_coupling(self, attention=(attention,))

    def forward(self, images: Tensor, dropout_keys: Tensor | None = None) -> Tensor:
        """Compute logits.

        Args:
            images: (N, in_channels, H, W) float, normalised with `mean` and `std`.
            dropout_keys: as the U-Net's: the mask is a function of them and of the position in the window.

        Returns:
            logits (N, num_classes, H, W).

        Raises:
            DataError: not a batch of images with `in_channels` channels.
            SizeError: a side that is no multiple of 32.
        """
        return F.interpolate(
            self.coarse_logits(images, dropout_keys), size=images.shape[2:], mode="bilinear", align_corners=False
        )

    def scaled_logits(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits of whole images at another size, interpolated once from a quarter of the side, as transformers does."""
        return scale_logits(self.coarse_logits(images), size)

    def coarse_logits(self, images: Tensor, dropout_keys: Tensor | None = None) -> Tensor:
        """Logits at a quarter of the side, before they are interpolated: (N, num_classes, H / 4, W / 4)."""
        check_images(self, images)
        features, maps = images, []
        for stage in self.network.segformer.stages:
            features = self._run(stage, features)
            maps.append(features)  # (N, C, H / 4, W / 4), then half the side each
        return self._decode(maps, dropout_keys)  # (N, K, H / 4, W / 4)

    def _decode(self, maps: Sequence[Tensor], dropout_keys: Tensor | None) -> Tensor:
        """Project every stage to one width, bring it to the first one's side, and classify. Source: equation 4."""
        head = self.network.decode_head
        projected = []
        for features, layer in zip(maps, head.linear_projections, strict=True):
            tokens = layer(features)  # (N, h * w, D)
            plane = tokens.transpose(1, 2).unflatten(2, features.shape[2:])
            wide = F.interpolate(plane, size=maps[0].shape[2:], mode="bilinear", align_corners=False)
            projected.append(
                wide.to(plane.dtype)
            )  # mixed precision on a GPU makes float32, also of all that is beside it
        fused = head.linear_fuse(
            torch.cat(projected[::-1], dim=1)
        )  # the last stage first, as the published weights have it
        fused = F.relu(head.batch_norm(fused))
        logits: Tensor = head.classifier(self.classifier_dropout(fused, dropout_keys))
        return logits

    def _run(self, stage: Callable[[Tensor], Tensor], features: Tensor) -> Tensor:
        if self.checkpoint_activations and torch.is_grad_enabled():
            return checkpoint(stage, features, use_reentrant=False)
        return stage(features)

    def _their_config(self) -> Any:
        config, _ = _library()
        # No dropout of theirs: it would not be a function of (seed, step, sample, position).
        none = dict.fromkeys(
            ("drop_path_rate", "classifier_dropout_prob", "hidden_dropout_prob", "attention_probs_dropout_prob"), 0.0
        )
        return config(
            num_channels=self.in_channels,
            num_labels=self.num_classes,
            num_encoder_blocks=len(self.architecture["depths"]),
            **self.architecture,
            **none,
        )

    # ------------------------------------------------------------------------------------------ published weights

    @classmethod
    def variant_options(cls, variant: str) -> dict[str, Any]:
        """Say what b0 to b5, a hub id or a folder of transformers fix; of a published one the mean and deviation too."""
        if variant in SIZES:
            return {"architecture": SIZES[variant]}
        if "/" not in variant and not Path(variant).exists():
            raise ConfigError(
                f'model: got "segformer:{variant}", expected one of segformer:{", segformer:".join(SIZES)} (random weights), '
                "or segformer:USER/NAME, a hub id or a folder whose weights to start from. Change model."
            )
        options = _options_of(*_published(variant))
        return {name: options[name] for name in ("architecture", "mean", "std")}

    def load_variant(self, variant: str) -> str | None:
        """Copy the weights of a hub id or a folder; the head of other classes stays new."""
        if variant in SIZES:
            return None
        folder, config = _published(variant)
        weights, not_there = self._convert(folder)
        theirs = _options_of(folder, config)["class_names"]
        if (
            self.class_names is not None and theirs != self.class_names
        ):  # of equal number, the head would fit and be wrong
            weights = {name: t for name, t in weights.items() if not name.startswith("decode_head.classifier.")}
        if not any(name.startswith("segformer.") for name in weights):
            raise CheckpointError(
                f"model: {variant} has no tensor that fits this network ({len(not_there)} are missing). Choose another."
            )
        self.network.load_state_dict(weights, strict=False)
        ours = list(self.network.state_dict())
        new = [name for name in ours if name not in weights]
        return f"Starting from {variant}: {len(weights)} of {len(ours)} tensors" + (
            f"; new: {', '.join(new[:4])}{', ...' if len(new) > 4 else ''}." if new else "."
        )

    @classmethod
    def adopt(cls, folder: Path, config: Mapping[str, Any], *, map_location: str | torch.device = "cpu") -> Any:
        """Load a segmentation checkpoint that transformers wrote, with its own names, mean, deviation and size."""
        with describing(folder / CONFIG_FILE, cls.__name__):
            architectures = [str(name) for name in config.get("architectures") or []]
        if "SegformerForSemanticSegmentation" not in architectures:
            raise CheckpointError(
                f"{folder} is a {', '.join(architectures) or 'checkpoint of unknown kind'}: an encoder without a segmentation "
                "head. Expected a SegformerForSemanticSegmentation. Train one from it: --model segformer:USER/NAME."
            )
        with describing(folder / CONFIG_FILE, cls.__name__):
            options = _options_of(folder, config)
            with torch.device("meta"):
                require_room(cls(**options), torch.device("cpu"), folder)
            model = cls(**options)
        weights, not_there = model._convert(folder)
        if not_there:
            raise CheckpointError(
                f"{folder} lacks {len(not_there)} tensors of the network that its config.json describes "
                f"({', '.join(not_there[:3])}, ...). Download it again."
            )
        model.network.load_state_dict(weights)
        floating = {tensor.dtype for tensor in weights.values() if tensor.is_floating_point()}
        if len(floating) == 1:
            model.to(floating.pop())
        return model.to(map_location).eval()

    def _convert(self, folder: Path) -> tuple[dict[str, Tensor], list[str]]:
        """Read a folder's weights by the names of this network; also which are missing or of another shape.

        transformers knows how the names changed over its releases.
        """
        _, network = _library()
        weights = read_weights(folder)
        with describing(folder, type(self).__name__):
            donor, info = network.from_pretrained(
                None,
                config=self._their_config(),
                state_dict=weights,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        absent = {*info["missing_keys"], *(key if isinstance(key, str) else key[0] for key in info["mismatched_keys"])}
        weights = {name: tensor for name, tensor in donor.state_dict().items() if name not in absent}
        return weights, sorted(absent)


def _require_stages(architecture: Mapping[str, Any]) -> None:
    """Refuse lists that are of no network: each has a number for each stage.

    Raises:
        ConfigError: names the list.
    """
    depths = architecture["depths"]
    for key, values in architecture.items():
        if isinstance(B0[key], list):
            is_list = (
                isinstance(values, list | tuple) and isinstance(depths, list | tuple) and len(values) == len(depths)
            )
            is_sound = is_list and all(type(value) in (int, float) and 0 < value <= MOST for value in values)
            require(is_sound, key, values, "numbers above 0, as many as depths has")
    require(0 < sum(depths) <= _MOST_BLOCKS, "depths", depths, f"{_MOST_BLOCKS} blocks at most")
    width = architecture["decoder_hidden_size"]
    require(type(width) is int and 0 < width <= MOST, "decoder_hidden_size", width, f"1 to {MOST}")


def _library() -> tuple[Any, Any]:
    """The config and the network of transformers.

    Raises:
        ExtraError: it is not installed.
    """
    try:
        from transformers import SegformerConfig, SegformerForSemanticSegmentation
        from transformers.utils import logging
    except ImportError as error:
        raise ExtraError(
            f"model segformer needs transformers, which cannot be imported ({error}): pip install 'unet_dist[segformer]'."
        ) from error
    logging.set_verbosity_error()  # we print the tensors that stay new, in a line
    logging.disable_progress_bar()
    return SegformerConfig, SegformerForSemanticSegmentation


def _build(config: Any) -> Any:
    _, network = _library()
    return network(config)


def _published(variant: str) -> tuple[Path, dict[str, Any]]:
    """Find a published checkpoint and read its config.json.

    Raises:
        CheckpointError: it is not there, or is no SegFormer.
    """
    folder = find_model_folder(variant)
    config = read_config(folder)
    if config["model_type"] != SegFormer.model_type or "format_version" in config:
        raise CheckpointError(
            f'model: {variant} is of model_type "{config["model_type"]}", expected a SegFormer that transformers wrote. To start '
            f"from a model of this package set --init_from {variant}."
        )
    return folder, config


def _options_of(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Turn what transformers wrote into the constructor's options."""
    processor = read_processor(folder)
    with describing(folder / CONFIG_FILE, SegFormer.__name__):
        count = min(int(config.get("num_labels", 2)), MOST + 1)  # which is refused later
        names = dict(config.get("id2label") or {str(index): f"LABEL_{index}" for index in range(count)})
        channels = int(config.get("num_channels", 3))
    try:
        class_names = [str(names[str(index)]) for index in range(len(names))]
    except KeyError as error:
        raise CheckpointError(
            f"{folder}: id2label of its config.json leaves out the id {error}. Mend the file."
        ) from None
    return {
        "in_channels": channels,
        "num_classes": len(class_names),
        "architecture": {key: config[key] for key in B0 if key in config},
        "mean": processor.mean,
        "std": processor.std,
        "class_names": class_names,
        "resize_to": processor.resize_to,
    }


PARTS = {"segformer": SegFormer}
