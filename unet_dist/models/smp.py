"""The networks of segmentation_models_pytorch: a decoder over one of many encoders (extra: smp).

Owns the adapter: names, sizes, ImageNet weights, what couples pixels and samples. The library is imported when a network is
built. Its torchvision must be the one made for the installed torch.

Source: Iakubovskii, "Segmentation Models Pytorch", 2019, https://github.com/qubvel-org/segmentation_models.pytorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from unet_dist.errors import CheckpointError, ConfigError, ExtraError, suggest
from unet_dist.models.arguments import Description, check_images, keep_description
from unet_dist.models.normalisation import pixel_coupling
from unet_dist.models.pretrained import PretrainedModel
from unet_dist.tiling.geometry import Locality, WindowSizes
from unet_dist.wording import first_line

if TYPE_CHECKING:
    from typing_extensions import Unpack

_FORM = "smp:DECODER:ENCODER such as smp:Unet:resnet34, or with :imagenet for weights to start from"


class SegmentationModel(nn.Module, PretrainedModel, pipeline_tag="image-segmentation"):
    """Segment images: (N, in_channels, H, W) float -> logits (N, num_classes, H, W).

    How far its pixels see is not derived here, so there are no exact tiles. Dropout layers are switched off: their masks
    would not be a function of (seed, step, sample, position).

    Args:
        in_channels: of the image.
        num_classes: logits per pixel.
        decoder: of the library, in any case of letters: Unet, UnetPlusPlus, FPN, DeepLabV3Plus, ...
        encoder: of the library, such as resnet34, or tu-NAME for one of timm.
        description: mean, std, class_names, ignore_index.

    Raises:
        ConfigError: an option is unknown or out of range.
        ExtraError: the library cannot be imported.
    """

    model_type: ClassVar[str] = "smp"
    config_keys: ClassVar[tuple[str, ...]] = ()
    # The library's encoders halve the side five times.
    window_sizes: ClassVar[WindowSizes] = WindowSizes(stride=32, remainder=0, minimum=32, margin=0)

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 35,
        *,
        decoder: str = "Unet",
        encoder: str = "resnet34",
        **description: Unpack[Description],
    ) -> None:
        super().__init__()
        keep_description(self, in_channels, num_classes, **description)
        self.decoder = decoder
        self.encoder = encoder
        # The names in it are the keys of model.safetensors.
        self.network = _create(decoder, encoder, in_channels, num_classes, weights=None)
        for module in self.network.modules():
            if isinstance(module, _DropoutNd):
                module.p = 0.0

    @property
    def locality(self) -> Locality | None:
        """None: no halo is known (see locality_obstacle)."""
        return None

    @property
    def locality_obstacle(self) -> str | None:
        """The layer that couples all pixels of a window, or that the reach of the network is not known."""
        unknown = f"network ({type(self.network).__name__}): how far its pixels see is not known here"
        return pixel_coupling(self) or unknown

    def forward(self, images: Tensor, dropout_keys: Tensor | None = None) -> Tensor:
        """Compute logits.

        Args:
            images: (N, in_channels, H, W) float, normalised with `mean` and `std`.
            dropout_keys: not used, as there is no dropout.

        Returns:
            logits (N, num_classes, H, W).

        Raises:
            DataError: not a batch of images with `in_channels` channels.
            SizeError: a side that is no multiple of 32.
        """
        check_images(self, images)
        logits: Tensor = self.network(images)
        return logits

    @classmethod
    def variant_options(cls, variant: str) -> dict[str, Any]:
        """Say what DECODER:ENCODER fixes; with :WEIGHTS also the mean and deviation that they were trained with."""
        decoder, encoder, weights = _split(variant)
        options: dict[str, Any] = {"decoder": decoder, "encoder": encoder}
        return {**options, **_preprocessing(encoder, weights)} if weights else options

    def load_variant(self, variant: str) -> str | None:
        """Copy the encoder's published weights."""
        decoder, encoder, weights = _split(variant)
        if not weights:
            return None
        donor = _create(decoder, encoder, self.in_channels, self.num_classes, weights=weights)
        self.network.encoder.load_state_dict(donor.encoder.state_dict())
        return f"Starting from {weights} weights of {encoder}; the decoder is new."


def _split(variant: str) -> tuple[str, str, str]:
    parts = variant.split(":")
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise ConfigError(f'model: got "smp:{variant}", expected {_FORM}. Change model.')
    return parts[0], parts[1], parts[2] if len(parts) == 3 else ""


def _library() -> Any:
    """segmentation_models_pytorch.

    Raises:
        ExtraError: it, or the torchvision it takes, cannot be imported.
    """
    try:
        import segmentation_models_pytorch
    except (ImportError, RuntimeError) as error:  # torchvision made for another torch: "operator torchvision::nms ..."
        reason = first_line(error)
        raise ExtraError(
            f"model smp needs segmentation_models_pytorch, which cannot be imported ({reason}): pip install 'unet_dist[smp]', "
            "with the torchvision made for the installed torch."
        ) from error
    return segmentation_models_pytorch


def _create(decoder: str, encoder: str, in_channels: int, num_classes: int, *, weights: str | None) -> Any:
    """Build a network of the library.

    Raises:
        ConfigError: it has no such decoder, encoder or weights.
        CheckpointError: the weights cannot be had.
    """
    library = _library()
    decoders = {name.lower(): name for name in library.MODEL_ARCHITECTURES_MAPPING}
    if decoder.lower() not in decoders:
        raise ConfigError(f'model: got the decoder "{decoder}". {suggest(decoder.lower(), decoders)} Change model.')
    encoders = library.encoders.get_encoder_names()
    if encoder not in encoders and not encoder.startswith("tu-"):
        raise ConfigError(f'model: got the encoder "{encoder}". {suggest(encoder, encoders)} Change model.')
    # timm's encoders name their weights themselves: for them the library takes True.
    asked: str | bool | None = True if weights and encoder.startswith("tu-") else weights
    try:
        return library.create_model(
            decoder, encoder_name=encoder, encoder_weights=asked, in_channels=in_channels, classes=num_classes
        )
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"model: smp:{decoder}:{encoder} cannot be built ({first_line(error)}). Change model."
        ) from error
    except OSError as error:  # the hub client's errors are of this kind
        raise _unreachable(encoder, weights, error) from error


def _preprocessing(encoder: str, weights: str) -> dict[str, list[float]]:
    """Mean and deviation, in units of uint8, that published weights of an encoder were trained with.

    Raises:
        ConfigError: the encoder has no such weights, or takes other images than RGB.
        CheckpointError: they cannot be had.
    """
    library = _library()
    try:
        params = library.encoders.get_preprocessing_params(encoder, pretrained=weights)
    except (KeyError, ValueError) as error:
        raise ConfigError(f"model: {encoder} has no weights {weights} ({first_line(error)}). Change model.") from error
    except OSError as error:
        raise _unreachable(encoder, weights, error) from error
    if params["input_space"] != "RGB":
        raise ConfigError(
            f"model: the {weights} weights of {encoder} take {params['input_space']} images, expected RGB. Leave them out."
        )
    scale = 255 / max(params["input_range"])  # trained on 0..1, or on 0..255
    return {name: [value * scale for value in params[name]] for name in ("mean", "std")}


def _unreachable(encoder: str, weights: str | None, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"model: the {weights} weights of {encoder} cannot be had ({type(error).__name__}: {first_line(error)}). Check the "
        f"network, or leave them out: then the encoder starts new."
    )


PARTS = {"smp": SegmentationModel}
